//! Services of one's own behind the SDK's layer: each request is held against keys and feed, however old its connection.

use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::get;
use daypass_broker::clock::{Clock as _, SystemClock};
use daypass_broker::dev::caller::client_config;
use daypass_broker::dev::organisation::sample;
use daypass_proto::v1::RevocationReason;
use daypass_sdk::{Credential, IssueRequest, Secret};
use daypass_tests::harness::{Agent, Deployment, eventually, free_port};
use daypass_verify::time::Seconds;
use secrecy::ExposeSecret as _;

use super::table::{self, Row};
use crate::e2e::stock::check_token_by;

/// The feed is signed within 5 s of an order, and receivers fetch it as often.
const WITHIN: Duration = Duration::from_secs(30);

async fn service(deployment: &Deployment) -> String {
    let routes = Router::new().route("/", get(|| async { "good" }));
    deployment.receiving("https://ledger.example.org", routes).await + "/"
}

#[tokio::test]
async fn a_revoked_token_is_refused_at_the_next_request_of_an_open_connection_and_of_a_new_one() {
    let deployment = Deployment::start().await;
    let (url, client) = (service(&deployment).await, deployment.sdk());
    let ca = std::fs::read(&deployment.listener_ca).unwrap();
    let credential = client.issue(IssueRequest::token("post-invoices".parse().unwrap())).await.unwrap();
    let Secret::Token { value, .. } = &credential.secret else { panic!("a token") };
    let ask = async |http: &reqwest::Client| {
        let answer = http.get(&url).bearer_auth(value.expose_secret()).send().await.unwrap();
        answer.status().as_u16()
    };
    let open = client.http_to(&ca).unwrap().now();
    assert_eq!(ask(&open).await, 200);
    client.revoke(credential.id, RevocationReason::KeyCompromise, "a laptop was lost").await.unwrap();
    let revoked_at = Instant::now();
    let mut seconds = [None, None];
    while seconds.iter().any(Option::is_none) {
        assert!(revoked_at.elapsed() < WITHIN, "taken {WITHIN:?} after it was revoked: {seconds:?}");
        let new = client.http_to(&ca).unwrap().now();
        for (http, seconds) in [&new, &open].into_iter().zip(&mut seconds) {
            if ask(http).await == 401 && seconds.is_none() {
                *seconds = Some(revoked_at.elapsed().as_secs_f64());
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(ask(&open).await, 401);
    table::seen(&Row {
        target: "HTTP and gRPC services of one's own, the SDK's layer",
        version: concat!("daypass-sdk ", env!("CARGO_PKG_VERSION")),
        end: "revoked",
        new: "refused",
        open: "refused at its next request",
        seconds,
    });
}

#[tokio::test]
async fn a_stock_verifier_knows_keys_and_no_revocations_and_takes_a_token_until_its_own_end() {
    let deployment = Deployment::start().await;
    let client = deployment.sdk();
    let wanted = IssueRequest::token("post-invoices".parse().unwrap());
    let wanted = IssueRequest { ttl: Some(Seconds::new(6)), ..wanted };
    let credential = client.issue(wanted).await.unwrap();
    let Secret::Token { value, .. } = &credential.secret else { panic!("a token") };
    let audience = "https://ledger.example.org";
    let check = || check_token_by(&deployment, value.expose_secret(), audience, "ES256");
    client.revoke(credential.id, RevocationReason::KeyCompromise, "a laptop was lost").await.unwrap();
    let revoked_at = Instant::now();
    let first = check().await;
    assert!(first.code == Some(0) || over(&credential), "{first:?}");
    eventually("its end", || async { over(&credential) }).await;
    let last = check().await;
    assert!(last.code == Some(1) && last.stderr.contains("ExpiredSignatureError"), "{last:?}");
    table::seen(&Row {
        target: "a service of one's own, a stock verifier by JWKS (PyJWT)",
        version: pyjwt(),
        end: "revoked",
        new: "accepted until the token's own end",
        open: "as a new one",
        seconds: [Some(revoked_at.elapsed().as_secs_f64()), None],
    });
}

/// The version that the tests install.
fn pyjwt() -> &'static str {
    let wanted = include_str!("../stock/requirements.txt");
    wanted
        .lines()
        .find_map(|line| line.to_ascii_lowercase().starts_with("pyjwt").then(|| line.split("==").nth(1)))
        .flatten()
        .unwrap()
}

/// By this machine's clock, which is the broker's and the verifier's too.
fn over(credential: &Credential) -> bool {
    SystemClock.now() >= credential.granted.expires_at
}

#[tokio::test]
async fn a_program_without_a_token_reaches_it_through_the_proxy_with_a_fresh_one_that_it_never_sees() {
    through_the_proxy("bearer = true").await;
}

#[tokio::test]
async fn a_token_that_is_bound_to_the_agents_certificate_is_shown_with_it() {
    through_the_proxy("bearer = false").await;
}

/// A program that knows neither tokens nor TLS, an agent's proxy at an address beside it, and the service behind the layer.
async fn through_the_proxy(bearer: &str) {
    let mut deployment = Deployment::stopped(sample()).await;
    deployment.settings.api.address.set_port(free_port());
    deployment.resume().await.unwrap();
    let (upstream, port, ca) = (service(&deployment).await, free_port(), &deployment.listener_ca);
    let upstream = upstream.trim_end_matches('/');
    let rest = format!(
        "[[credential]]\ntask = \"read-invoices\"\naudiences = [\"https://ledger.example.org\"]\n{bearer}\n[[proxy]]\nlisten = \"127.0.0.1:{port}\"\n\
         credential = \"read-invoices\"\nupstream = {upstream:?}\nca = {ca:?}\nallow = [\"GET /\"]\ninject = \"token\"\n"
    );
    let agent = Agent::start(&deployment.agent_config("services", &rest), &[]);
    let tls = client_config(ca, None).unwrap();
    let http = reqwest::Client::builder().no_proxy().tls_backend_preconfigured(tls).build().unwrap();
    let ask = async |method: reqwest::Method, host: &str| {
        let url = format!("http://127.0.0.1:{port}/");
        // What the caller says in the place of the token goes no further.
        let asked = http.request(method, url).header("host", host).bearer_auth("forged").send().await;
        let answer = asked.ok()?;
        Some((answer.status().as_u16(), answer.text().await.unwrap_or_default()))
    };
    let own = format!("127.0.0.1:{port}");
    eventually("it is reached", || async {
        ask(reqwest::Method::GET, &own)
            .await
            .is_some_and(|(status, body)| (status, body.as_str()) == (200, "good"))
    })
    .await;
    for (method, host, expected) in
        [(reqwest::Method::DELETE, own.as_str(), 403), (reqwest::Method::GET, "evil.example", 421)]
    {
        let (status, body) = ask(method.clone(), host).await.unwrap();
        assert_eq!(status, expected, "{method} {host}: {body}");
    }
    assert!(!agent.said().contains("eyJ"), "no token is in what the agent says:\n{}", agent.said());
    // Another root than that of the service is believed as little as none.
    let wrong = rest
        .replace(&format!("ca = {ca:?}\n"), "")
        .replace(bearer, "bearer = true")
        .replace(&port.to_string(), &free_port().to_string());
    drop(agent);
    let config = deployment.agent_config("services", &wrong);
    let other = wrong.split("127.0.0.1:").nth(1).and_then(|it| it.split('"').next()).unwrap();
    let agent = Agent::start(&config, &[]);
    let url = format!("http://127.0.0.1:{other}/");
    eventually("the upstream is not believed", || async {
        http.get(&url).send().await.is_ok_and(|answer| answer.status().as_u16() == 502)
    })
    .await;
    assert!(agent.said().contains("upstream_failed"), "{}", agent.said());
}
