//! What the brokers of a run keep their log in: a file, memory, or a database of a real PostgreSQL.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use daypass_broker::store::sqlite::SqliteStore;
use daypass_broker::store::{OpenReader, Reader, Store, StoreAt, StoreError};
use daypass_tests::harness::postgres::Postgres;
use daypass_tests::memory::Memory;

use super::people::PEOPLE;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Memory,
    Postgres,
}

pub(super) enum Ground {
    File(PathBuf),
    Memory(Memory),
    Postgres(StoreAt, Mutex<BTreeMap<u32, Arc<OpenReader>>>),
}

impl Ground {
    /// Where `init` makes the store of a run.
    pub(super) fn place(kind: Kind, folder: &Path) -> StoreAt {
        match kind {
            Kind::File | Kind::Memory => folder.join("store").into(),
            Kind::Postgres => Postgres::shared().any_database().at(),
        }
    }

    /// The store that `init` made there.
    pub(super) fn of(kind: Kind, place: StoreAt) -> Result<Self, StoreError> {
        Ok(match (kind, place) {
            (Kind::Memory, place) => {
                let bundles = PEOPLE.bundles.each_ref().map(|bundle| bundle.digest());
                Self::Memory(Memory::copy_of(place.reader()?.as_ref(), &bundles)?)
            }
            (_, StoreAt::File(path)) => Self::File(path),
            (_, place) => Self::Postgres(place, Mutex::default()),
        })
    }

    /// Opens it, as another process would.
    pub(super) fn open(&self) -> Result<Box<dyn Store>, StoreError> {
        Ok(match self {
            Self::File(path) => Box::new(SqliteStore::open_file(path, false)?),
            Self::Memory(memory) => Box::new(memory.clone()),
            Self::Postgres(place, _) => place.open()?.store,
        })
    }

    /// A reader of one of its logs.
    pub(super) fn shard(&self, shard: u32) -> Result<Box<dyn Reader>, StoreError> {
        match self {
            Self::File(path) => SqliteStore::open_shard(path, shard),
            Self::Memory(_) => self.reader(),
            Self::Postgres(place, readers) => {
                let mut readers = readers.lock().unwrap();
                readers.entry(shard).or_insert_with(|| place.readers_of(shard))()
            }
        }
    }

    pub(super) fn reader(&self) -> Result<Box<dyn Reader>, StoreError> {
        match self {
            Self::File(_) | Self::Memory(_) => self.open()?.reader(),
            Self::Postgres(..) => self.shard(u32::try_from(self.shard(0)?.closed()?.len()).unwrap()),
        }
    }
}
