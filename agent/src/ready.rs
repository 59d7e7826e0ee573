//! Which credentials are there for whoever uses them, and how often one was replaced.

use std::collections::BTreeSet;

use daypass_verify::ids::Name;
use tokio::sync::watch;

/// What is known at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ready {
    /// Those that were never there.
    pub(crate) missing: BTreeSet<Name>,
    /// How often one arrived.
    pub(crate) arrived: u64,
}

/// Where outputs say what they have put in place. Clones are the same board.
#[derive(Debug, Clone)]
pub(crate) struct Board(watch::Sender<Ready>);

impl Board {
    /// A board on which all of these are missing.
    pub(crate) fn waiting_for(missing: BTreeSet<Name>) -> Self {
        Self(watch::Sender::new(Ready { missing, arrived: 0 }))
    }

    /// A board on which nothing is missing.
    pub(crate) fn complete_already() -> Self {
        Self::waiting_for(BTreeSet::new())
    }

    /// `name` is in place, for the first time or anew.
    pub(crate) fn arrived(&self, name: &Name) {
        self.0.send_modify(|ready| {
            ready.missing.remove(name);
            ready.arrived += 1;
        });
    }

    /// Waits until nothing is missing.
    pub(crate) async fn complete(&self) {
        // It cannot fail: this board sends.
        self.0.subscribe().wait_for(|ready| ready.missing.is_empty()).await.ok();
    }

    /// Follows what is said from now on.
    pub(crate) fn follow(&self) -> watch::Receiver<Ready> {
        self.0.subscribe()
    }
}
