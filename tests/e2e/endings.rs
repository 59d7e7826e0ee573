//! Every credential ends once, and never before it could not be alive any more.

use daypass_broker::store::sqlite::SqliteStore;
use daypass_evidence::audit::FindingCode;
use daypass_evidence::entry::{Body, EndedHow};
use daypass_proto::v1 as pb;
use daypass_tests::harness::{Deployment, eventually, issue, task, token_of};
use daypass_verify::ids::Digest;
use prost_types::Duration;

#[tokio::test]
async fn what_expired_is_ended_by_an_entry_and_not_before_its_leeway() {
    let deployment = Deployment::start().await;
    let ttl = Some(Duration { seconds: 60, nanos: 0 });
    let answer =
        issue(&deployment.service().await, pb::IssueRequest { ttl, ..task("post-invoices") }).await.unwrap();
    let index = answer.receipt.unwrap().entry.unwrap().index;
    let expires_ms = deployment.issued(&answer.credential_id).await.credential.exp_ms;

    deployment.clock.advance(75_000);
    tokio::time::sleep(std::time::Duration::from_millis(2_500)).await;
    let ended = |body: &Body| matches!(body, Body::CredentialEnded(_));
    assert!(
        !deployment.entries().await.iter().any(|(_, entry)| ended(&entry.body)),
        "a receiver may still take it"
    );

    deployment.clock.advance(16_000);
    let (_, (time, ended)) = deployment
        .entry("its end", |entry| match &entry.body {
            Body::CredentialEnded(ended) => Some((entry.envelope.time, ended.clone())),
            _ => None,
        })
        .await;
    assert_eq!((ended.how, ended.ended.as_slice()), (EndedHow::Expired, &[index][..]));
    assert!(time >= expires_ms.plus_millis(30_000));
}

#[tokio::test]
async fn what_was_handed_out_is_settled_with_the_digest_of_the_whole_credential() {
    let deployment = Deployment::start().await;
    let answer = issue(&deployment.job().await, task("post-invoices")).await.unwrap();
    let index = answer.receipt.clone().unwrap().entry.unwrap().index;
    let (_, released) = deployment
        .entry("that it was released", |entry| match &entry.body {
            Body::CredentialSettled(settled) => settled.released.iter().find(|it| it.0 == index).copied(),
            _ => None,
        })
        .await;
    assert_eq!(released.1, Digest::of(token_of(&answer).as_bytes()));
}

#[tokio::test]
async fn a_stop_settles_whatever_was_in_flight() {
    let mut deployment = Deployment::start().await;
    let service = deployment.service().await;
    let calls: Vec<_> = (0..64)
        .map(|_| {
            let service = service.clone();
            tokio::spawn(async move { issue(&service, task("post-invoices")).await })
        })
        .collect();
    eventually("some are issued", || async {
        deployment.entries().await.iter().any(|(_, entry)| matches!(entry.body, Body::CredentialIssued(_)))
    })
    .await;
    deployment.stop().await;
    let mut received = 0;
    for call in calls {
        received += u64::from(call.await.unwrap().is_ok());
    }
    let report = deployment.copied().open().unwrap().started.report;
    assert!(report.is_clean(), "{report:?}");
    assert!(report.issued >= received && received > 0, "{report:?}");

    deployment.resume().await.unwrap();
    let entries = deployment.entries().await;
    let (mut issued, mut settled) = (0, 0);
    for (_, entry) in &entries {
        match &entry.body {
            Body::CredentialIssued(_) => issued += 1,
            Body::CredentialSettled(it) => settled += it.released.len() + it.void.len(),
            _ => {}
        }
    }
    assert_eq!(issued, settled, "each is known to be released or void");
}

#[tokio::test]
async fn what_expires_in_the_same_moment_is_ended_each_once_however_much_it_is() {
    // Three times what one batch ends.
    const MANY: usize = 1_500;
    let mut deployment = Deployment::start_unlimited_on(None).await;
    let service = deployment.service().await;
    let ttl = Some(Duration { seconds: 120, nanos: 0 });
    for _ in 0..MANY / 50 {
        let wanted = || pb::IssueRequest { ttl, ..task("post-invoices") };
        let answers = futures::future::join_all((0..50).map(|_| issue(&service, wanted()))).await;
        assert!(answers.iter().all(Result::is_ok));
    }
    deployment.clock.advance(180_000);
    let store = SqliteStore::open_reader(deployment.store()).unwrap();
    eventually("none is live", || async { store.live().unwrap() == 0 }).await;
    let entries = deployment.entries().await;
    let ended = entries.iter().filter_map(|(_, entry)| match &entry.body {
        Body::CredentialEnded(ended) => Some(&ended.ended),
        _ => None,
    });
    let mut ended: Vec<_> = ended.flatten().collect();
    ended.sort_unstable();
    ended.dedup();
    assert_eq!(ended.len(), MANY);
    deployment.stop().await;
    let report = deployment.copied().open().unwrap().started.report;
    // The clock leapt, and the broker was silent for as long.
    let of_endings = report.findings.iter().filter(|it| it.code != FindingCode::HeartbeatGap);
    assert_eq!(of_endings.count(), 0, "{report:?}");
}
