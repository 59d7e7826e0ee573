//! What is suspended gets nothing, on any broker, until it is resumed; what lives of it is revoked unless it is to live.

use std::collections::BTreeSet;

use daypass_broker::clock::Clock as _;
use daypass_broker::dev::caller::Caller;
use daypass_broker::emergency::order;
use daypass_broker::log::Attached;
use daypass_evidence::entry::{Body, CredentialEnded, EndedHow, Index, NewEntry, Selector, SuspensionSet};
use daypass_proto::v1 as pb;
use daypass_proto::v1::selector::What;
use daypass_tests::harness::postgres::Postgres;
use daypass_tests::harness::{Deployment, NIGHTLY, Refused, SECURITY, eventually, issue, program, run, task};

fn nightly() -> Option<pb::Selector> {
    selecting(What::Identity(NIGHTLY.into()))
}

fn selecting(what: What) -> Option<pb::Selector> {
    Some(pb::Selector { what: Some(what), issued_before: None })
}

fn request(selector: Option<pb::Selector>) -> pb::SuspendRequest {
    pb::SuspendRequest { selector, reason: "a laptop was stolen".into(), ..Default::default() }
}

async fn suspend(caller: &Caller, wanted: pb::SuspendRequest) -> Result<pb::SuspendResponse, Refused> {
    let answered = caller.governance().suspend(caller.request(wanted).unwrap()).await;
    answered.map(tonic::Response::into_inner).map_err(Refused::from)
}

async fn resume(caller: &Caller, suspension: &str) -> Result<pb::ResumeResponse, Refused> {
    let wanted = pb::ResumeRequest { suspension: suspension.into(), reason: "it was found".into() };
    let answered = caller.governance().resume(caller.request(wanted).unwrap()).await;
    answered.map(tonic::Response::into_inner).map_err(Refused::from)
}

async fn issued(caller: &Caller) -> Index {
    issue(caller, task("post-invoices")).await.unwrap().receipt.unwrap().entry.unwrap().index
}

async fn reason_refused(caller: &Caller) -> String {
    issue(caller, task("post-invoices")).await.unwrap_err().reason
}

async fn revoked(deployment: &Deployment) -> Vec<CredentialEnded> {
    let entries = deployment.entries().await.into_iter();
    let revoked = entries.filter_map(|(_, entry)| match entry.body {
        Body::CredentialEnded(ended) if ended.how == EndedHow::Revoked => Some(*ended),
        _ => None,
    });
    revoked.collect()
}

/// On two brokers: counted first, then suspended by one, refused by both, revoked, and resumed by the other.
async fn suspended_and_resumed(mut deployment: Deployment) {
    let other = deployment.second().await;
    let workload = deployment.workload(NIGHTLY);
    let here = deployment.connect(Some(&workload)).await;
    let there = Caller::connect(other.api.port(), &deployment.listener_ca, Some(&workload)).await.unwrap();
    let mut lived = BTreeSet::new();
    for n in 0..12 {
        lived.insert(issued(if n % 2 == 0 { &here } else { &there }).await);
    }

    let security = deployment.security().await;
    let dry = pb::SuspendRequest { validate_only: true, ..request(nightly()) };
    for _ in 0..2 {
        let counted = suspend(&security, dry.clone()).await.unwrap();
        assert_eq!((counted.live, counted.revoked, counted.entry), (12, 0, None), "and no proof is spent");
        assert_eq!((counted.suspension.as_str(), counted.credential_ids.len()), ("", 12));
    }
    lived.insert(issued(&here).await);

    let suspended = suspend(&security, request(nightly())).await.unwrap();
    assert_eq!((suspended.live, suspended.revoked, suspended.goes_on), (13, 13, false));
    assert_eq!(suspend(&security, request(nightly())).await.unwrap_err().reason, "PROOF_REPLAYED");
    for caller in [&here, &there] {
        assert_eq!(reason_refused(caller).await, "SUSPENDED", "from the same entry on");
    }
    let at = suspended.entry.unwrap().index;
    let ended = revoked(&deployment).await;
    let named: Vec<Index> = ended.iter().flat_map(|ended| ended.ended.clone()).collect();
    assert_eq!(named, lived.into_iter().collect::<Vec<_>>(), "each once");
    for ended in &ended {
        assert_eq!((ended.ordered, ended.reason.as_deref()), (Some(at), Some("privilegeWithdrawn")));
        assert_eq!(ended.comment.as_deref(), Some("a laptop was stolen"));
    }
    let (_, set) = deployment.entries().await.into_iter().find(|(index, _)| *index == at).unwrap();
    assert_eq!(set.envelope.by.unwrap().operator.unwrap().as_str(), SECURITY);
    assert_eq!(set.envelope.id.to_string(), suspended.suspension);

    let elsewhere = Caller::connect(other.api.port(), &deployment.listener_ca, None).await.unwrap();
    let token = || deployment.organisation.token("staff", SECURITY).unwrap();
    let elsewhere = |token: String| elsewhere.clone().with_token(token);
    let lifted = resume(&elsewhere(token()), &suspended.suspension).await.unwrap();
    assert!(lifted.entry.unwrap().index > at);
    issued(&there).await;
    // The other hears of it a moment later.
    let goes_on = || async { issue(&here, task("post-invoices")).await.is_ok() };
    eventually("it is lifted there too", goes_on).await;
    let again = resume(&elsewhere(token()), &suspended.suspension).await.unwrap_err();
    assert_eq!(again.reason, "NOT_FOUND", "it is lifted");
    other.stop("the test is over").await.unwrap();
    deployment.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_suspended_gets_nothing_on_any_broker_and_what_lives_of_it_is_revoked() {
    suspended_and_resumed(Deployment::start().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_on_postgresql() {
    let mut deployment = Deployment::stopped_in(Postgres::shared().any_database().at()).await;
    deployment.resume().await.unwrap();
    suspended_and_resumed(deployment).await;
}

#[tokio::test]
async fn a_suspension_that_keeps_what_lives_ends_nothing_and_lifts_itself_when_its_time_is_over() {
    let mut deployment = Deployment::start().await;
    let service = deployment.service().await;
    issued(&service).await;
    let until = deployment.clock.now().seconds() + 60;
    let wanted = pb::SuspendRequest {
        keep_live: true,
        until: Some(prost_types::Timestamp { seconds: until, nanos: 0 }),
        drill: "2026-q4".into(),
        ..request(selecting(What::Task("post-invoices".into())))
    };
    let suspended = suspend(&deployment.security().await, wanted).await.unwrap();
    assert_eq!((suspended.live, suspended.revoked), (1, 0));
    assert_eq!(reason_refused(&service).await, "SUSPENDED");
    let audiences = vec!["https://ledger.example.org".into()];
    let another = pb::IssueRequest { audiences, ..task("read-invoices") };
    issue(&service, another).await.expect("another task is not suspended");
    deployment.clock.advance(61_000);
    issued(&service).await;
    assert!(revoked(&deployment).await.is_empty());
    deployment.stop().await;
    let opened = deployment.copied().open().unwrap();
    assert!(opened.started.report.is_clean(), "{:?}", opened.started.report.findings);
}

#[tokio::test]
async fn an_order_that_cannot_be_meant_is_refused_and_leaves_a_trace() {
    let deployment = Deployment::start().await;
    let strangers = [deployment.job().await, deployment.service().await];
    for stranger in &strangers {
        for validate_only in [true, false] {
            let wanted = pb::SuspendRequest { validate_only, ..request(nightly()) };
            assert_eq!(suspend(stranger, wanted).await.unwrap_err().reason, "NOT_ALLOWED");
        }
        assert_eq!(resume(stranger, "7").await.unwrap_err().reason, "NOT_ALLOWED");
    }
    let security = deployment.security().await;
    let past = prost_types::Timestamp { seconds: 1_700_000_000, nanos: 0 };
    let credential = What::CredentialId("0199f2c1-0000-7000-8000-000000000001".into());
    for wanted in [
        request(None),
        request(selecting(What::Everything(false))),
        request(selecting(What::Identity("NOBODY".into()))),
        request(selecting(credential)),
        pb::SuspendRequest { reason: " ".into(), ..request(nightly()) },
        pb::SuspendRequest { reason: "x".repeat(513), ..request(nightly()) },
        pb::SuspendRequest { reason: "emergency halt of `b1`".into(), ..request(nightly()) },
        pb::SuspendRequest { drill: "a\nb".into(), ..request(nightly()) },
        pb::SuspendRequest { until: Some(past), ..request(nightly()) },
    ] {
        assert_eq!(suspend(&security, wanted.clone()).await.unwrap_err().reason, "MALFORMED", "{wanted:?}");
    }
    for nothing in ["7", "1000000", "0199f2c1-0000-7000-8000-000000000001", "nothing"] {
        assert_eq!(resume(&security, nothing).await.unwrap_err().reason, "NOT_FOUND", "{nothing}");
    }
    issued(&deployment.service().await).await;
    let changes = |body: &Body| matches!(body, Body::SuspensionSet(_) | Body::SuspensionLifted(_));
    assert!(!deployment.entries().await.iter().any(|(_, entry)| changes(&entry.body)));
    let refused = deployment.entry("the trace", |entry| match &entry.body {
        Body::CredentialRefused(refused) if refused.reason == "ROLE_MISSING" => Some(refused.clause.clone()),
        _ => None,
    });
    assert!(refused.await.1.contains("needs the role `contain`"));
}

#[tokio::test]
async fn what_a_brokers_own_switch_suspends_only_that_switch_lifts() {
    let deployment = Deployment::start().await;
    let socket = deployment.settings.emergency.clone().unwrap();
    order(&socket, "halt drill").await.unwrap();
    let set = deployment.entry("it is recorded", |entry| match &entry.body {
        Body::SuspensionSet(_) => Some(entry.envelope.id.to_string()),
        _ => None,
    });
    let (_, id) = set.await;
    let refused = resume(&deployment.security().await, &id).await.unwrap_err();
    assert_eq!(refused.reason, "NOT_ALLOWED");
    assert!(refused.message.contains("emergency resume"), "{}", refused.message);
    order(&socket, "suspend identity=prod/billing/nightly drill").await.unwrap();
    order(&socket, "resume").await.unwrap();
    let set = deployment.entry("the order", |entry| match &entry.body {
        Body::SuspensionSet(set) if !set.selector.everything => Some(()),
        _ => None,
    });
    let (at, ()) = set.await;
    resume(&deployment.security().await, &at.to_string()).await.unwrap();
    let again = || async { issue(&deployment.service().await, task("post-invoices")).await.is_ok() };
    eventually("it is issued again", again).await;
}

#[tokio::test]
async fn what_a_broker_was_told_to_revoke_and_did_not_finish_is_ended_by_whoever_is_left() {
    let mut deployment = Deployment::start().await;
    let service = deployment.service().await;
    let lived: Vec<Index> = vec![issued(&service).await, issued(&service).await];
    // As far as one came that was killed then.
    let desk = &deployment.broker().desk;
    let set = SuspensionSet {
        selector: Selector { identity: Some(NIGHTLY.parse().unwrap()), ..Selector::default() },
        reason: "a laptop was stolen".into(),
        until_ms: None,
        revoked: 2,
        live: 2,
        drill: None,
        revokes: true,
    };
    let id = desk.ids.draw(desk.clock.now()).unwrap();
    let entry = NewEntry { id, request: None, by: None, body: set.into() };
    let at = desk.log.append(vec![entry], Attached::default()).await.unwrap()[0].index;
    assert!(revoked(&deployment).await.is_empty(), "it is left to that broker for ten seconds");
    deployment.clock.advance(11_000);
    eventually("they are ended", || async { !revoked(&deployment).await.is_empty() }).await;
    let ended = revoked(&deployment).await;
    assert_eq!((&ended[0].ended, ended[0].ordered), (&lived, Some(at)));
    deployment.stop().await;
    let opened = deployment.copied().open().unwrap();
    assert!(opened.started.report.is_clean(), "{:?}", opened.started.report.findings);
}

#[tokio::test]
async fn the_program_counts_first_then_suspends_and_resumes() {
    let deployment = Deployment::start().await;
    issued(&deployment.service().await).await;
    let daypass = |arguments: &'static [&'static str], more: Vec<String>| {
        let profile = deployment.profile_of(SECURITY).to_str().unwrap().to_owned();
        let common = ["--config", &profile, "--format", "json"].map(String::from);
        let all: Vec<String> =
            common.into_iter().chain(arguments.iter().map(|it| (*it).into())).chain(more).collect();
        async move { run(program("daypass"), all).await }
    };
    let order = &["suspend", "identity=prod/billing/nightly", "--reason", "a laptop was stolen"];
    let dry = daypass(order, vec!["--dry-run".into()]).await;
    assert_eq!(dry.code, Some(0), "{dry:?}");
    let said: serde_json::Value = serde_json::from_str(&dry.stdout).unwrap();
    assert_eq!(said["would_end"], "1", "{said}");
    issued(&deployment.service().await).await;
    let done = daypass(order, vec!["--until".into(), "2h".into()]).await;
    assert_eq!(done.code, Some(0), "{done:?}");
    let said: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!((&said["lived"], &said["ended"]), (&"2".into(), &"2".into()), "{said}");
    assert_eq!(reason_refused(&deployment.service().await).await, "SUSPENDED");
    let id = said["suspension"].as_str().unwrap().to_owned();
    let lifted = daypass(&["resume"], vec![id.clone(), "--reason".into(), "it was found".into()]).await;
    assert_eq!(lifted.code, Some(0), "{lifted:?}");
    issued(&deployment.service().await).await;
    let again = daypass(&["resume"], vec![id, "--reason".into(), "again".into()]).await;
    assert_eq!(again.code, Some(1), "{again:?}");
    let wrong = daypass(&["suspend", "role=a", "--reason", "x"], Vec::new()).await;
    assert_eq!(wrong.code, Some(2), "{wrong:?}");
}
