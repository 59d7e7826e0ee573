//! What can be done to a log: each rule broken on its own, harmless additions, and changes at random.

use serde_json::{Value, json};

use super::log::SignedLog;
use crate::simulation::op::Random;

/// What both verifiers must say.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Expected {
    Sound,
    Refused,
    /// Whatever it is, the same.
    Same,
}

/// One thing that is done to a log.
pub(super) struct Edit {
    pub(super) what: &'static str,
    pub(super) apply: fn(&mut Vec<Value>),
    pub(super) expected: Expected,
}

const fn spoils(what: &'static str, apply: fn(&mut Vec<Value>)) -> Edit {
    Edit { what, apply, expected: Expected::Refused }
}

const fn adds(what: &'static str, apply: fn(&mut Vec<Value>)) -> Edit {
    Edit { what, apply, expected: Expected::Sound }
}

/// The first entry of a kind.
fn first(log: &[Value], kind: &str) -> usize {
    log.iter().position(|entry| entry["kind"] == kind).unwrap_or_else(|| panic!("no `{kind}` in the log"))
}

fn last(log: &[Value], kind: &str) -> usize {
    log.iter().rposition(|entry| entry["kind"] == kind).unwrap_or_else(|| panic!("no `{kind}` in the log"))
}

/// The issuance of a task, the first there is.
fn of_task(log: &[Value], task: &str) -> usize {
    let issued = |entry: &Value| entry["kind"] == "credential.issued" && entry["task"]["name"] == task;
    log.iter().position(issued).unwrap()
}

/// What the issuance of a task calls `type_`, as it was declared.
fn declared<'a>(log: &'a mut [Value], task: &str, type_: &str) -> &'a mut Value {
    let at = log[of_task(log, task)][type_]["at"].as_u64().unwrap();
    &mut log[usize::try_from(at).unwrap()]
}

fn issued<'a>(log: &'a mut [Value], task: &str) -> &'a mut Value {
    let at = of_task(log, task);
    &mut log[at]
}

fn kind<'a>(log: &'a mut [Value], name: &str) -> &'a mut Value {
    let at = first(log, name);
    &mut log[at]
}

fn push(list: &mut Value, item: Value) {
    list.as_array_mut().unwrap().push(item);
}

/// The key of the first issuance.
fn key(log: &mut [Value]) -> &mut Value {
    let key = log[first(log, "credential.issued")]["credential"]["key"].clone();
    log.iter_mut().find(|entry| entry["kind"] == "key.changed" && entry["key"] == key).unwrap()
}

/// What ended a compromised key's credentials.
fn revoked(log: &mut [Value]) -> &mut Value {
    log.iter_mut().find(|entry| entry["how"] == "revoked").unwrap()
}

fn supplier(log: &mut [Value]) -> &mut Value {
    log.iter_mut().find(|entry| entry["type"] == "supplier").unwrap()
}

/// A further entry, later than all by `ms`, like the last one but for `fields`.
fn append(log: &mut Vec<Value>, ms: i64, fields: Value) {
    let last = log.last().unwrap();
    let mut entry = json!({ "v": 1, "id": last["id"], "td": last["td"], "broker": last["broker"],
        "time": last["time"].as_i64().unwrap() + ms });
    entry.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    log.push(entry);
}

const SHA: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

fn by(operator: &str) -> Value {
    json!({ "operator": operator, "proof": SHA })
}

const TASK: &str = "post-invoices";

/// Each of these breaks one rule of the entries.
#[rustfmt::skip]
pub(super) const SPOILED: &[Edit] = &[
    spoils("time goes back", |log| { let at = last(log, "credential.issued"); log[at]["time"] = log[at - 5]["time"].as_i64().map(|it| it - 9).into(); }),
    spoils("a credential ends twice", |log| { let it = kind(log, "credential.ended"); let of = it["ended"][0].clone(); push(&mut it["ended"], of); }),
    spoils("what was never issued ends", |log| push(&mut kind(log, "credential.ended")["ended"], json!(3))),
    spoils("an ending names an entry to come", |log| push(&mut kind(log, "credential.ended")["ended"], json!(100_000))),
    spoils("an ending is left out", |log| { kind(log, "credential.ended")["ended"].as_array_mut().unwrap().remove(0); }),
    spoils("no ending claims to be complete, and one is left out", |log| { let it = kind(log, "credential.ended"); it["ended"].as_array_mut().unwrap().remove(0); it.as_object_mut().unwrap().remove("through_ms"); append(log, 60_001, json!({ "kind": "broker.stopped", "reason": "x" })); }),
    spoils("one expired before its leeway was over", |log| { let at = first(log, "credential.ended"); let of = log[at]["ended"][0].as_u64().unwrap(); let time = log[at]["time"].as_i64().unwrap(); log[usize::try_from(of).unwrap()]["credential"]["exp_ms"] = json!(time - 29_000); }),
    spoils("an order about a key ends what that key did not sign", |log| { let it = revoked(log); it["selector"]["key"] = json!("K".repeat(43)); }),
    spoils("what a compromised key signed is left alive", |log| { revoked(log)["ended"].as_array_mut().unwrap().remove(0); append(log, 90_001, json!({ "kind": "broker.stopped", "reason": "x" })); }),
    spoils("an action beyond what was asked", |log| push(&mut issued(log, TASK)["granted"]["actions"], json!("zz:more"))),
    spoils("an action beyond what is declared", |log| { let it = issued(log, TASK); push(&mut it["granted"]["actions"], json!("zz:more")); push(&mut it["asked"]["actions"], json!("zz:more")); }),
    spoils("an audience beyond what is declared", |log| { let it = issued(log, TASK); push(&mut it["granted"]["audiences"], json!("zz")); push(&mut it["asked"]["audiences"], json!("zz")); }),
    spoils("a resource beyond what was asked", |log| issued(log, TASK)["asked"]["resources"] = json!(["eu/de/*"])),
    spoils("a resource beyond what is declared", |log| declared(log, TASK, "task")["declared"]["resources"] = json!(["eu/*", "us/a"])),
    spoils("beyond the ceiling of the supplier", |log| supplier(log)["declared"]["actions"] = json!(["order:read"])),
    spoils("longer than the supplier's contract allows", |log| supplier(log)["declared"]["ttl_max_s"] = json!(1)),
    spoils("longer than the target allows", |log| declared(log, TASK, "target")["declared"]["ttl_max_s"] = json!(1)),
    spoils("an audience that the target does not have", |log| declared(log, TASK, "target")["declared"]["audiences"] = json!(["x"])),
    spoils("longer than the task allows", |log| declared(log, TASK, "task")["declared"]["ttl_max_s"] = json!(1)),
    spoils("longer than asked", |log| issued(log, TASK)["asked"]["ttl_s"] = json!(1)),
    spoils("longer than granted", |log| issued(log, TASK)["granted"]["ttl_s"] = json!(1)),
    spoils("a task that the identity does not have", |log| declared(log, TASK, "identity")["declared"]["tasks"] = json!(["read-invoices"])),
    spoils("a target that the task does not have", |log| declared(log, TASK, "task")["declared"]["targets"] = json!(["orders"])),
    spoils("an old declaration of the task", |log| issued(log, TASK)["task"]["at"] = json!(12)),
    spoils("an old declaration of the identity", |log| issued(log, TASK)["identity"]["at"] = json!(12)),
    spoils("an old declaration of the target", |log| issued(log, TASK)["target"]["at"] = json!(12)),
    spoils("a target that is not declared", |log| issued(log, TASK)["target"]["name"] = json!("nobody-knows")),
    spoils("a stale state", |log| { let state = &mut issued(log, TASK)["decision"]["state"]; *state = json!(state.as_u64().unwrap() - 1); }),
    spoils("a state to come", |log| { let state = &mut issued(log, TASK)["decision"]["state"]; *state = json!(state.as_u64().unwrap() + 1); }),
    spoils("another bundle", |log| issued(log, TASK)["decision"]["bundle"] = json!(SHA)),
    spoils("a suspension that nobody looked at", |log| { let at = last(log, "credential.issued"); let mut it = log[at - 1].clone(); it["kind"] = json!("suspension.set"); it["selector"] = json!({ "everything": true }); it["reason"] = json!("x"); it["live"] = json!(1); it["revoked"] = json!(0); it["time"] = log[at - 1]["time"].clone(); log[at - 1] = it; }),
    spoils("it outlives its key", |log| { let exp = issued(log, TASK)["credential"]["exp_ms"].as_i64().unwrap(); key(log)["publish_until_ms"] = json!(exp - 1); }),
    spoils("a key that nobody knows", |log| key(log)["key"] = json!("a".repeat(43))),
    spoils("a key that was given up", |log| key(log)["state"] = json!("compromised")),
    spoils("a key that is gone", |log| key(log)["state"] = json!("destroyed")),
    spoils("it outlives its identity", |log| { let exp = issued(log, TASK)["credential"]["exp_ms"].as_i64().unwrap(); declared(log, TASK, "identity")["declared"]["expires_ms"] = json!(exp - 1); }),
    spoils("it outlives its supplier's contract", |log| { let exp = issued(log, "sync-orders")["credential"]["exp_ms"].as_i64().unwrap(); supplier(log)["declared"]["ends_ms"] = json!(exp - 1); }),
    spoils("a supplier that is not declared", |log| supplier(log)["name"] = json!("other")),
    spoils("issued after it was recorded", |log| { let it = issued(log, TASK); it["credential"]["iat_ms"] = json!(it["time"].as_i64().unwrap() + 5_001); }),
    spoils("released before it was recorded", |log| { let it = kind(log, "credential.settled"); let ms = it["released"][0][2].as_i64().unwrap(); it["released"][0][2] = json!(ms - 60_000); }),
    spoils("what was never issued is released", |log| kind(log, "credential.settled")["released"][0][0] = json!(2)),
    spoils("released, then void", |log| { let of = kind(log, "credential.settled")["released"][0][0].clone(); append(log, 1, json!({ "kind": "credential.settled", "void": [[of, "gone"]] })); }),
    spoils("void, then released", |log| { let it = kind(log, "credential.settled"); let of = it["released"][0][0].clone(); it["void"] = json!([[of, "gone"]]); }),
    spoils("void, then seen in use", |log| { let at = last(log, "credential.settled"); let of = log[at]["released"][0][0].clone(); log[at]["released"].as_array_mut().unwrap().remove(0); log[at]["void"] = json!([[of, "gone"]]); append(log, 1, json!({ "kind": "access.observed", "target": "ledger", "what": "used", "credential": of, "at_ms": 1, "method": "probe", "count": 1 })); }),
    spoils("seen by nothing", |log| append(log, 1, json!({ "kind": "access.observed", "target": "ledger", "what": "used", "at_ms": 1, "count": 1 }))),
    spoils("a version beyond all", |log| issued(log, TASK)["v"] = json!(1_i64 << 32)),
    spoils("a proof that buys one bought two", |log| { let of = |log: &[Value], nth| log.iter().enumerate().filter(|(_, it)| it["kind"] == "credential.issued" && it["proof"]["use"] == "once").nth(nth).unwrap().0; let (a, b) = (of(log, 0), of(log, 1)); log[b]["proof"]["digest"] = log[a]["proof"]["digest"].clone(); }),
    spoils("an author whom nobody declared", |log| issued(log, TASK)["by"]["identity"] = json!("prod/mallory")),
    spoils("an operator whom nobody declared", |log| { let it = issued(log, TASK); it["by"] = by("mallory"); }),
    spoils("an operator whose time is over", |log| { log.iter_mut().find(|it| it["type"] == "operator" && it["name"] == "alice-lead").unwrap()["declared"]["expires_ms"] = json!(1); issued(log, TASK)["by"] = by("alice-lead"); }),
    spoils("an author without a name", |log| issued(log, TASK)["by"] = json!({ "proof": SHA })),
    spoils("the proposer decides", |log| decided_by(log, "alice-lead", "alice-lead")),
    spoils("another bundle's objects", |log| kind(log, "registry.changed")["bundle"] = json!(SHA)),
    spoils("a silent broker", |log| { append(log, 130_000, json!({ "kind": "alarm", "code": "X", "state": "raised" })); }),
    spoils("a broker that fell silent, and nobody's word that it is gone", |log| { let time = time(log.last().unwrap()); beat(log, 1_000, time); log.last_mut().unwrap()["broker"] = json!("b9"); let since = time_of_start(log); beat(log, 125_000, since); log.last_mut().unwrap()["broker"] = json!("b1"); append(log, 1_000, json!({ "kind": "broker.stopped", "reason": "its machine is gone", "of": "b8" })); excuse(log); }),
    spoils("a heartbeat after a silence that nothing explains", |log| { let time = time(log.last().unwrap()); beat(log, 125_000, time + 65_000); excuse(log); }),
    spoils("a start that does not know of the run before", |log| { let at = first(log, "broker.started"); let mut it = log[at].clone(); it.as_object_mut().unwrap().remove("previous"); it["time"] = json!(log.last().unwrap()["time"].as_i64().unwrap() + 121_000); log.push(it); }),
    spoils("another trust domain", |log| issued(log, TASK)["td"] = json!("example.com")),
    spoils("another origin", |log| log[0]["origin"] = json!("example.org/evidence/1999h1")),
    spoils("opened by nothing", |log| { log.remove(0); }),
    spoils("opened twice", |log| { let it = log[0].clone(); log.insert(1, it); }),
    spoils("no entries of the register", |log| log.retain(|it| it["kind"] != "registry.changed")),
    spoils("a null", |log| issued(log, TASK)["client"]["agent"] = Value::Null),
    spoils("an empty string", |log| issued(log, TASK)["client"]["agent"] = json!("")),
    spoils("a float", |log| issued(log, TASK)["more"] = json!(1.5)),
    spoils("a number beyond 2^53", |log| issued(log, TASK)["more"] = json!(9_007_199_254_740_993_i64)),
    spoils("longer than 16 KiB", |log| issued(log, TASK)["more"] = json!("x".repeat(16_384))),
    spoils("no time", |log| { issued(log, TASK).as_object_mut().unwrap().remove("time"); }),
    spoils("an id that is none", |log| issued(log, TASK)["id"] = json!("0199f2c1")),
    spoils("an id of another version", |log| { let it = issued(log, TASK); let id = it["id"].as_str().unwrap(); it["id"] = json!(format!("{}4{}", &id[..14], &id[15..])); }),
    spoils("no object at all", |log| *issued(log, TASK) = json!([1, 2])),
];

/// And these break none.
#[rustfmt::skip]
pub(super) const STILL_SOUND: &[Edit] = &[
    adds("a member that nobody knows", |log| issued(log, TASK)["zz_more"] = json!({ "deep": [1, "é€\u{1f600}", false] })),
    adds("a kind that nobody knows", |log| append(log, 1, json!({ "kind": "future.kind", "more": [1, 2] }))),
    adds("a later version of a kind", |log| append(log, 1, json!({ "kind": "alarm", "v": 2, "news": true }))),
    adds("another client", |log| issued(log, TASK)["client"] = json!({ "addr": "192.0.2.7" })),
    adds("a silence that the next heartbeat declares", |log| { let since = time(&log[last(log, "broker.started")]); beat(log, 125_000, since + 5_000); excuse(log); }),
    adds("a broker that fell silent, and an operator's word that it is gone", |log| { let time = time(log.last().unwrap()); beat(log, 1_000, time); log.last_mut().unwrap()["broker"] = json!("b9"); let since = time_of_start(log); beat(log, 125_000, since); log.last_mut().unwrap()["broker"] = json!("b1"); append(log, 1_000, json!({ "kind": "broker.stopped", "reason": "its machine is gone", "of": "b9" })); excuse(log); }),
    adds("a heartbeat in time", |log| { let since = time(log.last().unwrap()); beat(log, 60_000, since + 50_000); excuse(log); }),
    adds("another decides than proposed", |log| decided_by(log, "alice-lead", "bob-sec")),
    adds("one that was seen nowhere", |log| append(log, 1, json!({ "kind": "access.observed", "target": "ledger", "what": "unseen", "at_ms": 1, "method": "probe", "count": 1 }))),
    adds("less granted than asked", |log| issued(log, TASK)["granted"]["resources"] = json!(["eu/de/*"])),
];

/// A clock that nobody trusts: endings may wait.
fn excuse(log: &mut Vec<Value>) {
    append(log, 1, json!({ "kind": "alarm", "code": "CLOCK", "state": "raised" }));
}

fn beat(log: &mut Vec<Value>, ms: i64, since_ms: i64) {
    let counts = json!({ "issued": 1, "refused": 0, "unavailable": 0 });
    let clock = json!({ "synchronised": true });
    let fields = json!({ "kind": "broker.heartbeat", "since_ms": since_ms, "counts": counts, "clock": clock, "up_ms": 1 });
    append(log, ms, fields);
}

fn time_of_start(log: &[Value]) -> i64 {
    time(&log[last(log, "broker.started")])
}

fn time(entry: &Value) -> i64 {
    entry["time"].as_i64().unwrap()
}

fn decided_by(log: &mut Vec<Value>, proposer: &str, decider: &str) {
    let bundle = log[first(log, "bundle.activated")]["digest"].clone();
    let at = log.len();
    append(log, 1, json!({ "kind": "bundle.proposed", "digest": bundle, "by": by(proposer) }));
    append(
        log,
        1,
        json!({ "kind": "approval.decided", "request": at, "decision": "approved", "by": by(decider) }),
    );
    let decided = json!({ "kind": "bundle.activated", "digest": bundle, "proposed": at, "decided": [at + 1], "by": by(decider) });
    append(log, 1, decided);
}

/// One change at random in a log that will be signed anew; what it was.
pub(super) fn at_random(log: &mut Vec<Value>, random: &mut Random) -> String {
    let at = random.below(log.len());
    match random.below(8) {
        0 => {
            log.remove(at);
            format!("entry {at} is dropped")
        }
        1 => {
            let other = random.below(log.len());
            log.swap(at, other);
            format!("entries {at} and {other} are swapped")
        }
        2 => {
            let copy = log[at].clone();
            log.push(copy);
            format!("entry {at} comes again at the end")
        }
        3 | 4 => change_a_number(log, at, random),
        5 | 6 => take_from_another(log, at, random),
        _ => drop_a_member(log, at, random),
    }
}

/// One change at random behind the back of a signed checkpoint; what it was.
pub(super) fn bytes_at_random(log: &mut SignedLog, random: &mut Random) -> String {
    // What comes after all that is signed may say what it likes, so the last one is left alone.
    let at = random.below(log.entries.len() - 1);
    match random.below(6) {
        0 => {
            log.entries.remove(at);
            format!("entry {at} is dropped")
        }
        1 => {
            log.entries.swap(at, (at + 1) % 40);
            format!("entries {at} and {} are swapped", (at + 1) % 40)
        }
        2 => {
            let copy = log.entries[at].clone();
            log.entries.insert(at, copy);
            format!("entry {at} comes twice")
        }
        3 => {
            let byte = random.below(log.checkpoint.len());
            log.checkpoint[byte] ^= 1 << random.below(8);
            format!("byte {byte} of the checkpoint")
        }
        _ => {
            let byte = random.below(log.entries[at].len());
            log.entries[at][byte] ^= 1 << random.below(8);
            format!("byte {byte} of entry {at}")
        }
    }
}

/// The pointers to all members of an entry, those within objects included.
fn members(value: &Value, within: &str, found: &mut Vec<String>) {
    for (name, member) in value.as_object().into_iter().flatten() {
        let path = format!("{within}/{}", name.replace('~', "~0").replace('/', "~1"));
        members(member, &path, found);
        found.push(path);
    }
}

fn a_member(value: &Value, random: &mut Random) -> String {
    let mut found = Vec::new();
    members(value, "", &mut found);
    found.swap_remove(random.below(found.len()))
}

fn change_a_number(log: &mut [Value], at: usize, random: &mut Random) -> String {
    let mut found = Vec::new();
    members(&log[at], "", &mut found);
    found.retain(|path| log[at].pointer(path).is_some_and(Value::is_i64));
    let path = found.swap_remove(random.below(found.len()));
    let by = random.of(&[-10_000_000, -60_000, -1_000, -1, 1, 1_000, 31_000, 120_001, 10_000_000_000]);
    let number = log[at].pointer_mut(&path).unwrap();
    *number = json!((number.as_i64().unwrap() + by).max(0));
    format!("entry {at}{path} by {by}: {number}")
}

/// Gives an entry a member as another entry of its kind has it.
fn take_from_another(log: &mut [Value], at: usize, random: &mut Random) -> String {
    let alike: Vec<usize> = (0..log.len()).filter(|of| log[*of]["kind"] == log[at]["kind"]).collect();
    let other = random.of(&alike);
    let path = a_member(&log[at], random);
    if let Some(value) = log[other].pointer(&path).cloned() {
        *log[at].pointer_mut(&path).unwrap() = value;
    }
    format!("entry {at}{path} as in entry {other}")
}

fn drop_a_member(log: &mut [Value], at: usize, random: &mut Random) -> String {
    let path = a_member(&log[at], random);
    let (parent, name) = path.rsplit_once('/').unwrap();
    let name = name.replace("~1", "/").replace("~0", "~");
    log[at].pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(&name);
    format!("entry {at}{path} is dropped")
}
