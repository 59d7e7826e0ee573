//! `EvidenceService`: checkpoints, proofs, entries, explanations. Reading entries is an operator's right; a holder
//! sees those of its own credentials.

mod listing;

use std::pin::Pin;
use std::sync::Arc;

use daypass_core::decision::Outward;
use daypass_evidence::entry::{Body, Entry};
use daypass_evidence::tree;
use daypass_proto::v1 as pb;
use daypass_proto::v1::evidence_service_server::EvidenceService;
use daypass_proto::v1::get_proof_request::Of;
use daypass_verify::ids::{CredentialId, IdentityName, RequestId};
use daypass_verify::time::UnixMs;
use futures::Stream;
use prost::bytes::Bytes;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::authenticate::Caller;
use super::convert;
use super::status::{self, Outgoing};
use super::{Api, later, standing};
use crate::index::{self, Filter, Readers, StoredNodes};
use crate::shelf::Closed;
use crate::store::{Head, Reader, Row, StoreError};

pub(super) struct Service(pub(super) Arc<Api>);

/// How far the time in an id of ours can lie after that of the first entry that names it.
const CLOCK_SLACK_MS: i64 = 10_000;

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Who calls, as the layer before found out.
pub(super) fn caller<T>(request: &Request<T>) -> Result<Caller, Status> {
    request
        .extensions()
        .get::<Caller>()
        .cloned()
        .ok_or_else(|| Status::unauthenticated("the call was not authenticated"))
}

#[tonic::async_trait]
impl EvidenceService for Service {
    type ListEntriesStream = Answers<pb::ListEntriesResponse>;
    type AskStream = Answers<pb::AskResponse>;
    type ExportStream = Answers<pb::ExportResponse>;

    async fn get_checkpoint(
        &self,
        request: Request<pb::GetCheckpointRequest>,
    ) -> Result<Response<pb::GetCheckpointResponse>, Status> {
        let caller = caller(&request)?;
        let wanted = request.get_ref();
        let named = self.log_named(&wanted.log, wanted.size).await;
        let Named { head, is_newest, .. } = named.map_err(|refusal| refusal.into_status(&caller.request))?;
        let cosigned = if wanted.size == 0 { head.size } else { wanted.size };
        if let Some(cosigned) = self.0.cosignatures.of_size(cosigned).filter(|_| is_newest) {
            let checkpoint = Bytes::copy_from_slice(&cosigned.note);
            return Ok(Response::new(pb::GetCheckpointResponse { checkpoint }));
        }
        match wanted.size {
            size if size == 0 || size == head.size => Ok(Response::new(pb::GetCheckpointResponse {
                checkpoint: Bytes::copy_from_slice(&head.checkpoint),
            })),
            size => {
                let detail = format!(
                    "the checkpoint of size {size} is not kept: ask for the newest (size 0) and a consistency proof from {size}"
                );
                Err(Outgoing::new(Outward::NotFound, detail).into_status(&caller.request))
            }
        }
    }

    async fn get_proof(
        &self,
        request: Request<pb::GetProofRequest>,
    ) -> Result<Response<pb::GetProofResponse>, Status> {
        let caller = caller(&request)?;
        let answer = self.prove(request.into_inner()).await;
        answer.map(Response::new).map_err(|refusal| refusal.into_status(&caller.request))
    }

    async fn list_entries(
        &self,
        request: Request<pb::ListEntriesRequest>,
    ) -> Result<Response<Self::ListEntriesStream>, Status> {
        let caller = caller(&request)?;
        let wire = request.into_inner();
        let listing =
            self.listing(&wire, &caller).await.map_err(|refusal| refusal.into_status(&caller.request))?;
        let (sender, receiver) = mpsc::channel(16);
        tokio::spawn(listing::list(Service(Arc::clone(&self.0)), listing, sender));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn ask(&self, request: Request<pb::AskRequest>) -> Result<Response<Self::AskStream>, Status> {
        later::not_yet(&request)
    }

    async fn export(
        &self,
        request: Request<pb::ExportRequest>,
    ) -> Result<Response<Self::ExportStream>, Status> {
        later::not_yet(&request)
    }

    async fn explain(
        &self,
        request: Request<pb::ExplainRequest>,
    ) -> Result<Response<pb::ExplainResponse>, Status> {
        let caller = caller(&request)?;
        let answer = self.explanation(&caller, &request.get_ref().request_id).await;
        answer.map(Response::new).map_err(|refusal| refusal.into_status(&caller.request))
    }
}

/// A log that is asked for.
struct Named {
    head: Arc<Head>,
    readers: Readers,
    is_newest: bool,
}

impl Named {
    fn closed(closed: &Closed) -> Self {
        let (head, readers) = (Arc::clone(&closed.head), closed.readers.clone());
        Self { head, readers, is_newest: false }
    }
}

impl Service {
    /// The head of the log that is asked for, as of `size` at least: another broker may have told the caller of it.
    async fn log_named(&self, log: &str, size: u64) -> Result<Named, Outgoing> {
        if let Some(closed) = self.0.shelf.closed(log) {
            return Ok(Named::closed(closed));
        }
        let head = Arc::clone(&self.0.desk.log.published_at(size).await.head);
        if log.is_empty() || log == head.origin {
            return Ok(Named { head, readers: self.0.readers.clone(), is_newest: true });
        }
        Err(Outgoing::new(
            Outward::NotFound,
            format!("there is no log `{}` here: the newest one is `{}`", log.escape_debug(), head.origin),
        ))
    }

    async fn prove(&self, wire: pb::GetProofRequest) -> Result<pb::GetProofResponse, Outgoing> {
        let beyond = match wire.of {
            Some(Of::Index(at)) => at.saturating_add(1),
            Some(Of::FirstSize(first)) => first,
            None => 0,
        };
        let Named { head, readers, .. } = self.log_named(&wire.log, wire.size.max(beyond)).await?;
        let size = if wire.size == 0 { head.size } else { wire.size };
        if size > head.size {
            return Err(Outgoing::malformed("size", format!("the log has {} entries", head.size)));
        }
        let hashes = match wire.of {
            Some(Of::Index(at)) if at < size => {
                nodes(&readers, move |nodes| tree::inclusion_proof(at, size, nodes)).await?
            }
            Some(Of::FirstSize(first)) if first <= size => {
                nodes(&readers, move |nodes| tree::consistency_proof(first, size, nodes)).await?
            }
            _ => {
                return Err(Outgoing::malformed(
                    "of",
                    format!("expected an index below {size}, or a first size up to it"),
                ));
            }
        };
        let hashes = hashes.iter().map(|hash| Bytes::copy_from_slice(hash)).collect();
        Ok(pb::GetProofResponse { hashes, checkpoint: Bytes::copy_from_slice(&head.checkpoint) })
    }

    fn reads_evidence(&self, caller: &Caller) -> bool {
        let (state, now) = (self.0.desk.log.state(), self.0.desk.clock.now());
        state.bundle().is_some_and(|bundle| standing::reads_evidence(&caller.principal, bundle, now))
    }

    fn own_identities(&self, caller: &Caller) -> Vec<IdentityName> {
        let (state, now) = (self.0.desk.log.state(), self.0.desk.clock.now());
        state.bundle().map(|bundle| standing::identities(&caller.principal, bundle, now)).unwrap_or_default()
    }

    async fn explanation(&self, caller: &Caller, request_id: &str) -> Result<pb::ExplainResponse, Outgoing> {
        if !self.reads_evidence(caller) {
            return Err(Outgoing::new(
                Outward::NotAllowed,
                "explaining a refusal is an operator's right (`read_evidence`)",
            ));
        }
        let id: RequestId = convert::optional("request_id", request_id)?.ok_or_else(|| {
            Outgoing::malformed("request_id", "expected the request id that the caller was told")
        })?;
        let remembered = self.0.refusals.explain(&id);
        let ours = remembered.as_ref().filter(|it| it.id_is_ours);
        let drawn = ours.and_then(|_| CredentialId::from_bytes(*id.as_bytes()).ok());
        let since = drawn.map(|drawn| drawn.drawn_at().plus_millis(-CLOCK_SLACK_MS));
        let logged = self.explained_by_logs(id, since).await;
        if let Some((row, entry)) = logged.map_err(|error| status::of_store(&error))? {
            return Ok(from_entry(&row, &entry));
        }
        let remembered = remembered.ok_or_else(|| {
            Outgoing::new(Outward::NotFound, "nothing is known of this request id: refusals that are not in the log are kept in memory, and lost at a restart")
        })?;
        Ok(pb::ExplainResponse {
            entry: Bytes::new(),
            reason: remembered.reason,
            clause: remembered.clause,
            rules: remembered.rules,
            source: "memory".into(),
        })
    }

    /// The entry of a request, in the newest of the logs that tell of it.
    async fn explained_by_logs(
        &self,
        id: RequestId,
        since: Option<UnixMs>,
    ) -> Result<Option<(Row, Entry)>, StoreError> {
        let shelf = &self.0.shelf;
        let closed: Vec<&Closed> = shelf.all_closed().collect();
        let late_enough = |log: &&Closed| since.is_none_or(|since| log.head.time >= since);
        let closed = closed.into_iter().rev().take_while(late_enough).map(|log| &log.readers);
        for readers in std::iter::once(shelf.newest()).chain(closed) {
            let found = readers.run(move |reader| explained_by_log(reader, id, since)).await?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }
}

async fn nodes(
    readers: &Readers,
    prove: impl FnOnce(&StoredNodes<'_>) -> Option<Vec<tree::Hash>> + Send + 'static,
) -> Result<Vec<tree::Hash>, Outgoing> {
    let proven = readers.run(move |reader| index::prove(reader, prove)).await;
    proven.map_err(|error| status::of_store(&error))
}

fn explained_by_log(
    reader: &dyn Reader,
    id: RequestId,
    since: Option<UnixMs>,
) -> Result<Option<(Row, Entry)>, StoreError> {
    let kinds = ["credential.refused", "credential.issued"].map(String::from).to_vec();
    let filter = Filter { kinds, request: Some(id), since, ..Filter::default() };
    let mut next = Some(0);
    while let Some(start) = next {
        let page = index::search(reader, start, &filter)?;
        if let Some(row) = page.rows.into_iter().next() {
            let entry = Entry::read(&row.bytes).map_err(|error| StoreError::Damaged(error.to_string()))?;
            return Ok(Some((row, entry)));
        }
        next = page.next;
    }
    Ok(None)
}

fn from_entry(row: &Row, entry: &Entry) -> pb::ExplainResponse {
    let (reason, clause, rules) = match &entry.body {
        Body::CredentialRefused(refused) => {
            (refused.reason.clone(), refused.clause.clone(), refused.rules.clone())
        }
        Body::CredentialIssued(issued) => {
            let narrowed = issued.asked.scope != issued.granted.scope
                || issued.asked.ttl_s != Some(issued.granted.ttl_s);
            let clause = if narrowed {
                "less was granted than asked: compare `asked` and `granted`"
            } else {
                "granted as asked"
            };
            (
                if narrowed { "NARROWED" } else { "ISSUED" }.to_owned(),
                clause.to_owned(),
                issued.decision.rules.clone(),
            )
        }
        _ => Default::default(),
    };
    pb::ExplainResponse {
        entry: Bytes::copy_from_slice(&row.bytes),
        reason,
        clause,
        rules: rules.into_iter().collect(),
        source: "log".into(),
    }
}
