//! What the fault tests did, for `docs/reliability.md`: one line of JSON a test.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use serde_json::{Value, json};

/// Where the lines are kept, beside what is built.
pub(super) fn path() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    tests.ancestors().nth(3).unwrap().join("reliability.jsonl")
}

/// Remembers that a promise stood a fault this many times; who finds anything lost fails before it comes here.
pub(crate) fn stood(promise: &str, fault: &str, times: usize) {
    assert!(times > 0, "{promise}: no {fault} was injected");
    let line = json!({ "promise": promise, "fault": fault, "times": times, "lost": 0 });
    let mut file = std::fs::File::options().create(true).append(true).open(path()).unwrap();
    std::io::Write::write_all(&mut file, format!("{line}\n").as_bytes()).unwrap();
}

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reliability.md");

const HEAD: &str = "\
# Faults that Daypass has stood

Made from runs of the fault tests: `tests/run`, or `tests/run --nightly` for the long versions, then
`DAYPASS_BLESS=1 cargo test -p daypass-tests --test all reliability`. A test that finds anything lost, twice, or untold fails,
and has no line here. Each of these promises, and P8 and P12 beside them, has a build in which it is broken on purpose, and its
test fails there: `tests/sabotage`.

| promise | fault | times | lost |
|---|---|---:|---:|
";

/// What the promises say, in short.
const PROMISES: &[(&str, &str)] = &[
    ("P1", "no credential without a durable record"),
    ("P2", "each credential ends once, in time"),
    ("P3", "one log: no two checkpoints of a size, no time that goes back"),
    ("P4", "what was changed, cut or put back is found"),
    ("P5", "no evidence, no credential"),
    ("P7", "a proof that buys once buys one credential, whoever is asked"),
    ("P9", "a verifier that refreshes as it is told never meets an unknown key"),
    ("P11", "a wrong clock lengthens no credential and makes no false entry"),
    ("P15", "a broker or a store that is lost loses no acknowledged entry"),
    ("P17", "two verifiers that share no code refuse the same logs"),
];

/// The page of these lines: runs of one kind are added up.
fn page(lines: &str) -> String {
    let mut sums: BTreeMap<(usize, String), (u64, u64)> = BTreeMap::new();
    for line in lines.lines() {
        let run: Value = serde_json::from_str(line).unwrap();
        let named = |it: &&(&str, &str)| it.0 == run["promise"];
        let promise = PROMISES.iter().position(|it| named(&it)).expect("a promise that has a name");
        let fault = run["fault"].as_str().unwrap().to_owned();
        let sum = sums.entry((promise, fault)).or_default();
        *sum = (sum.0 + run["times"].as_u64().unwrap(), sum.1 + run["lost"].as_u64().unwrap());
    }
    let mut page = HEAD.to_owned();
    for ((promise, fault), (times, lost)) in sums {
        let (code, says) = PROMISES[promise];
        writeln!(page, "| {code}: {says} | {fault} | {times} | {lost} |").unwrap();
    }
    page
}

#[test]
fn the_page_on_reliability_is_made_from_runs() {
    if std::env::var_os("DAYPASS_BLESS").is_some() {
        let lines = std::fs::read_to_string(path()).expect("run the fault tests first");
        std::fs::write(PAGE, page(&lines)).unwrap();
    }
    let written = std::fs::read_to_string(PAGE).unwrap();
    let rows = written.strip_prefix(HEAD).expect("the page has the head that its generator writes");
    assert!(rows.lines().count() > 5, "{rows}");
    assert!(rows.lines().all(|row| row.ends_with("| 0 |")), "{rows}");
}
