//! The SPIFFE Workload API on a Unix socket. Each message of a stream is the full state; a stream ends when there is
//! nothing to give, so that clients ask again.

mod authority;
mod gate;
mod state;
mod trust;

use std::collections::HashMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;

use daypass_proto::spiffe::spiffe_workload_api_server::{SpiffeWorkloadApi, SpiffeWorkloadApiServer};
use daypass_proto::spiffe::{
    JwtBundlesRequest, JwtBundlesResponse, JwtsvidRequest, JwtsvidResponse, ValidateJwtsvidRequest,
    ValidateJwtsvidResponse, X509BundlesRequest, X509BundlesResponse, X509svidRequest, X509svidResponse,
};
use daypass_sdk::{Client, Kind};
use futures::{Stream, StreamExt as _, stream};
use tokio::sync::watch;
use tonic::transport::Server;
use tonic::{Request, Response, Status};
use tracing::warn;

use crate::keep::Kept;
use crate::socket::Bound;

use gate::{Connection, Gate};
use state::{Following, Served};
use trust::Trust;

/// Serves `credentials` on a socket, for ever.
pub(crate) async fn serve(bound: Bound, credentials: Vec<Kept>, clients: watch::Receiver<Client>) {
    let (certificates, tokens) = credentials
        .into_iter()
        .partition::<Vec<Kept>, _>(|kept| matches!(kept.kind, Kind::Certificate { .. }));
    let from_before = |kept: &Kept| kept.changes.borrow().as_ref().and_then(|it| Trust::of(&it.credential));
    let trust = trust::follow(clients.clone(), certificates.iter().find_map(from_before));
    let served = Arc::new(Served { certificates, tokens, trust, clients });
    let service = SpiffeWorkloadApiServer::with_interceptor(Workload(served), Gate::default());
    let visitors = stream::unfold(bound, |bound| async {
        let visitor = bound.next().await;
        Some((Ok::<_, Infallible>(Connection::new(visitor)), bound))
    });
    if let Err(error) = Server::builder().add_service(service).serve_with_incoming(visitors).await {
        warn!("the Workload API is served no more: {error}");
    }
}

struct Workload(Arc<Served>);

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Workload {
    /// The state now, and again after each change of it; ends with the first error.
    fn follow<T, F>(&self, state: impl Fn(Arc<Served>) -> F + Send + Sync + 'static) -> Response<Answers<T>>
    where
        T: PartialEq + Clone + Send + 'static,
        F: Future<Output = Result<T, Status>> + Send,
    {
        let following = Following::new(Arc::clone(&self.0));
        let states = stream::unfold(Some((following, state, None)), |open| async {
            let (mut following, state, mut sent) = open?;
            loop {
                match state(following.next().await).await {
                    Ok(newest) if sent.as_ref() == Some(&newest) => {}
                    Ok(newest) => {
                        sent = Some(newest.clone());
                        return Some((Ok(newest), Some((following, state, sent))));
                    }
                    Err(status) => return Some((Err(status), None)),
                }
            }
        });
        Response::new(states.boxed())
    }
}

#[tonic::async_trait]
impl SpiffeWorkloadApi for Workload {
    type FetchX509SVIDStream = Answers<X509svidResponse>;
    type FetchX509BundlesStream = Answers<X509BundlesResponse>;
    type FetchJWTBundlesStream = Answers<JwtBundlesResponse>;

    async fn fetch_x509svid(
        &self,
        _: Request<X509svidRequest>,
    ) -> Result<Response<Self::FetchX509SVIDStream>, Status> {
        Ok(self.follow(|served| async move { served.certificates().await }))
    }

    async fn fetch_x509_bundles(
        &self,
        _: Request<X509BundlesRequest>,
    ) -> Result<Response<Self::FetchX509BundlesStream>, Status> {
        Ok(self.follow(|served| async move {
            let trust = served.trust().await?;
            let bundles = by_trust_domain(&trust, trust.roots.clone());
            Ok(X509BundlesResponse { crl: Vec::new(), bundles })
        }))
    }

    async fn fetch_jwtsvid(
        &self,
        request: Request<JwtsvidRequest>,
    ) -> Result<Response<JwtsvidResponse>, Status> {
        self.0.tokens(request.get_ref()).await.map(Response::new)
    }

    async fn fetch_jwt_bundles(
        &self,
        _: Request<JwtBundlesRequest>,
    ) -> Result<Response<Self::FetchJWTBundlesStream>, Status> {
        Ok(self.follow(|served| async move {
            let (trust, token_keys) = served.token_keys().await?;
            Ok(JwtBundlesResponse { bundles: by_trust_domain(&trust, token_keys) })
        }))
    }

    async fn validate_jwtsvid(
        &self,
        request: Request<ValidateJwtsvidRequest>,
    ) -> Result<Response<ValidateJwtsvidResponse>, Status> {
        self.0.validated(request.get_ref()).await.map(Response::new)
    }
}

fn by_trust_domain<T>(trust: &Trust, bundle: T) -> HashMap<String, T> {
    HashMap::from([(format!("spiffe://{}", trust.trust_domain), bundle)])
}
