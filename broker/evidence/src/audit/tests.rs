//! One log that is right throughout, and what an audit says when one thing in it is spoiled.

mod checkpoints;
mod log;

use serde_json::{Value, json};

use super::{Audit, FINDINGS_MAX, FindingCode, Report};
use crate::checkpoint::Checkpoint;
use crate::tree::leaf_hash;
use log::{Log, ORIGIN, at, digest};

use FindingCode::{
    EndedTooEarly, EndingWithoutIssuance, HeartbeatGap, IssuedLate, KeyUnusable, Malformed, NoEnding,
    NotSelected, OutlivesIdentity, OutlivesKey, OutlivesSupplier, ReleasedBeforeRecorded, SelfDecided,
    SettledWithoutIssuance, StaleState, TimeWentBack, TwoEndings, UnknownAuthor, VoidThenUsed,
    WiderThanAsked, WiderThanDeclared,
};

fn report(log: &Log) -> Report {
    let mut audit = Audit::new();
    log.bytes().iter().for_each(|bytes| audit.entry(bytes));
    audit.finish(None)
}

/// The codes that are found, and where.
fn found(report: &Report) -> Vec<(FindingCode, Option<u64>)> {
    report.findings.iter().map(|finding| (finding.code, finding.index)).collect()
}

fn checkpoint(size: usize, log: &Log) -> Checkpoint {
    let mut audit = Audit::new();
    log.bytes().iter().take(size).for_each(|bytes| audit.entry(bytes));
    let report = audit.finish(None);
    Checkpoint { origin: ORIGIN.into(), size: report.size, root: report.root }
}

#[test]
fn a_log_that_is_right_throughout_has_no_findings() {
    let log = Log::valid();
    let head = checkpoint(log.len(), &log);
    let mut audit = Audit::new();
    (0..log.len()).for_each(|size| audit.expect(checkpoint(size, &log)));
    log.bytes().iter().for_each(|bytes| drop(audit.entry_with_leaf(bytes, leaf_hash(bytes))));
    let report = audit.finish(Some(&head));
    assert_eq!(report.findings, []);
    assert!(report.is_clean());
    assert_eq!(
        (report.issued, report.ended_expired, report.ended_revoked, report.void, report.live),
        (5, 1, 1, 1, 2)
    );
    assert_eq!((report.size, report.root), (head.size, head.root));
    assert_eq!(report.origin.as_deref(), Some(ORIGIN));
    assert_eq!(report.counts_by_kind["credential.issued"], 5);
    assert_eq!(report.last_time, log.last_time());
}

/// Sets one member of one entry of the valid log, and names what is then found, and where.
type Spoiled = (&'static str, &'static str, Value, FindingCode, &'static str);

#[test]
fn each_invariant_is_broken_by_one_change() {
    let past = |ms: i64| json!(at(ms).get());
    let table: Vec<Spoiled> = vec![
        ("a", "/granted/actions", json!(["invoice:read", "invoice:write", "zz:more"]), WiderThanAsked, "a"),
        ("a", "/asked/ttl_s", json!(60), WiderThanAsked, "a"),
        ("a", "/granted/ttl_s", json!(60), WiderThanAsked, "a"),
        ("task", "/declared/resources", json!(["eu/de/*"]), WiderThanDeclared, "a"),
        ("task", "/declared/actions", json!(["other"]), WiderThanDeclared, "a"),
        ("task", "/declared/audiences", json!(["other"]), WiderThanDeclared, "a"),
        ("task", "/declared/ttl_max_s", json!(60), WiderThanDeclared, "a"),
        ("task", "/declared/targets", json!(["other"]), WiderThanDeclared, "a"),
        ("task", "/name", json!("other"), WiderThanDeclared, "a"),
        ("identity", "/declared/tasks", json!(["other"]), WiderThanDeclared, "a"),
        ("identity", "/declared/expires_ms", past(300_000), OutlivesIdentity, "a"),
        ("supplier", "/declared/ends_ms", past(300_000), OutlivesSupplier, "a"),
        ("supplier", "/name", json!("other"), OutlivesSupplier, "a"),
        ("supplier", "/declared/actions", json!(["invoice:read"]), WiderThanDeclared, "a"),
        ("supplier", "/declared/ttl_max_s", json!(60), WiderThanDeclared, "a"),
        ("target", "/declared/audiences", json!(["other"]), WiderThanDeclared, "a"),
        ("target", "/declared/ttl_max_s", json!(60), WiderThanDeclared, "a"),
        ("target", "/name", json!("other"), WiderThanDeclared, "a"),
        ("a", "/target/at", json!(1), StaleState, "a"),
        ("key", "/publish_until_ms", past(300_000), OutlivesKey, "a"),
        ("key", "/key", json!("a".repeat(43)), KeyUnusable, "a"),
        ("key", "/state", json!("compromised"), KeyUnusable, "a"),
        ("a", "/task/at", json!(1), StaleState, "a"),
        ("a", "/identity/at", json!(1), StaleState, "a"),
        ("a", "/decision/state", json!(1), StaleState, "a"),
        ("d", "/decision/state", json!(8), StaleState, "d"),
        ("e", "/decision/bundle", json!(digest("b1")), StaleState, "e"),
        ("changed", "/bundle", json!(digest("b1")), Malformed, "changed"),
        ("a", "/credential/iat_ms", past(7_000), IssuedLate, "a"),
        ("settled", "/released/0/2", past(0), ReleasedBeforeRecorded, "settled"),
        ("settled", "/released/0/0", json!(1), SettledWithoutIssuance, "settled"),
        ("expired", "/ended", json!([1]), EndingWithoutIssuance, "expired"),
        ("revoked", "/how", json!("expired"), EndedTooEarly, "revoked"),
        ("suspended", "/by/operator", json!("mallory"), UnknownAuthor, "suspended"),
        ("alice", "/declared/expires_ms", past(10_000), UnknownAuthor, "suspended"),
        ("changed", "/by/operator", json!("mallory"), UnknownAuthor, "changed"),
        ("decided", "/by/operator", json!("alice"), SelfDecided, "activated"),
        ("beat", "/time", past(1), TimeWentBack, "beat"),
        ("observed", "/what", json!("used"), VoidThenUsed, "observed"),
        ("a", "/td", json!("example.com"), Malformed, "a"),
        ("a", "/v", json!("one"), Malformed, "a"),
        ("beat", "/kind", json!("log.opened"), Malformed, "beat"),
    ];
    for (entry, pointer, value, code, place) in table {
        let mut log = Log::valid();
        log.set(entry, pointer, value.clone());
        let found = found(&report(&log));
        assert!(found.contains(&(code, Some(log.index(place)))), "{entry}{pointer} = {value}: {found:?}");
    }
}

#[test]
fn a_proof_that_buys_one_credential_is_found_when_it_bought_two() {
    let mut log = Log::valid();
    for (usage, twice) in [("once", true), ("until_expiry", false)] {
        for entry in ["a", "b"] {
            log.set(entry, "/proof/use", json!(usage));
        }
        let found = found(&report(&log));
        assert_eq!(
            found.contains(&(FindingCode::ProofUsedTwice, Some(log.index("b")))),
            twice,
            "{usage}: {found:?}"
        );
    }
}

#[test]
fn a_change_that_breaks_one_invariant_raises_no_other() {
    let alone = [
        ("a", "/granted/actions", json!(["invoice:read"]), None),
        ("a", "/asked/ttl_s", json!(60), Some(WiderThanAsked)),
        ("d", "/decision/state", json!(8), Some(StaleState)),
        ("decided", "/by/operator", json!("alice"), Some(SelfDecided)),
        ("observed", "/what", json!("used"), Some(VoidThenUsed)),
        ("settled", "/released/0/2", json!(at(0).get()), Some(ReleasedBeforeRecorded)),
        ("revoked", "/how", json!("expired"), Some(EndedTooEarly)),
    ];
    for (entry, pointer, value, code) in alone {
        let mut log = Log::valid();
        log.set(entry, pointer, value);
        let codes: Vec<_> = found(&report(&log)).into_iter().map(|(code, _)| code).collect();
        assert_eq!(codes, Vec::from_iter(code), "{entry}{pointer}");
    }
}

#[test]
fn a_credential_ends_once() {
    let mut log = Log::valid();
    let (b, revoked) = (log.index("b"), log.index("revoked"));
    log.set("revoked", "/ended", json!([b, b]));
    assert_eq!(found(&report(&log)), [(TwoEndings, Some(revoked))]);

    let mut log = Log::valid();
    let (a, c) = (log.index("a"), log.index("c"));
    log.set("expired", "/ended", json!([a, c]));
    assert_eq!(found(&report(&log)), [(TwoEndings, Some(log.index("expired")))]);
}

#[test]
fn a_second_ending_is_told_from_an_unknown_one_however_late() {
    let mut log = Log::valid();
    let (a, end) = (log.index("a"), log.len_index());
    let issued = log.value("d");
    log.push("late", 20_000_000, issued);
    log.set("late", "/decision/state", json!(log.index("activated")));
    log.push("again", 20_000_001, json!({"kind": "credential.ended", "how": "revoked", "ended": [a]}));
    let found = found(&report(&log));
    assert!(found.contains(&(TwoEndings, Some(end + 1))), "{found:?}");
}

#[test]
fn what_is_void_is_never_released() {
    let release = |log: &Log, name| json!([[log.index(name), digest("x"), at(1_500).get()]]);
    let mut log = Log::valid();
    let both = release(&log, "c");
    log.set("settled", "/released", both);
    assert_eq!(found(&report(&log)), [(VoidThenUsed, Some(log.index("settled")))]);

    let mut log = Log::valid();
    let later = json!({"kind": "credential.settled", "released": release(&log, "c")});
    log.push("later", 920_001, later);
    assert_eq!(found(&report(&log)), [(VoidThenUsed, Some(log.index("later")))]);
}

#[test]
fn a_credential_without_an_ending_is_named_when_its_time_is_long_over() {
    let mut log = Log::valid();
    log.set("expired", "/ended", json!([]));
    let a = log.index("a");
    assert_eq!(found(&report(&log)), [(NoEnding, Some(a))]);
}

#[test]
fn what_a_compromised_key_signed_is_ended_within_a_minute_and_a_half() {
    let compromised = |log: &mut Log| {
        let mut key = log.value("key");
        key["state"] = json!("compromised");
        log.push("compromised", 921_000, key);
    };
    let end = |log: &mut Log, ended: Value, key: &str| {
        let selector = json!({"key": key});
        let entry =
            json!({"kind": "credential.ended", "how": "revoked", "ended": ended, "selector": selector});
        log.push("ordered", 922_000, entry);
    };
    let (own, other) = ("K".repeat(43), "L".repeat(43));
    for (named, key, later_ms, expected) in [
        (&["d", "e"][..], &own, 1_012_000, vec![]),
        (&["d"], &own, 1_010_000, vec![]),
        (&["d"], &own, 1_012_000, vec![(NoEnding, "e")]),
        (&["d", "e"], &other, 1_012_000, vec![(NotSelected, "ordered"), (NotSelected, "ordered")]),
    ] {
        let mut log = Log::valid();
        compromised(&mut log);
        let ended = named.iter().map(|name| log.index(name)).collect();
        end(&mut log, ended, key);
        log.push("last", later_ms, json!({"kind": "broker.stopped", "reason": "asked to"}));
        let expected: Vec<_> =
            expected.into_iter().map(|(code, name)| (code, Some(log.index(name)))).collect();
        assert_eq!(found(&report(&log)), expected, "{named:?} at {later_ms}");
    }
}

#[test]
fn an_ending_that_claims_to_be_complete_must_be() {
    let mut log = Log::valid();
    log.set("expired", "/through_ms", json!(at(1_200_000).get()));
    let d = log.index("d");
    assert_eq!(found(&report(&log)), [(NoEnding, Some(d))]);
}

#[test]
fn endings_are_excused_while_a_broker_catches_up_or_its_clock_is_not_trusted() {
    let overdue = || {
        let mut log = Log::valid();
        log.set("expired", "/ended", json!([]));
        log.set("expired", "/through_ms", json!(at(600_000).get()));
        log
    };
    let started = |log: &Log| {
        let mut value = log.value("started");
        value["previous"] = json!({"index": 1, "clean": false});
        value
    };
    let mut log = overdue();
    let value = started(&log);
    log.push("again", 930_000, value);
    assert_eq!(found(&report(&log)), []);

    let mut log = overdue();
    log.push("alarm", 930_000, json!({"kind": "alarm", "code": "CLOCK", "state": "raised"}));
    assert_eq!(found(&report(&log)), []);
    let raised = log.index("alarm");
    log.push(
        "cleared",
        931_000,
        json!({"kind": "alarm", "code": "CLOCK", "state": "cleared", "raised": raised}),
    );
    assert_eq!(found(&report(&log)), [(NoEnding, Some(log.index("a")))]);
}

#[test]
fn silence_is_named_unless_the_log_says_why() {
    // A heartbeat is missing, and the next one does not reach back to the one before.
    let mut log = Log::valid();
    log.remove_beats(200_000..500_000);
    assert_eq!(found(&report(&log)).iter().map(|(code, _)| *code).collect::<Vec<_>>(), [HeartbeatGap]);

    // It does reach back.
    let next = log.first_beat_after(500_000);
    log.set(&next, "/since_ms", json!(at(180_000).get()));
    assert_eq!(found(&report(&log)), []);

    // The last sign of life is long past when the log ends.
    let mut log = Log::valid();
    let proposal = log.value("proposed");
    log.push("other", 1_200_000, proposal);
    assert_eq!(found(&report(&log)), [(HeartbeatGap, None)]);

    // The broker had stopped in order.
    let mut log = Log::valid();
    log.push("stopped", 925_000, json!({"kind": "broker.stopped", "reason": "asked to"}));
    let proposal = log.value("proposed");
    log.push("other", 1_200_000, proposal);
    assert!(found(&report(&log)).iter().all(|(code, _)| *code != HeartbeatGap));
}

#[test]
fn a_crash_is_declared_by_the_next_start() {
    let mut log = Log::valid();
    let mut started = log.value("started");
    log.push("again", 1_200_000, started.clone());
    assert_eq!(found(&report(&log)), [(HeartbeatGap, Some(log.index("again")))]);

    started["previous"] = json!({"index": log.index("again") - 1, "clean": false});
    let mut log = Log::valid();
    log.push("again", 1_200_000, started);
    assert_eq!(found(&report(&log)), []);
}

#[test]
fn whatever_is_fed_is_answered_with_findings() {
    let mut audit = Audit::new();
    for bytes in [b"".as_slice(), b"{}", b"\xff", b"[[[[[[", &[b'['; 20_000], b"{\"kind\":\"x\"}"] {
        audit.entry(bytes);
    }
    let report = audit.finish(None);
    assert_eq!(report.size, 6);
    assert!(report.findings.len() == 6 && report.findings.iter().all(|finding| finding.code == Malformed));

    let mut audit = Audit::new();
    (0..FINDINGS_MAX + 5).for_each(|_| audit.entry(b"{}"));
    assert_eq!(audit.finish(None).findings_omitted, 5);
}

#[test]
fn an_unknown_kind_is_counted_and_is_no_finding() {
    let mut log = Log::valid();
    log.push("future", 921_000, json!({"kind": "future.kind", "new": {"deep": [1, 2]}}));
    let report = report(&log);
    assert_eq!((report.findings.len(), report.counts_by_kind["future.kind"]), (0, 1));
}
