use serde_json::{Value, json};

use super::*;
use crate::dev::issuer::Behaviour;

#[tokio::test]
async fn an_honest_issuers_keys_are_known_from_every_kind_of_source() {
    let world = World::unfollowed(limits()).await;
    let (url, pin) = (world.provider.url(), vec![world.provider.root_base64()]);
    let at_url = KeySource::JwksUrl(format!("{url}/jwks"));
    let in_bundle = KeySource::Jwks(world.provider.jwks().to_string());
    world.trust.follow_issuers(&issuers([
        ("discovered", oidc(url, KeySource::Discovery, pin.clone())),
        ("at-url", oidc(url, at_url, pin)),
        ("in-bundle", oidc(url, in_bundle, Vec::new())),
    ]));
    let kid = world.provider.kid(Algorithm::ES256).unwrap();
    for issuer in ["discovered", "at-url", "in-bundle"] {
        world.wait_for_keys(issuer).await;
        assert!(matches!(world.keys(issuer), IssuerKeys::Jwks(set) if set.key(&kid).is_some()), "{issuer}");
    }
    assert_eq!((world.provider.requests(Endpoint::Discovery), world.fetches()), (1, 2));
}

#[tokio::test]
async fn a_key_set_that_is_not_believed_leaves_the_last_good_one_and_is_told_once() {
    let mut world = World::unfollowed(limits()).await;
    let (url, pin) = (world.provider.url(), world.provider.root_base64());
    let declared = oidc(url, KeySource::JwksUrl(format!("{url}/jwks")), vec![pin]);
    world.trust.follow_issuers(&issuers([("ci", declared)]));
    world.wait_for_keys("ci").await;
    let answers = unbelievable_key_sets(&world);
    not_believed(&mut world, Endpoint::Jwks, answers).await;
}

#[tokio::test]
async fn a_discovery_document_that_is_not_believed_leaves_the_last_good_keys_and_is_told_once() {
    let mut world = World::new(limits()).await;
    let answers = unbelievable_discovery(world.provider.url());
    not_believed(&mut world, Endpoint::Discovery, answers).await;
}

async fn not_believed(world: &mut World, endpoint: Endpoint, answers: Vec<(String, Behaviour)>) {
    for (i, (what, answer)) in answers.into_iter().enumerate() {
        world.provider.behave(endpoint, answer);
        assert!(!world.refresh().await, "{what}");
        if i == 0 {
            assert!(!world.refresh().await, "{what}");
        }
        assert!(world.knows_signing_key(), "{what}");
        let events = world.events();
        assert!(matches!(events.as_slice(), [TrustEvent::KeysetRefused { .. }]), "{what}: {events:?}");
        world.provider.behave(endpoint, Behaviour::Honest);
        assert!(world.refresh().await, "{what}");
        assert_eq!(world.events(), [TrustEvent::KeysetRestored { issuer: name("ci") }], "{what}");
    }
}

fn unbelievable_key_sets(world: &World) -> Vec<(String, Behaviour)> {
    let key = world.provider.jwks()["keys"][0].clone();
    let count = |n: usize| -> String {
        let keys: Vec<Value> = (0..n).map(|i| json!({"kid": i.to_string()})).collect();
        json!({ "keys": keys }).to_string()
    };
    let wide = json!({"kid": "wide", "kty": "RSA", "e": "AQAB", "n": "A".repeat(9000)});
    let bodies = [
        ("no keys", r#"{"keys":[]}"#.to_owned()),
        ("HTML", "<html>sign in</html>".to_owned()),
        ("an array", "[]".to_owned()),
        ("null", "null".to_owned()),
        ("NaN", r#"{"keys":NaN}"#.to_owned()),
        ("nothing", String::new()),
        ("10,000 keys", count(10_000)),
        ("65 keys", count(65)),
        ("one key id twice", json!({"keys": [key, key]}).to_string()),
        ("a key over 8 KiB", json!({"keys": [key, wide]}).to_string()),
        ("2 MiB", format!("{}{}", " ".repeat(2 << 20), json!({"keys": [key]}))),
        ("257 KiB", format!("{}{}", " ".repeat(257 << 10), json!({"keys": [key]}))),
        ("only a shared secret", json!({"keys": [{"kid": "a", "kty": "oct"}]}).to_string()),
        ("only for encryption", json!({"keys": [with(&key, "use", "enc")]}).to_string()),
    ];
    let mut all = wrong_statuses(&format!("{}/jwks", world.provider.url()));
    all.extend(bodies.map(|(what, body)| (what.to_owned(), Behaviour::body(body))));
    all
}

fn unbelievable_discovery(url: &str) -> Vec<(String, Behaviour)> {
    let port = url.rsplit(':').next().unwrap();
    let long = "x".repeat(65 << 10);
    let documents = [
        ("another issuer", json!({"issuer": format!("{url}/"), "jwks_uri": format!("{url}/jwks")})),
        ("no key URL", json!({"issuer": url})),
        ("http", json!({"issuer": url, "jwks_uri": format!("http://127.0.0.1:{port}/jwks")})),
        ("file", json!({"issuer": url, "jwks_uri": "file:///etc/hostname"})),
        ("a user", json!({"issuer": url, "jwks_uri": format!("https://me@127.0.0.1:{port}/jwks")})),
        ("port 22", json!({"issuer": url, "jwks_uri": "https://127.0.0.1:22/jwks"})),
        ("65 KiB", json!({"issuer": url, "jwks_uri": format!("{url}/jwks"), "x": long})),
    ];
    let mut all = wrong_statuses(&format!("{url}/.well-known/openid-configuration"));
    all.extend(documents.map(|(what, document)| (what.to_owned(), Behaviour::body(document.to_string()))));
    all
}

/// Redirects, to the same host as well, and statuses other than 200.
fn wrong_statuses(url: &str) -> Vec<(String, Behaviour)> {
    let redirect = |status: u16| Behaviour::redirect(status, format!("{url}?again"));
    let redirects = [301, 302, 303, 307, 308].map(|status| (status.to_string(), redirect(status)));
    let others = [204, 206, 400, 404].map(|status| (status.to_string(), Behaviour::status(status)));
    redirects.into_iter().chain(others).collect()
}

fn with(key: &Value, member: &str, value: &str) -> Value {
    let mut key = key.clone();
    key[member] = value.into();
    key
}

#[tokio::test]
async fn one_bad_key_never_spoils_the_set() {
    let mut world = World::new(limits()).await;
    let good = world.provider.jwks()["keys"][0].clone();
    let bad = [
        json!({"kid": "a", "kty": "new", "alg": "XX1"}),
        json!({"kty": "RSA"}),
        json!("text"),
        with(&with(&good, "kid", "b"), "use", "enc"),
        with(&with(&good, "kid", "c"), "x", "AA"),
    ];
    for key in bad {
        let kid = format!("good-{}", world.fetches());
        let body = json!({"keys": [key, with(&good, "kid", &kid)]});
        world.provider.behave(Endpoint::Jwks, Behaviour::body(body.to_string()));
        assert!(world.refresh().await && world.knows(&kid), "{key}");
    }
    assert_eq!(world.events(), []);
}

#[tokio::test]
async fn a_private_key_that_is_published_is_not_believed_and_is_told_once() {
    let mut world = World::new(limits()).await;
    let good = world.provider.jwks()["keys"][0].clone();
    let leaked = with(&with(&good, "kid", "leaked"), "d", "AAAA");
    world.provider.behave(Endpoint::Jwks, Behaviour::body(json!({"keys": [good, leaked]}).to_string()));
    assert!(world.refresh().await && world.refresh().await);
    assert!(world.knows_signing_key() && !world.knows("leaked"));
    let told = TrustEvent::PrivateKeyPublished { issuer: name("ci"), kid: "leaked".to_owned() };
    assert_eq!(world.events(), [told]);
    world.provider.behave(Endpoint::Jwks, Behaviour::body(json!({"keys": [leaked]}).to_string()));
    assert!(!world.refresh().await);
    assert_eq!(world.codes(), ["KEYSET_REFUSED"]);
}

#[tokio::test]
async fn the_issuers_cache_header_bounds_how_long_its_keys_are_used() {
    for (said, seconds) in [("max-age=31536000", 1800), ("max-age=0", 960), ("max-age=120", 1020)] {
        let world = World::unfollowed(limits()).await;
        let headers = vec![("cache-control", said.to_owned())];
        world.provider.behave(Endpoint::Jwks, Behaviour::Headers(headers));
        world.trust.follow_issuers(&issuers([("ci", world.declared())]));
        world.wait_for_keys("ci").await;
        world.clock.pass(Duration::from_millis(seconds * 1000 - 1));
        assert!(world.knows_signing_key(), "{said}");
        world.clock.pass(Duration::from_millis(1));
        assert!(matches!(world.keys("ci"), IssuerKeys::Unavailable), "{said}");
    }
}
