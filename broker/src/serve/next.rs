//! From one log to the next.

use std::sync::Arc;

use super::{Running, ServeError};
use crate::log::{self, RecordError};

impl Running {
    /// Waits until another log is to be served: because this one is closed, or is to be.
    pub async fn over(&self) {
        self.desk.log.over().cancelled().await;
    }

    /// Stops in order, and closes the log where that is due and no other broker did: whoever starts after it serves the
    /// next one.
    ///
    /// # Errors
    /// When the last entries cannot be written, or the log cannot be closed.
    pub async fn turn(self) -> Result<(), ServeError> {
        let (log, limit, clock) = (self.desk.log.clone(), self.shard_entries, Arc::clone(&self.desk.clock));
        let closed_by_another = |error: &ServeError| matches!(error, ServeError::Record(RecordError::Turned));
        let stopped = self.stop("the log goes on in another shard").await;
        stopped.or_else(|error| if closed_by_another(&error) { Ok(()) } else { Err(error) })?;
        let Some(origin) = log::next_origin(&log.published(), clock.now(), limit) else { return Ok(()) };
        match log.turn(origin).await {
            Ok(()) | Err(RecordError::Turned) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
