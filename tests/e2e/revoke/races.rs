//! Revocation against all else that may happen to a credential at the same moment.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use daypass_broker::dev::organisation::sample;
use daypass_broker::log::{Attached, Ends};
use daypass_broker::store::Live;
use daypass_evidence::entry::{CredentialEnded, EndedHow, NewEntry, Reach, Selector};
use daypass_proto::v1 as pb;
use daypass_proto::v1::selector::What;
use daypass_tests::harness::{Deployment, NIGHTLY, eventually, issue, task};
use futures::future::join_all;

use super::{ended, endings, index_of, order, revoke};

/// The first entry of an order about all of an identity, as far as a broker came that was killed then: it ends `one`.
async fn half_an_order(deployment: &Deployment, one: &pb::IssueResponse) -> u64 {
    let desk = &deployment.broker().desk;
    let before = desk.log.published().head.time.plus_millis(1);
    let everything_of = Selector {
        identity: Some(NIGHTLY.parse().unwrap()),
        issued_before_ms: Some(before),
        ..Selector::default()
    };
    let body = CredentialEnded {
        how: EndedHow::Revoked,
        ended: Vec::new(),
        log: None,
        through_ms: None,
        selector: Some(everything_of),
        reason: Some("keyCompromise".into()),
        comment: None,
        drill: None,
        ordered: None,
        reach: [].into(),
    };
    let id = desk.ids.draw(desk.clock.now()).unwrap();
    let entry = NewEntry { id, request: None, by: None, body: body.into() };
    let exp = deployment.issued(&one.credential_id).await.credential.exp_ms;
    let live = vec![(Live { exp, index: index_of(one) }, Reach::Feed)];
    let attached = Attached { ends: Some(Box::new(Ends { entry, live })), ..Attached::default() };
    desk.log.append(Vec::new(), attached).await.unwrap()[0].index
}

#[tokio::test]
async fn what_a_broker_was_told_to_revoke_and_did_not_finish_is_ended_by_whoever_is_left() {
    let mut deployment = Deployment::start_unlimited_on(None).await;
    let service = deployment.service().await;
    let first = issue(&service, task("post-invoices")).await.unwrap();
    let second = issue(&service, task("post-invoices")).await.unwrap();
    let at = half_an_order(&deployment, &first).await;
    let since = issue(&service, task("post-invoices")).await.unwrap();
    assert_eq!(ended(&deployment).await, [index_of(&first)], "it is left to that broker for ten seconds");
    // The next start finds it as any other broker does.
    deployment.clock.advance(11_000);
    deployment.stop().await;
    deployment.resume().await.unwrap();
    eventually("the rest is ended", || async { ended(&deployment).await.len() == 2 }).await;
    let (_, by, rest) = endings(&deployment).await.pop().unwrap();
    assert_eq!((by, rest.ended, rest.ordered), (None, vec![index_of(&second)], Some(at)));
    assert!(!ended(&deployment).await.contains(&index_of(&since)), "what was issued since is no part of it");
    deployment.both_verifiers_agree().await;
}

#[tokio::test]
async fn many_who_revoke_the_same_at_once_on_two_brokers_end_it_once() {
    let deployment = Deployment::start_unlimited_on(None).await;
    let other = deployment.second().await;
    let service = deployment.service().await;
    let workload = deployment.workload(NIGHTLY);
    let there = daypass_broker::dev::caller::Caller::connect(
        other.api.port(),
        &deployment.listener_ca,
        Some(&workload),
    );
    let there = there.await.unwrap();
    for _ in 0..5 {
        let issued = issue(&service, task("post-invoices")).await.unwrap();
        let what = || order(What::CredentialId(issued.credential_id.clone()));
        let asked = (0..16).map(|n| revoke(if n % 2 == 0 { &service } else { &there }, what()));
        let answers = join_all(asked).await;
        let counts: Vec<u64> = answers.into_iter().map(|answer| answer.unwrap().count).collect();
        assert_eq!(counts.iter().sum::<u64>(), 1, "{counts:?}");
        let named = ended(&deployment).await;
        assert_eq!(named.iter().filter(|index| **index == index_of(&issued)).count(), 1);
    }
    other.stop("the test is over").await.unwrap();
    deployment.both_verifiers_agree().await;
}

#[tokio::test]
async fn what_was_answered_before_an_order_has_ended_and_what_was_decided_before_it_is_decided_again() {
    let deployment = Arc::new(Deployment::start_unlimited_on(None).await);
    let over = Arc::new(AtomicBool::default());
    let issuing = (0..8).map(|_| {
        let (deployment, over) = (Arc::clone(&deployment), Arc::clone(&over));
        tokio::spawn(async move {
            let service = deployment.service().await;
            let mut issued = Vec::new();
            while !over.load(Ordering::SeqCst) {
                issued.push(issue(&service, task("post-invoices")).await.unwrap());
            }
            issued
        })
    });
    let issuing: Vec<_> = issuing.collect();
    let operators = join_all((0..6).map(|_| deployment.operator())).await;
    for operator in &operators {
        let before = issue(&deployment.service().await, task("post-invoices")).await.unwrap();
        revoke(operator, order(What::Identity(NIGHTLY.into()))).await.unwrap();
        assert!(ended(&deployment).await.contains(&index_of(&before)));
    }
    over.store(true, Ordering::SeqCst);
    let issued: Vec<_> = join_all(issuing).await.into_iter().flat_map(Result::unwrap).collect();
    let gone: BTreeSet<u64> = ended(&deployment).await.into_iter().collect();
    // Whatever a cut-off covers has ended: a verifier that reads the feed and the log never differ.
    let cut_off = |index: u64, id: &str| {
        let id: daypass_verify::ids::CredentialId = id.parse().unwrap();
        let found = deployment.broker().revocation.ledger().cut_offs(&deployment.broker().desk);
        let before = *found.identities.values().next().unwrap();
        (id.drawn_at() < before) == gone.contains(&index)
    };
    assert!(issued.len() > operators.len());
    for answer in &issued {
        assert!(cut_off(index_of(answer), &answer.credential_id), "{}", answer.credential_id);
    }
    deployment.both_verifiers_agree().await;
}

#[tokio::test]
async fn a_revocation_and_the_end_by_time_make_one_ending() {
    let deployment = Deployment::start_unlimited_on(None).await;
    let service = deployment.service().await;
    let mut all = Vec::new();
    for _ in 0..30 {
        let ttl = Some(prost_types::Duration { seconds: 60, nanos: 0 });
        all.push(issue(&service, pb::IssueRequest { ttl, ..task("post-invoices") }).await.unwrap());
    }
    // From now on the sweep ends them, a few hundred at once, whenever it comes.
    deployment.clock.advance(91_000);
    let service = deployment.service().await;
    let asked = all.iter().map(|one| revoke(&service, order(What::CredentialId(one.credential_id.clone()))));
    let revoked: u64 = join_all(asked).await.into_iter().map(|answer| answer.unwrap().count).sum();
    eventually("each has an ending", || async {
        let entries = deployment.entries().await;
        let ended = entries.iter().filter_map(|(_, entry)| match &entry.body {
            daypass_evidence::entry::Body::CredentialEnded(ended) => Some(ended.ended.len()),
            _ => None,
        });
        ended.sum::<usize>() == all.len()
    })
    .await;
    assert_eq!(ended(&deployment).await.len() as u64, revoked);
    deployment.both_verifiers_agree().await;
}

#[tokio::test]
async fn what_was_revoked_is_not_renewed() {
    let deployment = Deployment::start_unlimited_on(None).await;
    let service = deployment.service().await;
    let renewal = |id: &str| pb::IssueRequest { supersedes: id.into(), ..task("post-invoices") };
    let issued = issue(&service, task("post-invoices")).await.unwrap();
    let live = issue(&service, task("post-invoices")).await.unwrap();
    revoke(&service, order(What::CredentialId(issued.credential_id.clone()))).await.unwrap();
    for _ in 0..2 {
        let refused = issue(&service, renewal(&issued.credential_id)).await.unwrap_err();
        assert_eq!(refused.reason, "NOT_ALLOWED", "{refused:?}");
        assert!(refused.message.contains("revoked"), "{refused:?}");
    }
    assert!(issue(&service, renewal(&live.credential_id)).await.is_ok());
    // At the same moment: either the renewal came first, and lives on, or there is none.
    for _ in 0..10 {
        let issued = issue(&service, task("post-invoices")).await.unwrap();
        let (revoked, renewed) = tokio::join!(
            revoke(&service, order(What::CredentialId(issued.credential_id.clone()))),
            issue(&service, renewal(&issued.credential_id))
        );
        let at = revoked.unwrap().entry.unwrap().index;
        if let Ok(renewed) = renewed {
            assert!(index_of(&renewed) < at, "renewed by entry {}, revoked by {at}", index_of(&renewed));
        }
    }
}

#[tokio::test]
async fn where_a_task_says_so_a_renewal_ends_what_it_renews() {
    let files = sample().into_iter().map(|mut file| {
        if file.path.ends_with("tasks.toml") {
            file.text = file.text.replacen(
                "ttl_max = \"1h\"\nclaims",
                "ttl_max = \"1h\"\nrevoke_on_renew = true\nclaims",
                1,
            );
            assert!(file.text.contains("revoke_on_renew"));
        }
        file
    });
    let deployment = Deployment::start_with(files.collect(), |_| {}).await;
    let service = deployment.service().await;
    let first = issue(&service, task("post-invoices")).await.unwrap();
    let renewal = pb::IssueRequest { supersedes: first.credential_id.clone(), ..task("post-invoices") };
    let second = issue(&service, renewal.clone()).await.unwrap();
    let found = endings(&deployment).await;
    assert_eq!(found.len(), 1);
    let (at, by, entry) = &found[0];
    assert_eq!(
        (by, entry.ended.as_slice(), *at),
        (&None, [index_of(&first)].as_slice(), index_of(&second) + 1)
    );
    assert_eq!(entry.reason.as_deref(), Some("superseded"));
    assert_eq!(entry.reach, [("feed".to_owned(), 1)].into());
    // Its holder may not have had the answer: it asks again, and nothing ends twice.
    assert!(issue(&service, renewal).await.is_ok());
    let next = pb::IssueRequest { supersedes: second.credential_id.clone(), ..task("post-invoices") };
    issue(&service, next).await.unwrap();
    assert_eq!(ended(&deployment).await, [index_of(&first), index_of(&second)]);
    deployment.both_verifiers_agree().await;
}
