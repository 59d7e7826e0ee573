//! What each call has to pass: the header that no browser sends, the peer, and the number of its calls.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::service::Interceptor;
use tonic::transport::server::Connected;
use tonic::{Request, Status};

use super::authority::Inbound;
use crate::socket::{Buckets, Peer, Visitor};

/// The header that a call must carry (SPIFFE Workload Endpoint, section 3).
const HEADER: &str = "workload.spiffe.io";
/// How much is read at once, in octets.
const READ_LEN: usize = 4096;

/// Lets calls pass, or says why not.
#[derive(Debug, Clone, Default)]
pub(super) struct Gate(Arc<Mutex<Buckets>>);

impl Interceptor for Gate {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        let mut said = request.metadata().get_all(HEADER).iter();
        if said.next().is_none_or(|value| value != "true") || said.next().is_some() {
            return Err(Status::invalid_argument(format!("expected the header `{HEADER}: true`")));
        }
        let unknown = || Status::internal("the caller is not known");
        let caller = request.extensions().get::<Caller>().ok_or_else(unknown)?;
        let peer = caller.0.as_ref().map_err(|why| Status::permission_denied(why.clone()))?;
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        buckets
            .take(peer.pid, Instant::now())
            .map_err(|_| Status::resource_exhausted("too many calls by this process"))?;
        drop(buckets);
        Ok(request)
    }
}

/// Who calls, or why they may not.
#[derive(Debug, Clone)]
pub(crate) struct Caller(Result<Peer, String>);

/// A connection with all that is known of it.
pub(super) struct Connection {
    visitor: Visitor,
    inbound: Inbound,
}

impl Connection {
    pub(super) fn new(visitor: Visitor) -> Self {
        Self { visitor, inbound: Inbound::default() }
    }
}

impl Connected for Connection {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        Caller(self.visitor.peer.clone())
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.inbound.ready().is_empty() {
            let mut octets = [0; READ_LEN];
            let mut arrived = ReadBuf::new(&mut octets);
            ready!(Pin::new(&mut self.visitor.stream).poll_read(cx, &mut arrived))?;
            if arrived.filled().is_empty() {
                self.inbound.end();
                break;
            }
            self.inbound.arrive(arrived.filled());
        }
        let len = self.inbound.ready().len().min(buf.remaining());
        buf.put_slice(self.inbound.ready().get(..len).unwrap_or_default());
        self.inbound.read(len);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.visitor.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.visitor.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.visitor.stream).poll_shutdown(cx)
    }
}
