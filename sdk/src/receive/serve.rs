//! An accept loop that tells each request who its peer is.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use rustls::ServerConfig;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, ResolvesServerCert};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tower::{Service, ServiceExt as _};

use super::peer::Peer;
use crate::error::Error;

/// Connections at once.
const CONNECTIONS_MAX: usize = 1_024;
/// How long a handshake may take, and the head of a request.
const PATIENCE: Duration = Duration::from_secs(5);

/// TLS 1.3 for a service that shows `certificate` and takes `peers`. No session is ever resumed: a resumed one would
/// carry a certificate whose key nobody used again.
///
/// # Errors
/// When the cryptography at hand has no TLS 1.3.
pub fn server_config(
    certificate: Arc<dyn ResolvesServerCert>,
    peers: Arc<dyn ClientCertVerifier>,
) -> Result<Arc<ServerConfig>, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| Error::Config(format!("TLS 1.3: {error}")))?
        .with_client_cert_verifier(peers)
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// Serves HTTP/1.1 and HTTP/2 over TLS until the listener fails, at most 1,024 connections at once. Each request
/// carries the [`Peer`] of its connection as an extension. `service` is an axum router, the routes of tonic, or any
/// other tower service.
///
/// # Errors
/// When the listener fails.
pub async fn serve<S, B>(listener: TcpListener, tls: Arc<ServerConfig>, service: S) -> io::Result<()>
where
    S: Service<Request<Incoming>, Response = Response<B>, Future: Send> + Clone + Send + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
{
    let (acceptor, seats) = (TlsAcceptor::from(tls), Arc::new(Semaphore::new(CONNECTIONS_MAX)));
    loop {
        let Ok(seat) = Arc::clone(&seats).acquire_owned().await else { return Ok(()) };
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(serve_one(stream, acceptor.clone(), service.clone(), seat));
            }
            // Too many open files, or a caller that is gone already: the next one may fare better.
            Err(error) if error.kind() != io::ErrorKind::InvalidInput => {
                sleep(Duration::from_millis(50)).await
            }
            Err(error) => return Err(error),
        }
    }
}

async fn serve_one<S, B>(stream: TcpStream, acceptor: TlsAcceptor, service: S, seat: OwnedSemaphorePermit)
where
    S: Service<Request<Incoming>, Response = Response<B>, Future: Send> + Clone + Send + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
{
    drop(stream.set_nodelay(true));
    let Ok(Ok(tls)) = timeout(PATIENCE, acceptor.accept(stream)).await else { return };
    let peer = Peer::new(tls.get_ref().1.peer_certificates());
    let answer = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        service.clone().oneshot(request)
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(PATIENCE);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(Duration::from_secs(30));
    // A connection that ends otherwise than by agreement concerns its peer alone.
    drop(builder.serve_connection(TokioIo::new(tls), answer).await);
    drop(seat);
}
