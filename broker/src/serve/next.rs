//! From one log to the next: where a log is closed, its broker starts anew on the one that follows, and is given what it
//! could not write any more.

use std::sync::Arc;
use std::time::Duration;

use super::{Running, ServeError, Settings, StartError, StoreError, start_after};
use crate::log::{RecordError, Unsettled};
use crate::refusals::Refusals;

const AGAIN: Duration = Duration::from_secs(1);
const AGAIN_MOST: Duration = Duration::from_secs(60);

/// What a broker leaves, where its log was closed, to itself where it goes on.
#[derive(Clone, Default)]
pub struct Left {
    pub(super) unsettled: Unsettled,
    pub(super) refusals: Arc<Refusals>,
}

impl Running {
    /// Waits until another log is to be served, because this one is closed.
    pub async fn over(&self) {
        self.desk.log.over().cancelled().await;
    }

    /// Stops in order where the log is closed: what can go into it no more is left to who serves the next one.
    pub async fn turn(self) -> Left {
        let (log, refusals) = (self.desk.log.clone(), Arc::clone(&self.refusals));
        if let Err(error) = self.stop("the log goes on in another shard").await {
            tracing::info!(%error, "what waits is left to the next log");
        }
        Left { unsettled: log.settlements().leave(), refusals }
    }
}

/// Serves the log that follows. A broker outlives a store that is away for a while, at the turn as at any other time.
///
/// # Errors
/// Those of [`start_after`] that time does not mend.
pub async fn start_next(settings: &Settings, left: Left) -> Result<Running, ServeError> {
    let mut wait = AGAIN;
    loop {
        match start_after(settings.clone(), left.clone()).await {
            Err(error) if may_pass(&error) => {
                tracing::error!(%error, "the log that follows cannot be served yet, and is tried again");
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(AGAIN_MOST);
            }
            done => return done,
        }
    }
}

fn may_pass(error: &ServeError) -> bool {
    use {RecordError as Record, StoreError as Store};
    let away = |error: &Store| matches!(error, Store::Unavailable(_) | Store::Full(_) | Store::Unknown(_));
    match error {
        ServeError::Store(error) | ServeError::Start(StartError::Store(error)) => away(error),
        ServeError::Record(error) => {
            matches!(error, Record::Unavailable(_) | Record::Overloaded | Record::Turned)
        }
        _ => false,
    }
}
