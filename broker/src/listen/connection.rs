//! HTTP over one TLS connection, from its first request until it is asked to end.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tower::Service;
use tower::util::{Oneshot, ServiceExt};

use super::turn::TakingTurns;
use super::{Answers, Connection, Fault, Limits};

/// Streams that were reset before the service saw them: beyond this the connection goes (rapid reset).
const PENDING_RESETS_MAX: usize = 20;

/// Octets that a caller may send ahead of what was read: one whole message on a stream, two on a connection. Over
/// all connections of one address that makes 512 * 128 KiB = 64 MiB.
const STREAM_WINDOW_LEN: u32 = 64 * 1024;
const CONNECTION_WINDOW_LEN: u32 = 128 * 1024;

/// What is the same for every connection of a listener.
#[derive(Clone)]
pub(super) struct Protocols {
    http1: Option<http1::Builder>,
    http2: http2::Builder<TokioExecutor>,
}

impl Protocols {
    pub(super) fn new(limits: &Limits, tls: &ServerConfig) -> Self {
        let offers_http1 = tls.alpn_protocols.iter().any(|name| name == b"http/1.1");
        Self { http1: offers_http1.then(|| http1_builder(limits)), http2: http2_builder(limits) }
    }

    /// Serves one connection until it ends by itself, or `until`; from then on for `drain` at most.
    pub(super) async fn serve<S: Answers>(
        &self,
        stream: TlsStream<TcpStream>,
        connection: Arc<Connection>,
        service: S,
        until: impl Future<Output = ()>,
        drain: Duration,
    ) -> Result<(), Fault> {
        let over_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        let io = TokioIo::new(TakingTurns::new(stream));
        let service = Attributed { connection, service };
        match &self.http1 {
            Some(http1) if !over_http2 => {
                let serving = http1.serve_connection(io, service);
                end_gracefully(serving, http1::Connection::graceful_shutdown, until, drain).await
            }
            _ => {
                let serving = self.http2.serve_connection(io, service);
                end_gracefully(serving, http2::Connection::graceful_shutdown, until, drain).await
            }
        }
    }
}

fn http1_builder(limits: &Limits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_read)
        .max_buf_size(usize::try_from(limits.headers_len).unwrap_or(usize::MAX).max(8 * 1024));
    builder
}

fn http2_builder(limits: &Limits) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_header_list_size(limits.headers_len)
        .max_concurrent_streams(limits.streams)
        .initial_stream_window_size(STREAM_WINDOW_LEN)
        .initial_connection_window_size(CONNECTION_WINDOW_LEN)
        .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
        .keep_alive_interval(limits.ping_every)
        .keep_alive_timeout(limits.ping_timeout);
    builder
}

/// Drives `serving`; after `until` asks it to end (GOAWAY, or `connection: close`) and cuts it after `drain`.
async fn end_gracefully<C: Future<Output = hyper::Result<()>>>(
    serving: C,
    ask_to_end: impl Fn(Pin<&mut C>),
    until: impl Future<Output = ()>,
    drain: Duration,
) -> Result<(), Fault> {
    let mut serving = pin!(serving);
    tokio::select! {
        ended = serving.as_mut() => return Ok(ended?),
        () = until => ask_to_end(serving.as_mut()),
    }
    Ok(tokio::time::timeout(drain, serving).await.map_err(|_| "requests in flight were cut")??)
}

/// Puts the connection into each request's extensions.
struct Attributed<S> {
    connection: Arc<Connection>,
    service: S,
}

impl<S> hyper::service::Service<Request<Incoming>> for Attributed<S>
where
    S: Service<Request<Incoming>> + Clone,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Oneshot<S, Request<Incoming>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(Arc::clone(&self.connection));
        self.service.clone().oneshot(request)
    }
}
