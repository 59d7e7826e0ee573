//! What became of a commit that did not simply succeed: learned from the head, under the lock.

use std::thread;
use std::time::{Duration, Instant};

use daypass_evidence::entry::Index;

use super::batch::Assembled;
use super::settlement::Waiting;
use super::work::unavailable;
use super::writer::Writer;
use super::{RecordError, Voided};
use crate::store::{Live, StoreError};

/// How long the outcome of a commit is asked for.
const RESOLVE: Duration = Duration::from_secs(2);

/// Why a batch is not in the store.
pub(super) enum Miss {
    /// The head moved, or lies further away than is taken over under the lock: nothing was written, and the same
    /// commands can be tried under the new head.
    Moved,
    /// It cannot be written.
    Refused(RecordError),
}

impl From<RecordError> for Miss {
    fn from(error: RecordError) -> Self {
        Self::Refused(error)
    }
}

/// A batch whose commit has an unknown outcome, and whose callers were told that nothing was recorded.
pub(super) struct Unresolved {
    last: (Index, [u8; 32]),
    born: Vec<Live>,
    pub(super) settling: Option<Waiting>,
}

impl Writer {
    /// Learns what became of a commit: from its answer, or else from the head. It is never written again unless the
    /// head says that it is not there.
    pub(super) fn conclude(
        &mut self,
        committed: Result<(), StoreError>,
        assembled: &Assembled,
    ) -> Result<(), Miss> {
        let error = match committed {
            Ok(()) => return Ok(()),
            #[cfg(feature = "sabotage")]
            Err(_) if crate::sabotage::breaks("p5") => return Ok(()),
            #[cfg(feature = "sabotage")]
            Err(_) if crate::sabotage::breaks("p3-fork") => return Ok(()),
            #[cfg(feature = "sabotage")]
            Err(StoreError::Unknown(_)) if crate::sabotage::breaks("p15") => return Ok(()),
            Err(error @ (StoreError::Unknown(_) | StoreError::HeadMoved { .. })) => error,
            Err(error) => return Err(unavailable(error).into()),
        };
        let last = assembled.adds.rows.last().map(|row| (row.index, row.leaf));
        match last.and_then(|last| self.ask_head(last)) {
            Some(true) => Ok(()),
            Some(false) if matches!(error, StoreError::HeadMoved { .. }) => Err(Miss::Moved),
            Some(false) => Err(unavailable(error).into()),
            None => {
                let born = assembled.adds.born.clone();
                self.unresolved = last.map(|last| Unresolved { last, born, settling: None });
                Err(unavailable(error).into())
            }
        }
    }

    /// Whether the entry `last` is in the store; none when the store does not answer in time.
    fn ask_head(&mut self, last: (Index, [u8; 32])) -> Option<bool> {
        let began = Instant::now();
        loop {
            // Whoever commits still holds the lock: once it can be had, the outcome is there to be read.
            let locked = self.store.begin().map(drop);
            let found = locked.and_then(|()| self.follower.reader.rows(last.0, 1));
            match found {
                Ok(rows) => return Some(rows.first().is_some_and(|row| (row.index, row.leaf) == last)),
                Err(_) if began.elapsed() > RESOLVE => return None,
                Err(_) => thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// Credentials of an unresolved batch that turns out to be in the store were never signed: they are void.
    pub(super) fn resolve_earlier(&mut self) -> Result<(), RecordError> {
        let Some(unresolved) = self.unresolved.take() else { return Ok(()) };
        match self.ask_head(unresolved.last) {
            Some(false) => {
                self.settlements.put_back(unresolved.settling.unwrap_or_default());
                Ok(())
            }
            Some(true) => {
                for live in unresolved.born {
                    self.settlements.void(Voided {
                        live,
                        reason: "the outcome of the commit was not known in time".into(),
                    });
                }
                Ok(())
            }
            None => {
                self.unresolved = Some(unresolved);
                Err(RecordError::Unavailable("the outcome of an earlier commit is not known yet".into()))
            }
        }
    }
}
