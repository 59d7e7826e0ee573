//! The checkpoints that callers hold: one of a fork stops the broker, however far the fork has outgrown it.

use daypass_broker::log::RecordError;
use daypass_proto::v1 as pb;
use daypass_sdk::IssueRequest;
use daypass_tests::harness::{Deployment, issue, task};
use prost::bytes::Bytes;

/// Issues, and gives the checkpoints that came with it.
async fn checkpoints(deployment: &Deployment, count: usize) -> Vec<Bytes> {
    let service = deployment.service().await;
    let mut notes = Vec::new();
    for _ in 0..count {
        notes.push(issue(&service, task("post-invoices")).await.unwrap().receipt.unwrap().checkpoint);
    }
    notes
}

fn knowing(note: &Bytes) -> pb::IssueRequest {
    pb::IssueRequest { known_checkpoint: note.clone(), ..task("post-invoices") }
}

/// A broker that serves a copy of its store from before `known` was signed, and has more entries again.
async fn forked() -> (Deployment, Bytes) {
    let mut deployment = Deployment::start().await;
    deployment.stop().await;
    let older = deployment.copied();
    deployment.resume().await.unwrap();
    let known = checkpoints(&deployment, 3).await.pop().unwrap();
    put_back(&mut deployment, &older).await;
    (deployment, known)
}

async fn put_back(deployment: &mut Deployment, older: &daypass_tests::harness::Copied) {
    deployment.stop().await;
    std::fs::copy(&older.store, deployment.store()).unwrap();
    std::fs::copy(&older.anchor, &deployment.settings.anchor).unwrap();
    deployment.resume().await.unwrap();
    checkpoints(deployment, 12).await;
}

#[tokio::test]
async fn a_checkpoint_of_this_log_is_taken_whatever_its_age() {
    let mut deployment = Deployment::start().await;
    let mut notes = checkpoints(&deployment, 6).await;
    for note in &notes {
        issue(&deployment.service().await, knowing(note)).await.expect("from memory");
    }
    deployment.stop().await;
    deployment.resume().await.unwrap();
    notes.extend(checkpoints(&deployment, 2).await);
    for note in notes.iter().chain(&notes) {
        issue(&deployment.service().await, knowing(note)).await.expect("from the store, and from memory");
    }
    assert!(deployment.broker().log().halt().broken().is_none());
}

#[tokio::test]
async fn a_fork_that_outgrew_what_a_caller_knows_stops_the_broker() {
    for restarted in [false, true] {
        let (mut deployment, known) = forked().await;
        if restarted {
            // What was signed before is in the store alone then.
            deployment.stop().await;
            deployment.resume().await.unwrap();
        }
        let service = deployment.service().await;
        issue(&service, task("post-invoices")).await.expect("nobody has told it yet");
        let size = deployment.broker().log().published().head.size;
        let refused = issue(&service, knowing(&known)).await.unwrap_err();
        assert_eq!((refused.code, refused.reason.as_str()), (tonic::Code::Unavailable, "ROLLBACK"));
        let refused = issue(&service, task("post-invoices")).await.unwrap_err();
        assert_eq!(refused.reason, "ROLLBACK", "and for everybody else from then on");
        let broken = deployment.broker().log().halt().broken();
        assert!(matches!(broken.as_deref(), Some(RecordError::SplitView(_))), "{broken:?}");
        let fault = deployment.broker().log().fault().unwrap_or_default();
        assert!(fault.contains("forked"), "{fault}");
        let kept = |kind: &str| {
            let path = format!("{}.split-view.{kind}", deployment.settings.anchor.display());
            std::fs::read(path).unwrap()
        };
        assert_eq!(kept("found"), known, "the proof that it was forked");
        let seen = String::from_utf8(kept("seen")).unwrap();
        assert!(seen.lines().nth(1).unwrap().parse::<u64>().unwrap() >= size, "{seen}");
    }
}

#[tokio::test]
async fn a_fork_is_found_by_a_client_that_remembers_although_it_knows_less() {
    let mut deployment = Deployment::start().await;
    deployment.stop().await;
    let older = deployment.copied();
    deployment.resume().await.unwrap();
    let wanted = || IssueRequest::token("post-invoices".parse().unwrap());
    let client = deployment.sdk_with_state();
    client.issue(wanted()).await.unwrap();
    put_back(&mut deployment, &older).await;
    let newcomer = deployment.sdk();
    newcomer.issue(wanted()).await.expect("who remembers nothing cannot tell");
    let error = deployment.sdk_with_state().issue(wanted()).await.unwrap_err();
    assert_eq!(error.refusal().map(|refusal| refusal.reason.as_str()), Some("ROLLBACK"), "{error}");
    let error = newcomer.issue(wanted()).await.unwrap_err();
    assert_eq!(error.refusal().map(|refusal| refusal.reason.as_str()), Some("ROLLBACK"), "{error}");
}

#[tokio::test]
async fn whoever_shows_old_checkpoints_without_end_costs_a_bounded_number_of_reads() {
    let mut deployment = Deployment::start().await;
    let notes = checkpoints(&deployment, 80).await;
    deployment.stop().await;
    deployment.resume().await.unwrap();
    let service = deployment.service().await;
    let mut refused = Vec::new();
    for note in &notes {
        refused.extend(issue(&service, knowing(note)).await.err().map(|refused| refused.reason));
    }
    assert!(!refused.is_empty(), "each was read from the store");
    assert!(refused.iter().all(|reason| reason == "RATE_LIMITED"), "{refused:?}");
    issue(&service, task("post-invoices")).await.expect("and whoever shows none is served");
}
