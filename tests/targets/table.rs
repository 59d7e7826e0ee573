//! What was seen at each target: one line of JSON a row, and the page that is made of them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Value, json};

/// What becomes of access at a target once a credential has ended.
pub(crate) struct Row<'a> {
    /// The target, and what stands beside it.
    pub(crate) target: &'a str,
    /// What was run, with its version.
    pub(crate) version: &'a str,
    /// `expired`, `revoked`, or what else ended it.
    pub(crate) end: &'a str,
    /// What a new connection or request meets after the end.
    pub(crate) new: &'a str,
    /// What becomes of an open session.
    pub(crate) open: &'a str,
    /// From the end until no new one is taken, and until the open session is gone, in seconds; none where there is nothing
    /// to wait for.
    pub(crate) seconds: [Option<f64>; 2],
}

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/targets/README.md");

const HEAD: &str = "\
# Targets

Where credentials are used, and what becomes of access there once a credential has ended. Each row is made by a test with the
real server, the real broker and the real agent: `tests/run`, then
`DAYPASS_BLESS=1 cargo test -p daypass-tests --test all targets::table`. A page on each says how it is configured.
Seconds are from the end (its entry, or the moment of expiry) until no new connection was taken, and until the open
session was gone; they are of one run on one machine. `-`: there was nothing to wait for.

| target | version | end | a new connection or request | an open session | seconds |
|---|---|---|---|---|---|
";

const FOOT: &str = "
Pages: [services of one's own](services.md), [PostgreSQL](postgresql.md), [nginx](nginx.md), [a service with a static key](static-key.md).
";

/// Where the lines are kept, beside what is built.
fn path() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    tests.ancestors().nth(3).unwrap().join("targets.jsonl")
}

fn blessing() -> bool {
    std::env::var_os("DAYPASS_BLESS").is_some()
}

/// Remembers a row, and holds it against the page: all but versions and seconds must be what readers are told.
pub(crate) fn seen(row: &Row<'_>) {
    // Runs of programs whose promises can be broken are no record of anything.
    if cfg!(feature = "sabotage") {
        return;
    }
    let Row { target, version, end, new, open, seconds } = row;
    let line = json!({
        "target": target, "version": version, "end": end, "new": new, "open": open, "seconds": seconds,
    });
    let mut file = std::fs::File::options().create(true).append(true).open(path()).unwrap();
    std::io::Write::write_all(&mut file, format!("{line}\n").as_bytes()).unwrap();
    let page = std::fs::read_to_string(PAGE).unwrap_or_default();
    let told =
        page.lines().any(|told| outline(told) == Some([target, end, new, open].map(|it| (*it).to_owned())));
    assert!(told || blessing(), "`{PAGE}` does not say what was seen: {line}");
}

/// What of a written row must not change from run to run.
fn outline(row: &str) -> Option<[String; 4]> {
    let cells: Vec<&str> = row.strip_prefix("| ")?.strip_suffix(" |")?.split(" | ").collect();
    match cells[..] {
        [target, _, end, new, open, _] => Some([target, end, new, open].map(String::from)),
        _ => None,
    }
}

/// The page of these lines; the last of a kind counts.
fn page(lines: &str) -> String {
    let mut rows: BTreeMap<[String; 2], String> = BTreeMap::new();
    for line in lines.lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        let text = |name: &str| row[name].as_str().unwrap().to_owned();
        let second = |at: usize| row["seconds"][at].as_f64().map_or("-".to_owned(), |it| format!("{it:.1}"));
        let written = format!(
            "| {} | {} | {} | {} | {} | {} / {} |\n",
            text("target"),
            text("version"),
            text("end"),
            text("new"),
            text("open"),
            second(0),
            second(1)
        );
        rows.insert([text("target"), text("end")], written);
    }
    let rows: String = rows.into_values().collect();
    format!("{HEAD}{rows}{FOOT}")
}

#[test]
fn the_page_on_targets_is_made_from_runs() {
    if blessing() {
        let lines = std::fs::read_to_string(path()).expect("run the tests of targets first");
        std::fs::write(PAGE, page(&lines)).unwrap();
    }
    let written = std::fs::read_to_string(PAGE).unwrap();
    let rows = written.strip_prefix(HEAD).and_then(|rest| rest.strip_suffix(FOOT));
    let rows = rows.expect("the page has the head and the foot that its generator writes");
    assert!(rows.lines().count() > 3 && rows.lines().all(|row| outline(row).is_some()), "{rows}");
}
