//! Logs that follow each other: all that holds goes over, nothing is lost, and each stands alone.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use daypass_broker::clock::Clock as _;
use daypass_broker::dev::caller::Caller;
use daypass_broker::dev::organisation::sample;
use daypass_broker::init::shard;
use daypass_broker::log::Attached;
use daypass_broker::store::StoreAt;
use daypass_evidence::audit::Audit;
use daypass_evidence::checkpoint::Checkpoint;
use daypass_evidence::entry::{Alarm, AlarmState, Body, Change, EndedHow, Entry, NewEntry, OpenReason};
use daypass_sdk::IssueRequest;
use daypass_tests::harness::postgres::Postgres;
use daypass_tests::harness::{
    CI, Deployment, NIGHTLY, Output, free_port, issue, nightly, program, python, run, task,
};
use daypass_verify::time::UnixMs;

/// A deployment whose log goes on in another one at so many entries.
pub(crate) async fn closing_at(entries: u64) -> Deployment {
    let mut deployment = Deployment::stopped(sample()).await;
    deployment.settings.turns.entries = entries;
    deployment.resume().await.unwrap();
    deployment
}

pub(crate) async fn grow(deployment: &Deployment, entries: usize) {
    let desk = &deployment.broker().desk;
    let entry = || NewEntry {
        id: desk.ids.draw(desk.clock.now()).unwrap(),
        request: None,
        by: None,
        body: Alarm { code: "A_TEST".into(), state: AlarmState::Raised, raised: None, detail: None }.into(),
    };
    desk.log.append((0..entries).map(|_| entry()).collect(), Attached::default()).await.unwrap();
}

/// The entries of a log, their bytes, and its checkpoint.
pub(crate) type Log = (Vec<Entry>, Vec<Vec<u8>>, Vec<u8>);

/// The logs in a store.
pub(crate) fn shards(store: &StoreAt) -> Vec<Log> {
    let newest = store.reader().unwrap().head().unwrap().unwrap().shard;
    let read = |shard| {
        let reader = store.shard(shard).unwrap();
        let bytes: Vec<_> = reader.rows(0, u32::MAX).unwrap().into_iter().map(|row| row.bytes).collect();
        let entries = bytes.iter().map(|bytes| Entry::read(bytes).unwrap()).collect();
        (entries, bytes, reader.head().unwrap().unwrap().checkpoint)
    };
    (0..=newest).map(read).collect()
}

async fn daypass_broker(arguments: &[&str]) -> Output {
    run(program("daypass-broker"), arguments.iter().copied()).await
}

#[tokio::test]
async fn a_full_log_goes_on_in_the_next_with_all_that_holds() {
    let mut deployment = closing_at(150).await;
    let spent = deployment.organisation.token(CI, NIGHTLY).unwrap();
    let before = issue(&deployment.bound(spent.clone()).await, task("post-invoices")).await.unwrap();
    let (old, keys) = {
        let state = deployment.broker().log().state();
        (state.origin().unwrap().to_owned(), state.keys().clone())
    };
    grow(&deployment, 120).await;
    deployment.turn().await;
    let state = deployment.broker().log().state();
    assert_eq!(state.origin(), Some(format!("{old}-2").as_str()));
    assert_eq!(state.keys(), &keys, "the same keys with the same times");
    let again = issue(&deployment.bound(spent).await, task("post-invoices")).await.unwrap_err();
    assert_eq!(again.reason, "PROOF_REPLAYED", "its mark is spent in the new log too");
    let after = issue(&deployment.job().await, task("post-invoices")).await.unwrap();
    let receipt = after.receipt.unwrap();
    assert_eq!(receipt.entry.as_ref().unwrap().log, format!("{old}-2"));
    // A caller shows what it keeps of the log before.
    let known = before.receipt.unwrap().checkpoint;
    let mut wanted = task("post-invoices");
    wanted.known_checkpoint = known;
    wanted.supersedes = before.credential_id;
    issue(&deployment.job().await, wanted).await.unwrap();
    deployment.stop().await;

    let logs = shards(&deployment.settings.store);
    assert_eq!(logs.len(), 2);
    let Body::LogClosed(closed) = &logs[0].0.last().unwrap().body else { panic!("it is not closed") };
    assert_eq!((closed.successor.clone(), closed.live), (format!("{old}-2"), 1));
    let Body::LogOpened(opened) = &logs[1].0[0].body else { panic!("it is not opened") };
    let named = opened.predecessor.as_ref().unwrap();
    let size = u64::try_from(logs[0].1.len()).unwrap();
    assert_eq!((opened.reason, &named.origin, named.size), (OpenReason::Period, &old, size));
    let carried = logs[1].0.iter().filter(
        |entry| matches!(&entry.body, Body::RegistryChanged(changed) if changed.change == Change::Carried),
    );
    assert!(carried.count() > 10, "what is declared is said again");
    let config = deployment.config_file();
    let verified = daypass_broker(&["verify", "--config", config.to_str().unwrap()]).await;
    assert_eq!(verified.code, Some(0), "{verified:?}");
    assert!(verified.stdout.contains(&format!("the newer log follows `{old}`")), "{verified:?}");
}

#[tokio::test]
async fn a_stranger_verifies_each_log_alone_with_either_verifier() {
    let mut deployment = closing_at(150).await;
    for _ in 0..2 {
        issue(&deployment.service().await, task("post-invoices")).await.unwrap();
        grow(&deployment, 120).await;
        deployment.turn().await;
    }
    issue(&deployment.service().await, task("post-invoices")).await.unwrap();
    deployment.stop().await;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/verifier/verify.py");
    let logs = shards(&deployment.settings.store);
    assert_eq!(logs.len(), 3);
    for (entries, bytes, note) in logs {
        let Body::LogOpened(opened) = &entries[0].body else { panic!("it is not opened") };
        let key = opened.key.parse().unwrap();
        assert_eq!(
            Some(&key),
            deployment.log_key.of_shard(&opened.origin).as_ref(),
            "one key, and each its name"
        );
        let checkpoint = Checkpoint::open(&note, &key).unwrap();
        let mut audit = Audit::new();
        bytes.iter().for_each(|bytes| audit.entry(bytes));
        let report = audit.finish(Some(&checkpoint));
        assert!(report.is_clean(), "{:?}", report.findings);
        let path = |name: &str| deployment.folder().join(name);
        std::fs::write(path("entries"), bytes.join(&b'\n')).unwrap();
        std::fs::write(path("checkpoint"), &note).unwrap();
        let (lines, note, vkey) = (path("entries"), path("checkpoint"), opened.key.clone());
        let arguments = [script, lines.to_str().unwrap(), note.to_str().unwrap(), &vkey];
        let verified = run(python(), arguments).await;
        assert_eq!(verified.code, Some(0), "{verified:?}");
    }
}

const DAY_MS: i64 = 86_400_000;

/// How long it is until another half-year begins, and its name.
fn next_half_year(now: UnixMs) -> (i64, String) {
    let midnight = now.get().div_euclid(DAY_MS) * DAY_MS;
    let mut mornings = (1..).map(|day| UnixMs::new(midnight + day * DAY_MS));
    let first = mornings.find(|morning| shard(*morning) != shard(now)).unwrap();
    (first.millis_since(now), shard(first))
}

fn origin(deployment: &Deployment) -> String {
    deployment.broker().log().state().origin().unwrap().to_owned()
}

#[tokio::test]
async fn each_half_year_has_a_log_of_its_own_from_its_first_minute_on() {
    let mut deployment = Deployment::start().await;
    deployment.stop().await;
    let (left_ms, next) = next_half_year(deployment.clock.now());
    deployment.clock.advance(left_ms - 60_000);
    deployment.settings.turns.half_years = true;
    deployment.resume().await.unwrap();
    let old = origin(&deployment);
    let first = issue(&deployment.service().await, task("post-invoices")).await.unwrap();
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert!(!deployment.broker().log().over().is_cancelled(), "its half-year is not over");
    deployment.clock.advance(90_000);
    deployment.turn().await;
    let (family, _) = old.rsplit_once('/').unwrap();
    assert_eq!(origin(&deployment), format!("{family}/{next}"));
    issue(&deployment.service().await, task("post-invoices")).await.unwrap();
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert!(!deployment.broker().log().over().is_cancelled(), "it turns once");
    deployment.clock.advance(3_600_000);
    let ended = first.receipt.as_ref().unwrap().entry.clone().unwrap();
    deployment
        .entry("the end of what the log before issued", |entry| match &entry.body {
            Body::CredentialEnded(it) => {
                (it.log.as_ref() == Some(&ended.log) && it.ended == [ended.index]).then_some(())
            }
            _ => None,
        })
        .await;
    deployment.stop().await;
    let (config, held) = (deployment.config_file(), [first.credential_id]);
    assert_eq!(assert_whole(&deployment, &config, &held).await, 2);
}

#[tokio::test]
async fn a_clock_in_doubt_begins_no_half_year() {
    let mut deployment = Deployment::start().await;
    let old = origin(&deployment);
    let (left_ms, next) = next_half_year(deployment.clock.now());
    deployment.stop().await;
    deployment.clock.reboot();
    deployment.clock.advance(left_ms + 60_000);
    deployment.settings.turns.half_years = true;
    deployment.resume().await.unwrap();
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert!(!deployment.broker().log().over().is_cancelled());
    assert_eq!(origin(&deployment), old);
    deployment.clock.synchronise(true);
    deployment.turn().await;
    assert!(origin(&deployment).ends_with(&format!("/{next}")), "a second source agrees");
}

/// How often each issuance of each log was ended, in whichever log.
pub(super) fn endings(logs: &[Log]) -> BTreeMap<(String, u64), usize> {
    let mut ends = BTreeMap::new();
    let mut origin = String::new();
    for (entries, ..) in logs {
        for (index, entry) in (0..).zip(entries) {
            match &entry.body {
                Body::LogOpened(opened) => origin.clone_from(&opened.origin),
                Body::CredentialIssued(_) => drop(ends.insert((origin.clone(), index), 0)),
                Body::CredentialEnded(ended) => {
                    let of = ended.log.clone().unwrap_or_else(|| origin.clone());
                    for index in &ended.ended {
                        *ends.get_mut(&(of.clone(), *index)).expect("what ends was issued") += 1;
                    }
                }
                Body::CredentialSettled(settled) => {
                    let of = settled.log.clone().unwrap_or_else(|| origin.clone());
                    let void = settled.void.iter().map(|(index, _)| *index);
                    void.for_each(|index| *ends.get_mut(&(of.clone(), index)).unwrap() += 1);
                }
                _ => {}
            }
        }
    }
    ends
}

#[tokio::test]
async fn what_was_issued_before_the_turn_ends_exactly_once_after_it() {
    let mut deployment = closing_at(150).await;
    for _ in 0..3 {
        issue(&deployment.service().await, task("post-invoices")).await.unwrap();
    }
    grow(&deployment, 120).await;
    deployment.turn().await;
    issue(&deployment.service().await, task("post-invoices")).await.unwrap();
    grow(&deployment, 120).await;
    deployment.turn().await;
    issue(&deployment.service().await, task("post-invoices")).await.unwrap();
    deployment.clock.advance(3_600_000);
    deployment
        .entry("the ends", |entry| match &entry.body {
            Body::CredentialEnded(ended) if ended.how == EndedHow::Expired && ended.log.is_none() => Some(()),
            _ => None,
        })
        .await;
    deployment.stop().await;
    let ends = endings(&shards(&deployment.settings.store));
    assert_eq!(ends.len(), 5);
    assert!(ends.values().all(|times| *times == 1), "{ends:?}");
    assert_eq!(ends.keys().map(|(log, _)| log).collect::<BTreeSet<_>>().len(), 3, "of three logs");
    assert_eq!(deployment.settings.store.reader().unwrap().live().unwrap(), 0);
}

#[tokio::test]
async fn a_client_that_trusted_the_first_log_goes_on_with_the_next_and_not_back() {
    let mut deployment = Deployment::stopped(sample()).await;
    deployment.settings.turns.entries = 150;
    deployment.settings.api.address.set_port(free_port());
    deployment.resume().await.unwrap();
    let client = deployment.sdk();
    let request = || IssueRequest::token("post-invoices".parse().unwrap());
    let first = client.issue(request()).await.unwrap().receipt;
    grow(&deployment, 120).await;
    deployment.turn().await;
    let next = client.issue(request()).await.unwrap().receipt;
    assert_ne!(first.checkpoint.origin, next.checkpoint.origin);
    client.prove_inclusion(next.leaf, next.index).await.unwrap();
    assert!(client.prove_inclusion(first.leaf, first.index).await.is_err(), "that is in the log before");
}

#[tokio::test]
async fn a_store_that_was_put_back_to_before_the_turn_is_found() {
    let mut deployment = closing_at(150).await;
    deployment.stop().await;
    let older = deployment.copied();
    deployment.resume().await.unwrap();
    grow(&deployment, 120).await;
    deployment.turn().await;
    let known =
        issue(&deployment.job().await, task("post-invoices")).await.unwrap().receipt.unwrap().checkpoint;
    deployment.stop().await;
    let newer = deployment.copied();
    newer.put_back(&older.store);
    let Err(refused) = newer.open() else { panic!("it is served") };
    assert!(refused.to_string().contains("ROLLBACK"), "{refused}");

    // Without its anchor, whoever holds a checkpoint of the newer log tells.
    std::fs::copy(&older.store, deployment.store()).unwrap();
    std::fs::remove_file(&deployment.settings.anchor).unwrap();
    deployment.settings.turns.entries = 0;
    deployment.resume().await.unwrap();
    let mut wanted = task("post-invoices");
    wanted.known_checkpoint = known;
    let refused = issue(&deployment.job().await, wanted).await.unwrap_err();
    assert_eq!(refused.reason, "ROLLBACK");
}

/// A program that serves; killed where it is dropped.
struct Serving(Child);

impl Serving {
    fn start(config: &Path) -> Self {
        let mut command = Command::new(program("daypass-broker"));
        let said =
            std::fs::File::options().create(true).append(true).open(config.with_extension("said")).unwrap();
        command.args(["serve", "--config"]).arg(config).stdin(Stdio::null()).stderr(said);
        Self(command.spawn().unwrap())
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A configuration of the same deployment under another name and on ports of its own, and its port for callers.
fn configured(deployment: &Deployment, name: &str, shard_entries: u64) -> (PathBuf, u16) {
    let api = free_port();
    let listen = |port: u16| format!("listen = \"127.0.0.1:{port}\"");
    let anchor = format!("anchor = {:?}", deployment.settings.anchor);
    let own = |what: &str| deployment.folder().join(format!("{name}.{what}"));
    let mut text = std::fs::read_to_string(deployment.config_file()).unwrap();
    for (before, after) in [
        ("[broker]\n".to_owned(), format!("[broker]\nname = \"{name}\"\n")),
        (anchor, format!("anchor = {:?}", own("anchor"))),
        (format!("[api]\n{}", listen(0)), format!("[api]\n{}", listen(api))),
    ] {
        assert!(text.contains(&before), "{before}");
        text = text.replacen(&before, &after, 1);
    }
    let socket = own("socket");
    text += &format!("[log]\nshard_entries = {shard_entries}\n[emergency]\nsocket = {socket:?}\n");
    std::fs::write(own("toml"), text).unwrap();
    (own("toml"), api)
}

/// Callers that ask any of the brokers, whoever answers, and keep what they receive.
async fn ask(deployment: Arc<Deployment>, ports: Vec<u16>, over: Arc<AtomicBool>) -> Vec<String> {
    let mut held = Vec::new();
    let certificate = deployment.workload(NIGHTLY);
    while !over.load(Ordering::Relaxed) {
        for port in &ports {
            let Ok(caller) = Caller::connect(*port, &deployment.listener_ca, Some(&certificate)).await else {
                continue;
            };
            while !over.load(Ordering::Relaxed) {
                match issue(&caller, task("post-invoices")).await {
                    Ok(answer) => held.push(answer.credential_id),
                    Err(_) => break,
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    held
}

/// All that callers hold is in one of the logs, and each log and each link verifies.
pub(super) async fn assert_whole(deployment: &Deployment, config: &Path, held: &[String]) -> usize {
    let logs = shards(&deployment.settings.store);
    let issued: Vec<String> = logs
        .iter()
        .flat_map(|(entries, ..)| entries)
        .filter(|entry| matches!(entry.body, Body::CredentialIssued(_)))
        .map(|entry| entry.envelope.id.to_string())
        .collect();
    let once: BTreeSet<&String> = issued.iter().collect();
    assert_eq!(once.len(), issued.len(), "nothing is recorded twice");
    let lost: Vec<_> = held.iter().filter(|credential| !once.contains(credential)).collect();
    assert!(lost.is_empty(), "callers hold {lost:?}, and no log has them");
    assert!(endings(&logs).values().all(|times| *times <= 1));
    let verified = daypass_broker(&["verify", "--config", config.to_str().unwrap()]).await;
    let broken = ["MISMATCH", "MISSING", "MALFORMED", "TRUNCATED", "WRONG_LOG", "REPLAYED", "SPLIT"];
    let said = format!("{}{}", verified.stdout, verified.stderr);
    assert!(!broken.iter().any(|code| said.contains(code)), "{verified:?}");
    logs.len()
}

async fn under_load(
    deployment: Deployment,
    brokers: Vec<(PathBuf, u16)>,
    disturb: impl AsyncFn(&mut Vec<Serving>, &[(PathBuf, u16)]),
) {
    let deployment = Arc::new(deployment);
    let mut serving: Vec<_> = brokers.iter().map(|(config, _)| Serving::start(config)).collect();
    let over = Arc::new(AtomicBool::new(false));
    let ports: Vec<u16> = brokers.iter().map(|(_, port)| *port).collect();
    let rotated = (0..4).map(|n| ports.iter().cycle().skip(n).take(ports.len()).copied().collect());
    let callers: Vec<_> =
        rotated.map(|ports| tokio::spawn(ask(Arc::clone(&deployment), ports, Arc::clone(&over)))).collect();
    disturb(&mut serving, &brokers).await;
    over.store(true, Ordering::Relaxed);
    let mut held = Vec::new();
    for caller in callers {
        held.extend(caller.await.unwrap());
    }
    drop(serving);
    let logs = assert_whole(&deployment, &brokers[0].0, &held).await;
    assert!(logs >= 4 && held.len() > 50, "{logs} logs, {} credentials", held.len());
}

async fn until_shard(store: &StoreAt, shard: u32) {
    for _ in 0..2_400 {
        let found = store.reader().ok().and_then(|reader| reader.head().ok()?);
        if found.is_some_and(|head| head.shard >= shard) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("shard {shard} is not reached within a minute");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_at_the_turn_under_load_and_kills() {
    let deployment = Deployment::stopped(sample()).await;
    let store = deployment.settings.store.clone();
    let brokers = vec![configured(&deployment, "b1", 300)];
    under_load(deployment, brokers, async |serving, brokers| {
        for shard in 1..if nightly() { 6 } else { 4_u32 } {
            until_shard(&store, shard).await;
            // At the turn, and some time after it.
            tokio::time::sleep(Duration::from_millis(u64::from(shard - 1) * 60)).await;
            serving.clear();
            serving.push(Serving::start(&brokers[0].0));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_brokers_cross_the_turn_together_under_load() {
    let database = Postgres::shared().any_database();
    let deployment = Deployment::stopped_in(database.at()).await;
    let store = deployment.settings.store.clone();
    let brokers = vec![configured(&deployment, "b1", 300), configured(&deployment, "b2", 300)];
    under_load(deployment, brokers, async |serving, brokers| {
        until_shard(&store, 1).await;
        serving.pop();
        until_shard(&store, 2).await;
        serving.push(Serving::start(&brokers[1].0));
        until_shard(&store, if nightly() { 6 } else { 3 }).await;
    })
    .await;
}
