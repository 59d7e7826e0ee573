//! What the log shows, and to whom.

use daypass_broker::dev::caller::Caller;
use daypass_evidence::checkpoint::Checkpoint;
use daypass_evidence::entry::Entry;
use daypass_evidence::receipt::verify_receipt;
use daypass_evidence::tree::{Hash, leaf_hash, verify_consistency};
use daypass_proto::v1 as pb;
use daypass_proto::v1::get_proof_request::Of;
use daypass_tests::harness::{Deployment, Refused, issue, task};
use tonic::Code;

fn hashes(wire: &[prost::bytes::Bytes]) -> Vec<Hash> {
    wire.iter().map(|hash| hash.as_ref().try_into().unwrap()).collect()
}

async fn list(caller: &Caller, wanted: pb::ListEntriesRequest) -> Result<Vec<(u64, Vec<u8>)>, Refused> {
    let request = caller.request(wanted).unwrap();
    let mut listed = caller.evidence().list_entries(request).await.map_err(Refused::from)?.into_inner();
    let mut entries = Vec::new();
    while let Some(answer) = listed.message().await.map_err(Refused::from)? {
        entries.push((answer.r#ref.unwrap().index, answer.entry.to_vec()));
    }
    Ok(entries)
}

async fn checkpoint(caller: &Caller) -> Vec<u8> {
    let request = caller.request(pb::GetCheckpointRequest::default()).unwrap();
    caller.evidence().get_checkpoint(request).await.unwrap().into_inner().checkpoint.to_vec()
}

#[tokio::test]
async fn a_receipt_proves_that_the_issuance_is_in_the_log() {
    let deployment = Deployment::start().await;
    let answer = issue(&deployment.job().await, task("post-invoices")).await.unwrap();
    let receipt = answer.receipt.unwrap();
    let index = receipt.entry.unwrap().index;
    let leaf: Hash = receipt.leaf_hash.as_ref().try_into().unwrap();
    let inclusion = hashes(&receipt.inclusion);
    let proven = verify_receipt(leaf, index, &receipt.checkpoint, &inclusion, &deployment.log_key).unwrap();
    assert!(proven.size > index);

    let operator = deployment.operator().await;
    let wanted = pb::ListEntriesRequest {
        credential_id: answer.credential_id.clone(),
        limit: 1,
        ..Default::default()
    };
    let listed = list(&operator, wanted).await.unwrap();
    assert_eq!((listed[0].0, leaf_hash(&listed[0].1)), (index, leaf), "the entry is the one that was proven");
    assert_eq!(Entry::read(&listed[0].1).unwrap().envelope.id.to_string(), answer.credential_id);

    let mut other = leaf;
    other[0] ^= 1;
    assert!(verify_receipt(other, index, &receipt.checkpoint, &inclusion, &deployment.log_key).is_err());
}

#[tokio::test]
async fn the_log_only_grows() {
    let deployment = Deployment::start().await;
    let (operator, service) = (deployment.operator().await, deployment.service().await);
    let first = Checkpoint::open(&checkpoint(&operator).await, &deployment.log_key).unwrap();
    for _ in 0..5 {
        issue(&service, task("post-invoices")).await.unwrap();
    }
    let of = Some(Of::FirstSize(first.size));
    let request = operator.request(pb::GetProofRequest { of, ..Default::default() }).unwrap();
    let proof = operator.evidence().get_proof(request).await.unwrap().into_inner();
    let now = Checkpoint::open(&proof.checkpoint, &deployment.log_key).unwrap();
    assert!(now.size >= first.size + 5);
    let path = hashes(&proof.hashes);
    verify_consistency(first.size, first.root, now.size, now.root, &path).unwrap();
    assert!(verify_consistency(first.size, now.root, now.size, now.root, &path).is_err());
}

#[tokio::test]
async fn every_entry_is_proven_by_the_newest_checkpoint() {
    let deployment = Deployment::start().await;
    issue(&deployment.service().await, task("post-invoices")).await.unwrap();
    let operator = deployment.operator().await;
    for (index, bytes) in list(&operator, pb::ListEntriesRequest::default()).await.unwrap() {
        let request =
            operator.request(pb::GetProofRequest { of: Some(Of::Index(index)), ..Default::default() });
        let proof = operator.evidence().get_proof(request.unwrap()).await.unwrap().into_inner();
        let path = hashes(&proof.hashes);
        verify_receipt(leaf_hash(&bytes), index, &proof.checkpoint, &path, &deployment.log_key).unwrap();
    }
}

#[tokio::test]
async fn a_holder_sees_its_own_credential_and_nothing_else() {
    let deployment = Deployment::start().await;
    let service = deployment.service().await;
    let own = issue(&service, task("post-invoices")).await.unwrap();
    let token = deployment.organisation.token("cluster", "prod/web/frontend").unwrap();
    let frontend = deployment.bound(token).await;
    let by_id = |id: &str| pb::ListEntriesRequest { credential_id: id.into(), ..Default::default() };

    let seen = list(&service, by_id(&own.credential_id)).await.unwrap();
    assert_eq!(seen[0].0, own.receipt.unwrap().entry.unwrap().index);
    let of_another = list(&frontend, by_id(&own.credential_id)).await.unwrap_err();
    let of_none = list(&frontend, by_id("0199f2c1-0000-7000-8000-000000000000")).await.unwrap_err();
    assert_eq!((of_another.code, of_another.reason.as_str()), (Code::NotFound, "NOT_FOUND"));
    assert_eq!(of_another.message, of_none.message, "another's is as unknown as none");
    let refused = list(&service, pb::ListEntriesRequest::default()).await.unwrap_err();
    assert_eq!((refused.code, refused.reason.as_str()), (Code::PermissionDenied, "NOT_ALLOWED"));
    assert!(list(&deployment.operator().await, pb::ListEntriesRequest::default()).await.unwrap().len() > 10);
}

#[tokio::test]
async fn only_operators_are_told_why_others_were_refused() {
    let deployment = Deployment::start().await;
    let service = deployment.service().await;
    let refused = issue(&service, task("deploy-web")).await.unwrap_err();
    let request = service.request(pb::ExplainRequest { request_id: refused.request_id.clone() }).unwrap();
    let told = Refused::from(service.evidence().explain(request).await.unwrap_err());
    assert_eq!((told.code, told.reason.as_str()), (Code::PermissionDenied, "NOT_ALLOWED"));
    assert!(!deployment.explain(&refused.request_id).await.clause.is_empty());
}

#[tokio::test]
async fn no_proof_and_no_credential_is_ever_in_an_entry() {
    let deployment = Deployment::start().await;
    let proof = deployment.organisation.token("ci", "prod/billing/nightly").unwrap();
    let answer = issue(&deployment.bound(proof.clone()).await, task("post-invoices")).await.unwrap();
    let token = daypass_tests::harness::token_of(&answer);
    let log = list(&deployment.operator().await, pb::ListEntriesRequest::default()).await.unwrap();
    for secret in [&proof, token].into_iter().flat_map(|token| token.split('.').skip(1)) {
        let held = log.iter().find(|(_, bytes)| String::from_utf8_lossy(bytes).contains(secret));
        assert!(held.is_none(), "{held:?}");
    }
}

#[tokio::test]
async fn a_follower_is_told_of_entries_as_they_are_written() {
    let deployment = Deployment::start().await;
    let operator = deployment.operator().await;
    let kinds = vec!["credential.issued".to_owned()];
    let wanted = pb::ListEntriesRequest { follow: true, kinds, limit: 1, ..Default::default() };
    let request = operator.request(wanted).unwrap();
    let mut followed = operator.evidence().list_entries(request).await.unwrap().into_inner();
    let answer = issue(&deployment.service().await, task("post-invoices")).await.unwrap();
    let told =
        tokio::time::timeout(std::time::Duration::from_secs(5), followed.message()).await.unwrap().unwrap();
    assert_eq!(Entry::read(&told.unwrap().entry).unwrap().envelope.id.to_string(), answer.credential_id);
}

#[tokio::test]
async fn a_follower_whose_right_ends_is_told_no_more() {
    let deployment = Deployment::start().await;
    let operator = deployment.operator().await;
    let kinds = vec!["credential.issued".to_owned()];
    let request = operator.request(pb::ListEntriesRequest { follow: true, kinds, ..Default::default() });
    let mut followed = operator.evidence().list_entries(request.unwrap()).await.unwrap().into_inner();
    // Past the end of what the operator proved itself with.
    deployment.clock.advance(24 * 3_600_000);
    let told = tokio::time::timeout(std::time::Duration::from_secs(5), followed.message()).await.unwrap();
    assert_eq!(Refused::from(told.unwrap_err()).reason, "NOT_ALLOWED");
}
