//! `TrustService`: for those who receive credentials.

use std::pin::Pin;
use std::sync::Arc;

use daypass_proto::v1 as pb;
use daypass_proto::v1::trust_service_server::TrustService;
use futures::Stream;
use serde_json::Value;
use tonic::{Request, Response, Status};

use super::{Api, later};

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
        later::not_yet(&request)
    }

    async fn watch_trust(
        &self,
        request: Request<pb::WatchTrustRequest>,
    ) -> Result<Response<Self::WatchTrustStream>, Status> {
        later::not_yet(&request)
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
        later::not_yet(&request)
    }

    async fn observe(
        &self,
        request: Request<pb::ObserveRequest>,
    ) -> Result<Response<pb::ObserveResponse>, Status> {
        later::not_yet(&request)
    }
}
