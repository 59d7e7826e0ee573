//! What is changed in the store while a broker runs is found without a restart, and nothing is issued on it.

use std::time::Duration;

use daypass_broker::dev::organisation::sample;
use daypass_broker::log::StartError;
use daypass_broker::scrub::{Progress, Schedule};
use daypass_broker::serve::ServeError;
use daypass_broker::store::Head;
use daypass_evidence::entry::Body;
use daypass_proto::v1 as pb;
use daypass_tests::harness::{Deployment, eventually, issue, task};
use rusqlite::Connection;

use super::shards::{closing_at, grow};

/// A running broker with a few issuances, that reads its log again every `every`.
async fn scrubbed(every: Duration) -> Deployment {
    let mut deployment = Deployment::stopped(sample()).await;
    deployment.settings.scrub = Schedule { every, entries_per_s: 1_000_000 };
    deployment.resume().await.unwrap();
    let service = deployment.service().await;
    for _ in 0..4 {
        issue(&service, task("post-invoices")).await.unwrap();
    }
    deployment
}

/// Changes a store that a broker has open.
fn change(deployment: &Deployment, sql: &str) {
    let store = Connection::open(deployment.settings.store.file().unwrap()).unwrap();
    store.busy_timeout(Duration::from_secs(5)).unwrap();
    assert!(store.execute(sql, []).unwrap() > 0, "{sql}");
}

async fn alarm(deployment: &Deployment) -> String {
    let raised = deployment.entry("the alarm", |entry| match &entry.body {
        Body::Alarm(alarm) if alarm.code == "LEAF_MISMATCH" => alarm.detail.clone(),
        _ => None,
    });
    raised.await.1
}

async fn issues_nothing(deployment: &Deployment) {
    let refused = issue(&deployment.service().await, task("post-invoices")).await.unwrap_err();
    assert_eq!((refused.code, refused.reason.as_str()), (tonic::Code::Unavailable, "HALTED"));
    assert!(deployment.broker().log().fault().is_some_and(|why| why.contains("was changed")), "not ready");
}

/// The end that a closed log had when it was shorter: signed, and not the one it was left with.
fn cut_closed(deployment: &Deployment, shorter: &Head) {
    let store = Connection::open(deployment.store()).unwrap();
    store.busy_timeout(Duration::from_secs(5)).unwrap();
    let frontier: Vec<u8> = shorter.frontier.concat();
    let [size, state] = [shorter.size, shorter.state].map(|it| i64::try_from(it).unwrap());
    let end = (size, state, shorter.time.get(), frontier, &shorter.checkpoint);
    let sql = "UPDATE closed SET size = ?1, state = ?2, time_ms = ?3, frontier = ?4, checkpoint = ?5 WHERE shard = 0";
    assert_eq!(store.execute(sql, end).unwrap(), 1);
    store.execute("DELETE FROM entries WHERE idx >= ?1 AND idx < 1 << 40", [size]).unwrap();
}

const V7: &str = "UPDATE entries SET bytes = CAST(replace(CAST(bytes AS TEXT), '\"v\":1', '\"v\":2') AS BLOB) WHERE idx = 7";

const CHANGES: [(&str, &str); 4] = [
    (V7, "entry 7"),
    ("DELETE FROM entries WHERE idx = 7", "entry 7 is missing"),
    (
        "UPDATE entries SET leaf = (SELECT leaf FROM entries WHERE idx = 8), bytes = (SELECT bytes FROM entries WHERE idx = 8) WHERE idx = 7",
        "another root",
    ),
    ("DELETE FROM folds WHERE idx = 1", "entry 1"),
];

#[tokio::test]
async fn the_scrubber_finds_what_was_changed_while_the_broker_runs_and_stops_issuance() {
    for (sql, expected) in CHANGES {
        let mut deployment = scrubbed(Duration::from_millis(50)).await;
        change(&deployment, sql);
        let found = alarm(&deployment).await;
        assert!(found.contains(expected), "{sql}: {found}");
        eventually("issuance stops", || async { deployment.broker().log().fault().is_some() }).await;
        issues_nothing(&deployment).await;
        let origin = deployment.broker().log().published().head.origin.clone();
        let noted = Progress::read(&Progress::file(&deployment.settings.anchor), &[&origin]);
        assert!(noted.damage.is_some(), "a restart reads all of it");
        deployment.stop().await;
        let Err(error) = deployment.resume().await else { panic!("{sql}: it must not serve") };
        assert!(matches!(error, ServeError::Start(StartError::Refused(_))), "{sql}: {error}");
    }
}

#[tokio::test]
async fn a_sound_log_is_scrubbed_again_and_again_and_goes_on() {
    let deployment = scrubbed(Duration::from_millis(20)).await;
    let origin = deployment.broker().log().published().head.origin.clone();
    let done = || Progress::read(&Progress::file(&deployment.settings.anchor), &[&origin]).done_ms;
    let first = done();
    eventually("another pass", || async { done() > first }).await;
    issue(&deployment.service().await, task("post-invoices")).await.unwrap();
    assert_eq!(deployment.broker().log().fault(), None);
}

#[tokio::test]
async fn a_reader_that_meets_a_changed_entry_stops_issuance_at_once() {
    let deployment = scrubbed(Duration::ZERO).await;
    change(&deployment, V7);
    let operator = deployment.operator().await;
    let request = operator.request(pb::ListEntriesRequest { limit: 100, ..Default::default() }).unwrap();
    let answer = operator.evidence().list_entries(request).await;
    let mut served = Vec::new();
    if let Ok(answer) = answer {
        let mut listed = answer.into_inner();
        while let Ok(Some(answer)) = listed.message().await {
            served.push(answer.r#ref.unwrap().index);
        }
    }
    assert!(!served.contains(&7), "{served:?}");
    assert!(alarm(&deployment).await.contains("entry 7"));
    issues_nothing(&deployment).await;
}

#[tokio::test]
async fn what_was_changed_in_a_log_that_is_closed_is_found_too() {
    let cut = ("cut", "is missing");
    for (sql, expected) in CHANGES.into_iter().chain([cut]) {
        let mut deployment = closing_at(150).await;
        let shorter = deployment.broker().log().published().head.as_ref().clone();
        grow(&deployment, 150).await;
        deployment.settings.scrub = Schedule { every: Duration::from_millis(50), entries_per_s: 1_000_000 };
        deployment.turn().await;
        let file = Progress::file(&deployment.settings.anchor);
        let origin = deployment.broker().log().published().head.origin.clone();
        let done = || Progress::read(&file, &[&origin]).done_ms;
        eventually("a pass over both", || async { done().is_some() }).await;
        assert_eq!(deployment.broker().log().fault(), None);
        if (sql, expected) == cut {
            cut_closed(&deployment, &shorter)
        } else {
            change(&deployment, sql)
        }
        let found = alarm(&deployment).await;
        assert!(found.contains(expected) && found.contains(&shorter.origin), "{sql}: {found}");
        eventually("issuance stops", || async { deployment.broker().log().fault().is_some() }).await;
        issues_nothing(&deployment).await;
        deployment.stop().await;
        let Err(error) = deployment.resume().await else { panic!("{sql}: it must not serve") };
        assert!(matches!(error, ServeError::Start(StartError::Refused(_))), "{sql}: {error}");
        let said = error.to_string();
        assert!(said.contains(&shorter.origin), "{sql}: {said}");
        assert_eq!(said.contains("its end is not the one"), (sql, expected) == cut, "{sql}: {said}");
    }
}
