//! From the synchronous side of the store to its connections, which a thread of its own drives: whoever waits may be
//! the writer's thread, one for blocking work, or a test within a runtime.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinHandle;

use crate::store::StoreError;

/// The runtime that drives the connections of one store.
#[derive(Debug)]
pub(super) struct Io {
    runtime: Option<Runtime>,
    handle: Handle,
}

impl Io {
    pub(super) fn start() -> Result<Self, StoreError> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("store-io")
            .enable_all()
            .build()
            .map_err(|error| StoreError::Unavailable(error.to_string()))?;
        Ok(Self { handle: runtime.handle().clone(), runtime: Some(runtime) })
    }

    /// What `future` comes to; none where it takes longer than `limit`.
    pub(super) fn wait<F: Future>(&self, limit: Duration, future: F) -> Option<F::Output> {
        let _within = self.handle.enter();
        // Where a task of another runtime waits here, its budget would run out and never be filled again: it does not
        // return to that runtime meanwhile.
        block_on(tokio::task::unconstrained(tokio::time::timeout(limit, future))).ok()
    }

    pub(super) fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        self.handle.spawn(future)
    }
}

impl Drop for Io {
    fn drop(&mut self) {
        // Waiting here is forbidden within a runtime, and nothing is owed to a connection that nobody uses.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits on this thread, within a runtime or not.
fn block_on<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        thread::park();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_that_waits_a_thousand_times_is_not_starved() {
        let io = Io::start().unwrap();
        let runtime = Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            for time in 0..1_000 {
                let (answer, answered) = tokio::sync::oneshot::channel();
                drop(io.spawn(async move { answer.send(()).unwrap() }));
                assert!(io.wait(Duration::from_secs(5), answered).is_some(), "at the {time}th time");
            }
        });
    }
}
