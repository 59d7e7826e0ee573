//! A reader that finds sealed entries where they lie: whoever reads the log need not know.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::ops::Range;

use daypass_evidence::entry::Index;
use daypass_verify::ids::Digest;

use super::Archive;
use crate::store::{Head, Live, Reader, Row, SealedKey, StoreError, place};

/// Reads the store, and the archive where entries are sealed.
pub struct Archived {
    store: Box<dyn Reader>,
    archive: Option<Archive>,
    /// What is sealed stays sealed: entries below this one are read from the archive without asking the store.
    sealed: Cell<Index>,
}

impl Archived {
    /// Reads `store`, and sealed entries from `archive`. Without one, what asks for them is told so.
    #[must_use]
    pub fn new(store: Box<dyn Reader>, archive: Option<Archive>) -> Self {
        Self { store, archive, sealed: Cell::new(0) }
    }

    /// What `stored` reads from the store at `start`; or, where entries from there on are sealed, what `sealed` reads
    /// of those, together with what `stored` reads after them.
    fn read<T>(
        &self,
        start: Index,
        limit: u32,
        stored: impl Fn(Index, u32) -> Result<Vec<T>, StoreError>,
        sealed: impl Fn(&Archive, Range<Index>) -> Result<Vec<T>, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        let mut until = self.sealed.get();
        loop {
            let places = start..until.clamp(start, start.saturating_add(limit.into()));
            let mut found =
                if places.is_empty() { Vec::new() } else { sealed(self.archive()?, places.clone())? };
            let rest = limit.saturating_sub(u32::try_from(found.len()).unwrap_or(u32::MAX));
            if rest == 0 {
                return Ok(found);
            }
            found.extend(stored(places.end, rest)?);
            // Asked after reading: what was not sealed by now cannot have been dropped before.
            let now = self.store.sealed_until()?;
            if now <= places.end {
                return Ok(found);
            }
            until = now;
            self.sealed.set(now);
        }
    }

    fn archive(&self) -> Result<&Archive, StoreError> {
        self.archive.as_ref().ok_or_else(|| super::nowhere(self.sealed.get()))
    }

    fn sealed_rows(&self, archive: &Archive, places: Range<Index>) -> Result<Vec<Row>, StoreError> {
        let folds = self.folds(&places)?;
        let entries = archive.entries(places.clone())?;
        let row = |(index, (leaf, bytes))| Row { index, leaf, bytes, folds: folds.contains(&index) };
        Ok(places.zip(entries).map(row).collect())
    }

    /// Which of `places` the state is folded from.
    fn folds(&self, places: &Range<Index>) -> Result<BTreeSet<Index>, StoreError> {
        let count = u32::try_from(places.end - places.start).unwrap_or(u32::MAX);
        let rows = self.store.fold_rows(places.start, count)?;
        Ok(rows.into_iter().map(|row| row.index).take_while(|index| *index < places.end).collect())
    }
}

impl Reader for Archived {
    fn head(&self) -> Result<Option<Head>, StoreError> {
        self.store.head()
    }

    fn closed(&self) -> Result<Vec<Head>, StoreError> {
        self.store.closed()
    }

    fn live_here(&self) -> Result<u64, StoreError> {
        self.store.live_here()
    }

    fn rows(&self, start: Index, limit: u32) -> Result<Vec<Row>, StoreError> {
        self.read(
            start,
            limit,
            |start, limit| self.store.rows(start, limit),
            |archive, places| self.sealed_rows(archive, places),
        )
    }

    fn leaves(&self, start: Index, limit: u32) -> Result<Vec<[u8; 32]>, StoreError> {
        self.read(start, limit, |start, limit| self.store.leaves(start, limit), Archive::leaves)
    }

    fn sealed_until(&self) -> Result<Index, StoreError> {
        self.store.sealed_until()
    }

    fn fold_rows(&self, start: Index, limit: u32) -> Result<Vec<Row>, StoreError> {
        self.store.fold_rows(start, limit)
    }

    fn entry_at(&self, at: Index) -> Result<Option<Row>, StoreError> {
        let stored = self.store.entry_at(at)?;
        if stored.is_some() {
            return Ok(stored);
        }
        let (shard, index) = place(at);
        let heads = self.store.closed()?.into_iter().chain(self.store.head()?);
        let Some(head) = heads.into_iter().find(|head| Index::from(head.shard) == shard) else {
            return Ok(None);
        };
        let archive = self.archive()?.of_shard(&head.origin);
        let found = archive.entries(index..index + 1)?.pop();
        Ok(found.map(|(leaf, bytes)| Row { index, leaf, bytes, folds: false }))
    }

    fn subtree(&self, level: u8, index: u64) -> Result<Option<[u8; 32]>, StoreError> {
        self.store.subtree(level, index)
    }

    fn object(&self, digest: &Digest) -> Result<Option<Vec<u8>>, StoreError> {
        self.store.object(digest)
    }

    fn keys(&self) -> Result<Vec<SealedKey>, StoreError> {
        self.store.keys()
    }

    fn live(&self) -> Result<u64, StoreError> {
        self.store.live()
    }

    fn live_after(&self, after: Option<Live>, limit: u32) -> Result<Vec<Live>, StoreError> {
        self.store.live_after(after, limit)
    }
}
