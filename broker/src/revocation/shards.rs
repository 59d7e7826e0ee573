//! Where the entries lie of the logs in one store that follow each other.

use daypass_evidence::entry::Index;

use crate::store::{Head, Reader, StoreError, base};

/// The logs in a store.
pub(super) struct Shards {
    closed: Vec<Head>,
    own: u32,
}

impl Shards {
    pub(super) fn of(reader: &dyn Reader) -> Result<Self, StoreError> {
        Ok(Self { closed: reader.closed()?, own: reader.head()?.map_or(0, |head| head.shard) })
    }

    /// Where a log begins: the one that is written, or the one of this origin; none where it is not in this store.
    pub(super) fn base_of(&self, log: Option<&str>) -> Option<Index> {
        match log {
            None => Some(base(self.own)),
            Some(origin) => {
                self.closed.iter().find(|head| head.origin == origin).map(|head| base(head.shard))
            }
        }
    }

    /// The logs before the one that is written, the newest first.
    pub(super) fn before(&self) -> impl Iterator<Item = &Head> {
        self.closed.iter().rev()
    }
}
