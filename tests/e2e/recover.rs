//! A store that was put back is not served; recovered, it goes on in a new log that says what is missing.

use std::path::{Path, PathBuf};

use daypass_broker::dev::organisation::sample;
use daypass_broker::recover::{Recovered, Recovery, recover};
use daypass_broker::store::sqlite::SqliteStore;
use daypass_core::state::Declaration;
use daypass_evidence::entry::{AlarmState, Body, Change, EndedHow, Entry, LogOpened, ObjectType, OpenReason};
use daypass_proto::v1 as pb;
use daypass_tests::harness::{
    CI, Deployment, NIGHTLY, Output, eventually, issue, program, run, task, token_of,
};

use super::shards::{Log, closing_at, endings, grow, shards};

/// A deployment that issued, was copied, issued more, and was then put back to the copy; what a caller was told last,
/// and the proof that bought the credential that is lost.
struct PutBack {
    deployment: Deployment,
    known: PathBuf,
    spent: String,
    old: LogOpened,
    old_key: String,
    restored: u64,
    declared: Declaration,
}

impl PutBack {
    async fn made() -> Self {
        let mut deployment = Deployment::start().await;
        let answer = issue(&deployment.service().await, task("post-invoices")).await.unwrap();
        let old_key = kid(&answer);
        let declared = declaration(&deployment);
        deployment.stop().await;
        let copy = deployment.copied();
        let restored = SqliteStore::open_reader(&copy.store).unwrap().head().unwrap().unwrap().size;
        deployment.resume().await.unwrap();
        let spent = deployment.organisation.token(CI, NIGHTLY).unwrap();
        let lost = issue(&deployment.bound(spent.clone()).await, task("post-invoices")).await.unwrap();
        let known = deployment.folder().join("known");
        std::fs::write(&known, &lost.receipt.unwrap().checkpoint).unwrap();
        let old = opened(&deployment).await;
        deployment.stop().await;
        std::fs::copy(&copy.store, deployment.settings.store.file().unwrap()).unwrap();
        Self { deployment, known, spent, old, old_key, restored, declared }
    }

    async fn daypass(&self, arguments: &[&str]) -> Output {
        let config = self.deployment.config_file();
        let (command, rest) = arguments.split_first().unwrap();
        let config = config.to_str().unwrap();
        run(program("daypass-broker"), [&[*command, "--config", config], rest].concat()).await
    }
}

/// Since when the nightly run is declared, and when its review is due; where it stands differs from log to log.
fn declaration(deployment: &Deployment) -> Declaration {
    let state = deployment.broker().log().state();
    Declaration { at: 0, ..state.declaration(ObjectType::Identity, NIGHTLY).unwrap().clone() }
}

fn kid(answer: &pb::IssueResponse) -> String {
    let token = token_of(answer);
    let header = token.split('.').next().unwrap();
    let header = base64::Engine::decode(&base64::prelude::BASE64_URL_SAFE_NO_PAD, header).unwrap();
    serde_json::from_slice::<serde_json::Value>(&header).unwrap()["kid"].as_str().unwrap().to_owned()
}

async fn opened(deployment: &Deployment) -> LogOpened {
    match &deployment.entries().await[0].1.body {
        Body::LogOpened(opened) => (**opened).clone(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_restored_backup_is_served_only_after_recover_and_in_a_new_log_that_names_the_gap() {
    let mut put_back = PutBack::made().await;
    let refused = put_back.daypass(&["serve"]).await;
    assert_eq!(refused.code, Some(4), "{refused:?}");
    assert!(refused.stderr.contains("daypass-broker recover"), "{refused:?}");

    let known = put_back.known.to_str().unwrap().to_owned();
    let done = put_back.daypass(&["recover", "--checkpoint", &known]).await;
    assert_eq!(done.code, Some(0), "{done:?}");
    let verified = put_back.daypass(&["verify"]).await;
    assert_eq!(verified.code, Some(0), "{verified:?}");
    assert!(verified.stdout.contains("follows"), "both logs, and their link: {verified:?}");

    put_back.deployment.resume().await.unwrap();
    let deployment = &put_back.deployment;
    let opened = opened(deployment).await;
    let (before, gap) = (opened.predecessor.unwrap(), opened.gap.unwrap());
    assert_eq!((opened.reason, &before.origin), (OpenReason::Recovered, &put_back.old.origin));
    assert_eq!(opened.origin, format!("{}-r2", put_back.old.origin));
    assert_eq!((before.size, gap.from), (put_back.restored, put_back.restored));
    let told = String::from_utf8(std::fs::read(&put_back.known).unwrap()).unwrap();
    let size = told.lines().nth(1).unwrap();
    assert!(gap.note.contains("entries up to"), "{}", gap.note);
    let entries = deployment.entries().await;
    let told = entries.iter().filter_map(|(_, entry)| match &entry.body {
        Body::Alarm(alarm) if alarm.code == "ROLLBACK" => Some(alarm.state),
        _ => None,
    });
    assert_eq!(told.collect::<Vec<_>>(), [AlarmState::Raised, AlarmState::Cleared]);
    assert!(size.parse::<u64>().unwrap() > gap.from && !gap.note.contains("not known;"), "{}", gap.note);

    let carried = deployment.entries().await;
    let carried = carried.iter().filter(|(_, entry)| {
        matches!(&entry.body, Body::RegistryChanged(changed) if changed.change == Change::Carried)
    });
    assert!(carried.count() > 10, "what is declared is carried over");

    assert_eq!(declaration(deployment), put_back.declared, "a recovery puts no review off");

    let answer = issue(&deployment.service().await, task("post-invoices")).await.unwrap();
    assert_ne!(kid(&answer), put_back.old_key);
    let published = deployment.broker().log().state();
    assert!(
        published.keys().keys().all(|key| key.as_str() != put_back.old_key),
        "nobody is told of it any more"
    );
    let again = issue(&deployment.bound(put_back.spent.clone()).await, task("post-invoices")).await;
    assert_eq!(again.unwrap_err().code, tonic::Code::Unauthenticated, "it bought a credential that is lost");
}

#[tokio::test]
async fn what_lived_in_the_old_log_ends_in_the_new_one_by_the_old_ones_name() {
    let mut put_back = PutBack::made().await;
    let old = SqliteStore::open_reader(put_back.deployment.settings.store.file().unwrap()).unwrap();
    let issued = old.rows(0, 1_000).unwrap();
    let issued = issued.iter().find(|row| {
        Entry::read(&row.bytes).is_ok_and(|entry| matches!(entry.body, Body::CredentialIssued(_)))
    });
    let index = issued.unwrap().index;
    drop(old);
    assert_eq!(put_back.daypass(&["recover"]).await.code, Some(0));
    // The recovery ran under another boot than the log before it.
    put_back.deployment.clock.synchronise(true);
    put_back.deployment.resume().await.unwrap();
    put_back.deployment.clock.advance(3_600_000);
    let (_, ended) = put_back
        .deployment
        .entry("its end", |entry| match &entry.body {
            Body::CredentialEnded(ended) if ended.log.is_some() => Some((**ended).clone()),
            _ => None,
        })
        .await;
    assert_eq!(
        (ended.how, ended.log, ended.ended),
        (EndedHow::Expired, Some(put_back.old.origin.clone()), vec![index])
    );
    put_back.deployment.stop().await;
    put_back.deployment.copied().open().unwrap();
}

/// A deployment whose log was closed, with a credential of each, put back to a copy that has both.
async fn put_back_after_a_turn() -> Deployment {
    let mut deployment = closing_at(150).await;
    issue(&deployment.service().await, task("post-invoices")).await.unwrap();
    grow(&deployment, 120).await;
    deployment.turn().await;
    issue(&deployment.service().await, task("post-invoices")).await.unwrap();
    lose_one(&mut deployment).await;
    deployment
}

/// Issues a credential that the store then does not know any more.
async fn lose_one(deployment: &mut Deployment) {
    deployment.stop().await;
    let copy = deployment.copied();
    deployment.resume().await.unwrap();
    issue(&deployment.service().await, task("post-invoices")).await.unwrap();
    deployment.stop().await;
    std::fs::copy(&copy.store, deployment.store()).unwrap();
}

#[tokio::test]
async fn what_lived_in_any_log_of_the_lost_store_ends_once_however_often_it_is_recovered() {
    let mut deployment = put_back_after_a_turn().await;
    let mut logs = shards(&deployment.settings.store);
    let family = logs_named(&logs)[0].clone();
    assert_eq!(recover_here(&deployment).await.carried.live, 2);
    deployment.resume().await.unwrap();
    issue(&deployment.service().await, task("post-invoices")).await.unwrap();
    lose_one(&mut deployment).await;
    logs.extend(shards(&deployment.settings.store));
    let recovered = recover_here(&deployment).await;
    assert_eq!(recovered.carried.live, 3);
    deployment.resume().await.unwrap();
    deployment.clock.advance(3_600_000);
    let store = deployment.settings.store.clone();
    eventually("all ends", || async { store.reader().unwrap().live().unwrap() == 0 }).await;
    deployment.stop().await;
    logs.extend(shards(&deployment.settings.store));
    let ends = endings(&logs);
    assert_eq!(ends.len(), 3, "{ends:?}");
    assert!(ends.values().all(|times| *times == 1), "{ends:?}");
    let named = logs_named(&logs);
    assert_eq!(named, ["", "-2", "-r2", "-r3"].map(|suffix| format!("{family}{suffix}")));
    let Body::LogOpened(opened) = &logs[3].0[0].body else { panic!("it is not opened") };
    assert_eq!(opened.earlier, [named[0].clone(), named[1].clone()]);
    deployment.copied().open().unwrap();
}

fn logs_named(logs: &[Log]) -> Vec<String> {
    let origin = |entry: &Entry| match &entry.body {
        Body::LogOpened(opened) => Some(opened.origin.clone()),
        _ => None,
    };
    logs.iter().filter_map(|(entries, ..)| origin(entries.first()?)).collect()
}

/// Recovers in the test's own time, where the test says when its machine booted.
pub(crate) async fn recover_here(deployment: &Deployment) -> Recovered {
    let recovery = Recovery {
        trust_domain: deployment.settings.trust_domain.clone(),
        broker: deployment.settings.broker.clone(),
        store: &deployment.settings.store,
        kek: &deployment.settings.kek,
        lifetimes: deployment.settings.lifetimes,
        anchor: &deployment.settings.anchor,
        checkpoints: Vec::new(),
        forked: false,
        clock: deployment.settings.clock.clone(),
    };
    recover(&recovery).await.unwrap()
}

#[tokio::test]
async fn what_held_endings_holds_them_after_a_recovery_too() {
    for rebooted in [false, true] {
        let mut put_back = PutBack::made().await;
        if rebooted {
            put_back.deployment.clock.reboot();
        }
        let recovered = recover_here(&put_back.deployment).await;
        assert_eq!(recovered.carried.held, rebooted);
        put_back.deployment.resume().await.unwrap();
        let deployment = &put_back.deployment;
        deployment.clock.advance(3_600_000);
        let over = || async {
            let entries = deployment.entries().await;
            entries.iter().any(|(_, it)| matches!(&it.body, Body::CredentialEnded(it) if it.log.is_some()))
        };
        if rebooted {
            // A sweep is asked for each second.
            tokio::time::sleep(std::time::Duration::from_millis(2_500)).await;
            assert!(!over().await, "nothing tells yet that the clock is right");
            deployment.clock.synchronise(true);
        }
        let ended = || async {
            let alarms = deployment.broker().log().state();
            over().await && !alarms.alarms().any(|(_, alarm)| alarm.code == "CLOCK")
        };
        eventually("they end, and no alarm stands", ended).await;
    }
}

#[tokio::test]
async fn nothing_is_recovered_while_a_broker_runs_nor_where_nothing_is_missing() {
    let mut deployment = Deployment::start().await;
    issue(&deployment.service().await, task("post-invoices")).await.unwrap();
    let config = deployment.config_file();
    let recover = || run(program("daypass-broker"), ["recover", "--config", config.to_str().unwrap()]);
    let refused = recover().await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("stop the broker first"), "{refused:?}");
    issue(&deployment.service().await, task("post-invoices")).await.unwrap();
    deployment.stop().await;
    let refused = recover().await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("nothing is missing"), "{refused:?}");
    deployment.resume().await.unwrap();
    issue(&deployment.service().await, task("post-invoices")).await.unwrap();
}

#[tokio::test]
async fn a_backup_taken_under_load_is_whole_and_never_overwrites() {
    let deployment = Deployment::start_with(sample(), |_| {}).await;
    let service = deployment.service().await;
    let load = tokio::spawn(async move {
        loop {
            issue(&service, task("post-invoices")).await.unwrap();
        }
    });
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    let config = deployment.config_file();
    let to = deployment.folder().join("backup");
    let backup = |to: &Path| {
        let to = to.to_str().unwrap().to_owned();
        let config = config.to_str().unwrap().to_owned();
        async move { run(program("daypass-broker"), ["backup", "--config", &config, "--to", &to]).await }
    };
    let done = backup(&to).await;
    assert_eq!(done.code, Some(0), "{done:?}");
    load.abort();
    assert!(done.stdout.contains("/evidence/"), "its checkpoint: {done:?}");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&to).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let before = std::fs::read(&to).unwrap();
    assert_eq!(backup(&to).await.code, Some(1), "there is one already");
    assert!(std::fs::read(&to).unwrap() == before);
    let verified = run(program("daypass-broker"), ["verify", "--store", to.to_str().unwrap()]).await;
    assert_eq!(verified.code, Some(0), "{verified:?}");
}

#[tokio::test]
async fn of_a_store_in_postgresql_backup_says_what_to_use_instead() {
    let deployment = Deployment::start().await;
    let text = std::fs::read_to_string(deployment.config_file()).unwrap();
    let path = format!("path = {:?}", deployment.settings.store.file().unwrap());
    let url = "url = \"postgresql://daypass@127.0.0.1:1/daypass\"\nplaintext = true";
    let config = deployment.folder().join("postgres.toml");
    std::fs::write(&config, text.replacen(&path, url, 1)).unwrap();
    let (config, to) = (config.to_str().unwrap(), deployment.folder().join("backup"));
    let refused =
        run(program("daypass-broker"), ["backup", "--config", config, "--to", to.to_str().unwrap()]).await;
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.stderr.contains("pg_basebackup") && !to.exists(), "{refused:?}");
}
