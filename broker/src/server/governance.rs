//! `GovernanceService`: what operators decide. Keys and suspensions so far; the rest is not offered yet.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use daypass_core::decision::Outward;
use daypass_core::draft::Mark;
use daypass_core::rotation::{Next, Order, OrderError};
use daypass_evidence::entry::{By, KeyUse};
use daypass_proto::v1 as pb;
use daypass_proto::v1::governance_service_server::GovernanceService;
use daypass_verify::ids::KeyId;
use futures::Stream;
use tokio::time::timeout;
use tonic::{Request, Response, Status};

use super::authenticate::Caller;
use super::convert::{self, timestamp};
use super::evidence::caller;
use super::status::{self, Outgoing};
use super::{Api, later, standing, suspend};
use crate::rotate::{Authority, RotateError, Rotated};

pub(super) struct Service(pub(super) Arc<Api>);

/// How long an answer waits for all endings: they go on after it.
const ENDINGS_AWAITED: Duration = Duration::from_secs(3);

/// How long a reason may be, in bytes.
const REASON_BYTES_MAX: usize = 512;

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl GovernanceService for Service {
    type ListPendingStream = Answers<pb::ListPendingResponse>;

    async fn list_pending(
        &self,
        request: Request<pb::ListPendingRequest>,
    ) -> Result<Response<Self::ListPendingStream>, Status> {
        later::not_yet(&request)
    }

    async fn decide(
        &self,
        request: Request<pb::DecideRequest>,
    ) -> Result<Response<pb::DecideResponse>, Status> {
        later::not_yet(&request)
    }

    async fn suspend(
        &self,
        request: Request<pb::SuspendRequest>,
    ) -> Result<Response<pb::SuspendResponse>, Status> {
        let caller = caller(&request)?;
        let answer = suspend::suspend(&self.0, request.get_ref(), &caller).await;
        answer.map(Response::new).map_err(|refusal| refusal.into_status(&caller.request))
    }

    async fn resume(
        &self,
        request: Request<pb::ResumeRequest>,
    ) -> Result<Response<pb::ResumeResponse>, Status> {
        let caller = caller(&request)?;
        let answer = suspend::resume(&self.0, request.get_ref(), &caller).await;
        answer.map(Response::new).map_err(|refusal| refusal.into_status(&caller.request))
    }

    async fn record_review(
        &self,
        request: Request<pb::RecordReviewRequest>,
    ) -> Result<Response<pb::RecordReviewResponse>, Status> {
        later::not_yet(&request)
    }

    async fn rotate_key(
        &self,
        request: Request<pb::RotateKeyRequest>,
    ) -> Result<Response<pb::RotateKeyResponse>, Status> {
        let caller = caller(&request)?;
        let answer = self.rotate(request.get_ref(), &caller).await;
        answer.map(Response::new).map_err(|refusal| refusal.into_status(&caller.request))
    }

    async fn add_node(
        &self,
        request: Request<pb::AddNodeRequest>,
    ) -> Result<Response<pb::AddNodeResponse>, Status> {
        let caller = caller(&request)?;
        let answer = self.node(request.get_ref(), &caller).await;
        answer.map(Response::new).map_err(|refusal| refusal.into_status(&caller.request))
    }
}

impl Service {
    async fn node(
        &self,
        wire: &pb::AddNodeRequest,
        caller: &Caller,
    ) -> Result<pb::AddNodeResponse, Outgoing> {
        let identity = convert::optional("identity", &wire.identity)?;
        let identity =
            identity.ok_or_else(|| Outgoing::malformed("identity", "expected the name of a node"))?;
        let added = self.0.add_node(caller, &identity, wire.validate_only).await?;
        let place = added.place.as_ref();
        Ok(pb::AddNodeResponse {
            code: added.code.unwrap_or_default(),
            task: added.task.to_string(),
            expires_at: Some(timestamp(added.until)),
            entry: place.map(|place| pb::EntryRef { log: place.origin.to_string(), index: place.index }),
        })
    }

    async fn rotate(
        &self,
        wire: &pb::RotateKeyRequest,
        caller: &Caller,
    ) -> Result<pb::RotateKeyResponse, Outgoing> {
        let ordered = format!("rotate {}", wire.r#use().as_str_name());
        let operator = self.0.operator(caller, standing::ROTATE, &ordered)?;
        let order = Order {
            usage: usage(wire.r#use)?,
            compromised: convert::optional("compromised_key_id", &wire.compromised_key_id)?,
        };
        if wire.reason.len() > REASON_BYTES_MAX || wire.reason.chars().any(char::is_control) {
            let expected = format!("expected at most {REASON_BYTES_MAX} bytes without control characters");
            return Err(Outgoing::malformed("reason", expected));
        }
        if wire.validate_only {
            return self.preview(&order).await.map_err(|error| self.declined(caller, &ordered, error));
        }
        let authority = Authority {
            by: Some(By { operator: Some(operator), identity: None, proof: caller.principal.digest() }),
            request: Some(caller.request),
            reason: Some(wire.reason.clone()).filter(|reason| !reason.is_empty()),
            marks: Mark::of_proof(&caller.principal).into_iter().collect(),
        };
        let rotated = self.0.rotation.order(&order, &authority).await;
        let rotated = rotated.map_err(|error| self.declined(caller, &ordered, error))?;
        let mut answer = of_next(rotated.next.as_ref());
        let place = rotated.place.as_ref();
        answer.entry = place.map(|place| pb::EntryRef { log: place.origin.to_string(), index: place.index });
        if let Some(key) = &order.compromised {
            (answer.live, answer.revoked) = self.end_what_it_signed(key, &rotated, authority).await;
        }
        Ok(answer)
    }

    /// An order that cannot be carried out as it was given leaves a trace; that the log or the store fails is not its
    /// fault.
    fn declined(&self, caller: &Caller, order: &str, error: RotateError) -> Outgoing {
        if let RotateError::Order(why) = &error {
            self.0.leave_trace(caller, "ORDER_REFUSED", &format!("`{order}`: {why}"));
        }
        refused(error)
    }

    async fn preview(&self, order: &Order) -> Result<pb::RotateKeyResponse, RotateError> {
        let rotation = &self.0.rotation;
        let next = rotation.preview(order)?;
        let live = match &order.compromised {
            Some(key) => rotation.live_by(key).await?,
            None => 0,
        };
        Ok(pb::RotateKeyResponse { live, ..of_next(next.as_ref()) })
    }

    /// The key is out of trust already; what it signed is ended as fast as the log takes it, whoever waits for it.
    async fn end_what_it_signed(&self, key: &KeyId, rotated: &Rotated, authority: Authority) -> (u64, u64) {
        let (rotation, key) = (Arc::clone(&self.0.rotation), key.clone());
        let ordered = rotated.place.as_ref().map(|place| place.index);
        let ended = Arc::new(AtomicU64::default());
        let counted = Arc::clone(&ended);
        let ending = tokio::spawn(async move {
            let all = rotation.revoke_by(&key, ordered, &authority, &counted).await;
            all.inspect_err(|error| {
                tracing::error!(%error, "not all that a compromised key signed was ended; it is tried again");
            })
        });
        let whole = matches!(timeout(ENDINGS_AWAITED, ending).await, Ok(Ok(Ok(()))));
        let ended = ended.load(Ordering::Relaxed);
        // What is left is ended by whichever broker looks next: the order itself stands.
        (if whole { ended } else { 0 }, ended)
    }
}

fn of_next(next: Option<&Next>) -> pb::RotateKeyResponse {
    let key = next.and_then(|next| next.key.as_ref());
    pb::RotateKeyResponse {
        key_id: key.map(ToString::to_string).unwrap_or_default(),
        signs_from: next.map(|next| timestamp(next.signs_from)),
        ..Default::default()
    }
}

fn usage(wire: i32) -> Result<KeyUse, Outgoing> {
    Ok(match pb::KeyUse::try_from(wire).unwrap_or_default() {
        pb::KeyUse::Unspecified => return Err(Outgoing::malformed("use", "expected TOKEN, SVID or CA")),
        pb::KeyUse::Token => KeyUse::Token,
        pb::KeyUse::Svid => KeyUse::Svid,
        pb::KeyUse::Ca => KeyUse::Ca,
        pb::KeyUse::Root => KeyUse::Root,
        pb::KeyUse::Evidence => KeyUse::Evidence,
        pb::KeyUse::Node => KeyUse::Node,
        pb::KeyUse::Ssh => KeyUse::Ssh,
    })
}

fn refused(error: RotateError) -> Outgoing {
    match error {
        RotateError::Order(error @ OrderError::Unknown(..)) => {
            Outgoing::new(Outward::NotFound, error.to_string())
        }
        RotateError::Order(error) => Outgoing::malformed("use", error.to_string()),
        RotateError::Record(error) => status::of_record(&error),
        RotateError::Store(error) => status::of_store(&error),
        error => {
            tracing::error!(%error, "keys could not be changed");
            Outgoing::new(Outward::Internal, "the broker could not change the key: its log says why")
        }
    }
}
