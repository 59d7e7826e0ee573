//! A proof buys what its issuer's class says, and no more.

use daypass_proto::v1 as pb;
use daypass_tests::harness::{CI, Deployment, NIGHTLY, issue, stores, task};
use futures::future::join_all;
use tonic::Code;

#[tokio::test]
async fn a_replayed_token_is_refused() {
    for store in stores() {
        let deployment = Deployment::start_on(store).await;
        let job = deployment.job().await;
        issue(&job, task("post-invoices")).await.unwrap();
        let refused = issue(&job, task("post-invoices")).await.unwrap_err();
        assert_eq!((refused.code, refused.reason.as_str()), (Code::Unauthenticated, "PROOF_REPLAYED"));
        let another = pb::IssueRequest {
            audiences: vec!["https://ledger.example.org".into()],
            ..task("read-invoices")
        };
        let other = issue(&job, another).await.unwrap_err();
        assert_eq!(other.reason, "PROOF_REPLAYED", "for another task no less");
    }
}

#[tokio::test]
async fn a_token_that_is_shown_64_times_at_once_buys_one_credential() {
    for store in stores() {
        let deployment = Deployment::start_on(store).await;
        let job = deployment.job().await;
        let service = deployment.service().await;
        let replays = (0..64).map(|_| issue(&job, task("post-invoices")));
        let others = (0..16).map(|_| issue(&service, task("post-invoices")));
        let (replays, others) = tokio::join!(join_all(replays), join_all(others));
        assert_eq!(replays.iter().filter(|answer| answer.is_ok()).count(), 1);
        let refused = replays.iter().filter_map(|answer| answer.as_ref().err());
        assert!(
            refused.clone().all(|refused| refused.reason == "PROOF_REPLAYED"),
            "{:?}",
            refused.collect::<Vec<_>>()
        );
        assert!(others.iter().all(Result::is_ok), "no other caller of those batches fails");
    }
}

#[tokio::test]
async fn a_refusal_for_one_thing_spends_no_other() {
    for store in stores() {
        let deployment = Deployment::start_on(store).await;
        let (spent, fresh, service) =
            (deployment.job().await, deployment.job().await, deployment.service().await);
        issue(&spent, task("post-invoices")).await.unwrap();
        let named = pb::IssueRequest {
            request_id: "0199f2c1-0000-4000-8000-000000000001".into(),
            ..task("post-invoices")
        };
        // In company, so that the batch is written whatever becomes of this request.
        let (refused, company) =
            tokio::join!(issue(&spent, named.clone()), issue(&service, task("post-invoices")));
        assert_eq!((refused.unwrap_err().reason.as_str(), company.is_ok()), ("PROOF_REPLAYED", true));
        issue(&deployment.job().await, named.clone())
            .await
            .expect("the request id was not used by the replay");
        let (refused, company) = tokio::join!(issue(&fresh, named), issue(&service, task("post-invoices")));
        assert_eq!((refused.unwrap_err().reason.as_str(), company.is_ok()), ("ALREADY_ISSUED", true));
        issue(&fresh, task("post-invoices")).await.expect("the token was not spent by the repeat");
    }
}

#[tokio::test]
async fn a_spent_token_stays_spent_after_a_restart() {
    for store in stores() {
        let mut deployment = Deployment::start_on(store).await;
        let token = deployment.organisation.token(CI, NIGHTLY).unwrap();
        issue(&deployment.bound(token.clone()).await, task("post-invoices")).await.unwrap();
        deployment.stop().await;
        deployment.resume().await.unwrap();
        let refused = issue(&deployment.bound(token).await, task("post-invoices")).await.unwrap_err();
        assert_eq!(refused.reason, "PROOF_REPLAYED");
    }
}

#[tokio::test]
async fn a_token_is_spent_by_what_changes_something_and_by_nothing_else() {
    let deployment = Deployment::start().await;
    let job = deployment.job().await;
    let preview = pb::IssueRequest { validate_only: true, ..task("post-invoices") };
    let narrow = pb::IssueRequest {
        actions: vec!["invoice:write".into(), "invoice:delete".into()],
        refuse_narrowed: true,
        ..task("post-invoices")
    };
    for _ in 0..2 {
        let answer = issue(&job, preview.clone()).await.unwrap();
        assert_eq!((answer.credential, answer.receipt, answer.credential_id.as_str()), (None, None, ""));
        assert!(answer.granted.is_some());
        assert!(issue(&job, narrow.clone()).await.is_err());
        assert!(issue(&job, task("deploy-web")).await.is_err());
        let read = pb::GetCheckpointRequest::default();
        job.evidence().get_checkpoint(job.request(read).unwrap()).await.unwrap();
    }
    issue(&job, task("post-invoices")).await.unwrap();
    let kinds: Vec<String> =
        deployment.entries().await.into_iter().map(|(_, entry)| entry.envelope.kind).collect();
    assert_eq!(kinds.iter().filter(|kind| *kind == "credential.issued").count(), 1);
}

#[tokio::test]
async fn a_token_that_lies_in_a_file_renews_until_it_ends() {
    let deployment = Deployment::start().await;
    let caller =
        deployment.bound(deployment.organisation.token("cluster", "prod/web/frontend").unwrap()).await;
    let svid = pb::TokenParameters { profile: pb::TokenProfile::JwtSvid.into(), ..Default::default() };
    for _ in 0..3 {
        let credential = Some(pb::issue_request::Credential::Token(svid.clone()));
        issue(&caller, pb::IssueRequest { credential, ..task("mesh-identity") }).await.unwrap();
    }
    deployment.clock.advance(331_000);
    let refused = issue(&caller, task("mesh-identity")).await.unwrap_err();
    assert_eq!(refused.reason, "PROOF_REFUSED");
}

#[tokio::test]
async fn a_request_id_buys_one_credential_whatever_the_proof() {
    let deployment = Deployment::start().await;
    let id = "0199f2c1-aaaa-7bbb-8ccc-dddddddddddd";
    let wanted = pb::IssueRequest { request_id: id.into(), ..task("post-invoices") };
    issue(&deployment.job().await, wanted.clone()).await.unwrap();
    let refused = issue(&deployment.job().await, wanted.clone()).await.unwrap_err();
    assert_eq!((refused.code, refused.reason.as_str()), (Code::AlreadyExists, "ALREADY_ISSUED"));
    deployment.clock.advance(9 * 60_000);
    let refused = issue(&deployment.service().await, wanted).await.unwrap_err();
    assert_eq!(refused.reason, "ALREADY_ISSUED", "nine minutes later");
}
