//! What the claims of a token must be.

use daypass_broker::clock::Clock as _;
use daypass_tests::harness::{CI, Deployment, NIGHTLY, issue, task};
use serde_json::{Value, json};

use super::{claim, header, refused, set};

#[tokio::test]
async fn a_claim_is_what_it_says_or_nothing() {
    let deployment = Deployment::start().await;
    let forge = deployment.forge(CI, NIGHTLY);
    let ours = deployment.settings.issuer.as_str();
    let iss = forge.claims["iss"].as_str().unwrap();
    let now = deployment.clock.now().seconds();
    let claim = |name: &str, value: Value| claim(&forge, name, value);
    let times = |iat: i64, exp: i64| {
        forge.with(|_, claims| {
            set(claims, "iat", json!(iat));
            set(claims, "exp", json!(exp));
        })
    };
    let rows = vec![
        ("Sub beside sub", "MALFORMED", claim("Sub", json!("project:77:ref:main"))),
        ("SUB beside sub", "MALFORMED", claim("SUB", json!("project:77:ref:main"))),
        ("\u{17f}ub beside sub", "MALFORMED", claim("\u{17f}ub", json!("project:77:ref:main"))),
        ("AUD beside aud", "MALFORMED", claim("AUD", json!(ours))),
        ("no sub", "BAD_SUBJECT", claim("sub", Value::Null)),
        ("an empty sub", "BAD_SUBJECT", claim("sub", json!(""))),
        ("sub of 1025 bytes", "BAD_SUBJECT", claim("sub", json!("a".repeat(1025)))),
        ("sub with NUL", "BAD_SUBJECT", claim("sub", json!("project:42:ref:main\0"))),
        ("sub with a newline", "BAD_SUBJECT", claim("sub", json!("project:42:ref:main\n"))),
        ("sub a number", "BAD_SUBJECT", claim("sub", json!(42))),
        ("no iss", "BAD_ISSUER", claim("iss", Value::Null)),
        ("iss a number", "BAD_ISSUER", claim("iss", json!(1))),
        ("iss an object", "BAD_ISSUER", claim("iss", json!({}))),
        ("iss with a slash at its end", "BAD_ISSUER", claim("iss", json!(format!("{iss}/")))),
        ("iss in upper case", "BAD_ISSUER", claim("iss", json!(iss.to_uppercase()))),
        ("iss with a user", "BAD_ISSUER", claim("iss", json!(iss.replace("https://", "https://x@")))),
        ("iss that goes on", "BAD_ISSUER", claim("iss", json!(format!("{iss}.evil.example")))),
        (
            "iss of another name for the host",
            "BAD_ISSUER",
            claim("iss", json!(iss.replace("127.0.0.1", "localhost"))),
        ),
        ("our own iss", "OWN_CREDENTIAL", claim("iss", json!(ours))),
        ("no aud", "BAD_AUDIENCE", claim("aud", Value::Null)),
        ("aud a number", "BAD_AUDIENCE", claim("aud", json!(1))),
        ("aud an object", "BAD_AUDIENCE", claim("aud", json!({}))),
        ("an empty aud", "BAD_AUDIENCE", claim("aud", json!(""))),
        ("an empty list", "BAD_AUDIENCE", claim("aud", json!([]))),
        ("two audiences", "BAD_AUDIENCE", claim("aud", json!([ours, "https://other.example"]))),
        ("ours twice", "BAD_AUDIENCE", claim("aud", json!([ours, ours]))),
        ("another service", "BAD_AUDIENCE", claim("aud", json!("https://other.example"))),
        ("a prefix of ours", "BAD_AUDIENCE", claim("aud", json!(&ours[..ours.len() - 1]))),
        ("ours and more", "BAD_AUDIENCE", claim("aud", json!(format!("{ours}0")))),
        ("ours with a slash at its end", "BAD_AUDIENCE", claim("aud", json!(format!("{ours}/")))),
        ("ours in upper case", "BAD_AUDIENCE", claim("aud", json!(ours.to_uppercase()))),
        ("no exp", "MALFORMED", claim("exp", Value::Null)),
        ("exp a text", "MALFORMED", claim("exp", json!("4000000000"))),
        ("exp a fraction", "MALFORMED", claim("exp", json!(4_000_000_000.5))),
        ("exp beyond numbers", "MALFORMED", claim("exp", json!(1e300))),
        ("ended 31 s ago", "EXPIRED", times(now - 300, now - 31)),
        ("ten years", "PROOF_TOO_LONG", claim("exp", json!(now + 315_360_000))),
        ("a second over the issuer's ten minutes", "PROOF_TOO_LONG", times(now, now + 601)),
        ("no iat", "MALFORMED", claim("iat", Value::Null)),
        ("iat a text", "MALFORMED", claim("iat", json!("now"))),
        ("issued in a minute", "NOT_YET_VALID", times(now + 60, now + 300)),
        ("valid in a minute", "NOT_YET_VALID", claim("nbf", json!(now + 60))),
        ("ended before it was issued", "MALFORMED", times(now + 10, now)),
    ];
    refused(rows, &deployment).await;
}

#[tokio::test]
async fn what_a_careful_issuer_may_write_is_accepted() {
    let deployment = Deployment::start().await;
    let forge = deployment.forge(CI, NIGHTLY);
    let ours = deployment.settings.issuer.as_str();
    let now = deployment.clock.now().seconds();
    let table = [
        ("as it is", forge.good()),
        ("one audience in a list", claim(&forge, "aud", json!([ours]))),
        ("no typ", header(&forge, "typ", Value::Null)),
        ("claims that nobody asked for", claim(&forge, "ref_protected", json!(true))),
        (
            "ended 20 s ago, within the leeway",
            forge.with(|_, claims| {
                set(claims, "iat", json!(now - 300));
                set(claims, "exp", json!(now - 20));
            }),
        ),
        ("issued in 20 s, within the leeway", forge.with(|_, claims| set(claims, "iat", json!(now + 20)))),
        ("valid since now", claim(&forge, "nbf", json!(now))),
    ];
    for (what, token) in table {
        let answer = issue(&deployment.bound(token).await, task("post-invoices")).await;
        assert!(answer.is_ok(), "{what}: {answer:?}");
    }
}
