//! Where things may stand: second walls behind those that the compiler builds.

use super::sources::{program, read};

/// Panics where a line of a program below `folder` holds one of `words`, outside `places`.
fn only_in(folder: &str, words: &[&str], places: &[&str], why: &str) {
    let mut seen = 0;
    for source in program(folder) {
        for (number, line) in source.code().into_iter().enumerate() {
            if line.trim_start().starts_with("//") || !words.iter().any(|word| line.contains(word)) {
                continue;
            }
            seen += 1;
            let allowed = source.is_under(places);
            assert!(allowed, "{}:{}: `{}`: {why}", source.path, number + 1, line.trim());
        }
    }
    assert!(
        places.is_empty() || seen > 0,
        "nothing in `{folder}` holds any of {words:?}: this test tests nothing"
    );
}

#[test]
fn grpc_is_spoken_only_by_the_server_and_the_development_callers() {
    let places = ["broker/src/server.rs", "broker/src/server", "broker/src/dev"];
    only_in("broker/src", &["tonic::", "daypass_proto"], &places, "the work takes values, not messages");
}

#[test]
fn sql_is_written_only_in_stores_and_the_index() {
    let places = ["broker/src/store", "broker/src/index"];
    let words = ["rusqlite", "SELECT ", "INSERT INTO ", "DELETE FROM ", "PRAGMA "];
    only_in("broker/src", &words, &places, "a store's language stays in the store");
}

#[test]
fn the_configuration_is_seen_only_by_the_commands() {
    let places = ["broker/src/config", "broker/src/commands.rs", "broker/src/commands"];
    let words = ["crate::config", "daypass_broker::config"];
    only_in("broker/src", &words, &places, "parts receive values, never the configuration");
}

#[test]
fn what_decides_asks_neither_the_time_nor_the_machine() {
    let words = [
        "SystemTime",
        "Instant",
        "OffsetDateTime::now",
        "std::env",
        "std::fs",
        "std::net",
        "std::process",
        "std::thread",
        "thread_rng",
        "async fn",
    ];
    for pure in ["broker/verify/src", "broker/evidence/src", "broker/core/src"] {
        only_in(pure, &words, &[], "it is given as an argument");
    }
}

#[test]
fn what_decides_draws_nothing_at_random() {
    let words = ["SystemRandom", "SecureRandom", "thread_rng", "RandomState"];
    let why = "it is given as an argument; only a signature needs it within";
    only_in("broker/verify/src", &words, &["broker/verify/src/provider.rs"], why);
    only_in("broker/evidence/src", &words, &[], why);
    only_in("broker/core/src", &words, &[], why);
}

#[test]
fn the_broker_asks_the_time_in_one_place() {
    let words = ["SystemTime::now", "OffsetDateTime::now"];
    only_in("broker/src", &words, &["broker/src/clock.rs"], "time is an argument everywhere else");
}

#[test]
fn the_agent_asks_the_time_in_one_place_and_knows_its_configuration_only_at_its_edge() {
    let words = ["SystemTime::now", "OffsetDateTime::now"];
    only_in("agent/src", &words, &["agent/src/clock.rs"], "there is one clock");
    let places = [
        "agent/src/main.rs",
        "agent/src/config.rs",
        "agent/src/config",
        "agent/src/run.rs",
        "agent/src/oneshot.rs",
    ];
    only_in("agent/src", &["Config::read", "config::Config", "{Config,"], &places, "parts receive values");
}

/// The types that make the order of the straight line a compile error, where they live, and how one is made.
const ONCE: &[(&str, &str, &str)] = &[
    ("broker/src/log.rs", "Recorded<T>", "Recorded {"),
    ("broker/src/signer.rs", "Signature", "Signature {"),
    ("broker/src/issue.rs", "Credential", "Credential {"),
];

#[test]
fn what_is_recorded_signed_and_sealed_is_made_in_its_module_and_used_once() {
    for (home, name, _) in ONCE {
        let text = read(home);
        let (before, after) =
            text.split_once(&format!("pub struct {name} {{")).unwrap_or_else(|| panic!("{name}"));
        let attributes = before.rsplit_once("\n\n").unwrap().1;
        assert!(!attributes.contains("Clone"), "`{name}` must not be copied: one record, one signature");
        let (fields, _) = after.split_once("\n}").unwrap();
        let public = fields.lines().find(|line| line.trim_start().starts_with("pub"));
        assert_eq!(public, None, "a field of `{name}` lets others make one");
        let bare = name.trim_end_matches("<T>");
        let copied = program("broker/src").iter().any(|it| it.text.contains(&format!("Clone for {bare}")));
        assert!(!copied, "`{name}` must not be copied");
    }
}

#[test]
fn a_record_a_signature_and_a_credential_have_one_maker_each() {
    for (home, _, made) in ONCE {
        let module = home.trim_end_matches(".rs");
        for source in program("broker/src").iter().filter(|source| !source.is_under(&[home, module])) {
            let made_here = source.code().iter().any(|line| {
                let at = line.find(made);
                at.is_some_and(|at| {
                    !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == ':' || c == '_')
                })
            });
            assert!(!made_here, "`{}` makes a `{made} .. }}`, which `{home}` alone may", source.path);
        }
    }
}
