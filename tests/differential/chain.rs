//! Logs of one store that follow each other: what only shows where they are read together.

use std::fmt::Write as _;

use daypass_tests::harness::run;
use daypass_verify::ids::Digest;
use serde_json::{Value, json};

use super::log::{Recorded, SignedLog, Signer};
use super::{MANY, verifier};

type Logs = Vec<Vec<Value>>;

/// One thing that is done to the logs before each is signed anew, and names the one before it as that is then.
type Edit = (&'static str, fn(&mut Logs));

/// Each alone is sound but for what it counts itself; together these are not.
#[rustfmt::skip]
const SPOILED: &[Edit] = &[
    ("what lived when its log was closed is not ended", |logs| drop(ends(logs).remove(0))),
    ("what lived when its log was closed is ended twice", |logs| { let of = ends(logs)[0].clone(); ends(logs).push(of); }),
    ("an ending of what the log before did not issue", |logs| ends(logs)[0] = json!(1)),
    ("what the log before released is called void", |logs| { let of = released(&logs[0]); let origin = origin(&logs[0]); append(&mut logs[2], json!({ "kind": "credential.settled", "log": origin, "void": [[of, "gone"]] })); }),
    ("what the log before did not issue is released", |logs| { let origin = origin(&logs[0]); append(&mut logs[2], json!({ "kind": "credential.settled", "log": origin, "released": [[1, Digest::of(b"it"), 1_i64 << 52]] })); }),
    ("a proof that buys one bought another in the next log", |logs| { let digest = once(&mut logs[0])["proof"]["digest"].clone(); once(&mut logs[1])["proof"]["digest"] = digest; }),
    ("closed for another", |logs| last(&mut logs[0])["successor"] = json!("example.org/evidence/1999h1")),
    ("not closed", |logs| drop(logs[0].pop())),
    ("closed, and gone on with", |logs| append(&mut logs[0], json!({ "kind": "alarm", "code": "A", "state": "raised" }))),
    ("more live than are counted", |logs| { let live = last(&mut logs[1]); live["live"] = json!(live["live"].as_i64().unwrap() - 1); }),
    ("begun before the one before it ended", |logs| { let time = logs[0][0]["time"].clone(); logs[1][0]["time"] = time; }),
    ("one is left out", |logs| drop(logs.remove(1))),
    ("one comes twice", |logs| { let log = logs[1].clone(); logs.insert(1, log); }),
];

/// What the next log says of the one before, where that is another.
#[rustfmt::skip]
const NAMED_WRONGLY: &[Edit] = &[
    ("another root", |logs| predecessor(logs)["root"] = json!(Digest::of(b"another"))),
    ("another size", |logs| { let named = predecessor(logs); named["size"] = json!(named["size"].as_u64().unwrap() - 1); }),
    ("another name", |logs| predecessor(logs)["origin"] = json!("example.org/evidence/1999h1")),
    ("none", |logs| drop(logs[1][0].as_object_mut().unwrap().remove("predecessor"))),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_that_follow_each_other_are_verified_together_by_whoever_has_python() {
    let recorded = Recorded::by_a_broker_that_turned_twice().await;
    assert_eq!(recorded.len(), 3);
    let logs: Logs = recorded.iter().map(Recorded::values).collect();
    let signer = Signer::new(origin(&logs[0]));
    let mut cases = vec![("nothing was done", sign(&signer, logs.clone(), |_| {}))];
    for (what, edit) in SPOILED {
        let mut edited = logs.clone();
        edit(&mut edited);
        assert!(edited != logs, "{what} changes nothing");
        cases.push((what, sign(&signer, edited, |_| {})));
    }
    cases.extend(NAMED_WRONGLY.iter().map(|(what, edit)| (*what, sign(&signer, logs.clone(), *edit))));
    let found = judged(&cases, &signer).await;
    let sound = |(_, found): &(&str, String)| found == "0";
    let wrong: Vec<_> = found.iter().enumerate().filter(|(at, it)| (*at == 0) != sound(it)).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");

    // As they lie in the store, under the broker's own key, by the name that it has for one of them.
    let as_kept: Vec<SignedLog> = recorded.iter().map(Recorded::signed).collect();
    let folder = tempfile::tempdir().unwrap();
    let mut arguments = vec![verifier(folder.path()).display().to_string()];
    for (at, log) in as_kept.iter().enumerate() {
        arguments.extend(log.write(folder.path(), at).map(|path| path.display().to_string()));
    }
    arguments.push(recorded[1].log_key.to_string());
    let verified = run("python3", &arguments).await;
    assert_eq!(verified.code, Some(0), "{verified:?}");
}

/// What the independent verifier says of each.
async fn judged(cases: &[(&'static str, Vec<SignedLog>)], signer: &Signer) -> Vec<(&'static str, String)> {
    let folder = tempfile::tempdir().unwrap();
    verifier(folder.path());
    let (mut list, mut at) = (String::new(), 0);
    for (_, logs) in cases {
        for log in logs {
            let [entries, checkpoint] = log.write(folder.path(), at);
            write!(list, "{} {} ", entries.display(), checkpoint.display()).unwrap();
            at += 1;
        }
        list.push('\n');
    }
    let lists = folder.path().join("list");
    std::fs::write(&lists, list).unwrap();
    let key = signer.verifier.to_string();
    let said = run("python3", [MANY, folder.path().to_str().unwrap(), lists.to_str().unwrap(), &key]).await;
    assert_eq!((said.code, said.stdout.lines().count()), (Some(0), cases.len()), "{said:?}");
    cases.iter().zip(said.stdout.lines()).map(|((what, _), said)| (*what, said.to_owned())).collect()
}

/// Signs each, after the next was told what the one before it is now, and `edit` was done to what it was told.
fn sign(signer: &Signer, mut logs: Logs, edit: fn(&mut Logs)) -> Vec<SignedLog> {
    for at in 1..logs.len() {
        let (root, size) = signer.sign(&logs[at - 1]).tree();
        let opened = &mut logs[at][0];
        (opened["predecessor"]["root"], opened["predecessor"]["size"]) = (json!(root), json!(size));
        if at == 1 {
            edit(&mut logs);
        }
    }
    logs.iter().map(|values| signer.sign_for(&origin(values), values)).collect()
}

/// What the last log ends of the first.
fn ends(logs: &mut Logs) -> &mut Vec<Value> {
    let first = origin(&logs[0]);
    let ended = |entry: &&mut Value| entry["kind"] == "credential.ended" && entry["log"] == first.as_str();
    logs[2].iter_mut().find(ended).unwrap()["ended"].as_array_mut().unwrap()
}

fn predecessor(logs: &mut Logs) -> &mut Value {
    &mut logs[1][0]["predecessor"]
}

fn origin(log: &[Value]) -> String {
    log[0]["origin"].as_str().unwrap().to_owned()
}

fn released(log: &[Value]) -> Value {
    log.iter().find(|entry| entry["kind"] == "credential.settled").unwrap()["released"][0][0].clone()
}

fn once(log: &mut [Value]) -> &mut Value {
    let bought = |entry: &&mut Value| entry["kind"] == "credential.issued" && entry["proof"]["use"] == "once";
    log.iter_mut().find(bought).unwrap()
}

fn last(log: &mut [Value]) -> &mut Value {
    log.last_mut().unwrap()
}

fn append(log: &mut Vec<Value>, fields: Value) {
    let mut entry = log.last().unwrap().clone();
    let members = entry.as_object_mut().unwrap();
    members.retain(|name, _| ["v", "id", "time", "td", "broker"].contains(&name.as_str()));
    members.extend(fields.as_object().unwrap().clone());
    log.push(entry);
}
