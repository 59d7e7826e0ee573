use std::sync::atomic::AtomicBool;

use futures::future::join_all;

use super::*;
use crate::dev::issuer::{Behaviour, Connection, Rotation};

#[tokio::test]
async fn a_flood_of_unknown_keys_costs_one_fetch_in_thirty_seconds_and_no_key() {
    let apart = FetchLimits::default().asked_apart;
    assert_eq!(apart, Duration::from_secs(30));
    let world = World::new(FetchLimits { asked_apart: apart, ..limits() }).await;
    for round in 2..5 {
        let answers = join_all((0..200).map(|_| world.refresh())).await;
        assert!(answers.contains(&true));
        assert_eq!(world.fetches(), round);
        assert!(!world.refresh().await, "a call right after it is answered at once");
        assert!(world.knows_signing_key());
        world.clock.pass(apart - Duration::from_millis(1));
        assert!(!world.refresh().await);
        world.clock.pass(Duration::from_millis(1));
    }
}

#[tokio::test]
async fn callers_in_between_wait_for_the_fetch_that_is_running() {
    let world = World::new(FetchLimits { asked_apart: Duration::from_secs(30), ..limits() }).await;
    world.provider.rotate(Rotation::Abrupt).unwrap();
    world.provider.behave(Endpoint::Jwks, Behaviour::Late(Duration::from_millis(100)));
    assert_eq!(join_all((0..50).map(|_| world.refresh())).await, [true; 50]);
    assert!(world.knows_signing_key());
    assert_eq!(world.fetches(), 2);
}

#[tokio::test]
async fn a_caller_who_goes_away_does_not_stop_the_fetch_it_asked_for() {
    let world = World::new(FetchLimits { asked_apart: Duration::from_secs(30), ..limits() }).await;
    world.provider.rotate(Rotation::Abrupt).unwrap();
    world.provider.behave(Endpoint::Jwks, Behaviour::Late(Duration::from_millis(100)));
    assert!(timeout(Duration::from_millis(20), world.refresh()).await.is_err());
    world.wait(|| world.knows_signing_key()).await;
}

#[tokio::test]
async fn a_key_that_was_replaced_under_its_name_is_replaced_by_one_refresh() {
    let world = World::new(limits()).await;
    let verifies = || {
        let token = world.provider.issue(serde_json::Map::new()).unwrap();
        let token = daypass_verify::jose::UnverifiedToken::parse(&token).unwrap();
        let IssuerKeys::Jwks(set) = world.keys("ci") else { return false };
        set.key_for(&token).is_ok_and(|key| token.verify(key).is_ok())
    };
    assert!(verifies());
    world.provider.rotate(Rotation::SameKid).unwrap();
    assert!(!verifies());
    assert!(world.refresh().await && verifies());
}

#[tokio::test]
async fn a_real_rotation_arrives_by_itself_during_a_flood() {
    let fresh = Duration::from_millis(200);
    let world = World::new(FetchLimits {
        fresh_min: fresh,
        fresh_max: fresh,
        asked_apart: Duration::from_secs(3600),
        ..limits()
    })
    .await;
    world.refresh().await;
    world.provider.rotate(Rotation::Abrupt).unwrap();
    let over = AtomicBool::new(false);
    let flood = async {
        while !over.load(Ordering::Relaxed) {
            assert!(join_all((0..20).map(|_| world.refresh())).await.len() == 20);
            tokio::task::yield_now().await;
        }
    };
    let rotation = async {
        world.wait(|| world.knows_signing_key()).await;
        over.store(true, Ordering::Relaxed);
    };
    tokio::join!(flood, rotation);
}

#[tokio::test]
async fn callers_cannot_make_a_provider_that_is_down_be_asked_more_often() {
    let world = World::new(FetchLimits { pause_min: Duration::from_millis(1), ..limits() }).await;
    world.provider.connect(Connection::Closed);
    assert!(!world.refresh().await);
    world.provider.connect(Connection::Honest);
    sleep(Duration::from_millis(200)).await;
    // The next fetch is due in minutes, as it was before the call.
    assert_eq!(world.fetches(), 1);
}

#[tokio::test]
async fn an_issuer_that_is_declared_as_before_keeps_its_keys() {
    let world = World::new(limits()).await;
    let mut again = world.declared();
    (again.environment, again.proof_caps) = (name("test"), true);
    world.trust.follow_issuers(&issuers([("ci", again)]));
    assert!(world.knows_signing_key());
    assert_eq!(world.fetches(), 1);
    world.trust.follow_issuers(&issuers([("ci", Issuer { internal: false, ..world.declared() })]));
    assert!(matches!(world.keys("ci"), IssuerKeys::Unavailable));
    world.trust.follow_issuers(&issuers([("ci", world.declared())]));
    world.wait_for_keys("ci").await;
    world.trust.follow_issuers(&BTreeMap::new());
    assert!(matches!(world.keys("ci"), IssuerKeys::Unavailable));
    assert!(!world.refresh().await);
}

#[tokio::test]
async fn nothing_is_fetched_when_nobody_holds_the_keys_any_more() {
    let fresh = Duration::from_millis(20);
    let world = World::new(FetchLimits { fresh_min: fresh, fresh_max: fresh, ..limits() }).await;
    world.wait(|| world.fetches() > 2).await;
    let World { provider, trust, .. } = world;
    drop(trust);
    sleep(Duration::from_millis(100)).await;
    let before = provider.requests(Endpoint::Discovery);
    sleep(Duration::from_millis(200)).await;
    assert_eq!(provider.requests(Endpoint::Discovery), before);
}
