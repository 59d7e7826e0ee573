//! What happened in a run never keeps the next from starting: only a log that was changed does.

use daypass_broker::dev::organisation::sample;
use daypass_broker::serve::ServeError;
use daypass_tests::harness::{Deployment, issue, task};
use daypass_verify::time::UnixMs;

const HOUR_MS: i64 = 3_600_000;

/// A deployment whose nightly job ends in an hour.
async fn ending_soon() -> Deployment {
    let mut files = sample();
    let soon = UnixMs::new(1000 * (now().seconds() + 3600));
    for file in files.iter_mut().filter(|file| file.path == "identities/billing.toml") {
        file.text = file.text.replacen("expires = 2027-11-30", &format!("expires = {soon}"), 1);
        assert!(file.text.contains(&soon.to_string()), "the sample's nightly job ends otherwise than it did");
    }
    Deployment::start_with(files, |_| {}).await
}

fn now() -> UnixMs {
    use daypass_broker::clock::Clock as _;
    daypass_broker::clock::SystemClock.now()
}

#[tokio::test]
async fn an_identity_that_ended_and_still_calls_does_not_keep_the_broker_from_starting() {
    let mut deployment = ending_soon().await;
    issue(&deployment.service().await, task("post-invoices")).await.unwrap();
    deployment.clock.advance(2 * HOUR_MS);
    let refused = issue(&deployment.service().await, task("post-invoices")).await.unwrap_err();
    assert_eq!(refused.reason, "IDENTITY_EXPIRED");
    deployment.stop().await;
    deployment.resume().await.unwrap();
}

#[tokio::test]
async fn a_broker_that_was_silent_for_long_starts_again() {
    let mut deployment = Deployment::start().await;
    issue(&deployment.service().await, task("post-invoices")).await.unwrap();
    deployment.clock.advance(HOUR_MS);
    deployment.stop().await;
    deployment.resume().await.unwrap();
    issue(&deployment.service().await, task("post-invoices")).await.unwrap();
}

#[tokio::test]
async fn a_store_is_served_under_its_own_trust_domain_only() {
    let mut deployment = Deployment::start().await;
    deployment.stop().await;
    let own = std::mem::replace(&mut deployment.settings.trust_domain, "example.com".parse().unwrap());
    assert!(matches!(deployment.resume().await, Err(ServeError::OtherTrustDomain { .. })));
    deployment.settings.trust_domain = own;
    deployment.resume().await.unwrap();
}
