//! Two brokers on one store, each with listeners and an anchor of its own.

use std::time::Duration;

use daypass_broker::activate;
use daypass_broker::clock::Clock as _;
use daypass_broker::dev::caller::{Caller, possession};
use daypass_broker::dev::organisation::sample;
use daypass_broker::emergency::order;
use daypass_broker::ids::Ids;
use daypass_broker::log::Attached;
use daypass_broker::serve::{self, Running};
use daypass_core::bundle::compile;
use daypass_evidence::checkpoint::Checkpoint;
use daypass_evidence::entry::{Alarm, AlarmState, Body, Entry, NewEntry};
use daypass_proto::v1 as pb;
use daypass_proto::v1::get_proof_request::Of;
use daypass_tests::harness::{
    CI, Deployment, NIGHTLY, OPERATOR, STAFF, eventually, issue, nightly, stores, task,
};
use futures::future::join_all;

use crate::faults::report::stood;
use crate::simulation::check::Ledger;

async fn caller_of(broker: &Running, deployment: &Deployment, token: &str) -> Caller {
    let certificate = possession().unwrap();
    let caller = Caller::connect(broker.api.port(), &deployment.listener_ca, Some(&certificate)).await;
    caller.unwrap().with_token(token.to_owned())
}

#[tokio::test]
async fn one_proof_shown_64_times_to_two_brokers_buys_one_credential() {
    for store in stores() {
        let deployment = Deployment::start_unlimited_on(store).await;
        let other = deployment.second().await;
        let times = if nightly() { 200 } else { 8 };
        for _ in 0..times {
            let token = deployment.organisation.token(CI, NIGHTLY).unwrap();
            let here = caller_of(deployment.broker(), &deployment, &token).await;
            let there = caller_of(&other, &deployment, &token).await;
            let asked =
                (0..64).map(|n| issue(if n % 2 == 0 { &here } else { &there }, task("post-invoices")));
            let answers = join_all(asked).await;
            assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
            let refused: Vec<_> = answers.iter().filter_map(|answer| answer.as_ref().err()).collect();
            assert!(refused.iter().all(|refused| refused.reason == "PROOF_REPLAYED"), "{refused:?}");
        }
        other.stop("the test is over").await.unwrap();
        let on = if deployment.settings.store.file().is_some() { "SQLite" } else { "PostgreSQL" };
        stood("P7", &format!("one proof shown by 64 callers at once to two brokers on {on}"), times);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checkpoints_of_two_brokers_that_issue_at_once_are_of_one_log() {
    for store in stores() {
        let deployment = Deployment::start_on(store).await;
        let other = deployment.second().await;
        let workload = deployment.workload(NIGHTLY);
        let there =
            Caller::connect(other.api.port(), &deployment.listener_ca, Some(&workload)).await.unwrap();
        let here = deployment.connect(Some(&workload)).await;
        let mut seen = Vec::new();
        for _ in 0..10 {
            let asked = (0..8).map(|n| issue(if n % 2 == 0 { &here } else { &there }, task("post-invoices")));
            seen.extend(join_all(asked).await.into_iter().map(|answer| answer.unwrap().receipt.unwrap()));
        }
        let mut ledger = Ledger::default();
        ledger.read_on(deployment.settings.store.reader().unwrap().as_ref()).unwrap();
        for receipt in seen {
            let checkpoint = Checkpoint::open(&receipt.checkpoint, &deployment.log_key).unwrap();
            ledger.check_checkpoint(&checkpoint).unwrap();
        }
        other.stop("the test is over").await.unwrap();
    }
}

#[tokio::test]
async fn a_caller_that_goes_from_broker_to_broker_shows_each_what_the_other_signed() {
    let deployment = Deployment::start().await;
    let other = deployment.second().await;
    let workload = deployment.workload(NIGHTLY);
    let there = Caller::connect(other.api.port(), &deployment.listener_ca, Some(&workload)).await.unwrap();
    let here = deployment.connect(Some(&workload)).await;
    let (mut newest, mut first) = (Default::default(), None);
    for n in 0..12 {
        let caller = if n % 2 == 0 { &here } else { &there };
        let wanted = pb::IssueRequest { known_checkpoint: newest, ..task("post-invoices") };
        newest = issue(caller, wanted).await.unwrap().receipt.unwrap().checkpoint;
        first.get_or_insert_with(|| newest.clone());
    }
    for caller in [&here, &there] {
        let wanted = pb::IssueRequest { known_checkpoint: first.clone().unwrap(), ..task("post-invoices") };
        issue(caller, wanted).await.unwrap();
    }
    other.stop("the test is over").await.unwrap();
}

#[tokio::test]
async fn what_is_activated_on_one_broker_is_in_force_on_the_other_within_a_second() {
    for store in stores() {
        let deployment = Deployment::start_on(store).await;
        let other = deployment.second().await;
        let next = compile(&sample()).unwrap();
        assert_ne!(next.digest(), deployment.organisation.bundle.digest());
        let now = deployment.settings.clock.now();
        activate::bootstrap(&deployment.broker().desk.log, &Ids::system(), &next, now).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let state = other.desk.log.state();
        assert_eq!(state.bundle().map(|bundle| bundle.digest()), Some(next.digest()));
        assert_eq!(state.at(), deployment.broker().log().state().at(), "by the same entry");
        other.stop("the test is over").await.unwrap();
    }
}

#[tokio::test]
async fn a_broker_answers_for_what_another_has_just_written() {
    for store in stores() {
        let deployment = Deployment::start_on(store).await;
        let other = deployment.second().await;
        let staff = deployment.organisation.token(STAFF, OPERATOR).unwrap();
        let reader = caller_of(&other, &deployment, &staff).await;
        for _ in 0..10 {
            let answer = issue(&deployment.service().await, task("post-invoices")).await.unwrap();
            let receipt = answer.receipt.unwrap();
            let seen = Checkpoint::open(&receipt.checkpoint, &deployment.log_key).unwrap();
            let index = receipt.entry.unwrap().index;
            let wanted =
                pb::GetProofRequest { of: Some(Of::Index(index)), size: seen.size, ..Default::default() };
            let proof =
                reader.evidence().get_proof(reader.request(wanted).unwrap()).await.unwrap().into_inner();
            assert_eq!(proof.hashes, receipt.inclusion, "at the size that the caller knows");
        }
        let wanted = pb::ListEntriesRequest::default();
        let mut list =
            reader.evidence().list_entries(reader.request(wanted).unwrap()).await.unwrap().into_inner();
        while let Some(entry) = list.message().await.unwrap() {
            let covers = Checkpoint::open(&entry.checkpoint, &deployment.log_key).unwrap().size;
            assert!(entry.r#ref.unwrap().index < covers, "each entry comes with a checkpoint that covers it");
        }
        other.stop("the test is over").await.unwrap();
    }
}

#[tokio::test]
async fn a_broker_whose_name_is_taken_writes_no_more() {
    for store in stores() {
        let deployment = Deployment::start_on(store).await;
        let mut settings = deployment.second_settings();
        settings.broker = deployment.settings.broker.clone();
        let newer = serve::start(settings).await.unwrap();
        let told = || async {
            deployment
                .broker()
                .log()
                .fault()
                .is_some_and(|fault| fault.contains("another broker started as `b1`"))
        };
        eventually("the older broker is told", told).await;
        let refused = issue(&deployment.service().await, task("post-invoices")).await.unwrap_err();
        assert_eq!(refused.reason, "HALTED");
        assert_eq!(newer.desk.log.fault(), None, "the newer one goes on");
    }
}

#[tokio::test]
async fn a_start_names_the_run_before_of_the_same_name() {
    let deployment = Deployment::stopped(sample()).await;
    let first = serve::start(deployment.settings.clone()).await.unwrap();
    let other = serve::start(deployment.second_settings()).await.unwrap();
    first.stop("the test stops it").await.unwrap();
    let again = serve::start(deployment.settings.clone()).await.unwrap();
    let rows = again.readers.run(|reader| reader.rows(0, u32::MAX)).await.unwrap();
    let entries: Vec<_> = rows.iter().map(|row| (row.index, Entry::read(&row.bytes).unwrap())).collect();
    let started: Vec<_> = entries
        .iter()
        .filter_map(|(_, entry)| match &entry.body {
            Body::BrokerStarted(started) => {
                Some((entry.envelope.broker.to_string(), started.previous.clone()))
            }
            _ => None,
        })
        .collect();
    let stopped = entries.iter().find(|(_, entry)| matches!(entry.body, Body::BrokerStopped(_))).unwrap().0;
    assert_eq!(started.len(), 3, "{started:?}");
    assert!(started[0].1.is_none() && started[1].1.is_none(), "a name that is new has no run before");
    let previous = started[2].1.clone().unwrap();
    assert_eq!((started[2].0.as_str(), previous.index, previous.clean), ("b1", stopped, true));
    again.stop("the test is over").await.unwrap();
    other.stop("the test is over").await.unwrap();
}

#[tokio::test]
async fn a_broker_that_is_gone_for_good_is_no_gap_once_an_operator_says_so() {
    let mut deployment = Deployment::start().await;
    let other = deployment.second().await;
    let at = deployment.settings.emergency.clone().unwrap();
    assert!(order(&at, "stopped b2").await.unwrap().starts_with("failed"), "it was heard a moment ago");
    let gone = "b2".parse().unwrap();
    let alarm = Alarm { code: "CLOCK".into(), state: AlarmState::Raised, raised: None, detail: None };
    let id = other.desk.ids.draw(deployment.clock.now()).unwrap();
    let entry = NewEntry { id, request: None, by: None, body: alarm.into() };
    other.desk.log.append(vec![entry], Attached::default()).await.unwrap();
    let alarmed = || async { deployment.broker().log().state().alarms().any(|(_, it)| it.broker == gone) };
    eventually("its alarm is known", alarmed).await;
    // It is never heard again: it beats once a minute, and this test is over before.
    drop(other);
    deployment.clock.advance(130_000);
    for wrong in ["stopped b9", "stopped b1", "stopped"] {
        assert!(order(&at, wrong).await.unwrap().starts_with("failed"), "{wrong}");
    }
    let said = order(&at, "stopped b2 its machine is gone").await.unwrap();
    assert!(said.contains("says that `b2` is stopped"), "{said}");
    assert!(!alarmed().await, "and its alarm, which would excuse late endings for ever, is over");
    deployment.clock.advance(130_000);
    deployment.stop().await;
    let findings = deployment.copied().open().unwrap().started.report.findings;
    assert!(findings.iter().all(|finding| !finding.to_string().contains("`b2`")), "{findings:?}");
}
