//! What is in the API and not yet offered: authenticated like everything else, then UNIMPLEMENTED.

use std::pin::Pin;

use daypass_core::decision::Outward;
use daypass_proto::v1::registry_service_server::RegistryService;
use daypass_proto::v1::*;
use futures::Stream;
use tonic::{Request, Response, Status, Streaming};

use super::evidence::caller;
use super::status::Outgoing;

/// Answers every method that is not offered yet.
pub(super) struct Later;

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The answer to a method that is not offered yet.
pub(super) fn not_yet<T, R>(request: &Request<T>) -> Result<Response<R>, Status> {
    let caller = caller(request)?;
    Err(Outgoing::new(Outward::Unimplemented, "this method is not offered by this release")
        .into_status(&caller.request))
}

macro_rules! later {
    ($service:ident, [$($stream:ident = $item:ty),*], { $($method:ident($request:ty) -> $response:ty;)+ }) => {
        #[tonic::async_trait]
        impl $service for Later {
            $(type $stream = Answers<$item>;)*

            $(async fn $method(&self, request: Request<$request>) -> Result<Response<$response>, Status> {
                not_yet(&request)
            })+
        }
    };
}

later!(RegistryService, [ListObjectsStream = ListObjectsResponse, GetBundleStream = GetBundleResponse], {
    list_objects(ListObjectsRequest) -> Self::ListObjectsStream;
    get_bundle(GetBundleRequest) -> Self::GetBundleStream;
    plan_bundle(Streaming<PlanBundleRequest>) -> PlanBundleResponse;
    propose_bundle(Streaming<ProposeBundleRequest>) -> ProposeBundleResponse;
});
