//! `TrustService`: for those who receive credentials.

use std::pin::Pin;
use std::sync::Arc;

use daypass_evidence::entry::Observed;
use daypass_proto::v1 as pb;
use daypass_proto::v1::trust_service_server::TrustService;
use futures::Stream;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::Api;
use super::convert::{self, moment};
use super::endings::Watching;
use super::status::Outgoing;
use crate::api::observe::Observation;
use crate::serve::TrustShown;

pub(super) struct Service(pub(super) Arc<Api>);

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl TrustService for Service {
    type WatchTrustStream = Answers<pb::WatchTrustResponse>;
    type WatchEndingsStream = Answers<pb::WatchEndingsResponse>;

    async fn get_trust(
        &self,
        request: Request<pb::GetTrustRequest>,
    ) -> Result<Response<pb::GetTrustResponse>, Status> {
        super::evidence::caller(&request)?;
        let shown = self.0.shown.borrow().clone();
        Ok(Response::new(pb::GetTrustResponse { trust: shown.map(|shown| bundle(&shown)) }))
    }

    async fn watch_trust(
        &self,
        request: Request<pb::WatchTrustRequest>,
    ) -> Result<Response<Self::WatchTrustStream>, Status> {
        super::evidence::caller(&request)?;
        let mut shown = self.0.shown.clone();
        shown.mark_changed();
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(async move {
            while let Ok(()) = shown.changed().await {
                let newest = shown.borrow_and_update().clone();
                let trust = newest.map(|shown| bundle(&shown));
                if sender.send(Ok(pb::WatchTrustResponse { trust })).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn introspect(
        &self,
        request: Request<pb::IntrospectRequest>,
    ) -> Result<Response<pb::IntrospectResponse>, Status> {
        let caller = super::evidence::caller(&request)?;
        let found = self.0.introspect(&caller, &request.get_ref().token).await;
        let claims = found.map_err(|refusal| refusal.into_status(&caller.request))?;
        Ok(Response::new(pb::IntrospectResponse {
            active: claims.is_some(),
            claims: claims.map(|claims| Value::Object(claims).to_string()).unwrap_or_default(),
        }))
    }

    async fn watch_endings(
        &self,
        request: Request<pb::WatchEndingsRequest>,
    ) -> Result<Response<Self::WatchEndingsStream>, Status> {
        let caller = super::evidence::caller(&request)?;
        let id = caller.request;
        let watching = Watching::new(Arc::clone(&self.0), request.get_ref(), caller).await;
        let watching = watching.map_err(|refusal| refusal.into_status(&id))?;
        let (sender, receiver) = mpsc::channel(64);
        tokio::spawn(watching.run(sender));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn observe(
        &self,
        request: Request<pb::ObserveRequest>,
    ) -> Result<Response<pb::ObserveResponse>, Status> {
        let caller = super::evidence::caller(&request)?;
        let seen = request.get_ref().observations.iter().enumerate();
        let seen = seen.map(|(n, one)| observation(n, one)).collect::<Result<Vec<_>, _>>();
        let place = match seen {
            Ok(seen) => self.0.observe(&caller, seen).await,
            Err(refusal) => Err(refusal),
        };
        let place = place.map_err(|refusal| refusal.into_status(&caller.request))?;
        let entry = Some(pb::EntryRef { log: place.origin.to_string(), index: place.index });
        Ok(Response::new(pb::ObserveResponse { entry }))
    }
}

fn bundle(shown: &TrustShown) -> pb::TrustBundle {
    let refresh = prost_types::Duration { seconds: i64::from(shown.refresh.get()), nanos: 0 };
    pb::TrustBundle {
        sequence: shown.sequence,
        refresh_hint: Some(refresh),
        authorities: shown.authorities.iter().map(|der| der.to_vec().into()).collect(),
        jwks: shown.jwks.clone(),
        revocations: shown.revocations.clone(),
        crl: shown.crl.clone().into(),
        log_keys: shown.log_keys.clone(),
    }
}

fn observation(n: usize, wire: &pb::Observation) -> Result<Observation, Outgoing> {
    let field = |name: &str| format!("observations[{n}].{name}");
    let named = |name: &str| Outgoing::malformed(&field(name), "expected a name");
    Ok(Observation {
        target: convert::optional(&field("target"), &wire.target)?.ok_or_else(|| named("target"))?,
        what: observed(wire.kind).ok_or_else(|| {
            let expected = "expected USED, REFUSED, ACCEPTED_AFTER_END, SESSION_ENDED, UNSEEN or LEFT_OVER";
            Outgoing::malformed(&field("kind"), expected)
        })?,
        credential: convert::optional(&field("credential_id"), &wire.credential_id)?,
        exception: convert::optional(&field("exception"), &wire.exception)?,
        at: moment(&field("at"), wire.at.as_ref())?,
        count: wire.count,
        detail: wire.detail.clone(),
        actions: convert::set(&field("actions"), &wire.actions)?,
        resources: convert::set(&field("resources"), &wire.resources)?,
    })
}

fn observed(wire: i32) -> Option<Observed> {
    Some(match pb::ObservationKind::try_from(wire).unwrap_or_default() {
        pb::ObservationKind::Unspecified => return None,
        pb::ObservationKind::Used => Observed::Used,
        pb::ObservationKind::Refused => Observed::Refused,
        pb::ObservationKind::AcceptedAfterEnd => Observed::AcceptedAfterEnd,
        pb::ObservationKind::SessionEnded => Observed::SessionEnded,
        pb::ObservationKind::Unseen => Observed::Unseen,
        pb::ObservationKind::LeftOver => Observed::LeftOver,
    })
}
