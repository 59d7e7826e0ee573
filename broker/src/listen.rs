//! The accept loop of the public listeners: caps before TLS, time limits everywhere, one connection one peer.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::{Body, Incoming};
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::Service;

mod connection;
mod peer;
mod tally;
mod turn;

pub use peer::{Connection, Peer};

use connection::Protocols;
use tally::{Seat, Tally};

use crate::telemetry::CONNECTIONS_REFUSED;

/// What a listener grants a caller, whoever it is.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Open connections in all, counted before TLS.
    pub connections: usize,
    /// Open connections of one IPv4 address or one IPv6 /64 network, which is what one caller has for itself.
    pub connections_per_address: usize,
    /// How long a TLS handshake may take.
    pub handshake: Duration,
    /// How long an HTTP/1.1 request's head may take to arrive, and a connection may stay idle between two.
    pub header_read: Duration,
    /// Octets of a request's header list.
    pub headers_len: u32,
    /// Requests at once on one HTTP/2 connection.
    pub streams: u32,
    /// How long a quiet HTTP/2 connection goes without a ping.
    pub ping_every: Duration,
    /// How long the answer to a ping may take.
    pub ping_timeout: Duration,
    /// The age at which a connection is asked to end; up to a tenth less, so that not all end at once.
    pub age: Duration,
    /// How long requests in flight may take once their connection was asked to end.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 8192,
            connections_per_address: 512,
            handshake: Duration::from_secs(5),
            header_read: Duration::from_secs(5),
            headers_len: 8 * 1024,
            streams: 64,
            ping_every: Duration::from_secs(30),
            ping_timeout: Duration::from_secs(10),
            age: Duration::from_secs(15 * 60),
            drain: Duration::from_secs(10),
        }
    }
}

/// Why a connection ended otherwise than by agreement.
type Fault = Box<dyn std::error::Error + Send + Sync>;

/// What answers requests: an axum router, tonic routes, or any other tower service over HTTP.
pub trait Answers:
    Service<Request<Incoming>, Response = Response<Self::Content>, Error: Into<Fault>, Future: Send + 'static>
    + Clone
    + Send
    + 'static
{
    /// The body of its responses.
    type Content: Body<Data: Send, Error: Into<Fault>> + Send + 'static;
}

impl<S, B> Answers for S
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<Fault>,
    S::Future: Send + 'static,
    B: Body<Data: Send, Error: Into<Fault>> + Send + 'static,
{
    type Content = B;
}

/// Serves `service` to callers over TLS until `shutdown`, then lets requests in flight end for [`Limits::drain`].
///
/// Each request carries its [`Connection`] as an extension (an `Arc`). `tls` comes from
/// [`crate::tls::server_config`]; HTTP/1.1 is spoken only where it offers that.
pub async fn serve<S: Answers>(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    limits: Limits,
    service: S,
    shutdown: CancellationToken,
) {
    let host = Host {
        protocols: Protocols::new(&limits, &tls),
        acceptor: TlsAcceptor::from(tls),
        limits,
        service,
        shutdown: shutdown.clone(),
    };
    let tally = Tally::new(limits.connections, limits.connections_per_address);
    let mut open = JoinSet::new();
    for ordinal in (0..=u32::MAX).cycle() {
        let Some((stream, addr)) = next_caller(&listener, &mut open, &shutdown).await else { break };
        match tally.seat(addr.ip()) {
            Some(seat) => _ = open.spawn(host.clone().seated(seat, stream, addr, ordinal)),
            None => metrics::counter!(CONNECTIONS_REFUSED).increment(1),
        }
    }
    drop(listener);
    let drained = async { while open.join_next().await.is_some() {} };
    if tokio::time::timeout(limits.drain.saturating_add(Duration::from_secs(1)), drained).await.is_err() {
        tracing::warn!("connections were cut that did not end in time");
    }
}

/// The next connection; none once `shutdown`. Meanwhile forgets those of `open` that ended.
async fn next_caller(
    listener: &TcpListener,
    open: &mut JoinSet<()>,
    shutdown: &CancellationToken,
) -> Option<(TcpStream, SocketAddr)> {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return None,
            Some(_) = open.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok(caller) => return Some(caller),
                Err(fault) => pause_after(&fault).await,
            },
        }
    }
}

/// All that a listener's connections have in common.
#[derive(Clone)]
struct Host<S> {
    protocols: Protocols,
    acceptor: TlsAcceptor,
    limits: Limits,
    service: S,
    shutdown: CancellationToken,
}

impl<S: Answers> Host<S> {
    /// One connection, counted by its `seat` until it ends.
    async fn seated(self, seat: Seat, stream: TcpStream, addr: SocketAddr, ordinal: u32) {
        let age = spread(self.limits.age, ordinal);
        if let Err(fault) = self.converse(stream, addr, age).await {
            tracing::debug!(%addr, %fault, "a connection failed");
        }
        drop(seat);
    }

    async fn converse(self, stream: TcpStream, addr: SocketAddr, age: Duration) -> Result<(), Fault> {
        stream.set_nodelay(true)?;
        let handshake = tokio::time::timeout(self.limits.handshake, self.acceptor.accept(stream));
        let Some(shaken) = self.shutdown.run_until_cancelled(handshake).await else { return Ok(()) };
        let stream = shaken.map_err(|_| "the TLS handshake took too long")??;
        let connection = Arc::new(Connection::new(addr, stream.get_ref().1.peer_certificates()));
        let until = async { _ = tokio::time::timeout(age, self.shutdown.cancelled()).await };
        self.protocols.serve(stream, connection, self.service, until, self.limits.drain).await
    }
}

/// Between nine tenths of `age` and all of it, different for connections that follow each other.
fn spread(age: Duration, ordinal: u32) -> Duration {
    const STEPS: u32 = 101;
    (age / (10 * STEPS)).saturating_mul(ordinal.wrapping_mul(37) % STEPS).saturating_add(age * 9 / 10)
}

/// An accept that failed says nothing about the next one. Where the process or the system ran out of something, a
/// pause lets connections end; where a caller hung up in the queue there is nothing to wait for.
async fn pause_after(fault: &io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    if matches!(fault.kind(), ConnectionAborted | ConnectionReset | Interrupted) {
        return;
    }
    tracing::error!(%fault, "cannot accept connections; is the limit on open files too low?");
    tokio::time::sleep(Duration::from_millis(100)).await;
}

#[cfg(test)]
pub(crate) mod tests;
