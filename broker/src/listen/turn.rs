//! Answers that are ready together leave together: before a connection writes, it lets every task that is ready have
//! its turn. Without it the runtime polls the connection after each single answer, and each costs a system call and
//! a TLS record of its own.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How much is kept back before it is written without waiting for a turn: four TLS records.
const KEPT_MAX: usize = 64 * 1024;

/// Keeps what is written until the others had their turn, then passes it on in one piece.
pub(super) struct TakingTurns<IO> {
    inner: IO,
    kept: Vec<u8>,
    written: usize,
    waited: bool,
}

impl<IO> TakingTurns<IO> {
    pub(super) fn new(inner: IO) -> Self {
        Self { inner, kept: Vec::new(), written: 0, waited: false }
    }
}

impl<IO: AsyncWrite + Unpin> TakingTurns<IO> {
    fn poll_pass_on(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.kept.get(self.written..).filter(|rest| !rest.is_empty()) {
            match ready!(Pin::new(&mut self.inner).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                some => self.written += some,
            }
        }
        self.kept.clear();
        self.written = 0;
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for TakingTurns<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.kept.len() >= KEPT_MAX {
            ready!(self.poll_pass_on(cx))?;
        }
        self.kept.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    /// The first call after a write asks for another turn, and waits for it at the end of the runtime's queue.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.kept.is_empty() && !self.waited {
            self.waited = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        ready!(self.poll_pass_on(cx))?;
        self.waited = false;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_pass_on(cx))?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for TakingTurns<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::io::AsyncWriteExt as _;

    use super::*;

    /// Remembers the pieces in which it was written to.
    #[derive(Clone, Default)]
    struct Pieces(Arc<Mutex<Vec<Vec<u8>>>>);

    impl AsyncWrite for Pieces {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            self.0.lock().unwrap().push(bytes.to_vec());
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn what_is_written_in_one_turn_leaves_in_one_piece() {
        let pieces = Pieces::default();
        let mut turns = TakingTurns::new(pieces.clone());
        turns.write_all(b"one ").await.unwrap();
        turns.write_all(b"two").await.unwrap();
        assert!(pieces.0.lock().unwrap().is_empty());
        turns.flush().await.unwrap();
        turns.write_all(b"three").await.unwrap();
        turns.flush().await.unwrap();
        assert_eq!(*pieces.0.lock().unwrap(), [b"one two".to_vec(), b"three".to_vec()]);
    }

    #[tokio::test]
    async fn nothing_that_was_written_is_lost_at_the_end() {
        let pieces = Pieces::default();
        let mut turns = TakingTurns::new(pieces.clone());
        turns.write_all(&vec![7; KEPT_MAX + 1]).await.unwrap();
        turns.write_all(b"end").await.unwrap();
        turns.shutdown().await.unwrap();
        assert_eq!(pieces.0.lock().unwrap().concat().len(), KEPT_MAX + 4);
    }
}
