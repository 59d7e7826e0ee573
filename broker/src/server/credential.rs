//! `CredentialService`: decode, issue, answer.

use std::sync::Arc;
use std::time::Instant;

use daypass_core::decision::{Grant, decide};
use daypass_core::draft::Assembled;
use daypass_core::proof::NodeProof;
use daypass_evidence::checkpoint::Checkpoint;
use daypass_evidence::entry::Profile;
use daypass_proto::v1 as pb;
use daypass_proto::v1::credential_service_server::CredentialService;
use daypass_proto::v1::issue_request::Credential as Wanted;
use daypass_proto::v1::issue_response::Credential as Answered;
use daypass_verify::ids::{CredentialId, RequestId};
use tonic::{Request, Response, Status};

use super::Api;
use super::authenticate::{Caller, REQUEST_ID};
use super::convert::{self, timestamp};
use super::delegation;
use super::status::{self, Outgoing};
use crate::issue::{self, Credential, Refusal};
use crate::log::Place;

pub(super) struct Service(pub(super) Arc<Api>);

#[tonic::async_trait]
impl CredentialService for Service {
    async fn issue(&self, request: Request<pb::IssueRequest>) -> Result<Response<pb::IssueResponse>, Status> {
        let began = Instant::now();
        let caller = super::evidence::caller(&request)?;
        let wire = request.into_inner();
        let id =
            convert::request_id(&wire, &caller).map_err(|outgoing| outgoing.into_status(&caller.request))?;
        let answered = self.answer(&wire, &caller, id).await;
        let issued = answered.as_ref().is_ok_and(|answer| answer.receipt.is_some());
        self.0.count(began, answered.as_ref().err(), issued);
        let mut response = Response::new(answered.map_err(|outgoing| outgoing.into_status(&id))?);
        if let Ok(value) = id.to_string().parse() {
            response.metadata_mut().insert(REQUEST_ID, value);
        }
        Ok(response)
    }

    async fn revoke(
        &self,
        request: Request<pb::RevokeRequest>,
    ) -> Result<Response<pb::RevokeResponse>, Status> {
        let caller = super::evidence::caller(&request)?;
        let answer = super::revoke::revoke(&self.0, request.get_ref(), &caller).await;
        answer.map(Response::new).map_err(|outgoing| outgoing.into_status(&caller.request))
    }
}

impl Service {
    async fn answer(
        &self,
        wire: &pb::IssueRequest,
        caller: &Caller,
        id: RequestId,
    ) -> Result<pb::IssueResponse, Outgoing> {
        self.0.within_rate(caller)?;
        let workload = wire.delegation.as_ref().map(|it| delegation::workload(&self.0, caller, it));
        let workload = workload.transpose()?;
        let caller = workload.as_ref().unwrap_or(caller);
        let supersedes = convert::optional("supersedes", &wire.supersedes)?.or(own_node(wire, caller));
        let renewed = self.0.renewed(caller, supersedes).await?;
        let request = convert::request(wire, caller, renewed)?;
        if wire.validate_only {
            return self.validate(&request, caller, id);
        }
        let known = self.known_checkpoint(wire)?;
        let credential = self.0.issue(caller, &request, known).await?;
        Ok(response(&self.0.desk, &credential))
    }

    /// Decides and says what would be granted; issues nothing and spends nothing.
    fn validate(
        &self,
        request: &daypass_core::request::Request,
        caller: &Caller,
        id: RequestId,
    ) -> Result<pb::IssueResponse, Outgoing> {
        let desk = &self.0.desk;
        let now = desk.clock.now();
        let drawn = desk.ids.draw(now).map_err(|error| status::of_refusal(error.into(), id, &self.0))?;
        let decided = decide(&caller.principal, request, &desk.log.state(), drawn, now);
        let grant =
            decided.map_err(|denial| status::of_refusal(Refusal::Denied(Box::new(denial)), id, &self.0))?;
        Ok(pb::IssueResponse {
            narrowed: grant.narrowed().iter().map(ToString::to_string).collect(),
            granted: Some(granted(&grant)),
            ..pb::IssueResponse::default()
        })
    }

    /// The checkpoint that the caller holds, where our own key signed it: nobody else's word halts the broker.
    fn known_checkpoint(&self, wire: &pb::IssueRequest) -> Result<Option<Checkpoint>, Outgoing> {
        if wire.known_checkpoint.is_empty() {
            return Ok(None);
        }
        let opened = Checkpoint::open_shard(&wire.known_checkpoint, self.0.desk.log.key());
        opened.map(Some).map_err(|error| {
            Outgoing::malformed(
                "known_checkpoint",
                format!("expected a checkpoint of this log or nothing: {error}"),
            )
        })
    }
}

/// The certificate that a node renews by showing it.
fn own_node(wire: &pb::IssueRequest, caller: &Caller) -> Option<CredentialId> {
    let asks = matches!(&wire.credential, Some(Wanted::Certificate(it)) if it.profile() == pb::CertificateProfile::Node);
    match caller.principal.node() {
        Some(NodeProof::Certificate(id)) if asks => Some(id),
        _ => None,
    }
}

fn response(desk: &issue::Desk, credential: &Credential) -> pb::IssueResponse {
    let grant = credential.granted();
    let life = grant.expires_at().millis_since(grant.issued_at());
    let answered = match credential.assembled() {
        Assembled::Token(value) => {
            Answered::Token(pb::Token { value: value.clone(), r#type: token_type(grant).into() })
        }
        Assembled::Certificate(der) => {
            Answered::Certificate(pb::Certificate { chain: chain(desk, grant, der) })
        }
    };
    pb::IssueResponse {
        credential_id: credential.id().to_string(),
        credential: Some(answered),
        granted: Some(granted(grant)),
        narrowed: grant.narrowed().iter().map(ToString::to_string).collect(),
        renew_after: Some(timestamp(grant.issued_at().plus_millis(life / 3 * 2))),
        receipt: Some(receipt(credential.place())),
    }
}

/// The leaf, its issuing CA and those above it, without the root.
fn chain(desk: &issue::Desk, grant: &Grant, leaf: &[u8]) -> Vec<prost::bytes::Bytes> {
    let above =
        desk.keyring.chain(grant.key()).into_iter().map(|ca| prost::bytes::Bytes::copy_from_slice(&ca));
    std::iter::once(prost::bytes::Bytes::copy_from_slice(leaf)).chain(above).collect()
}

/// RFC 8693, section 2.2.1: a JWT-SVID is no access token.
fn token_type(grant: &Grant) -> &'static str {
    match grant.profile() {
        Profile::JwtSvid => "N_A",
        _ => "Bearer",
    }
}

fn granted(grant: &Grant) -> pb::Grant {
    let scope = grant.scope();
    pb::Grant {
        subject: grant.subject().to_string(),
        task: grant.task().name.to_string(),
        audiences: scope.audiences.iter().map(ToString::to_string).collect(),
        actions: scope.actions.iter().map(ToString::to_string).collect(),
        resources: scope.resources.iter().map(ToString::to_string).collect(),
        issued_at: Some(timestamp(grant.issued_at())),
        not_before: Some(timestamp(grant.not_before())),
        expires_at: Some(timestamp(grant.expires_at())),
        reach: reach(grant.reach()).into(),
    }
}

const fn reach(reach: daypass_evidence::entry::Reach) -> pb::Reach {
    use daypass_evidence::entry::Reach;
    match reach {
        Reach::None => pb::Reach::None,
        Reach::Feed => pb::Reach::Feed,
        Reach::Introspection => pb::Reach::Introspection,
        Reach::Crl => pb::Reach::Crl,
        Reach::Enforcer => pb::Reach::Enforcer,
        Reach::Proxy => pb::Reach::Proxy,
    }
}

fn receipt(place: &Place) -> pb::Receipt {
    let copy = |hash: &[u8; 32]| prost::bytes::Bytes::copy_from_slice(hash);
    pb::Receipt {
        entry: Some(pb::EntryRef { log: place.origin.to_string(), index: place.index }),
        leaf_hash: copy(&place.leaf),
        checkpoint: prost::bytes::Bytes::copy_from_slice(&place.checkpoint),
        inclusion: place.inclusion.iter().map(copy).collect(),
    }
}
