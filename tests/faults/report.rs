//! What the fault tests did, for `docs/reliability.md`: one line of JSON a test.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::LazyLock;

use daypass_broker::clock::{Clock as _, SystemClock};
use daypass_tests::harness::nightly;

use serde_json::{Value, json};

/// Where the lines are kept, beside what is built.
pub(super) fn path() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    tests.ancestors().nth(3).unwrap().join("reliability.jsonl")
}

/// When this runs, of which commit, and whether at length.
static RUN: LazyLock<String> = LazyLock::new(|| {
    let mut git = Command::new("git");
    git.args(["rev-parse", "--short", "HEAD"]).current_dir(env!("CARGO_MANIFEST_DIR"));
    let commit = git.output().ok().filter(|output| output.status.success());
    let commit = commit.map_or("unknown".into(), |output| String::from_utf8(output.stdout).unwrap());
    let length = if nightly() { ", nightly" } else { "" };
    format!("{}, {}{length}", &SystemClock.now().to_string()[..10], commit.trim())
});

/// Remembers that a promise stood a fault this many times; who finds anything lost fails before it comes here.
pub(crate) fn stood(promise: &str, fault: &str, times: usize) {
    assert!(times > 0, "{promise}: no {fault} was injected");
    // Runs of a program whose promises can be broken are no record of anything.
    if cfg!(feature = "sabotage") {
        return;
    }
    let line = json!({ "promise": promise, "fault": fault, "times": times, "lost": 0, "run": *RUN });
    let mut file = std::fs::File::options().create(true).append(true).open(path()).unwrap();
    std::io::Write::write_all(&mut file, format!("{line}\n").as_bytes()).unwrap();
}

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reliability.md");

const HEAD: &str = "\
# Faults that Daypass has stood

Made from runs of the fault tests: `tests/run`, or `tests/run --nightly` for the long versions, then
`DAYPASS_BLESS=1 cargo test -p daypass-tests --test all reliability`. A test that finds anything lost, twice, or untold fails,
and has no line here. Each of these promises, and P12 beside them, has a build in which it is broken on purpose, and its
test fails there: `tests/sabotage`.

| promise | fault | run | times | lost |
|---|---|---|---:|---:|
";

const FOOT: &str = "
## A machine that was put back, or copied

Whoever restores a snapshot of a broker's machine, or runs a copy of it, makes two continuations of one log. Store, anchor, keys
and memory agree in each, so neither can see by itself what happened. What holds, and why:

- **Nothing that must be drawn once is drawn twice.** An id (`jti`, serial) is the millisecond and 74 bits that the kernel is
  asked for at that moment; so are keys, and the nonces of sealed ones. Nothing of Daypass keeps randomness in memory, where a
  copy would have it too. A kernel that is told of the copy (vmgenid) draws anew at once. One that is not may repeat itself for a
  moment, and then: an id is the same only in the same millisecond; a nonce of ECDSA, or of a sealed key, is derived
  from what it serves too, so that it never serves two; Ed25519 draws none.
- **Each continuation keeps all promises by itself**: every credential has its record, in the log of the broker that issued it. A
  proof that buys once can buy one credential of each, until one of them is stopped: what was spent is in the store, and the
  store was copied.
- **They cannot go on unseen.** Both logs are signed by one key, so two checkpoints are proof against it. The anchor finds a store
  that was put back alone. A caller sends the newest checkpoint that it holds: whichever broker has another log stops for
  everybody, be its own longer or shorter, and keeps both. A witness signs one of the two, and the other raises an alarm. On
  PostgreSQL each broker remembers the head, and stops where the database has another.
- **What to do**: never let a restored snapshot serve. `daypass-broker recover` opens a new log that names the gap, rotates every
  signing key, and counts each proof from before as spent.
";

/// What the promises say, in short.
const PROMISES: &[(&str, &str)] = &[
    ("P1", "no credential without a durable record"),
    ("P2", "each credential ends once, in time"),
    ("P3", "one log: no two checkpoints of a size, no time that goes back"),
    ("P4", "what was changed, cut or put back is found"),
    ("P5", "no evidence, no credential"),
    ("P7", "a proof that buys once buys one credential, whoever is asked"),
    ("P8", "ids, serials and nonces never repeat"),
    ("P9", "a verifier that refreshes as it is told never meets an unknown key"),
    ("P11", "a wrong clock lengthens no credential and makes no false entry"),
    ("P15", "a broker or a store that is lost loses no acknowledged entry"),
    ("P17", "two verifiers that share no code refuse the same logs"),
];

/// The page of these lines: runs of one kind are added up.
fn page(lines: &str) -> String {
    let mut sums: BTreeMap<(usize, String, String), (u64, u64)> = BTreeMap::new();
    for line in lines.lines() {
        let run: Value = serde_json::from_str(line).unwrap();
        let named = |it: &&(&str, &str)| it.0 == run["promise"];
        let promise = PROMISES.iter().position(|it| named(&it)).expect("a promise that has a name");
        let text = |name: &str| run[name].as_str().unwrap().to_owned();
        let sum = sums.entry((promise, text("fault"), text("run"))).or_default();
        *sum = (sum.0 + run["times"].as_u64().unwrap(), sum.1 + run["lost"].as_u64().unwrap());
    }
    let mut page = HEAD.to_owned();
    for ((promise, fault, run), (times, lost)) in sums {
        let (code, says) = PROMISES[promise];
        writeln!(page, "| {code}: {says} | {fault} | {run} | {times} | {lost} |").unwrap();
    }
    page + FOOT
}

#[test]
fn the_page_on_reliability_is_made_from_runs() {
    if std::env::var_os("DAYPASS_BLESS").is_some() {
        let lines = std::fs::read_to_string(path()).expect("run the fault tests first");
        std::fs::write(PAGE, page(&lines)).unwrap();
    }
    let written = std::fs::read_to_string(PAGE).unwrap();
    let rows = written.strip_prefix(HEAD).and_then(|rest| rest.strip_suffix(FOOT));
    let rows = rows.expect("the page has the head and the foot that its generator writes");
    assert!(rows.lines().count() > 5, "{rows}");
    assert!(rows.lines().all(|row| row.ends_with("| 0 |")), "{rows}");
}
