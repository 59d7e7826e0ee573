//! Parsing and signatures.

use daypass_verify::jose::{Alg, UnverifiedToken};
use daypass_verify::jwks::{KeySet, VerifyingKey};
use serde_json::json;

use crate::minting::{ISSUER, b64, check, check_with, es256, key_set, mint};

const CLAIMS: &str = r#"{"iss":"https://ci.example","sub":"a"}"#;

fn with_header(header: &str) -> String {
    mint(header, CLAIMS, |message| ISSUER.es256(message))
}

#[test]
fn each_kind_of_key_verifies_what_it_signed_and_nothing_else() {
    let minted = [
        (Alg::Es256, mint(r#"{"alg":"ES256","kid":"ec"}"#, CLAIMS, |m| ISSUER.es256(m))),
        (Alg::EdDsa, mint(r#"{"alg":"EdDSA","kid":"ed"}"#, CLAIMS, |m| ISSUER.eddsa(m))),
        (Alg::Rs256, mint(r#"{"alg":"RS256","kid":"rsa"}"#, CLAIMS, |m| ISSUER.rs256(m))),
    ];
    for (alg, token) in minted {
        let signed = check(&token).unwrap();
        assert_eq!((signed.alg(), signed.string("sub")), (alg, Ok(Some("a"))));
        let (message, signature) = token.rsplit_once('.').unwrap();
        let (header, _) = message.split_once('.').unwrap();
        let other = format!("{header}.{}.{signature}", b64(r#"{"iss":"https://ci.example","sub":"b"}"#));
        assert_eq!(check(&other).unwrap_err(), "BAD_SIGNATURE", "{alg}");
        assert_eq!(check(&format!("{message}.")).unwrap_err(), "BAD_SIGNATURE", "{alg}");
    }
}

#[test]
fn an_rsa_key_serves_the_padding_that_it_is_declared_for() {
    let mut jwk = ISSUER.rsa_jwk();
    jwk["alg"] = json!("PS256");
    let keys = key_set(&[jwk]);
    let ps = mint(r#"{"alg":"PS256","kid":"rsa"}"#, CLAIMS, |m| ISSUER.ps256(m));
    let rs = mint(r#"{"alg":"RS256","kid":"rsa"}"#, CLAIMS, |m| ISSUER.rs256(m));
    assert!(check_with(&ps, &keys).is_ok());
    assert_eq!(check_with(&rs, &keys).unwrap_err(), "KEY_ALG_MISMATCH");
    assert_eq!(check(&ps).unwrap_err(), "KEY_ALG_MISMATCH");
    let renamed = mint(r#"{"alg":"RS256","kid":"rsa"}"#, CLAIMS, |m| ISSUER.ps256(m));
    assert_eq!(check(&renamed).unwrap_err(), "BAD_SIGNATURE");
}

#[test]
fn a_header_never_chooses_its_own_check() {
    let long_kid = "k".repeat(129);
    let spoiled = [
        (r#"{"alg":"none","kid":"ec"}"#, "ALG_NOT_ALLOWED"),
        (r#"{"alg":"None","kid":"ec"}"#, "ALG_NOT_ALLOWED"),
        (r#"{"alg":"nOnE","kid":"ec"}"#, "ALG_NOT_ALLOWED"),
        (r#"{"alg":"NONE","kid":"ec"}"#, "ALG_NOT_ALLOWED"),
        (r#"{"alg":"HS256","kid":"ec"}"#, "ALG_NOT_ALLOWED"),
        (r#"{"alg":"hs256","kid":"ec"}"#, "ALG_NOT_ALLOWED"),
        (r#"{"alg":"es256","kid":"ec"}"#, "ALG_NOT_ALLOWED"),
        (r#"{"alg":"ES256 ","kid":"ec"}"#, "ALG_NOT_ALLOWED"),
        (r#"{"alg":"ES512","kid":"ec"}"#, "ALG_NOT_ALLOWED"),
        (r#"{"alg":"","kid":"ec"}"#, "ALG_NOT_ALLOWED"),
        (r#"{"kid":"ec"}"#, "ALG_NOT_ALLOWED"),
        (r#"{"alg":["ES256"],"kid":"ec"}"#, "MALFORMED"),
        (r#"{"alg":null,"kid":"ec"}"#, "MALFORMED"),
        (r#"{"alg":"EdDSA","kid":"rsa"}"#, "KEY_ALG_MISMATCH"),
        (r#"{"alg":"ES384","kid":"ec"}"#, "KEY_ALG_MISMATCH"),
        (r#"{"alg":"RS256","kid":"ec"}"#, "KEY_ALG_MISMATCH"),
        (r#"{"alg":"ES256","kid":"ec","crit":["x"],"x":"1"}"#, "CRIT_UNSUPPORTED"),
        (r#"{"alg":"ES256","kid":"ec","crit":[]}"#, "CRIT_UNSUPPORTED"),
        (r#"{"alg":"ES256","kid":"ec","b64":false,"crit":["b64"]}"#, "CRIT_UNSUPPORTED"),
        (r#"{"alg":"ES256","kid":"ec","b64":false}"#, "CRIT_UNSUPPORTED"),
        (r#"{"alg":"ES256","kid":"ec","jwk":{"kty":"EC"}}"#, "EMBEDDED_KEY"),
        (r#"{"alg":"ES256","kid":"ec","x5c":["MIIB"]}"#, "EMBEDDED_KEY"),
        (r#"{"alg":"ES256","kid":"ec","zip":"DEF"}"#, "MALFORMED"),
        (r#"{"alg":"ES256","kid":"ec","enc":"A128GCM"}"#, "MALFORMED"),
        (r#"{"alg":"none","alg":"ES256","kid":"ec"}"#, "MALFORMED"),
        (r#"{"alg":"ES256","ALG":"none","kid":"ec"}"#, "MALFORMED"),
        (r#"{"alg":"ES256"}"#, "UNKNOWN_KEY"),
        (r#"{"alg":"ES256","kid":"EC"}"#, "UNKNOWN_KEY"),
        (r#"{"alg":"ES256","kid":"../../../../dev/null"}"#, "UNKNOWN_KEY"),
        (r#"{"alg":"ES256","kid":"' OR 1=1--"}"#, "UNKNOWN_KEY"),
        (r#"{"alg":"ES256","kid":"ec\u0000"}"#, "MALFORMED"),
        (r#"{"alg":"ES256","kid":"ec\n"}"#, "MALFORMED"),
        (r#"{"alg":"ES256","kid":"ëc"}"#, "MALFORMED"),
        (r#"{"alg":"ES256","kid":""}"#, "MALFORMED"),
        (r#"{"alg":"ES256","kid":1}"#, "MALFORMED"),
        (r#"{"alg":"ES256","kid":"ec","typ":7}"#, "MALFORMED"),
        (r#"["ES256"]"#, "MALFORMED"),
        (r#""ES256""#, "MALFORMED"),
    ];
    assert!(check(&with_header(r#"{"alg":"ES256","kid":"ec","other":[1]}"#)).is_ok());
    for (header, reason) in spoiled {
        assert_eq!(check(&with_header(header)).unwrap_err(), reason, "{header}");
    }
    let header = json!({"alg": "ES256", "kid": long_kid}).to_string();
    assert_eq!(check(&with_header(&header)).unwrap_err(), "MALFORMED");
    let header = json!({"alg": "ES256", "kid": "k".repeat(64 * 1024)}).to_string();
    assert_eq!(check(&with_header(&header)).unwrap_err(), "TOO_LARGE");
}

#[test]
fn an_unsigned_token_is_refused_whatever_it_says() {
    for alg in ["none", "None", "nOnE", "NONE"] {
        let header = json!({"alg": alg, "kid": "ec"}).to_string();
        let token = format!("{}.{}.", b64(header), b64(CLAIMS));
        assert_eq!(check(&token).unwrap_err(), "ALG_NOT_ALLOWED", "{alg}");
    }
}

#[test]
fn a_key_elsewhere_is_never_used_but_can_be_counted() {
    let header = r#"{"alg":"ES256","kid":"ec","jku":"http://169.254.169.254/","x5u":"https://evil.example"}"#;
    let token = with_header(header);
    assert_eq!(UnverifiedToken::parse(&token).unwrap().foreign_key_headers(), ["jku", "x5u"]);
    assert!(check(&token).is_ok());
    let plain = UnverifiedToken::parse(&es256(CLAIMS)).unwrap();
    assert!(plain.foreign_key_headers().is_empty());
    assert_eq!(plain.unverified_issuer(), Ok("https://ci.example"));
}

#[test]
fn an_ecdsa_signature_has_one_form_and_both_numbers_in_range() {
    const N: &str = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";
    let n: Vec<u8> = (0..32).map(|i| u8::from_str_radix(&N[2 * i..2 * i + 2], 16).unwrap()).collect();
    let zero = vec![0; 32];
    let good = ISSUER.es256(b"another message");
    let (r, s) = good.split_at(32);
    let der = [&[0x30, 0x44, 0x02, 0x20][..], r, &[0x02, 0x20], s].concat();
    let spoiled = [
        [&zero[..], &zero].concat(),
        [&zero[..], s].concat(),
        [r, &zero].concat(),
        [&n[..], s].concat(),
        [r, &n].concat(),
        [&[0xff; 32][..], s].concat(),
        der,
        good[..63].to_vec(),
        [&good[..], &[0]].concat(),
        [&[0], &good[..]].concat(),
        Vec::new(),
    ];
    for signature in spoiled {
        let token = mint(r#"{"alg":"ES256","kid":"ec"}"#, CLAIMS, |_| signature.clone());
        assert_eq!(check(&token).unwrap_err(), "BAD_SIGNATURE", "{signature:02x?}");
    }
}

#[test]
fn an_ed25519_signature_has_a_reduced_scalar() {
    // The order of the group, little-endian (RFC 8032, section 5.1); S + L is S again to a lenient verifier.
    const L: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let add_order = |message: &[u8]| {
        let mut signature = ISSUER.eddsa(message);
        let mut carry = 0;
        for (byte, order) in signature[32..].iter_mut().zip(L) {
            let sum = u16::from(*byte) + u16::from(order) + carry;
            *byte = (sum & 0xff) as u8;
            carry = sum >> 8;
        }
        signature
    };
    let token = mint(r#"{"alg":"EdDSA","kid":"ed"}"#, CLAIMS, add_order);
    assert_eq!(check(&token).unwrap_err(), "BAD_SIGNATURE");
}

#[test]
fn a_token_has_one_encoding() {
    let good = es256(CLAIMS);
    assert!(check(&good).is_ok());
    let parts: Vec<&str> = good.split('.').collect();
    let [header, claims, signature] = parts[..] else { unreachable!() };
    // The last of 86 characters holds two bits of the signature and four that must be zero.
    let (head, last) = signature.split_at(signature.len() - 1);
    let next = char::from(last.as_bytes()[0] + 1);
    let spoiled = [
        String::new(),
        ".".to_owned(),
        "..".to_owned(),
        "...".to_owned(),
        format!("{header}.{claims}"),
        format!("{good}."),
        format!("{good}.{signature}"),
        format!(".{good}"),
        format!("{header}..{signature}"),
        format!(".{claims}.{signature}"),
        format!("{header}=.{claims}.{signature}"),
        format!("{header}.{claims}=.{signature}"),
        format!("{header}.{claims}.{signature}=="),
        format!("{header}.{claims}.{head}{next}"),
        format!("{header}.{claims}.+{}", &signature[1..]),
        format!("{header}.{claims}./{}", &signature[1..]),
        format!(" {good}"),
        format!("{good}\n"),
        format!("{header}.{claims}\n.{signature}"),
        format!("{header}.\u{e4}{claims}.{signature}"),
    ];
    for token in spoiled {
        assert_eq!(check(&token).unwrap_err(), "MALFORMED", "{token:?}");
    }
}

#[test]
fn a_bomb_is_refused_by_its_size() {
    let deep = format!(r#"{{"a":{}1{}}}"#, "[".repeat(17), "]".repeat(17));
    let members: Vec<String> = (0..129).map(|i| format!("\"k{i}\":1")).collect();
    let spoiled = [
        (".".repeat(1 << 20), "TOO_LARGE"),
        (es256(format!(r#"{{"a":"{}"}}"#, "x".repeat(8 << 20))), "TOO_LARGE"),
        (es256(format!(r#"{{"a":{}}}"#, "9".repeat(1_000_000))), "TOO_LARGE"),
        (es256(format!(r#"{{"a":{}}}"#, "9".repeat(1000))), "MALFORMED"),
        (es256("[".repeat(100_000)), "TOO_LARGE"),
        (es256("[".repeat(10_000)), "MALFORMED"),
        (es256(deep), "MALFORMED"),
        (es256(format!("{{{}}}", members.join(","))), "MALFORMED"),
        (es256(r#"{"a":"\ud800"}"#), "MALFORMED"),
        (es256(b"{\"a\":\"\xff\"}"), "MALFORMED"),
        (es256(b"\xef\xbb\xbf{}"), "MALFORMED"),
        (es256("{}{}"), "MALFORMED"),
        (es256("[]"), "MALFORMED"),
        (es256(r#"{"aud":"a","aud":"b"}"#), "MALFORMED"),
        (es256(r#"{"exp":1,"exp":9}"#), "MALFORMED"),
        (es256(r#"{"x":{"y":1,"y":2}}"#), "MALFORMED"),
        (es256(r#"{"sub":"a","Sub":"b"}"#), "MALFORMED"),
        (es256(r#"{"sub":"a","SUB":"b"}"#), "MALFORMED"),
        (es256(r#"{"sub":"a","ſub":"b"}"#), "MALFORMED"),
        (es256(r#"{"iss":"a","\u0130ss":"b","I\u017fs":"c"}"#), "MALFORMED"),
    ];
    for (token, reason) in spoiled {
        let shown: String = token.chars().take(200).collect();
        assert_eq!(check(&token).unwrap_err(), reason, "{shown}");
    }
    assert!(check(&es256(r#"{"sub":"a","subject":"b","SubX":"c"}"#)).is_ok());
}

#[test]
fn a_key_read_from_its_certificate_form_verifies_too() {
    let point = ISSUER.ec_point();
    let prefix = [
        0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
        0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
    ];
    let spki = [&prefix[..], &point].concat();
    let from_spki = VerifyingKey::from_spki_der("ec", Alg::Es256, &spki).unwrap();
    for key in [from_spki, VerifyingKey::from_p256_point("ec", &point)] {
        assert!(check_with(&es256(CLAIMS), &KeySet::from_iter([key])).is_ok());
    }
    assert!(VerifyingKey::from_spki_der("ec", Alg::Es384, &spki).is_err());
    assert!(VerifyingKey::from_spki_der("ec", Alg::Es256, &[&spki[..], &[0]].concat()).is_err());
}

#[test]
fn what_the_library_signs_with_our_provider_is_verified() {
    use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
    daypass_verify::provider::install();
    daypass_verify::provider::install();
    let claims = json!({"iss": "https://ci.example"});
    let random = ring::rand::SystemRandom::new();
    let pkcs8 = ring::signature::EcdsaKeyPair::generate_pkcs8(
        &ring::signature::ECDSA_P256_SHA256_FIXED_SIGNING,
        &random,
    );
    let ec_pkcs8 = pkcs8.unwrap();
    let pair = rcgen::KeyPair::try_from(ec_pkcs8.as_ref()).unwrap();
    let point: [u8; 65] = pair.public_key_raw().try_into().unwrap();
    let ec = VerifyingKey::from_p256_point("k", &point);
    let rsa_pkcs8 = crate::minting::rsa_pkcs8(2048);
    let rsa_pair = rcgen::KeyPair::try_from(rsa_pkcs8.as_slice()).unwrap();
    let spki = rcgen::PublicKeyData::subject_public_key_info(&rsa_pair);
    let rsa = VerifyingKey::from_spki_der("k", Alg::Rs256, &spki).unwrap();
    let rsa_pem = crate::minting::openssl(&["pkey", "-inform", "DER"], &rsa_pkcs8);
    let cases = [
        (Algorithm::ES256, EncodingKey::from_ec_der(ec_pkcs8.as_ref()), &ec),
        (Algorithm::RS256, EncodingKey::from_rsa_der(&rsa_pkcs8), &rsa),
        (Algorithm::RS256, EncodingKey::from_rsa_pem(&rsa_pem).unwrap(), &rsa),
    ];
    for (algorithm, signing, key) in cases {
        let header = Header { kid: Some("k".to_owned()), ..Header::new(algorithm) };
        let token = encode(&header, &claims, &signing).unwrap();
        assert!(UnverifiedToken::parse(&token).unwrap().verify(key).is_ok(), "{algorithm:?}");
    }
    assert!(encode(&Header::new(Algorithm::HS256), &claims, &EncodingKey::from_secret(b"s")).is_err());
    assert!(encode(&Header::new(Algorithm::ES256), &claims, &EncodingKey::from_ec_der(b"junk")).is_err());
}

#[test]
fn neither_claims_nor_signature_are_shown_for_debugging() {
    let token = UnverifiedToken::parse(&es256(r#"{"sub":"canary"}"#)).unwrap();
    let shown = format!("{token:?}");
    let signed = format!("{:?}", check(&es256(r#"{"sub":"canary"}"#)).unwrap());
    assert!(!shown.contains("canary") && !shown.contains(&b64(r#"{"sub":"canary"}"#)), "{shown}");
    assert!(!signed.contains("canary"), "{signed}");
}
