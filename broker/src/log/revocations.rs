//! Where entries lie that revoke credentials, for whoever keeps the list of them: told by the writer as it writes them or
//! takes them over, before they are in force.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use daypass_evidence::entry::Index;
use tokio::sync::watch;

/// Places that nobody has looked at yet.
#[derive(Debug, Default)]
pub struct Revocations {
    places: Mutex<Vec<Range<Index>>>,
    noticed: watch::Sender<Index>,
}

impl Revocations {
    /// Entries of these places revoke, or may.
    pub(super) fn noticed(&self, places: Range<Index>) {
        let end = places.end;
        self.places.lock().unwrap_or_else(PoisonError::into_inner).push(places);
        self.noticed.send_modify(|until| *until = end.max(*until));
    }

    /// Tells of each change: up to where there is something to look at.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<Index> {
        self.noticed.subscribe()
    }

    /// All places that nobody took yet.
    #[must_use]
    pub fn take(&self) -> Vec<Range<Index>> {
        std::mem::take(&mut *self.places.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
