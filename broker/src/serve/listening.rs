//! The listeners of a broker: bound first, served once all that they need is there.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{ListenAt, ServeError, Settings, ready};
use crate::server::{self, Api};
use crate::tls::{self, ReloadableCertificate, Speaks};
use crate::web::{self, Site};
use crate::{listen, ops};

/// How often certificate files are looked at.
const CERTIFICATES_EVERY: Duration = Duration::from_secs(5);

pub(super) async fn bind_all(settings: &Settings) -> Result<[TcpListener; 3], ServeError> {
    Ok([bind(settings.api.address).await?, bind(settings.web.address).await?, ops::bind(settings.ops).await?])
}

pub(super) fn listeners(
    [api_listener, web_listener, ops_listener]: [TcpListener; 3],
    settings: &Settings,
    site: &Arc<Site>,
    api: Arc<Api>,
    shutdown: &CancellationToken,
) -> Result<Vec<JoinHandle<()>>, ServeError> {
    let router = web::router(Arc::clone(site), web::oauth::routes(Arc::clone(&api)));
    let desk = api.desk.clone();
    Ok(vec![
        serve_api(api_listener, settings, api, shutdown)?,
        serve_web(web_listener, settings, router, shutdown)?,
        ready::serve_ops(ops_listener, &desk, shutdown)?,
    ])
}

async fn bind(address: SocketAddr) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address).await.map_err(|error| ServeError::Bind(address, error))
}

fn server_tls(
    at: &ListenAt,
    speaks: Speaks,
    shutdown: &CancellationToken,
) -> Result<Arc<rustls::ServerConfig>, ServeError> {
    let certificate = Arc::new(ReloadableCertificate::open(&at.certificate, &at.key)?);
    tokio::spawn(Arc::clone(&certificate).watch(CERTIFICATES_EVERY, shutdown.clone()));
    tls::server_config(certificate, speaks).map_err(|error| ServeError::Tls(error.to_string()))
}

fn serve_api(
    listener: TcpListener,
    settings: &Settings,
    api: Arc<Api>,
    shutdown: &CancellationToken,
) -> Result<JoinHandle<()>, ServeError> {
    let tls = server_tls(&settings.api, Speaks::Http2, shutdown)?;
    let service = server::routes(api, settings.reflection);
    Ok(tokio::spawn(listen::serve(listener, tls, settings.limits, service, shutdown.clone())))
}

fn serve_web(
    listener: TcpListener,
    settings: &Settings,
    router: axum::Router,
    shutdown: &CancellationToken,
) -> Result<JoinHandle<()>, ServeError> {
    let tls = server_tls(&settings.web, Speaks::Http1And2, shutdown)?;
    Ok(tokio::spawn(listen::serve(listener, tls, settings.limits, router, shutdown.clone())))
}
