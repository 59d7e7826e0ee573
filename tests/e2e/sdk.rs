//! The client library against a whole broker: it asks, verifies, and remembers the log.

use daypass_evidence::entry::Entry;
use daypass_sdk::{EntryFilter, IssueRequest, Secret};
use daypass_tests::harness::Deployment;
use daypass_verify::time::Seconds;
use secrecy::ExposeSecret as _;

#[tokio::test]
async fn a_token_and_a_certificate_are_verified_before_they_are_handed_out() {
    let deployment = Deployment::start().await;
    let client = deployment.sdk();
    let token = client.issue(IssueRequest::token("post-invoices".parse().unwrap())).await.unwrap();
    let Secret::Token { value, bound, .. } = &token.secret else { panic!("a token") };
    assert_eq!(value.expose_secret().split('.').count(), 3);
    assert!(bound.is_some());
    let certificate = client.issue(IssueRequest::certificate("ledger-db".parse().unwrap())).await.unwrap();
    assert!(matches!(&certificate.secret, Secret::Certificate { chain, .. } if chain.len() == 2));
    assert!(certificate.receipt.index > token.receipt.index);
    assert!(certificate.receipt.checkpoint.size > token.receipt.checkpoint.size);
}

#[tokio::test]
async fn what_would_be_narrowed_is_refused_unless_that_is_allowed() {
    let deployment = Deployment::start().await;
    let client = deployment.sdk();
    let mut request = IssueRequest::token("post-invoices".parse().unwrap());
    request.ttl = Some(Seconds::new(7200));
    let refused = client.issue(request.clone()).await.unwrap_err();
    assert!(refused.refusal().is_some(), "{refused}");
    request.allow_narrowed = true;
    let preview = client.preview(&request).await.unwrap();
    assert_eq!(preview.narrowed, ["ttl"]);
    assert_eq!(client.issue(request).await.unwrap().narrowed, ["ttl"]);
}

#[tokio::test]
async fn a_refusal_has_its_reason_and_its_request_id() {
    let deployment = Deployment::start().await;
    let refused =
        deployment.sdk().issue(IssueRequest::token("deploy-web".parse().unwrap())).await.unwrap_err();
    let refusal = refused.refusal().unwrap();
    assert_eq!(refusal.reason, "TASK_NOT_ALLOWED");
    let explained = deployment.explain(refusal.request_id.as_ref().unwrap()).await;
    assert!(!explained.clause.is_empty());
}

#[tokio::test]
async fn a_holder_reads_what_became_of_its_own_credential() {
    let deployment = Deployment::start().await;
    let client = deployment.sdk();
    let token = client.issue(IssueRequest::token("post-invoices".parse().unwrap())).await.unwrap();
    let filter = EntryFilter { credential_id: Some(token.id.to_string()), ..Default::default() };
    let mut entries = client.entries(filter).await.unwrap();
    let first = entries.next().await.unwrap().unwrap();
    assert_eq!(first.index, token.receipt.index);
    assert_eq!(Entry::read(&first.bytes).unwrap().envelope.id, token.id);
    client.prove_inclusion(token.receipt.leaf, token.receipt.index).await.unwrap();
}

#[tokio::test]
async fn a_broker_that_was_put_back_is_found_by_a_client_that_remembers() {
    let mut deployment = Deployment::start().await;
    deployment.stop().await;
    let older = deployment.copied();
    deployment.resume().await.unwrap();
    let client = deployment.sdk_with_state();
    for _ in 0..4 {
        client.issue(IssueRequest::token("post-invoices".parse().unwrap())).await.unwrap();
    }
    deployment.stop().await;
    std::fs::copy(&older.store, deployment.store()).unwrap();
    std::fs::copy(&older.anchor, &deployment.settings.anchor).unwrap();
    deployment.resume().await.unwrap();
    let again = deployment.sdk_with_state();
    let error = again.issue(IssueRequest::token("post-invoices".parse().unwrap())).await.unwrap_err();
    assert_eq!(error.refusal().map(|refusal| refusal.reason.as_str()), Some("ROLLBACK"), "{error}");
}
