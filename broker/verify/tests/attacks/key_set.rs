//! Key sets.

use daypass_verify::jwks::{DroppedKey, JwksError, KeySet};
use serde_json::{Value, json};

use crate::minting::{ISSUER, b64, check_with, es256};

fn parse(keys: &[Value]) -> Result<(KeySet, Vec<DroppedKey>), JwksError> {
    KeySet::parse(json!({ "keys": keys }).to_string().as_bytes())
}

/// The RSA key with some members replaced; null takes one away.
fn rsa_with(changes: Value) -> Value {
    changed(ISSUER.rsa_jwk(), changes)
}

fn changed(mut jwk: Value, changes: Value) -> Value {
    let members = jwk.as_object_mut().unwrap();
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            members.remove(name);
        } else {
            members.insert(name.clone(), value.clone());
        }
    }
    jwk
}

fn modulus(bytes: usize) -> String {
    b64([vec![0xc0], vec![0xff; bytes - 1]].concat())
}

#[test]
fn a_bad_key_is_dropped_and_never_spoils_the_set() {
    let ed = ISSUER.ed_jwk();
    let small_order = b64([[1u8].as_slice(), &[0; 31]].concat());
    let spoiled = [
        (json!({"kty": "oct", "kid": "x", "k": "c2VjcmV0"}), true),
        (json!({"kty": "oct", "kid": "x", "alg": "HS256", "k": "c2VjcmV0"}), true),
        (json!({"kty": "AKP", "kid": "x", "alg": "ML-DSA-65", "pub": "AA"}), false),
        (json!({"kid": "x"}), false),
        (json!({}), false),
        (json!(null), false),
        (json!("key"), false),
        (rsa_with(json!({"kid": null})), false),
        (rsa_with(json!({"kid": ""})), false),
        (rsa_with(json!({"kid": 7})), false),
        (rsa_with(json!({"kid": "a\nb"})), false),
        (rsa_with(json!({"kid": "k".repeat(129)})), false),
        (rsa_with(json!({"n": modulus(64)})), false),
        (rsa_with(json!({"n": modulus(128)})), false),
        (rsa_with(json!({"n": modulus(255)})), false),
        (rsa_with(json!({"n": modulus(513)})), false),
        (rsa_with(json!({"n": null, "x5c": ["MIIB"]})), false),
        (rsa_with(json!({"n": "not+base64/url="})), false),
        (rsa_with(json!({"e": "Aw"})), false),
        (rsa_with(json!({"e": ""})), false),
        (rsa_with(json!({"use": "enc"})), false),
        (rsa_with(json!({"use": "SIG"})), false),
        (rsa_with(json!({"use": ["sig"]})), false),
        (rsa_with(json!({"use": "x509-svid"})), false),
        (rsa_with(json!({"key_ops": ["sign"]})), false),
        (rsa_with(json!({"key_ops": []})), false),
        (rsa_with(json!({"key_ops": "verify"})), false),
        (rsa_with(json!({"alg": "RSA-OAEP"})), false),
        (rsa_with(json!({"alg": "HS256"})), false),
        (rsa_with(json!({"alg": "ES256"})), false),
        (rsa_with(json!({"alg": "rs256"})), false),
        (rsa_with(json!({"d": "AA"})), true),
        (rsa_with(json!({"p": "AA"})), true),
        (rsa_with(json!({"q": "AA"})), true),
        (changed(ISSUER.ec_jwk(), json!({"d": "AA"})), true),
        (changed(ISSUER.ec_jwk(), json!({"crv": "P-521"})), false),
        (changed(ISSUER.ec_jwk(), json!({"crv": "secp256k1"})), false),
        (changed(ISSUER.ec_jwk(), json!({"crv": "P-384"})), false),
        (changed(ISSUER.ec_jwk(), json!({"y": null})), false),
        (changed(ISSUER.ec_jwk(), json!({"x": b64([1; 31]), "y": b64([1; 33])})), false),
        (changed(ISSUER.ec_jwk(), json!({"alg": "ES384"})), false),
        (changed(ed.clone(), json!({"kid": "x", "x": small_order})), false),
        (changed(ed.clone(), json!({"kid": "x", "x": b64([1; 33])})), false),
        (changed(ed.clone(), json!({"kid": "x", "crv": "Ed448"})), false),
    ];
    for (bad, private) in spoiled {
        let (set, dropped) = parse(&[bad.clone(), ed.clone()]).unwrap();
        assert!(set.len() == 1 && set.key("ed").is_some(), "{bad}");
        assert_eq!(dropped.len(), 1, "{bad}");
        assert_eq!(dropped[0].private_members, private, "{bad}");
        let Err(JwksError::NoUsableKey(alone)) = parse(std::slice::from_ref(&bad)) else {
            panic!("expected no usable key: {bad}")
        };
        assert_eq!(alone, dropped);
    }
}

#[test]
fn a_good_key_may_say_more_about_itself() {
    let more = [
        rsa_with(json!({"use": "sig", "key_ops": ["verify"], "alg": "RS512", "x5t": "AA", "x5c": ["MIIB"]})),
        rsa_with(json!({"n": b64([&[0][..], &unb64(&ISSUER.rsa_jwk()["n"])].concat())})),
        changed(ISSUER.ec_jwk(), json!({"alg": null, "ext": true})),
    ];
    for key in more {
        let (set, dropped) = parse(std::slice::from_ref(&key)).unwrap();
        assert!(set.len() == 1 && dropped.is_empty(), "{key}");
    }
}

fn unb64(text: &Value) -> Vec<u8> {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text.as_str().unwrap()).unwrap()
}

#[test]
fn a_key_without_an_algorithm_gets_the_usual_one() {
    let ec = changed(ISSUER.ec_jwk(), json!({"alg": null}));
    let (set, _) = parse(&[ec, ISSUER.ed_jwk(), ISSUER.rsa_jwk()]).unwrap();
    let alg = |kid: &str| set.key(kid).unwrap().alg().to_string();
    assert_eq!((alg("ec"), alg("ed"), alg("rsa")), ("ES256".into(), "EdDSA".into(), "RS256".into()));
}

#[test]
fn two_keys_of_one_name_spoil_the_whole_set() {
    let oct = json!({"kty": "oct", "kid": "rsa", "k": "c2VjcmV0"});
    for other in [oct, ISSUER.rsa_jwk(), json!({"kid": "rsa"})] {
        for keys in [[ISSUER.rsa_jwk(), other.clone()], [other.clone(), ISSUER.rsa_jwk()]] {
            assert_eq!(parse(&keys).unwrap_err(), JwksError::DuplicateKid("rsa".into()), "{other}");
        }
    }
}

#[test]
fn a_set_that_is_no_set_or_too_large_is_refused_whole() {
    let numbered = |n: usize| -> Vec<Value> {
        (0..n).map(|i| changed(ISSUER.ed_jwk(), json!({"kid": format!("k{i}")}))).collect()
    };
    assert_eq!(parse(&numbered(64)).unwrap().0.len(), 64);
    assert_eq!(parse(&numbered(65)).unwrap_err(), JwksError::TooManyKeys(65));
    assert_eq!(parse(&numbered(10_000)).unwrap_err(), JwksError::TooLarge);
    let padded = |len: usize| [ISSUER.ed_jwk(), rsa_with(json!({"x5c": ["A".repeat(len)]}))];
    assert_eq!(parse(&padded(7000)).unwrap().0.len(), 2);
    assert_eq!(parse(&padded(8200)).unwrap_err(), JwksError::KeyTooLarge);
    assert_eq!(parse(&padded(10 << 20)).unwrap_err(), JwksError::TooLarge);
    let malformed: [&[u8]; 12] = [
        b"",
        b"null",
        b"[]",
        b"{}",
        br#"{"keys":null}"#,
        br#"{"keys":{}}"#,
        br#"{"keys":[NaN]}"#,
        br#"{"keys":[],"keys":[]}"#,
        br#"{"keys":[{"kid":"a","kid":"b"}]}"#,
        b"\xef\xbb\xbf{\"keys\":[]}",
        b"<!doctype html><title>login</title>",
        b"{\"keys\":[]} x",
    ];
    for bytes in malformed {
        let refused = KeySet::parse(bytes).unwrap_err();
        assert!(matches!(refused, JwksError::Malformed | JwksError::Json(_)), "{refused:?}");
    }
    assert_eq!(parse(&[]).unwrap_err(), JwksError::NoUsableKey(vec![]));
}

#[test]
fn a_spiffe_bundle_gives_its_token_keys_alone() {
    let keys = [
        changed(ISSUER.ec_jwk(), json!({"use": "jwt-svid", "alg": null})),
        json!({"kty": "EC", "use": "x509-svid", "crv": "P-256", "x": "AA", "y": "AA", "x5c": ["MIIB"]}),
    ];
    let bundle = json!({"keys": keys, "spiffe_sequence": 7, "spiffe_refresh_hint": 60}).to_string();
    let (set, dropped) = KeySet::parse_bundle(bundle.as_bytes()).unwrap();
    assert!(set.len() == 1 && set.key("ec").is_some() && dropped.len() == 1);
    assert!(matches!(KeySet::parse(bundle.as_bytes()), Err(JwksError::NoUsableKey(_))));
}

#[test]
fn a_point_beside_the_curve_verifies_nothing() {
    let beside = changed(ISSUER.ec_jwk(), json!({"y": b64([7; 32])}));
    let (set, _) = parse(&[beside]).unwrap();
    let checked = check_with(&es256("{}"), &set);
    assert_eq!(checked.unwrap_err(), "BAD_SIGNATURE");
}
