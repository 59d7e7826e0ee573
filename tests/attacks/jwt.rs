//! ID tokens: each row is a token of a real issuer, mostly signed with its real key, with one thing spoiled.

mod claims;

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use daypass_broker::dev::issuer::{DevIssuer, Endpoint, Start};
use daypass_tests::harness::{CI, Deployment, Forge, NIGHTLY, issue, task};
use jsonwebtoken::{Algorithm, Header};
use serde_json::{Map, Value, json};
use tonic::Code;

type Members = Map<String, Value>;

/// Shows each token, and compares what an operator is told of it with what was expected.
async fn refused(rows: Vec<(&str, &str, String)>, deployment: &Deployment) {
    let mut wrong = Vec::new();
    for (what, inner, token) in rows {
        match issue(&deployment.bound(token).await, task("post-invoices")).await {
            Ok(_) => wrong.push(format!("{what}: a credential was issued")),
            Err(refused) => {
                assert_eq!(
                    (refused.code, refused.reason.as_str()),
                    (Code::Unauthenticated, "PROOF_REFUSED"),
                    "{what}"
                );
                let explained = deployment.explain(&refused.request_id).await;
                if explained.reason != inner {
                    wrong.push(format!(
                        "{what}: {} instead of {inner}: {}",
                        explained.reason, explained.clause
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    issue(&deployment.bound(deployment.forge(CI, NIGHTLY).good()).await, task("post-invoices"))
        .await
        .expect("the good one");
}

/// A row with a header in which one member is set; `null` takes it away.
fn header(forge: &Forge, name: &str, value: Value) -> String {
    forge.with(|header, _| set(header, name, value))
}

/// The same for a claim.
fn claim(forge: &Forge, name: &str, value: Value) -> String {
    forge.with(|_, claims| set(claims, name, value))
}

fn set(members: &mut Members, name: &str, value: Value) {
    if value.is_null() { drop(members.remove(name)) } else { drop(members.insert(name.into(), value)) }
}

/// The same text with one member more, which may be there already.
fn with_member(object: &str, member: &str) -> String {
    format!("{},{member}}}", object.strip_suffix('}').unwrap())
}

#[tokio::test]
async fn a_token_chooses_neither_its_algorithm_nor_its_key() {
    let deployment = Deployment::start().await;
    let forge = deployment.forge(CI, NIGHTLY);
    let alg = |name: &str| header(&forge, "alg", json!(name));
    let unsigned = |name: &str| alg(name).rsplit_once('.').map(|(message, _)| format!("{message}.")).unwrap();
    let hmac = |name: &str| {
        let message = unsigned(name);
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, forge.public());
        let tag = ring::hmac::sign(&key, message.trim_end_matches('.').as_bytes());
        format!("{message}{}", URL_SAFE_NO_PAD.encode(tag))
    };
    let kid = |value: Value| header(&forge, "kid", value);
    let rows = vec![
        ("none, without a signature", "ALG_NOT_ALLOWED", unsigned("none")),
        ("none, with one", "ALG_NOT_ALLOWED", alg("none")),
        ("None", "ALG_NOT_ALLOWED", unsigned("None")),
        ("nOnE", "ALG_NOT_ALLOWED", unsigned("nOnE")),
        ("NONE", "ALG_NOT_ALLOWED", unsigned("NONE")),
        ("HS256 under the public key", "ALG_NOT_ALLOWED", hmac("HS256")),
        ("hs256", "ALG_NOT_ALLOWED", hmac("hs256")),
        ("es256 in lower case", "ALG_NOT_ALLOWED", alg("es256")),
        ("RS256 with an EC key", "ALG_NOT_ALLOWED", alg("RS256")),
        ("PS256 with an EC key", "ALG_NOT_ALLOWED", alg("PS256")),
        ("EdDSA with an EC key", "ALG_NOT_ALLOWED", alg("EdDSA")),
        ("ES384 with a P-256 key", "ALG_NOT_ALLOWED", alg("ES384")),
        ("no alg", "ALG_NOT_ALLOWED", header(&forge, "alg", Value::Null)),
        ("alg a number", "MALFORMED", header(&forge, "alg", json!(256))),
        ("a path as kid", "UNKNOWN_KEY", kid(json!("../../../../dev/null"))),
        ("SQL as kid", "UNKNOWN_KEY", kid(json!("' OR 1=1--"))),
        ("kid of 129 bytes", "MALFORMED", kid(json!("k".repeat(129)))),
        ("kid with a newline", "MALFORMED", kid(json!("a\nb"))),
        ("kid with NUL", "MALFORMED", kid(json!("a\0b"))),
        ("kid a number", "MALFORMED", kid(json!(1))),
        ("a key in the header", "EMBEDDED_KEY", header(&forge, "jwk", json!({"kty": "EC"}))),
        ("a chain in the header", "EMBEDDED_KEY", header(&forge, "x5c", json!(["MIIB"]))),
        (
            "an extension that must be understood",
            "CRIT_UNSUPPORTED",
            forge.with(|header, _| {
                set(header, "crit", json!(["x"]));
                set(header, "x", json!("1"));
            }),
        ),
        ("an empty list of such", "CRIT_UNSUPPORTED", header(&forge, "crit", json!([]))),
        (
            "unencoded claims",
            "CRIT_UNSUPPORTED",
            forge.with(|header, _| {
                set(header, "crit", json!(["b64"]));
                set(header, "b64", json!(false));
            }),
        ),
        ("b64 without crit", "CRIT_UNSUPPORTED", header(&forge, "b64", json!(false))),
        ("a logout token", "TYP", header(&forge, "typ", json!("logout+jwt"))),
        ("an access token", "TYP", header(&forge, "typ", json!("at+jwt"))),
        ("a security event", "TYP", header(&forge, "typ", json!("secevent+jwt"))),
        ("typ a number", "MALFORMED", header(&forge, "typ", json!(1))),
        (
            "alg twice",
            "MALFORMED",
            forge.sign(with_member(&forge.header_text(), "\"alg\":\"ES256\""), forge.claims_text()),
        ),
    ];
    refused(rows, &deployment).await;
}

#[tokio::test]
async fn a_signature_has_one_form_and_is_checked() {
    let deployment = Deployment::start().await;
    let forge = deployment.forge(CI, NIGHTLY);
    const N: [u8; 32] = [
        0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa,
        0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
    ];
    let good = forge.good();
    let signature = URL_SAFE_NO_PAD.decode(good.rsplit_once('.').unwrap().1).unwrap();
    let (r, s) = signature.split_at(32);
    let with = |r: &[u8], s: &[u8]| forge.signed_by(&[r, s].concat());
    let flipped = |at: usize| {
        let mut changed = signature.clone();
        changed[at] ^= 1;
        good.rsplit_once('.')
            .map(|(message, _)| format!("{message}.{}", URL_SAFE_NO_PAD.encode(changed)))
            .unwrap()
    };
    let der = ring::signature::EcdsaKeyPair::generate_pkcs8(
        &ring::signature::ECDSA_P256_SHA256_ASN1_SIGNING,
        &ring::rand::SystemRandom::new(),
    );
    let other = other_key(der.unwrap().as_ref(), &good);
    let rows = vec![
        ("no signature", "BAD_SIGNATURE", forge.signed_by(&[])),
        ("r = 0 and s = 0", "BAD_SIGNATURE", with(&[0; 32], &[0; 32])),
        ("r = 0", "BAD_SIGNATURE", with(&[0; 32], s)),
        ("s = 0", "BAD_SIGNATURE", with(r, &[0; 32])),
        ("r = n", "BAD_SIGNATURE", with(&N, s)),
        ("s = n", "BAD_SIGNATURE", with(r, &N)),
        ("63 bytes", "BAD_SIGNATURE", forge.signed_by(&signature[..63])),
        ("65 bytes", "BAD_SIGNATURE", forge.signed_by(&[&signature[..], &[0]].concat())),
        ("another key's, as DER", "BAD_SIGNATURE", other),
        ("the first bit flipped", "BAD_SIGNATURE", flipped(0)),
        ("the last bit flipped", "BAD_SIGNATURE", flipped(63)),
        ("another token's", "BAD_SIGNATURE", with(r, s)),
    ];
    refused(rows, &deployment).await;
}

fn other_key(pkcs8: &[u8], good: &str) -> String {
    let random = ring::rand::SystemRandom::new();
    let algorithm = &ring::signature::ECDSA_P256_SHA256_ASN1_SIGNING;
    let key = ring::signature::EcdsaKeyPair::from_pkcs8(algorithm, pkcs8, &random).unwrap();
    let (message, _) = good.rsplit_once('.').unwrap();
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(key.sign(&random, message.as_bytes()).unwrap()))
}

#[tokio::test]
async fn a_token_has_one_spelling() {
    let deployment = Deployment::start().await;
    let forge = deployment.forge(CI, NIGHTLY);
    let good = forge.good();
    let [head, body, signature] = good.split('.').collect::<Vec<_>>().try_into().unwrap();
    let claims = |text: &str| forge.sign(forge.header_text(), text);
    let text = forge.claims_text();
    let (first, last) = signature.split_at(signature.len() - 1);
    let twin = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let next = twin.find(last).map(|at| &twin[(at ^ 1)..=(at ^ 1)]).unwrap();
    let deep = format!("{}{}", "[".repeat(17), "]".repeat(17));
    let many: Vec<String> = (0..129).map(|n| format!("\"k{n}\":1")).collect();
    let rows = vec![
        ("two parts", "MALFORMED", format!("{head}.{body}")),
        ("four parts", "MALFORMED", format!("{good}.{signature}")),
        ("a detached payload", "MALFORMED", format!("{head}..{signature}")),
        ("a header with padding", "MALFORMED", format!("{head}=.{body}.{signature}")),
        ("claims with padding", "MALFORMED", format!("{head}.{body}=.{signature}")),
        ("a signature with padding", "MALFORMED", format!("{good}==")),
        ("the other alphabet", "MALFORMED", format!("{head}.{body}.+{}", &signature[1..])),
        ("trailing bits", "MALFORMED", format!("{head}.{body}.{first}{next}")),
        ("a dot first", "MALFORMED", format!(".{good}")),
        ("dots alone", "MALFORMED", "..".into()),
        ("nothing that is JSON", "MALFORMED", claims("claims")),
        ("a list of claims", "MALFORMED", claims(&format!("[{text}]"))),
        ("claims and more", "MALFORMED", claims(&format!("{text}{{}}"))),
        ("a byte order mark", "MALFORMED", claims(&format!("\u{feff}{text}"))),
        ("invalid UTF-8", "MALFORMED", forge.sign(forge.header_text(), [text.as_bytes(), b"\xff"].concat())),
        ("a lone surrogate", "MALFORMED", claims(&with_member(&text, r#""x":"\ud800""#))),
        ("17 levels", "MALFORMED", claims(&with_member(&text, &format!("\"x\":{deep}")))),
        ("over 128 claims", "MALFORMED", claims(&with_member(&text, &many.join(",")))),
        (
            "aud twice",
            "MALFORMED",
            claims(&with_member(&text, &format!("\"aud\":{:?}", deployment.settings.issuer.as_str()))),
        ),
        ("exp twice", "MALFORMED", claims(&with_member(&text, "\"exp\":4000000000"))),
        ("exp twice, once escaped", "MALFORMED", claims(&with_member(&text, r#""\u0065xp":4000000000"#))),
    ];
    refused(rows, &deployment).await;
}

#[tokio::test]
async fn a_key_elsewhere_is_neither_fetched_nor_believed() {
    let deployment = Deployment::start().await;
    let forge = deployment.forge(CI, NIGHTLY);
    let clock = Arc::clone(&deployment.settings.clock);
    let evil = DevIssuer::start(Start::in_memory(clock)).await.unwrap();
    let elsewhere = format!("{}/jwks", evil.url());
    for member in ["jku", "x5u"] {
        let token = header(&forge, member, json!(elsewhere));
        issue(&deployment.bound(token).await, task("post-invoices"))
            .await
            .expect("some issuers always send it");
        let mut stranger = Header::new(Algorithm::ES256);
        stranger.kid = evil.kid(Algorithm::ES256).ok();
        match member {
            "jku" => stranger.jku = Some(elsewhere.clone()),
            _ => stranger.x5u = Some(elsewhere.clone()),
        }
        let token = evil.issue_under(&stranger, forge.claims.clone()).unwrap();
        let refused = issue(&deployment.bound(token).await, task("post-invoices")).await.unwrap_err();
        assert_eq!(deployment.explain(&refused.request_id).await.reason, "UNKNOWN_KEY", "{member}");
    }
    assert_eq!(evil.requests(Endpoint::Jwks) + evil.requests(Endpoint::Discovery), 0);
}

#[tokio::test]
async fn a_bomb_is_refused_before_it_is_read() {
    let deployment = Deployment::start().await;
    let forge = deployment.forge(CI, NIGHTLY);
    // The listener takes 8 KiB of headers in all, so that larger tokens never reach the broker.
    let table = [
        ("9 KiB of dots", ".".repeat(9 * 1024)),
        ("a claim of 9 KiB", claim(&forge, "x", json!("x".repeat(9 * 1024)))),
    ];
    for (what, token) in table {
        let refused = issue(&deployment.bound(token).await, task("post-invoices")).await.unwrap_err();
        assert_ne!(refused.code, Code::Ok, "{what}");
    }
    issue(&deployment.bound(forge.good()).await, task("post-invoices")).await.unwrap();
}

#[tokio::test]
async fn a_credential_of_ours_is_no_proof() {
    let deployment = Deployment::start().await;
    let answer = issue(&deployment.job().await, task("post-invoices")).await.unwrap();
    let token = daypass_tests::harness::token_of(&answer).to_owned();
    let rows = vec![("an access token", "OWN_CREDENTIAL", token)];
    refused(rows, &deployment).await;
}
