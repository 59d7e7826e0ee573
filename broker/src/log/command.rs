//! What the writer is asked to do.

use daypass_core::draft::{Draft, Mark};
use daypass_evidence::checkpoint::Checkpoint;
use daypass_evidence::entry::{Index, NewEntry, Reach};
use daypass_verify::ids::Digest;
use tokio::sync::oneshot;

use super::work::ENDED_PER_ENTRY;
use super::{Place, RecordError, Recording};
use crate::store::{Live, SealedKey};

/// What goes with appended entries.
#[derive(Debug, Default)]
pub struct Attached {
    /// Objects that the entries name by digest.
    pub objects: Vec<(Digest, Vec<u8>)>,
    /// Sealed keys.
    pub keys: Vec<SealedKey>,
    /// The newest state entry that the entries were decided under: where there is a newer one, nothing is written.
    pub if_state: Option<Index>,
    /// What the act spends: where a mark was spent before, nothing is written.
    pub marks: Vec<Mark>,
    /// Credentials that an order ends.
    pub ends: Option<Box<Ends>>,
}

/// Credentials that an order ends, found live before: those that still are, are named by one entry.
#[derive(Debug)]
pub struct Ends {
    /// The entry, without those that it names. It is not written where none is left.
    pub entry: NewEntry,
    /// Which, with the reach of their targets.
    pub live: Vec<(Live, Reach)>,
}

impl Ends {
    /// How many one entry can name within 16 KiB.
    pub const MOST: usize = ENDED_PER_ENTRY;
}

pub(super) enum Command {
    Record {
        draft: Box<Draft>,
        known: Option<Checkpoint>,
        answer: oneshot::Sender<Result<Recording, RecordError>>,
    },
    Append {
        entries: Vec<NewEntry>,
        attached: Attached,
        answer: oneshot::Sender<Result<Vec<Place>, RecordError>>,
    },
    Sweep,
    Flush,
    Follow(Option<oneshot::Sender<()>>),
    Turn {
        origin: String,
        answer: oneshot::Sender<Result<(), RecordError>>,
    },
}

impl Command {
    /// Whether somebody waits for what becomes of it.
    pub(super) fn is_waited_for(&self) -> bool {
        matches!(self, Self::Record { .. } | Self::Append { .. })
    }
}
