//! The broker's own verifier and the independent one (`docs/verifier/verify.py`), over logs of a real broker that are
//! edited at random: where one refuses, both do.
//!
//! An edit is either made behind the back of the signed checkpoint, or signed anew with a key of the test, so that the
//! tree holds and only the meaning is wrong.

mod chain;
mod edits;
mod log;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use daypass_evidence::audit::Audit;
use daypass_evidence::checkpoint::Checkpoint;
use daypass_evidence::note::VerifierKey;
use daypass_tests::harness::{nightly, program, run};

use crate::faults::report::stood;
use crate::simulation::op::Random;
use edits::{Expected, SPOILED, STILL_SOUND};
use log::{Recorded, SignedLog, Signer};

const MANY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/stock/verify_many.py");

/// One log to be judged by both, and what was done to it.
struct Case {
    what: String,
    log: SignedLog,
    expected: Expected,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_verifiers_refuse_the_same_logs() {
    let recorded = Recorded::by_a_broker().await;
    let signer = Signer::new(recorded.origin());
    let ruled: Vec<Case> = SPOILED
        .iter()
        .chain(STILL_SOUND)
        .map(|edit| {
            let mut entries = recorded.values();
            (edit.apply)(&mut entries);
            assert!(entries != recorded.values(), "{} changes nothing", edit.what);
            anew(edit.what, entries, &signer, edit.expected)
        })
        .collect();
    judge(&ruled, &signer.verifier).await;
    let at_random = edited_at_random(&recorded, 0, 80).await;
    stood("P17", "a log edited by a rule, at random, or behind the signature", ruled.len() + at_random);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_verifiers_refuse_the_same_logs_after_a_recovery() {
    let recorded = Recorded::by_a_broker_that_recovered().await;
    let judged = edited_at_random(&recorded, 1_000_000, 30).await;
    stood("P17", "a log after `recover`, edited at random or behind the signature", judged);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_verifiers_refuse_the_same_logs_that_follow_each_other() {
    let recorded = Recorded::by_a_broker_that_turned_twice().await;
    let judged = edited_at_random(&recorded[1], 2_000_000, 30).await;
    stood("P17", "a closed log that follows another, edited at random or behind the signature", judged);
}

/// Has both judge a log as it is and after so many edits at random, more by night, from a seed on. How many they judged.
async fn edited_at_random(recorded: &Recorded, seeds: u64, rounds: u64) -> usize {
    let signer = Signer::new(recorded.origin());
    let rounds = if nightly() { 50 * rounds } else { rounds };
    let whole = Case { what: "as it was kept".into(), log: recorded.signed(), expected: Expected::Sound };
    let mut behind = vec![whole];
    behind.extend((seeds..seeds + rounds / 4).map(|seed| behind_the_signature(recorded, seed)));
    judge(&behind, &recorded.log_key).await;

    let mut signed = vec![anew("nothing was done", recorded.values(), &signer, Expected::Sound)];
    signed.extend((seeds..seeds + rounds).map(|seed| {
        let mut entries = recorded.values();
        let what = edits::at_random(&mut entries, &mut Random::new(seed));
        anew(&format!("seed {seed}: {what}"), entries, &signer, Expected::Same)
    }));
    judge(&signed, &signer.verifier).await;
    behind.len() + signed.len()
}

/// Entries changed as whoever can write the store can; the checkpoint is the broker's.
fn behind_the_signature(recorded: &Recorded, seed: u64) -> Case {
    let mut log = recorded.signed();
    let what = edits::bytes_at_random(&mut log, &mut Random::new(seed));
    Case { what: format!("seed {seed}: {what}"), log, expected: Expected::Refused }
}

fn anew(what: &str, entries: Vec<serde_json::Value>, signer: &Signer, expected: Expected) -> Case {
    Case { what: what.into(), log: signer.sign(&entries), expected }
}

/// The independent verifier; one that lets time go back where that promise is to be seen broken.
fn verifier(folder: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/verifier/verify.py");
    let text = std::fs::read_to_string(source).unwrap();
    let (rule, none) = ("time >= self.time", "True");
    assert!(text.contains(rule));
    let broken = cfg!(feature = "sabotage") && std::env::var("DAYPASS_SABOTAGE").is_ok_and(|it| it == "p17");
    let copy = folder.join("verify.py");
    std::fs::write(&copy, if broken { text.replace(rule, none) } else { text }).unwrap();
    copy
}

/// Lets both verifiers judge, and the program itself a few.
async fn judge(cases: &[Case], key: &VerifierKey) {
    let folder = tempfile::tempdir().unwrap();
    let verify = verifier(folder.path()).display().to_string();
    let mut list = String::new();
    for (at, case) in cases.iter().enumerate() {
        let [entries, checkpoint] = case.log.write(folder.path(), at);
        writeln!(list, "{} {}", entries.display(), checkpoint.display()).unwrap();
    }
    let lists = folder.path().join("list");
    std::fs::write(&lists, list).unwrap();
    let arguments =
        [MANY, folder.path().to_str().unwrap(), lists.to_str().unwrap(), &key.to_string()].map(String::from);
    let python = run("python3", &arguments).await;
    assert_eq!(python.code, Some(0), "{}", python.stderr);
    let theirs: Vec<&str> = python.stdout.lines().collect();
    assert_eq!(theirs.len(), cases.len(), "{}", python.stderr);

    let mut apart = String::new();
    for (case, theirs) in cases.iter().zip(&theirs) {
        let ours = case.log.verify(key);
        let (refused, also) = (ours.is_err(), theirs.starts_with('4'));
        let as_expected = match case.expected {
            Expected::Sound => !refused,
            Expected::Refused => refused,
            Expected::Same => true,
        };
        if refused != also || !as_expected {
            writeln!(apart, "{}\n  ours: {ours:?}\n  theirs: {theirs}", case.what).unwrap();
        }
    }
    assert!(apart.is_empty(), "{apart}");

    for (at, case) in cases.iter().enumerate().step_by(cases.len().div_ceil(4)) {
        let [entries, checkpoint] = case.log.write(folder.path(), at).map(|path| path.display().to_string());
        let arguments =
            ["log", "verify", &entries, "--checkpoint", &checkpoint, "--log-key", &key.to_string()];
        let verified = run(program("daypass"), arguments).await;
        let expected = if case.log.verify(key).is_err() { 4 } else { 0 };
        assert_eq!(verified.code, Some(expected), "{}: {}{}", case.what, verified.stdout, verified.stderr);
        let verified = run("python3", [&verify, &entries, &checkpoint, &key.to_string()]).await;
        assert_eq!(verified.code, Some(expected), "{}: {}{}", case.what, verified.stdout, verified.stderr);
    }
}

impl SignedLog {
    /// What the library that broker and program share says.
    fn verify(&self, key: &VerifierKey) -> Result<(), String> {
        let checkpoint = Checkpoint::open(&self.checkpoint, key).map_err(|error| error.to_string())?;
        let mut audit = Audit::new();
        audit.expect(checkpoint);
        self.entries.iter().for_each(|bytes| audit.entry(bytes));
        let report = audit.finish(None);
        report.findings.first().map_or(Ok(()), |finding| Err(finding.to_string()))
    }
}
