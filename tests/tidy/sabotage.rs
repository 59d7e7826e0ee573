//! What breaks promises on purpose stays out of every program that is run.

use daypass_tests::harness::program;

use super::graph::packages;
use super::sources;

/// Put together here, as this program is looked at too.
const SWITCH: &str = concat!("DAYPASS_SAB", "OTAGE");

#[test]
fn no_released_program_can_break_a_promise() {
    // The build in which promises can be broken is a test's.
    if cfg!(feature = "sabotage") {
        return;
    }
    for name in ["daypass-broker", "daypass", "daypass-agent"] {
        let bytes = std::fs::read(program(name)).unwrap();
        let found = bytes.windows(SWITCH.len()).any(|window| window == SWITCH.as_bytes());
        assert!(!found, "`{name}` knows of sabotage: build it again without that feature");
    }
}

#[test]
fn nothing_turns_sabotage_on_by_itself() {
    for package in packages().iter().filter(|package| package["source"].is_null()) {
        let features = package["features"].as_object().unwrap();
        let default = features.get("default").map(ToString::to_string).unwrap_or_default();
        assert!(!default.contains("sabotage"), "{}", package["name"]);
        for dependency in package["dependencies"].as_array().unwrap() {
            let wanted = dependency["features"].to_string();
            assert!(!wanted.contains("sabotage"), "{} asks {} for it", package["name"], dependency["name"]);
        }
    }
}

#[test]
fn every_sabotage_is_behind_its_feature() {
    let mut seen = 0;
    for source in ["broker/src", "sdk/src", "agent/src"].into_iter().flat_map(sources::program) {
        let lines = source.code();
        for (at, line) in lines.iter().enumerate().filter(|(_, line)| line.contains("sabotage::breaks")) {
            seen += 1;
            let near = lines[at.saturating_sub(2)..at].iter();
            let gated = near.rev().any(|line| line.trim() == "#[cfg(feature = \"sabotage\")]");
            assert!(gated, "{}:{}: `{}`", source.path, at + 1, line.trim());
        }
    }
    assert!(seen > 5, "only {seen} were found");
}
