//! What the fault tests did, for `docs/reliability.md`: one line of JSON a test.

use std::io::Write as _;
use std::path::PathBuf;

use serde_json::json;

/// Where the lines are kept, beside what is built.
pub(super) fn path() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    tests.ancestors().nth(3).unwrap().join("reliability.jsonl")
}

/// Remembers that a promise stood a fault this many times; who finds anything lost fails before it comes here.
pub(super) fn stood(promise: &str, fault: &str, times: usize) {
    assert!(times > 0, "{promise}: no {fault} was injected");
    let line = json!({ "promise": promise, "fault": fault, "times": times, "lost": 0 });
    let mut file = std::fs::File::options().create(true).append(true).open(path()).unwrap();
    file.write_all(format!("{line}\n").as_bytes()).unwrap();
}
