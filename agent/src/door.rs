//! Where requests come in: at a Unix socket, whose callers are known, or at a loopback address, whose callers are not.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;
use tracing::{info, warn};

use crate::config::Listen;
use crate::socket::{Bound, CONNECTIONS_MAX, PAUSE};

/// How long the head of a request may take to arrive, and a connection may be idle.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest head of a request, in bytes, and the most header fields in it.
const HEAD_LEN_MAX: usize = 32 * 1024;
const FIELDS_MAX: usize = 100;

/// A place that is listened at. It goes when this is dropped.
pub(crate) enum Door {
    Socket(Bound),
    Loopback(TcpListener, Arc<Semaphore>),
}

/// Somebody who came in.
pub(crate) struct Guest {
    stream: Box<dyn Stream>,
    caller: Caller,
    room: OwnedSemaphorePermit,
}

/// What is known of a caller: nothing at an address; or why it may not call.
pub(crate) type Caller = Result<(), String>;

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Door {
    /// Opens one. To be called within a tokio runtime.
    ///
    /// # Errors
    /// When the place is taken, or not safe.
    pub(crate) fn open(listen: &Listen) -> Result<Self, String> {
        match listen {
            Listen::Socket { path, shared_parent, allowed } => {
                Bound::new(path, *shared_parent, allowed).map(Self::Socket).map_err(|error| error.to_string())
            }
            Listen::Loopback(address) => loopback(*address).map_err(|error| format!("`{address}`: {error}")),
        }
    }

    /// The next who comes in.
    pub(crate) async fn next(&self) -> Guest {
        match self {
            Self::Socket(bound) => {
                let visitor = bound.next().await;
                let caller = visitor.peer.map(drop);
                Guest { stream: Box::new(visitor.stream), caller, room: visitor.room }
            }
            Self::Loopback(listener, room) => loop {
                // It cannot fail: nobody closes it.
                let Ok(room) = Arc::clone(room).acquire_owned().await else { continue };
                match listener.accept().await {
                    Ok((stream, _)) => {
                        stream.set_nodelay(true).ok();
                        break Guest { stream: Box::new(stream), caller: Ok(()), room };
                    }
                    Err(error) => {
                        warn!("a caller could not come in: {error}");
                        sleep(PAUSE).await;
                    }
                }
            },
        }
    }
}

fn loopback(address: SocketAddr) -> std::io::Result<Door> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    info!("`{address}` is served");
    Ok(Door::Loopback(listener, Arc::new(Semaphore::new(CONNECTIONS_MAX))))
}

impl Guest {
    /// Answers its requests until it leaves. Heads of requests that are too long, take too long or cannot be read are
    /// refused before `answer` sees them.
    pub(crate) async fn attend<B, F>(self, answer: impl Fn(Request<Incoming>, Caller) -> F)
    where
        B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + 'static,
        F: Future<Output = Response<B>>,
    {
        let Self { stream, caller, room } = self;
        let service = service_fn(|request| {
            let answered = answer(request, caller.clone());
            async move { Ok::<_, Infallible>(answered.await) }
        });
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(PATIENCE)
            .max_header_size(HEAD_LEN_MAX)
            .max_headers(FIELDS_MAX);
        // Who breaks off needs no answer.
        http.serve_connection(TokioIo::new(stream), service).await.ok();
        drop(room);
    }
}
