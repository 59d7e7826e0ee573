//! A body that must go on: one that sends nothing for too long is broken off. It is never held in memory as a whole.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep, sleep};

/// A body that may rest for so long at most.
pub(super) struct Stalling {
    body: Incoming,
    patience: Duration,
    rest: Pin<Box<Sleep>>,
}

/// Why a body broke off.
#[derive(Debug, thiserror::Error)]
pub(super) enum BrokenOff {
    #[error(transparent)]
    Body(#[from] hyper::Error),
    #[error("nothing was sent for too long")]
    Stalled,
}

impl Stalling {
    pub(super) fn new(body: Incoming, patience: Duration) -> Self {
        Self { body, patience, rest: Box::pin(sleep(patience)) }
    }
}

impl Body for Stalling {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            let next = Instant::now() + self.patience;
            self.rest.as_mut().reset(next);
            return Poll::Ready(frame.map(|frame| frame.map_err(BrokenOff::from)));
        }
        self.rest.as_mut().poll(cx).map(|()| Some(Err(BrokenOff::Stalled)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
