//! Who asks too fast, and a broker that is told to stop.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use daypass_broker::emergency::{lay_marker, marker, order};
use daypass_broker::limits::Rates;
use daypass_evidence::entry::Body;
use daypass_proto::v1 as pb;
use daypass_tests::harness::{CI, Deployment, NIGHTLY, eventually, issue, task};
use tonic::Code;
use tonic_types::StatusExt as _;

async fn with_rates(rates: Rates) -> Deployment {
    let mut deployment = Deployment::stopped(daypass_broker::dev::organisation::sample()).await;
    deployment.settings.rates = rates;
    deployment.resume().await.unwrap();
    deployment
}

#[tokio::test]
async fn a_caller_that_asks_too_fast_is_told_when_to_come_back_and_spends_nothing() {
    let deployment = with_rates(Rates { issue_per_s: 2, issue_burst: 2, ..Rates::default() }).await;
    let service = deployment.service().await;
    issue(&service, task("post-invoices")).await.unwrap();
    issue(&service, task("post-invoices")).await.unwrap();
    let wanted = pb::IssueRequest { request_id: uuid(7), ..task("post-invoices") };
    let request = service.request(wanted.clone()).unwrap();
    let refused = service.credentials().issue(request).await.unwrap_err();
    let details = refused.get_error_details();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert_eq!(details.error_info().unwrap().reason, "RATE_LIMITED");
    let wait = details.retry_info().unwrap().retry_delay.unwrap();
    assert!(wait > Duration::ZERO && wait <= Duration::from_millis(500), "{wait:?}");

    // Another instance of the same identity is not kept waiting.
    issue(&deployment.job().await, task("post-invoices")).await.unwrap();
    tokio::time::sleep(wait).await;
    issue(&service, wanted).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_says_when_to_come_back_and_loses_nothing() {
    const CALLERS: usize = 40;
    let mut deployment = Deployment::stopped(daypass_broker::dev::organisation::sample()).await;
    (deployment.settings.rates, deployment.settings.queue) = (Rates::NONE, 4);
    deployment.resume().await.unwrap();
    // Each with a proof that buys one credential.
    let callers = futures::future::join_all((0..CALLERS).map(|_| deployment.job())).await;
    let store = rusqlite::Connection::open(deployment.store()).unwrap();
    store.execute_batch("BEGIN IMMEDIATE").unwrap();
    let turned_away = Arc::new(AtomicUsize::new(0));
    let calls: Vec<_> = callers
        .into_iter()
        .map(|caller| {
            let turned_away = Arc::clone(&turned_away);
            tokio::spawn(async move {
                let request = caller.request(task("post-invoices")).unwrap();
                let answer = caller.credentials().issue(request).await;
                let refused = answer.as_ref().err().is_some_and(|it| it.code() == Code::ResourceExhausted);
                turned_away.fetch_add(usize::from(refused), Ordering::Relaxed);
                (caller, answer)
            })
        })
        .collect();
    let full = || async { turned_away.load(Ordering::Relaxed) >= CALLERS / 2 };
    eventually("most are turned away", full).await;
    store.execute_batch("ROLLBACK").unwrap();
    let mut held = BTreeSet::new();
    for call in calls {
        let (caller, answer) = call.await.unwrap();
        let mut answer = answer.map(tonic::Response::into_inner);
        for _ in 0..20 {
            let Err(refused) = &answer else { break };
            // Its proof was not spent: the same one is shown again, when the broker said.
            tokio::time::sleep(told_to_wait(refused)).await;
            let request = caller.request(task("post-invoices")).unwrap();
            answer = caller.credentials().issue(request).await.map(tonic::Response::into_inner);
        }
        let answer = answer.expect("there is room again");
        held.insert(answer.credential_id);
    }
    assert_eq!(held.len(), CALLERS);
    let entries = deployment.entries().await;
    let issued = entries.iter().filter(|(_, entry)| matches!(entry.body, Body::CredentialIssued(_)));
    assert_eq!(issued.count(), CALLERS, "and nothing was issued that nobody holds");
}

/// For how long a caller that was turned away is to stay away.
fn told_to_wait(refused: &tonic::Status) -> Duration {
    let details = refused.get_error_details();
    let reason = details.error_info().unwrap().reason.as_str();
    assert!(["RATE_LIMITED", "EVIDENCE_UNAVAILABLE"].contains(&reason), "{refused:?}");
    let wait = details.retry_info().unwrap().retry_delay.unwrap();
    assert!(wait > Duration::ZERO && wait <= Duration::from_secs(5), "{wait:?}");
    wait
}

fn uuid(last: u8) -> String {
    format!("0199f2c1-0000-7000-8000-0000000000{last:02}")
}

#[tokio::test]
async fn an_address_whose_proofs_keep_failing_is_not_looked_at_and_what_is_proven_goes_on() {
    let rates = Rates { failed_proofs_per_s: 1, failed_proofs_burst: 3, ..Rates::default() };
    let deployment = with_rates(rates).await;
    let service = deployment.service().await;
    issue(&service, task("post-invoices")).await.unwrap();
    let stranger = deployment.bearer("not.a.token").await;
    let mut reasons = Vec::new();
    for _ in 0..6 {
        reasons.push(issue(&stranger, task("post-invoices")).await.unwrap_err().reason);
    }
    assert_eq!(reasons[..3], ["PROOF_REFUSED"; 3]);
    assert_eq!(reasons[5], "RATE_LIMITED", "{reasons:?}");
    issue(&service, task("post-invoices")).await.unwrap();
    let token = deployment.organisation.token(CI, NIGHTLY).unwrap();
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    issue(&deployment.bound(token).await, task("post-invoices")).await.unwrap();
}

fn socket(deployment: &Deployment) -> PathBuf {
    deployment.settings.emergency.clone().unwrap()
}

async fn suspensions(deployment: &Deployment) -> (usize, usize) {
    let entries = deployment.entries().await;
    let count = |is: fn(&Body) -> bool| entries.iter().filter(|(_, entry)| is(&entry.body)).count();
    (
        count(|body| matches!(body, Body::SuspensionSet(set) if set.selector.everything)),
        count(|body| matches!(body, Body::SuspensionLifted(_))),
    )
}

#[tokio::test]
async fn a_broker_that_was_halted_issues_nothing_until_it_is_resumed_whatever_restarts() {
    let mut deployment = Deployment::start().await;
    let at = socket(&deployment);
    assert_eq!(std::fs::metadata(&at).unwrap().permissions().mode() & 0o777, 0o600);
    issue(&deployment.service().await, task("post-invoices")).await.unwrap();

    assert!(order(&at, "halt a key was seen elsewhere").await.unwrap().starts_with("halted"));
    let refused = issue(&deployment.service().await, task("post-invoices")).await.unwrap_err();
    assert!(["HALTED", "SUSPENDED"].contains(&refused.reason.as_str()), "{refused:?}");
    eventually("the log says so", || async { suspensions(&deployment).await == (1, 0) }).await;
    assert!(order(&at, "status").await.unwrap().contains("a key was seen elsewhere"));

    deployment.stop().await;
    assert!(marker(&at).exists());
    deployment.resume().await.unwrap();
    issue(&deployment.service().await, task("post-invoices")).await.unwrap_err();

    assert_eq!(order(&at, "resume").await.unwrap(), "resumed\n");
    eventually("the log says so", || async { suspensions(&deployment).await == (1, 1) }).await;
    issue(&deployment.service().await, task("post-invoices")).await.unwrap();
    deployment.stop().await;
    assert_eq!(deployment.copied().open().unwrap().started.report.findings, []);
}

#[tokio::test]
async fn a_broker_is_halted_without_its_store() {
    let deployment = Deployment::start().await;
    let store = rusqlite::Connection::open(deployment.store()).unwrap();
    store.execute_batch("BEGIN IMMEDIATE").unwrap();
    let began = std::time::Instant::now();
    assert!(order(&socket(&deployment), "halt").await.unwrap().starts_with("halted"));
    assert!(began.elapsed() < Duration::from_millis(500));
    let refused = issue(&deployment.service().await, task("post-invoices")).await.unwrap_err();
    assert_eq!((refused.code, refused.reason.as_str()), (Code::Unavailable, "HALTED"));
    store.execute_batch("ROLLBACK").unwrap();
    eventually("the log says so", || async { suspensions(&deployment).await == (1, 0) }).await;
}

#[tokio::test]
async fn a_halt_that_was_laid_while_no_broker_ran_is_written_once_and_can_be_lifted() {
    let mut deployment = Deployment::start().await;
    let at = socket(&deployment);
    deployment.stop().await;
    lay_marker(&at, "the night before").unwrap();
    deployment.resume().await.unwrap();
    issue(&deployment.service().await, task("post-invoices")).await.unwrap_err();
    eventually("the log says so", || async { suspensions(&deployment).await == (1, 0) }).await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(suspensions(&deployment).await, (1, 0), "it is said once");
    order(&at, "resume").await.unwrap();
    eventually("the log says so", || async { suspensions(&deployment).await == (1, 1) }).await;
    issue(&deployment.service().await, task("post-invoices")).await.unwrap();
}

#[tokio::test]
async fn an_identity_that_an_order_suspends_is_issued_nothing_until_it_is_resumed_and_others_go_on() {
    let deployment = Deployment::start().await;
    let at = socket(&deployment);
    issue(&deployment.service().await, task("post-invoices")).await.unwrap();
    let said = order(&at, &format!("suspend identity={NIGHTLY} seen elsewhere")).await.unwrap();
    assert!(said.starts_with("suspended by entry") && said.contains("; 1 credentials found live"), "{said}");
    let refused = issue(&deployment.service().await, task("post-invoices")).await.unwrap_err();
    assert_eq!((refused.code, refused.reason.as_str()), (Code::PermissionDenied, "SUSPENDED"));
    let (_, set) = deployment
        .entry("the suspension", |entry| match &entry.body {
            Body::SuspensionSet(set) => Some((**set).clone()),
            _ => None,
        })
        .await;
    assert_eq!(set.selector.identity.unwrap().as_str(), NIGHTLY);
    assert_eq!((set.reason.as_str(), set.live), ("emergency suspension: seen elsewhere", 1));

    // A halt is not lifted with it, nor it with a halt.
    order(&at, "resume").await.unwrap();
    issue(&deployment.service().await, task("post-invoices")).await.unwrap_err();
    assert!(order(&at, "resume identity=prod/other").await.unwrap().starts_with("failed"));
    assert!(order(&at, "suspend nothing=at-all").await.unwrap().starts_with("failed"));
    order(&at, &format!("resume identity={NIGHTLY}")).await.unwrap();
    issue(&deployment.service().await, task("post-invoices")).await.unwrap();
}
