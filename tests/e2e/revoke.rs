//! Revoking: who may, what ends, that it ends once, and what is told of it.

mod by;
mod lists;
mod orders;
mod races;
mod watch;

use daypass_broker::dev::caller::Caller;
use daypass_evidence::entry::{Body, CredentialEnded, EndedHow, Index};
use daypass_proto::v1 as pb;
use daypass_proto::v1::selector::What;
use daypass_tests::harness::{Deployment, Refused};

/// An order with a reason.
fn order(what: What) -> pb::RevokeRequest {
    let selector = Some(pb::Selector { what: Some(what), issued_before: None });
    let reason = pb::RevocationReason::PrivilegeWithdrawn.into();
    pb::RevokeRequest { selector, reason, ..Default::default() }
}

async fn revoke(caller: &Caller, order: pb::RevokeRequest) -> Result<pb::RevokeResponse, Refused> {
    let answered = caller.credentials().revoke(caller.request(order).unwrap()).await;
    answered.map(tonic::Response::into_inner).map_err(Refused::from)
}

/// What was revoked: by which entries, on whose word.
async fn endings(deployment: &Deployment) -> Vec<(Index, Option<String>, CredentialEnded)> {
    let entries = deployment.entries().await.into_iter();
    let revoked = entries.filter_map(|(index, entry)| match entry.body {
        Body::CredentialEnded(ended) if ended.how == EndedHow::Revoked => {
            let by = entry.envelope.by.map(|by| {
                by.operator.map(|it| it.to_string()).or(by.identity.map(|it| it.to_string())).unwrap()
            });
            Some((index, by, *ended))
        }
        _ => None,
    });
    revoked.collect()
}

/// The issuances that were revoked, in the order of their endings.
async fn ended(deployment: &Deployment) -> Vec<Index> {
    endings(deployment).await.into_iter().flat_map(|(.., ended)| ended.ended).collect()
}

fn index_of(answer: &pb::IssueResponse) -> Index {
    answer.receipt.as_ref().unwrap().entry.as_ref().unwrap().index
}
