//! Services that receive credentials, and clients whose credentials are always fresh: over real TLS, with a whole
//! broker behind both.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::post;
use daypass_evidence::entry::{Body, Observed};
use daypass_proto::v1::RevocationReason;
use daypass_sdk::receive::{
    Allowed, Caller, Demand, IssuedPeers, IssuedServices, Peer, PossessingPeers, Presenter, Receiver,
    ReceiverConfig, Refused, Report, Shown, serve, server_config,
};
use daypass_sdk::{
    Client, ClientCertificate, Config, Credential, CredentialSource, IdToken, IssueRequest, Secret,
    SourceCertificate, TokenLayer,
};
use daypass_tests::harness::{Deployment, NIGHTLY, Network, TRUST_DOMAIN, eventually, free_port};
use http::HeaderMap;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::server::ResolvesServerCert;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use secrecy::ExposeSecret as _;
use tokio::net::TcpListener;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tower::ServiceBuilder;
use url::Url;

const LEDGER: &str = "https://ledger.example.org";

struct WriteInvoices;

impl Demand for WriteInvoices {
    const ACTION: &'static str = "invoice:write";

    fn resource(parts: &http::request::Parts) -> Result<Option<daypass_sdk::Resource>, Refused> {
        parts.uri.path().trim_start_matches("/invoices/").parse().map(Some).map_err(|_| Refused::NotAllowed)
    }
}

async fn write(headers: HeaderMap, Allowed(caller, _): Allowed<WriteInvoices>) -> String {
    assert!(!headers.contains_key("authorization"), "the token goes no further");
    format!("{} {} {:?}", caller.subject, caller.task, caller.shown)
}

fn config(deployment: &Deployment, audience: &str) -> ReceiverConfig {
    let issuer = deployment.settings.issuer.as_str().parse().unwrap();
    let ca = std::fs::read(&deployment.listener_ca).unwrap();
    let (domain, audience) = (TRUST_DOMAIN.parse().unwrap(), audience.parse().unwrap());
    let clock = Arc::clone(&deployment.clock) as _;
    ReceiverConfig { clock, ..ReceiverConfig::new(issuer, ca, domain, audience) }
}

async fn receiver(deployment: &Deployment, audience: &str) -> Receiver {
    let receiver = Receiver::new(config(deployment, audience)).unwrap();
    receiver.ready().await.unwrap();
    receiver
}

/// The certificate of the deployment's own listeners, for services beside them.
fn listener(deployment: &Deployment) -> Arc<SingleCertAndKey> {
    let at = &deployment.settings.api;
    let chain = CertificateDer::pem_file_iter(&at.certificate).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(&at.key).unwrap();
    Arc::new(CertifiedKey::new(chain, any_supported_type(&key).unwrap()).into())
}

/// A ledger that takes invoices.
async fn ledger(deployment: &Deployment, receiver: &Receiver, peers: Arc<dyn ClientCertVerifier>) -> Url {
    let routes = Router::new().route("/invoices/{*region}", post(write)).layer(receiver.layer());
    let tls = server_config(listener(deployment), peers).unwrap();
    let at = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("https://{}", at.local_addr().unwrap()).parse().unwrap();
    tokio::spawn(serve(at, tls, routes));
    url
}

/// A service over gRPC that says how it is.
async fn health(deployment: &Deployment, receiver: &Receiver) -> Url {
    let (_, health) = tonic_health::server::health_reporter();
    let routes = tonic::service::Routes::new(health).into_axum_router().layer(receiver.layer());
    let tls = server_config(listener(deployment), PossessingPeers::new()).unwrap();
    let at = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("https://{}", at.local_addr().unwrap()).parse().unwrap();
    tokio::spawn(serve(at, tls, routes));
    url
}

async fn token(source: &CredentialSource) -> String {
    let credential = source.credential().await.unwrap();
    let Secret::Token { value, .. } = &credential.secret else { panic!("a token") };
    value.expose_secret().to_owned()
}

#[tokio::test]
async fn a_service_lets_in_who_has_a_token_that_reaches_so_far_and_tells_the_others_no_more_than_why() {
    let deployment = Deployment::start().await;
    let ca = std::fs::read(&deployment.listener_ca).unwrap();
    let receiver = receiver(&deployment, LEDGER).await;
    let url = ledger(&deployment, &receiver, PossessingPeers::new()).await;
    let client = deployment.sdk();
    let source = CredentialSource::new(client.clone(), IssueRequest::token("post-invoices".parse().unwrap()));
    let good = token(&source).await;
    let mut reading = IssueRequest::token("read-invoices".parse().unwrap());
    reading.scope.audiences = [LEDGER.parse().unwrap()].into();
    let reading = CredentialSource::new(client.clone(), reading);
    let reading = token(&reading).await;
    let (holder, thief) = (client.http_to(&ca).unwrap().now(), deployment.sdk().http_to(&ca).unwrap().now());
    let (eu, us, asia) = ("eu/2027-01", "us/2027-01", "asia/2027-01");
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let first = if signature.starts_with('A') { 'B' } else { 'A' };
    let spoiled = format!("{signed}.{first}{}", &signature[1..]);
    for (what, http, region, token, status, challenge) in [
        ("a good token", &holder, eu, Some(good.as_str()), 200, None),
        ("and elsewhere", &holder, us, Some(&good), 200, None),
        ("out of reach", &holder, asia, Some(&good), 403, Some(r#"Bearer error="insufficient_scope""#)),
        ("no resource", &holder, "a%20b", Some(&good), 403, Some(r#"Bearer error="insufficient_scope""#)),
        ("another action", &holder, eu, Some(&reading), 403, Some(r#"Bearer error="insufficient_scope""#)),
        ("nothing", &holder, eu, None, 401, Some("Bearer")),
        ("stolen", &thief, eu, Some(&good), 401, Some(r#"Bearer error="invalid_token""#)),
        ("spoiled", &holder, eu, Some(&spoiled), 401, Some(r#"Bearer error="invalid_token""#)),
        ("two words", &holder, eu, Some("a b"), 400, Some(r#"Bearer error="invalid_request""#)),
    ] {
        let mut request = http.post(url.join(&format!("invoices/{region}")).unwrap());
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), status, "{what}");
        let told = answer.headers().get("www-authenticate").map(|it| it.to_str().unwrap().to_owned());
        assert_eq!(told.as_deref(), challenge, "{what}");
        let body = answer.text().await.unwrap();
        assert_eq!(body.is_empty(), status != 200, "{what}: {body}");
    }
    let mut request = holder.post(url.join("invoices/eu/2027-01").unwrap()).build().unwrap();
    source.put_on(&mut request).await.unwrap();
    let answer = holder.execute(request).await.unwrap().text().await.unwrap();
    assert_eq!(answer, "spiffe://example.org/prod/billing/nightly post-invoices BoundToken");
}

#[tokio::test]
async fn a_token_for_somebody_else_or_that_is_over_is_refused() {
    let deployment = Deployment::start().await;
    let client = deployment.sdk();
    let source = CredentialSource::new(client.clone(), IssueRequest::token("post-invoices".parse().unwrap()));
    let value = token(&source).await;
    let held = Presenter::Certificate(client.holder().digest());
    let ours = receiver(&deployment, LEDGER).await;
    let caller = ours.token(&value, held).await.unwrap();
    assert_eq!((caller.task.as_str(), caller.shown), ("post-invoices", Shown::BoundToken));
    assert_eq!(ours.token(&value, Presenter::Bearer).await.unwrap_err().inner_reason(), "NOT_BOUND");
    let other = receiver(&deployment, "https://orders.example.org").await;
    assert_eq!(other.token(&value, held).await.unwrap_err().inner_reason(), "BAD_AUDIENCE");
    let foreign =
        ReceiverConfig { trust_domain: "example.com".parse().unwrap(), ..config(&deployment, LEDGER) };
    let foreign = Receiver::new(foreign).unwrap();
    foreign.ready().await.unwrap();
    assert_eq!(foreign.token(&value, held).await.unwrap_err().inner_reason(), "BAD_TRUST_DOMAIN");
    deployment.clock.advance(15 * 60_000 + 31_000);
    // The keys are too old by now, and the broker signs its feed anew within seconds.
    let over = || async { ours.token(&value, held).await.unwrap_err().inner_reason() == "EXPIRED" };
    eventually("the token is known to be over", over).await;
}

#[tokio::test]
async fn grpc_calls_carry_a_fresh_token_and_are_refused_without() {
    let deployment = Deployment::start().await;
    let ca = std::fs::read(&deployment.listener_ca).unwrap();
    let receiver = receiver(&deployment, LEDGER).await;
    let url = health(&deployment, &receiver).await;
    let client = deployment.sdk();
    let source = CredentialSource::new(client.clone(), IssueRequest::token("post-invoices".parse().unwrap()));
    let channel = client.grpc_to(&url, &ca).unwrap();
    let layer = TokenLayer::to(source, &url).unwrap();
    let with_token = ServiceBuilder::new().layer(layer).service(channel.clone());
    HealthClient::new(with_token).check(HealthCheckRequest::default()).await.unwrap();
    let refused = HealthClient::new(channel).check(HealthCheckRequest::default()).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (tonic::Code::Unauthenticated, "expected a credential"));
}

#[tokio::test]
async fn a_client_whose_certificate_lies_in_files_shows_everywhere_what_they_hold_now() {
    let deployment = Deployment::start().await;
    let ca = std::fs::read(&deployment.listener_ca).unwrap();
    let receiver = receiver(&deployment, LEDGER).await;
    let mut ledger = ledger(&deployment, &receiver, PossessingPeers::new()).await;
    let between = free_port();
    let network = Network::between(between, ledger.port().unwrap());
    ledger.set_port(Some(between)).unwrap();
    let health = health(&deployment, &receiver).await;
    let (chain, key) = deployment.agent_proof("followed");
    let certificate = Some(ClientCertificate::Files { chain: chain.clone(), key: key.clone() });
    let client = Client::new(Config { certificate, ..deployment.sdk_config() }).unwrap();
    let request = || IssueRequest::token("post-invoices".parse().unwrap());
    let source = CredentialSource::new(client.clone(), request());
    let (first, held) = (source.credential().await.unwrap().id, client.holder().digest());
    let (http, channel) = (client.http_to(&ca).unwrap(), client.grpc_to(&health, &ca).unwrap());
    let channel =
        ServiceBuilder::new().layer(TokenLayer::to(source.clone(), &health).unwrap()).service(channel);
    let reached = async || {
        let http = http.now();
        let mut request = http.post(ledger.join("invoices/eu/2027-01").unwrap()).build().unwrap();
        source.put_on(&mut request).await.unwrap();
        let status = http.execute(request).await.unwrap().status().as_u16();
        (status, HealthClient::new(channel.clone()).check(HealthCheckRequest::default()).await.is_ok())
    };
    for _ in 0..3 {
        assert_eq!(reached().await, (200, true));
    }
    assert_eq!(network.carried(), 1, "a connection is kept");

    let (next_chain, next_key) = deployment.agent_proof("next");
    std::fs::copy(next_chain, &chain).unwrap();
    client.issue(request()).await.unwrap();
    assert_eq!((client.holder().digest(), reached().await), (held, (200, true)), "half of it is there");
    std::fs::copy(next_key, &key).unwrap();
    eventually("it is shown", || async { client.holder().digest() != held }).await;
    eventually("a token that is bound to it", || async { source.current().is_some_and(|it| it.id != first) })
        .await;
    let began = Instant::now();
    while reached().await != (200, true) {
        assert!(began.elapsed() < Duration::from_secs(30), "services are shown another after 30 s");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(network.carried(), 2, "one for each certificate");
    client.issue(request()).await.unwrap();
}

/// A client of the web shop's frontend, which may have a certificate for the mesh.
fn frontend(deployment: &Deployment) -> Client {
    let token = deployment.organisation.token("cluster", "prod/web/frontend").unwrap();
    let id_token = Some(IdToken::Text(token.into()));
    Client::new(Config { certificate: None, id_token, ..deployment.sdk_config() }).unwrap()
}

#[tokio::test]
async fn services_know_each_other_by_certificates_that_are_taken_anew_from_their_source() {
    let deployment = Deployment::start().await;
    let ca = std::fs::read(&deployment.listener_ca).unwrap();
    let receiver = receiver(&deployment, "mesh.example.org").await;
    let source = CredentialSource::new(
        frontend(&deployment),
        IssueRequest::certificate("mesh-identity".parse().unwrap()),
    );
    let credential = source.credential().await.unwrap();
    let routes = |receiver: &Receiver| {
        let who = |caller: Caller| async move { format!("{} {:?}", caller.credential_id, caller.shown) };
        Router::new().route("/who", axum::routing::get(who)).layer(receiver.layer())
    };
    let allowed = |caller: &Caller| caller.subject.to_string() == "spiffe://example.org/prod/web/frontend";
    let nobody = |_: &Caller| false;
    let mut answers = Vec::new();
    for peers in [IssuedPeers::new(receiver.clone(), allowed), IssuedPeers::new(receiver.clone(), nobody)] {
        let tls = server_config(listener(&deployment), peers).unwrap();
        let at = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("https://{}/who", at.local_addr().unwrap());
        tokio::spawn(serve(at, tls, routes(&receiver)));
        let mut tls = deployment.sdk().tls_to(&ca, &["h2"]).unwrap();
        tls.client_auth_cert_resolver = SourceCertificate::new(source.clone());
        let http = reqwest::Client::builder().tls_backend_preconfigured(tls).build().unwrap();
        let answer = http.get(&url).send().await;
        answers.push(match answer {
            Ok(answer) => Some(answer.text().await.unwrap()),
            Err(_) => None,
        });
        let stranger = deployment.sdk().http_to(&ca).unwrap().now();
        stranger.get(&url).send().await.unwrap_err();
    }
    assert_eq!(answers, [Some(format!("{} Certificate", credential.id)), None]);
}

#[tokio::test]
async fn a_revoked_credential_is_refused_by_those_who_follow_the_feed_and_another_is_not() {
    let deployment = Deployment::start().await;
    let receiver = receiver(&deployment, LEDGER).await;
    let client = deployment.sdk();
    let held = Presenter::Certificate(client.holder().digest());
    let request = || IssueRequest::token("post-invoices".parse().unwrap());
    let (revoked, kept) = (client.issue(request()).await.unwrap(), client.issue(request()).await.unwrap());
    let said = |credential: &Credential| {
        let Secret::Token { value, .. } = &credential.secret else { panic!("a token") };
        let (receiver, value) = (receiver.clone(), value.expose_secret().to_owned());
        async move { receiver.token(&value, held).await.map_or_else(|it| it.inner_reason(), |_| "GOOD") }
    };
    assert_eq!((said(&revoked).await, said(&kept).await), ("GOOD", "GOOD"));
    client.revoke(revoked.id, RevocationReason::KeyCompromise, "a laptop was lost").await.unwrap();
    let began = Instant::now();
    while said(&revoked).await == "GOOD" {
        assert!(began.elapsed() < Duration::from_secs(30), "still good 30 s after it was revoked");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!((said(&revoked).await, said(&kept).await), ("REVOKED", "GOOD"));
}

#[tokio::test]
async fn who_receives_tells_of_use_where_it_is_asked_to() {
    let mut files = daypass_broker::dev::organisation::sample();
    let targets = files.iter_mut().find(|file| file.path == "targets.toml").unwrap();
    let served = "[target.ledger]\nserved_by = [\"prod/billing/nightly\"]\n";
    targets.text = targets.text.replacen("[target.ledger]\n", served, 1);
    let deployment = Deployment::start_with(files, |_| {}).await;
    let client = deployment.sdk();
    let report = Report {
        every: Duration::from_millis(100),
        ..Report::new(client.clone(), "ledger".parse().unwrap())
    };
    let receiver =
        Receiver::new(ReceiverConfig { report: Some(report), ..config(&deployment, LEDGER) }).unwrap();
    receiver.ready().await.unwrap();
    let issued = client.issue(IssueRequest::token("post-invoices".parse().unwrap())).await.unwrap();
    let Secret::Token { value, .. } = &issued.secret else { panic!("a token") };
    let ask = |token: String| {
        let mut request = http::Request::new(());
        request.extensions_mut().insert(Peer::new(Some(client.holder().chain())));
        request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        request
    };
    for _ in 0..3 {
        receiver.caller(&mut ask(value.expose_secret().to_owned())).await.unwrap();
    }
    receiver.caller(&mut ask(format!("{}x", value.expose_secret()))).await.unwrap_err();
    let told = || async {
        let entries = deployment.entries().await.into_iter();
        let observed = entries.filter_map(|(_, entry)| match entry.body {
            Body::AccessObserved(it) if it.credential == Some(issued.receipt.index) => Some(*it),
            _ => None,
        });
        let observed: Vec<_> = observed.collect();
        let all_so = observed.iter().all(|it| it.method == "verifier" && it.what == Observed::Used);
        assert!(all_so, "{observed:?}");
        observed.iter().map(|it| it.count).sum::<u64>() == 3
    };
    eventually("three uses in the log", told).await;
}

#[tokio::test]
async fn a_client_reaches_only_the_services_that_it_expects_by_spiffe_id() {
    let deployment = Deployment::start().await;
    let receiver = receiver(&deployment, "mesh.example.org").await;
    let frontend = frontend(&deployment);
    let source =
        CredentialSource::new(frontend.clone(), IssueRequest::certificate("mesh-identity".parse().unwrap()));
    let credential = source.credential().await.unwrap();
    let serving = async |shown: Arc<dyn ResolvesServerCert>| {
        let tls = server_config(shown, PossessingPeers::new()).unwrap();
        let at = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("https://{}", at.local_addr().unwrap());
        let routes =
            tonic::service::Routes::new(tonic_health::server::health_reporter().1).into_axum_router();
        tokio::spawn(serve(at, tls, routes.route("/who", axum::routing::get(|| async { "it" }))));
        url
    };
    let with_svid = serving(SourceCertificate::new(source)).await;
    // Under a root that the client knows, with the name that it asks for.
    let with_name = serving(listener(&deployment)).await;
    let client = deployment.sdk();
    let tls = |who: &str| {
        let expected = [format!("spiffe://example.org/{who}").parse().unwrap()];
        client.tls_to_services(IssuedServices::new(receiver.clone(), expected), &["h2"]).unwrap()
    };
    let reaches = async |url: &str, who: &str| {
        let http = reqwest::Client::builder().no_proxy().tls_backend_preconfigured(tls(who)).build().unwrap();
        http.get(format!("{url}/who")).send().await.is_ok()
    };
    let shop = "prod/web/frontend";
    assert!(reaches(&with_svid, shop).await);
    assert!(!reaches(&with_svid, NIGHTLY).await, "another SPIFFE ID");
    assert!(!reaches(&with_name, shop).await, "no certificate of the broker's");
    let channel = client.grpc_over(&with_svid.parse().unwrap(), tls(shop)).unwrap();
    HealthClient::new(channel).check(HealthCheckRequest::default()).await.unwrap();

    frontend.revoke(credential.id, RevocationReason::KeyCompromise, "a laptop was lost").await.unwrap();
    eventually("a revoked service is reached no more", || async { !reaches(&with_svid, shop).await }).await;
}
