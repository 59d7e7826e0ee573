use std::time::Instant;

use super::*;
use crate::dev::issuer::{Behaviour, Connection};

#[tokio::test]
async fn a_provider_that_gives_no_answer_costs_its_time_limit_and_no_keys() {
    let mut world = World::new(limits()).await;
    let connections = [
        Connection::Closed,
        Connection::SilentHandshake,
        Connection::ExpiredCertificate,
        Connection::OtherHost,
        Connection::OtherCa,
        Connection::EndlessHeaders,
    ];
    for connection in connections {
        world.provider.connect(connection);
        unreachable(&mut world, &format!("{connection:?}")).await;
        world.provider.connect(Connection::Honest);
        assert!(world.refresh().await, "{connection:?}");
        assert_eq!(world.events(), [TrustEvent::KeysetRestored { issuer: name("ci") }]);
    }
    let answers = [
        Behaviour::Drip(Duration::from_millis(50)),
        Behaviour::Late(Duration::from_secs(30)),
        Behaviour::status(429),
        Behaviour::status(500),
        Behaviour::status(503),
    ];
    for answer in answers {
        world.provider.behave(Endpoint::Jwks, answer.clone());
        unreachable(&mut world, &format!("{answer:?}")).await;
        world.provider.behave(Endpoint::Jwks, Behaviour::Honest);
        assert!(world.refresh().await, "{answer:?}");
        world.events();
    }
}

async fn unreachable(world: &mut World, what: &str) {
    let began = Instant::now();
    // The caller may give up a moment before the fetch does; the next round tells what came of it.
    assert!(!world.refresh().await, "{what}");
    assert!(began.elapsed() < Duration::from_secs(2), "{what}: {:?}", began.elapsed());
    assert!(world.knows_signing_key(), "{what}");
    let event = timeout(Duration::from_secs(2), world.events.recv()).await.unwrap().unwrap();
    assert!(matches!(event, TrustEvent::ProviderUnreachable { .. }), "{what}: {event:?}");
}

#[tokio::test]
async fn a_silent_handshake_is_cut_at_the_connect_limit() {
    let world = World::new(FetchLimits { total: Duration::from_secs(20), ..limits() }).await;
    world.provider.connect(Connection::SilentHandshake);
    let began = Instant::now();
    assert!(!world.refresh().await);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[tokio::test]
async fn the_time_limit_is_for_all_documents_together() {
    let mut world = World::new(limits()).await;
    for endpoint in [Endpoint::Discovery, Endpoint::Jwks] {
        world.provider.behave(endpoint, Behaviour::Late(Duration::from_millis(600)));
    }
    unreachable(&mut world, "two slow documents").await;
}

#[tokio::test]
async fn a_provider_that_is_down_at_the_start_hurts_only_its_own_callers() {
    let pause = Duration::from_millis(50);
    let mut world = World::unfollowed(FetchLimits { pause_min: pause, pause_max: pause, ..limits() }).await;
    let other = DevIssuer::start(Start::in_memory(Arc::new(SystemClock))).await.unwrap();
    world.provider.connect(Connection::Closed);
    let declared = oidc(other.url(), KeySource::Discovery, vec![other.root_base64()]);
    world.trust.follow_issuers(&issuers([("ci", world.declared()), ("other", declared)]));
    world.wait_for_keys("other").await;
    let told = world.events.recv().await.unwrap();
    assert!(matches!(told, TrustEvent::ProviderUnreachable { issuer, .. } if issuer == name("ci")));
    assert!(matches!(world.keys("ci"), IssuerKeys::Unavailable));
    world.provider.connect(Connection::Honest);
    world.wait_for_keys("ci").await;
    assert_eq!(world.events(), [TrustEvent::KeysetRestored { issuer: name("ci") }]);
}

#[tokio::test]
async fn keys_that_cannot_be_fetched_again_are_used_for_a_bounded_time() {
    let mut world = World::new(limits()).await;
    world.provider.connect(Connection::Closed);
    // The provider said `max-age=300`; 15 minutes more are the limit.
    world.clock.pass(Duration::from_millis(20 * 60 * 1000 - 1));
    assert!(world.knows_signing_key());
    world.clock.pass(Duration::from_millis(1));
    assert!(matches!(world.keys("ci"), IssuerKeys::Unavailable));
    assert_eq!(world.events(), [TrustEvent::KeysExpired { issuer: name("ci") }]);
    world.provider.connect(Connection::Honest);
    assert!(world.refresh().await && world.knows_signing_key());
}

#[tokio::test]
async fn a_host_inside_the_network_is_connected_to_only_where_that_is_declared() {
    let world = World::unfollowed(limits()).await;
    let port = world.provider.url().rsplit(':').next().unwrap();
    for host in ["127.0.0.1", "localhost", "0x7f.1", "2130706433", "[::ffff:127.0.0.1]"] {
        let url = format!("https://{host}:{port}");
        let declared = oidc(&url, KeySource::Discovery, vec![world.provider.root_base64()]);
        world.trust.follow_issuers(&issuers([("ci", Issuer { internal: false, ..declared })]));
        assert!(!world.refresh().await, "{host}");
        assert_eq!(world.provider.requests(Endpoint::Discovery), 0, "{host}");
    }
    // By the same ways the issuer is reached where it is declared `internal`.
    for (n, host) in (1..).zip(["127.0.0.1", "localhost", "0x7f.1"]) {
        let url = format!("https://{host}:{port}");
        let declared = oidc(&url, KeySource::Discovery, vec![world.provider.root_base64()]);
        world.trust.follow_issuers(&issuers([("ci", declared)]));
        world.wait(|| world.provider.requests(Endpoint::Discovery) == n).await;
    }
}

#[tokio::test]
async fn a_name_that_leads_inside_the_network_has_no_address() {
    let resolver = super::address::Resolver { internal: false };
    let resolved = reqwest::dns::Resolve::resolve(&resolver, "localhost".parse().unwrap()).await;
    assert!(resolved.is_err());
    let resolver = super::address::Resolver { internal: true };
    let mut resolved = reqwest::dns::Resolve::resolve(&resolver, "localhost".parse().unwrap()).await.unwrap();
    assert!(resolved.all(|it| it.ip().is_loopback()));
}

#[tokio::test]
async fn an_issuer_without_a_pin_is_checked_against_the_systems_roots() {
    let mut world = World::unfollowed(limits()).await;
    let unpinned = oidc(world.provider.url(), KeySource::Discovery, Vec::new());
    world.trust.follow_issuers(&issuers([("ci", unpinned)]));
    assert!(!world.refresh().await);
    assert_eq!(world.codes(), ["ISSUER_UNREACHABLE"]);
    assert_eq!(world.provider.requests(Endpoint::Discovery), 0);
}

/// Runs in a process of its own, with proxies in its environment that lead nowhere.
#[test]
fn a_proxy_in_the_environment_is_not_used() {
    const INNER: &str = "trust::tests::answers::an_honest_issuers_keys_are_known_from_every_kind_of_source";
    let mut inner = std::process::Command::new(std::env::current_exe().unwrap());
    inner.args(["--exact", INNER]);
    for variable in ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "HTTP_PROXY", "http_proxy"] {
        inner.env(variable, "http://127.0.0.1:1");
    }
    let output = inner.env_remove("NO_PROXY").env_remove("no_proxy").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}
