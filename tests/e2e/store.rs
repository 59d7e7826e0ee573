//! A store that was changed behind the broker's back is found, and nothing is signed on it.

use daypass_broker::log::{RecordError, StartError};
use daypass_broker::serve::ServeError;
use daypass_evidence::audit::FindingCode;
use daypass_evidence::entry::Body;
use daypass_proto::v1 as pb;
use daypass_tests::harness::{Copied, Deployment, issue, program, run, task};
use rusqlite::Connection;

/// A stopped broker with a few issuances in its log.
async fn used() -> Deployment {
    let mut deployment = Deployment::start().await;
    let service = deployment.service().await;
    for _ in 0..8 {
        issue(&service, task("post-invoices")).await.unwrap();
    }
    deployment.stop().await;
    deployment
}

fn found(copy: &Copied) -> Vec<(FindingCode, String)> {
    match copy.open() {
        Ok(_) => Vec::new(),
        Err(ServeError::Start(StartError::Refused(report))) => {
            report.findings.iter().map(|finding| (finding.code, finding.to_string())).collect()
        }
        Err(other) => panic!("{other}"),
    }
}

async fn exit_code(copy: &Copied, deployment: &Deployment) -> Option<i32> {
    let key = deployment.log_key.to_string();
    let (store, anchor) = (copy.store.to_str().unwrap(), copy.anchor.to_str().unwrap());
    run(program("daypass-broker"), ["verify", "--store", store, "--anchor", anchor, "--key", &key]).await.code
}

type Change = fn(&Connection) -> rusqlite::Result<()>;

/// Runs this text; the entry in the middle is `(SELECT max(idx) / 2 FROM entries)`.
fn sql(connection: &Connection, text: &str) -> rusqlite::Result<()> {
    connection.execute_batch(&text.replace("MIDDLE", "(SELECT max(idx) / 2 FROM entries)"))
}

const CHANGES: [(&str, FindingCode, Change); 10] = [
    ("one byte of an entry changed", FindingCode::LeafMismatch, |store| {
        sql(
            store,
            "UPDATE entries SET bytes = CAST(replace(CAST(bytes AS TEXT), '\"time\":1', '\"time\":2') AS BLOB) WHERE idx = MIDDLE",
        )
    }),
    ("an entry and its leaf hash changed", FindingCode::RootMismatch, |store| {
        let index: i64 = store.query_row("SELECT max(idx) / 2 FROM entries", [], |row| row.get(0))?;
        let bytes: Vec<u8> =
            store.query_row("SELECT bytes FROM entries WHERE idx = ?1", [index], |row| row.get(0))?;
        let bytes = String::from_utf8(bytes)
            .unwrap()
            .replacen("\"broker\":\"b1\"", "\"broker\":\"b2\"", 1)
            .into_bytes();
        let leaf = daypass_evidence::tree::leaf_hash(&bytes).to_vec();
        store
            .execute("UPDATE entries SET bytes = ?1, leaf = ?2 WHERE idx = ?3", (bytes, leaf, index))
            .map(drop)
    }),
    ("a leaf hash changed", FindingCode::LeafMismatch, |store| {
        sql(store, "UPDATE entries SET leaf = zeroblob(32) WHERE idx = MIDDLE")
    }),
    ("an entry removed", FindingCode::Missing, |store| sql(store, "DELETE FROM entries WHERE idx = MIDDLE")),
    ("two entries swapped", FindingCode::RootMismatch, |store| {
        sql(
            store,
            "UPDATE entries SET idx = -1 WHERE idx = 14; UPDATE entries SET idx = 14 WHERE idx = 15;
             UPDATE entries SET idx = 15 WHERE idx = -1",
        )
    }),
    ("the last entry cut off", FindingCode::Truncated, |store| {
        sql(store, "DELETE FROM entries WHERE idx = (SELECT max(idx) FROM entries)")
    }),
    ("the last tenth cut off", FindingCode::Truncated, |store| {
        sql(store, "DELETE FROM entries WHERE idx > (SELECT max(idx) * 9 / 10 FROM entries)")
    }),
    ("an entry added at the end", FindingCode::RootMismatch, |store| {
        sql(store, "INSERT INTO entries SELECT idx + 1, leaf, bytes FROM entries ORDER BY idx DESC LIMIT 1")
    }),
    ("the head's checkpoint changed", FindingCode::RootMismatch, |store| {
        sql(
            store,
            "UPDATE head SET checkpoint = CAST(replace(CAST(checkpoint AS TEXT), char(10), char(10) || '1') AS BLOB)",
        )
    }),
    ("the head's frontier changed", FindingCode::RootMismatch, |store| {
        sql(store, "UPDATE head SET frontier = zeroblob(length(frontier))")
    }),
];

#[tokio::test]
async fn a_store_that_was_changed_is_refused_and_the_change_is_named() {
    let deployment = used().await;
    assert_eq!(found(&deployment.copied()), [], "as it was left");
    assert_eq!(exit_code(&deployment.copied(), &deployment).await, Some(0), "as it was left");
    for (what, code, change) in CHANGES {
        let copy = deployment.copied();
        copy.change(change);
        let findings = found(&copy);
        assert!(findings.iter().any(|(found, _)| *found == code), "{what}: {findings:?}");
        assert_eq!(exit_code(&copy, &deployment).await, Some(4), "{what}");
    }
}

#[tokio::test]
async fn a_changed_entry_is_named_by_its_index() {
    let deployment = used().await;
    let copy = deployment.copied();
    copy.change(|store| {
        sql(store, "UPDATE entries SET bytes = CAST(CAST(bytes AS TEXT) || ' ' AS BLOB) WHERE idx = 17")
    });
    let findings = found(&copy);
    let (_, text) = findings.iter().find(|(code, _)| *code == FindingCode::LeafMismatch).unwrap();
    assert!(text.contains("17"), "{text}");
}

#[tokio::test]
async fn an_older_copy_of_the_store_is_found_by_the_anchor() {
    let mut deployment = used().await;
    let older = deployment.copied();
    deployment.resume().await.unwrap();
    issue(&deployment.service().await, task("post-invoices")).await.unwrap();
    deployment.stop().await;
    let copy = deployment.copied();
    copy.put_back(&older.store);
    let findings = found(&copy);
    let went_back = [FindingCode::Truncated, FindingCode::SplitView];
    assert!(findings.iter().any(|(code, _)| went_back.contains(code)), "{findings:?}");
    assert_eq!(exit_code(&copy, &deployment).await, Some(4));

    std::fs::copy(&older.store, deployment.store()).unwrap();
    let Err(error) = deployment.resume().await else { panic!("it must not serve") };
    assert!(matches!(error, ServeError::Start(StartError::Refused(_))), "{error}");
}

#[tokio::test]
async fn a_log_that_went_another_way_is_a_split_view() {
    let mut deployment = used().await;
    let fork = deployment.copied();
    deployment.resume().await.unwrap();
    issue(&deployment.service().await, task("post-invoices")).await.unwrap();
    deployment.stop().await;
    let one = deployment.copied();

    std::fs::copy(&fork.store, deployment.store()).unwrap();
    std::fs::copy(&fork.anchor, &deployment.settings.anchor).unwrap();
    deployment.resume().await.unwrap();
    let service = deployment.service().await;
    for _ in 0..8 {
        issue(&service, task("post-invoices")).await.unwrap();
    }
    deployment.stop().await;
    let other = deployment.copied();
    assert_eq!(found(&other), [], "each for itself is whole");
    one.put_back(&other.store);
    let findings = found(&one);
    assert!(findings.iter().any(|(code, _)| *code == FindingCode::SplitView), "{findings:?}");
}

#[tokio::test]
async fn the_program_does_not_serve_what_was_changed() {
    let deployment = used().await;
    let config = deployment.config_file();
    std::fs::remove_file(&deployment.settings.anchor).unwrap();
    deployment.change(|store| sql(store, "DELETE FROM entries WHERE idx = 12"));
    for command in ["verify", "serve"] {
        let ended = run(program("daypass-broker"), [command, "--config", config.to_str().unwrap()]).await;
        assert_eq!(ended.code, Some(4), "{command}: {ended:?}");
        assert!(format!("{}{}", ended.stdout, ended.stderr).contains("MISSING"), "{command}: {ended:?}");
    }
}

#[tokio::test]
async fn a_restart_goes_on_with_the_same_log_and_says_how_the_last_run_ended() {
    let mut deployment = used().await;
    let before = deployment.copied().open().unwrap().started.head;
    deployment.resume().await.unwrap();
    assert_eq!(deployment.broker().log().published().head.origin, before.origin);
    let entries = deployment.entries().await;
    let (index, started) = entries
        .iter()
        .find_map(|(index, entry)| match &entry.body {
            daypass_evidence::entry::Body::BrokerStarted(started) if *index >= before.size => {
                Some((*index, started))
            }
            _ => None,
        })
        .unwrap();
    assert_eq!(index, before.size);
    let previous = started.previous.as_ref().unwrap();
    assert_eq!((previous.index, previous.clean), (before.size - 1, true));
    for (kind, version) in daypass_evidence::entry::KINDS {
        assert_eq!(started.reads.get(*kind), Some(version), "it reads `{kind}`");
    }
    for (_, entry) in &entries {
        let reads = started.reads.get(&entry.envelope.kind);
        assert!(reads.is_some_and(|newest| entry.envelope.v <= *newest), "{}", entry.envelope.kind);
    }
    issue(&deployment.service().await, task("post-invoices")).await.unwrap();
    deployment.stop().await;
    assert!(deployment.copied().open().unwrap().started.report.is_clean());
}

#[tokio::test]
async fn a_caller_that_knows_a_later_checkpoint_stops_a_broker_that_was_put_back() {
    let mut deployment = used().await;
    let older = deployment.copied();
    deployment.resume().await.unwrap();
    let service = deployment.service().await;
    let mut known = Vec::new();
    for _ in 0..8 {
        known = issue(&service, task("post-invoices")).await.unwrap().receipt.unwrap().checkpoint.to_vec();
    }
    deployment.stop().await;
    std::fs::copy(&older.store, deployment.store()).unwrap();
    std::fs::copy(&older.anchor, &deployment.settings.anchor).unwrap();
    deployment.resume().await.unwrap();
    let service = deployment.service().await;
    issue(&service, task("post-invoices")).await.expect("nobody has told it yet");
    let wanted = pb::IssueRequest { known_checkpoint: known.into(), ..task("post-invoices") };
    let refused = issue(&service, wanted).await.unwrap_err();
    assert_eq!((refused.code, refused.reason.as_str()), (tonic::Code::Unavailable, "ROLLBACK"));
    let refused = issue(&service, task("post-invoices")).await.unwrap_err();
    assert_eq!(refused.reason, "ROLLBACK", "and for everybody else from then on");
    let broken = deployment.broker().log().halt().broken();
    assert!(matches!(broken.as_deref(), Some(RecordError::Rollback(_))), "{broken:?}");
    let alarms = |body: &Body| matches!(body, Body::Alarm(alarm) if alarm.code == "ROLLBACK");
    let told = deployment.entries().await.iter().any(|(_, entry)| alarms(&entry.body));
    assert!(!told, "no entry may follow those that callers hold");
}

#[tokio::test]
async fn a_checkpoint_by_another_key_stops_nobody() {
    let deployment = Deployment::start().await;
    let service = deployment.service().await;
    let pkcs8 = ring::signature::Ed25519KeyPair::generate_pkcs8(&ring::rand::SystemRandom::new()).unwrap();
    let key = ring::signature::Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
    let origin = deployment.broker().log().published().head.origin.clone();
    let forged = daypass_evidence::checkpoint::Checkpoint { origin, size: 1_000_000, root: [7; 32] };
    let wanted =
        pb::IssueRequest { known_checkpoint: forged.sign(&key).unwrap().into(), ..task("post-invoices") };
    assert_eq!(issue(&service, wanted).await.unwrap_err().reason, "MALFORMED");
    issue(&service, task("post-invoices")).await.unwrap();
}
