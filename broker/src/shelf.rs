//! The logs in the store: the one that is written, and those before it, which change no more.

use std::collections::BTreeMap;
use std::sync::Arc;

use daypass_verify::ids::CredentialId;
use daypass_verify::time::UnixMs;
use tokio::sync::mpsc;

use crate::index::{self, ID_WINDOW_MS, Readers};
use crate::store::{Head, Row, StoreAt, StoreError};

/// Readers of each log; cheap to clone.
#[derive(Clone)]
pub struct Shelf {
    newest: Readers,
    closed: Arc<BTreeMap<u32, Closed>>,
}

/// A log that is closed.
#[derive(Clone)]
pub struct Closed {
    /// Its last head.
    pub head: Arc<Head>,
    /// What reads it.
    pub readers: Readers,
}

impl Shelf {
    /// The logs of the store at `store`, whose newest one is read by `newest`.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn open(store: &StoreAt, newest: Readers) -> Result<Self, StoreError> {
        let heads = newest.run(|reader| reader.closed()).await?.into_iter();
        let closed = heads.map(|head| {
            let readers = newest.of(store.readers_of(head.shard));
            (head.shard, Closed { head: Arc::new(head), readers })
        });
        let closed = Arc::new(closed.collect());
        Ok(Self { newest, closed })
    }

    /// The same logs, whose readers tell `damage` of what was found to be changed.
    #[must_use]
    pub fn telling(self, damage: &mpsc::Sender<String>) -> Self {
        let closed = self.closed.iter().map(|(shard, closed)| {
            let readers = closed.readers.clone().telling(damage.clone());
            (*shard, Closed { head: Arc::clone(&closed.head), readers })
        });
        Self { closed: Arc::new(closed.collect()), newest: self.newest.telling(damage.clone()) }
    }

    /// What reads the log that is written.
    #[must_use]
    pub fn newest(&self) -> &Readers {
        &self.newest
    }

    /// The closed log of this name.
    #[must_use]
    pub fn closed(&self, origin: &str) -> Option<&Closed> {
        self.closed.values().find(|closed| closed.head.origin == origin)
    }

    /// Those that follow it and are closed too, in order.
    pub fn after(&self, shard: u32) -> impl Iterator<Item = &Closed> {
        self.closed.range(shard + 1..).map(|(_, closed)| closed)
    }

    /// All that are closed, in order.
    pub fn all_closed(&self) -> impl Iterator<Item = &Closed> {
        self.closed.values()
    }

    /// What reads the log of this name: the newest one, where no other has it.
    #[must_use]
    pub fn readers(&self, origin: &str) -> &Readers {
        self.closed(origin).map_or(&self.newest, |closed| &closed.readers)
    }

    /// The entry with an id, in whichever log it can be: none is searched that was not written when the id was drawn. With
    /// it the closed log that it is in; none where that is the newest.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn find(&self, id: CredentialId) -> Result<Option<(Option<Closed>, Row)>, StoreError> {
        let found = self.newest.run(move |reader| index::find(reader, &id)).await?;
        if let Some(row) = found {
            return Ok(Some((None, row)));
        }
        let (from, until) =
            (id.drawn_at().plus_millis(-ID_WINDOW_MS), id.drawn_at().plus_millis(ID_WINDOW_MS));
        let mut opened = UnixMs::new(i64::MIN);
        for closed in self.closed.values() {
            let began = std::mem::replace(&mut opened, closed.head.time);
            if began > until || closed.head.time < from {
                continue;
            }
            if let Some(row) = closed.readers.run(move |reader| index::find(reader, &id)).await? {
                return Ok(Some((Some(closed.clone()), row)));
            }
        }
        Ok(None)
    }
}
