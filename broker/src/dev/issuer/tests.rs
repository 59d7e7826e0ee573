use daypass_verify::jose::UnverifiedToken;
use daypass_verify::jwks::KeySet;
use serde_json::json;

use super::*;
use crate::clock::SystemClock;

fn claims(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

async fn issuer(state: Option<&Path>) -> DevIssuer {
    let workloads: Workloads =
        Arc::new(|name| (name == "ci/deploy").then(|| claims(json!({"sub": "ci", "aud": "https://broker"}))));
    let state = state.map(Path::to_owned);
    let again = || Start {
        state: state.clone(),
        workloads: Arc::clone(&workloads),
        ..Start::in_memory(Arc::new(SystemClock))
    };
    for _ in 0..50 {
        match DevIssuer::start(again()).await {
            // A port that was let go is anybody's for a moment: a connection of another test may have it.
            Err(DevError::Port { .. }) => tokio::time::sleep(std::time::Duration::from_millis(200)).await,
            other => return other.unwrap(),
        }
    }
    panic!("the port of before stayed taken for ten seconds")
}

/// A client that trusts the issuer's root and nothing else.
fn client(issuer: &DevIssuer) -> reqwest::Client {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(issuer.root().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    reqwest::Client::builder().tls_backend_preconfigured(tls).no_proxy().build().unwrap()
}

fn verify(issuer: &DevIssuer, token: &str) -> bool {
    let (keys, dropped) = KeySet::parse(issuer.jwks().to_string().as_bytes()).unwrap();
    assert!(dropped.is_empty());
    let token = UnverifiedToken::parse(token).unwrap();
    keys.key_for(&token).is_ok_and(|key| token.verify(key).is_ok())
}

#[tokio::test]
async fn a_minted_token_verifies_under_the_published_keys() {
    let issuer = issuer(None).await;
    let client = client(&issuer);
    let fetch = async |path: &str| {
        let response = client.get(format!("{}{path}", issuer.url())).send().await.unwrap();
        (response.status().as_u16(), response.json::<Value>().await.unwrap())
    };
    let (_, discovery) = fetch("/.well-known/openid-configuration").await;
    assert_eq!(discovery["issuer"], issuer.url());
    assert_eq!(discovery["jwks_uri"], format!("{}/jwks", issuer.url()));
    assert_eq!(fetch("/jwks").await, (200, issuer.jwks()));
    let (status, minted) = fetch("/mint?identity=ci%2Fdeploy").await;
    assert_eq!(status, 200);
    assert!(verify(&issuer, minted["id_token"].as_str().unwrap()));
    assert_eq!(fetch("/mint?identity=ci/other").await.0, 404);
    assert_eq!(fetch("/mint").await.0, 400);
    assert_eq!((issuer.requests(Endpoint::Jwks), issuer.requests(Endpoint::Mint)), (1, 3));
}

#[tokio::test]
async fn a_request_for_another_host_is_not_answered() {
    let issuer = issuer(None).await;
    let request = client(&issuer).get(format!("{}/mint?identity=ci/deploy", issuer.url()));
    let response = request.header("host", "evil.example").send().await.unwrap();
    assert_eq!(response.status(), 421);
}

#[tokio::test]
async fn a_second_start_keeps_url_root_and_keys() {
    let state = tempfile::tempdir().unwrap();
    let first = issuer(Some(state.path())).await;
    let before = (first.url().to_owned(), first.root().clone(), first.jwks());
    first.rotate(Rotation::Overlapping).unwrap();
    let rotated = first.jwks();
    assert_ne!(before.2, rotated);
    drop(first);
    // The listener's task ends at its next step after the drop.
    tokio::task::yield_now().await;
    let second = issuer(Some(state.path())).await;
    assert_eq!(
        (second.url().to_owned(), second.root().clone(), second.jwks()),
        (before.0, before.1, rotated)
    );
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let first = issuer(None).await;
    let port = first.shared.port;
    let second = DevIssuer::start(Start { port, ..Start::in_memory(Arc::new(SystemClock)) }).await;
    assert!(matches!(second.err(), Some(DevError::Port { port: named, .. }) if named == port));
}

#[tokio::test]
async fn a_rotation_keeps_drops_or_replaces_the_key_before_it() {
    let issuer = issuer(None).await;
    let mint = || issuer.issue(claims(json!({"sub": "ci"}))).unwrap();
    let first = mint();
    issuer.rotate(Rotation::Overlapping).unwrap();
    let second = mint();
    assert!(verify(&issuer, &first) && verify(&issuer, &second));
    issuer.rotate(Rotation::Abrupt).unwrap();
    assert!(!verify(&issuer, &first) && !verify(&issuer, &second));
    let (third, kid) = (mint(), issuer.kid(Algorithm::ES256).unwrap());
    issuer.rotate(Rotation::SameKid).unwrap();
    assert_eq!(issuer.kid(Algorithm::ES256).unwrap(), kid);
    assert!(!verify(&issuer, &third) && verify(&issuer, &mint()));
}

#[tokio::test]
async fn an_rsa_key_that_is_given_signs_rs256() {
    let made = std::process::Command::new("openssl")
        .args(["genpkey", "-quiet", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"])
        .output()
        .unwrap();
    let rs256 = Some(String::from_utf8(made.stdout).unwrap());
    let issuer = DevIssuer::start(Start { rs256, ..Start::in_memory(Arc::new(SystemClock)) }).await.unwrap();
    let mut header = Header::new(Algorithm::RS256);
    header.kid = issuer.kid(Algorithm::RS256).ok();
    let token = issuer.issue_under(&header, claims(json!({"sub": "ci"}))).unwrap();
    assert!(verify(&issuer, &token));
    assert!(issuer.issue_under(&Header::new(Algorithm::RS512), Map::new()).is_err());
}

#[tokio::test]
async fn a_claim_that_is_null_is_left_out_and_a_given_one_stays() {
    let issuer = issuer(None).await;
    let token = issuer.issue(claims(json!({"exp": null, "iss": "https://other"}))).unwrap();
    let payload = token.split('.').nth(1).unwrap();
    let payload = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).unwrap();
    let payload: Value = serde_json::from_slice(&payload).unwrap();
    assert_eq!((&payload["iss"], payload.get("exp")), (&json!("https://other"), None));
    assert!(payload["iat"].is_i64() && payload["jti"].is_string());
}
