//! What stays when credentials are gone: a password that nobody took away.

use std::fs;

use daypass_evidence::entry::{AccessObserved, Body, Observed};
use daypass_tests::harness::Agent;

use super::ground::{Ground, Stands};

/// What was told to be left over, in these words; each entry of it names neither a credential nor another role.
async fn left_over(ground: &Ground, detail: &str) -> AccessObserved {
    let found = ground.deployment.entry(detail, |entry| match &entry.body {
        Body::AccessObserved(it) if it.what == Observed::LeftOver => {
            assert!(
                it.credential.is_none() && it.detail.as_ref().unwrap().contains("billing_nightly"),
                "{it:?}"
            );
            (it.detail.as_deref() == Some(detail)).then(|| (**it).clone())
        }
        _ => None,
    });
    found.await.1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_by_a_password_of_a_role_whose_credentials_ended_is_told_of_and_ended_only_where_that_is_asked_for()
 {
    let mut ground = Ground::start(Stands::Beside).await;
    ground.server.sql("postgres", "ALTER ROLE billing_nightly PASSWORD 'forgotten'");
    let files = ground.certificate("last", "10m").await;
    let (index, id) = ground.issued(&files).await;
    let session = ground.session(&files).await;
    ground.observed(Observed::Used, index).await;
    ground.revoke(&id, index).await;
    session.ended(&ground).await;

    // Nobody told this enforcer of the role: it saw the role with a credential.
    let forgotten = ground.session_by_password("forgotten").await;
    let told = left_over(&ground, "role without a credential: `billing_nightly`").await;
    assert_eq!((told.target.as_str(), told.method.as_str(), told.count), ("ledger-db", "enforcer", 1));
    ground.enforcer.says("sessions of `billing_nightly` without a credential: 1").await;
    assert_eq!(ground.sessions(), 1, "what is told of is left alone:\n{}", ground.enforcer.said());

    let config = ground.deployment.folder().join("enforcer.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("{text}roles = [\"billing_nightly\"]\nleft_over = \"end\"\n")).unwrap();
    ground.enforcer = Agent::start(&config, &[]);
    forgotten.ended(&ground).await;
    left_over(&ground, "role without a credential: `billing_nightly`, told to end").await;
    let kept = ground.certificate("kept", "10m").await;
    let _kept = ground.session(&kept).await;
    ground.session_by_password("forgotten").await.ended(&ground).await;
    assert_eq!(ground.sessions(), 1, "what has a credential stays:\n{}", ground.enforcer.said());
}
