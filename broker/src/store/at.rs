//! Where a store lies, and the one place where one is opened.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::postgres::{Claim, PostgresAt, PostgresSealer, PostgresStore};
use super::sqlite::{self, SqliteSealer, SqliteStore};
use super::{Reader, Sealer, Store, StoreError};
use crate::seal;

/// Opens a reader.
pub type OpenReader = dyn Fn() -> Result<Box<dyn Reader>, StoreError> + Send + Sync;

/// Where a store lies.
#[derive(Debug, Clone)]
pub enum StoreAt {
    /// In one SQLite file.
    File(PathBuf),
    /// In a PostgreSQL database.
    Postgres(Arc<PostgresAt>),
    /// There, with old entries sealed in files.
    Sealed {
        /// Where the rest lies.
        at: Box<StoreAt>,
        /// The folder of the files.
        folder: PathBuf,
    },
}

/// A store that was opened.
pub struct Opened {
    /// Its writing side.
    pub store: Box<dyn Store>,
    /// Opens its readers.
    pub readers: Arc<OpenReader>,
    /// What it is.
    pub about: About,
}

/// What a store is, for `broker.started`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// `sqlite` or `postgresql`.
    pub kind: &'static str,
    /// What a commit survives, as found.
    pub durability: String,
    /// The version of its tables.
    pub schema: u32,
}

/// A place that nobody else makes a store at, for as long as this is held.
pub struct Claimed(Held);

enum Held {
    File(PathBuf),
    Postgres(Box<Claim>),
}

impl From<PathBuf> for StoreAt {
    fn from(path: PathBuf) -> Self {
        Self::File(path)
    }
}

impl From<&Path> for StoreAt {
    fn from(path: &Path) -> Self {
        Self::File(path.to_owned())
    }
}

/// Where it lies, without a password.
impl std::fmt::Display for StoreAt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Postgres(at) => at.fmt(f),
            Self::Sealed { at, .. } => at.fmt(f),
        }
    }
}

impl StoreAt {
    /// The SQLite file; none where it is another store.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Postgres(_) => None,
            Self::Sealed { at, .. } => at.file(),
        }
    }

    /// The PostgreSQL database; none where it is another store.
    #[must_use]
    pub fn postgres(&self) -> Option<&Arc<PostgresAt>> {
        match self {
            Self::Postgres(at) => Some(at),
            Self::File(_) => None,
            Self::Sealed { at, .. } => at.postgres(),
        }
    }

    /// The folder of sealed entries.
    #[must_use]
    pub fn sealed(&self) -> Option<&Path> {
        match self {
            Self::Sealed { folder, .. } => Some(folder),
            Self::File(_) | Self::Postgres(_) => None,
        }
    }

    /// The same place, whose sealed entries lie below `folder`, where there is one.
    #[must_use]
    pub fn sealed_in(self, folder: Option<&Path>) -> Self {
        match folder {
            Some(folder) => Self::Sealed { at: Box::new(self), folder: folder.to_owned() },
            None => self,
        }
    }

    /// The folder that this broker seals into.
    #[must_use]
    pub fn seals_into(&self) -> Option<&Path> {
        self.sealed().filter(|_| self.postgres().is_none_or(|at| at.seals()))
    }

    /// Opens the store that `init` made.
    ///
    /// # Errors
    /// When it is missing, of an unknown version, or less durable than was demanded.
    pub fn open(&self) -> Result<Opened, StoreError> {
        seal::opened(self.open_unsealed()?, self.sealed())
    }

    fn open_unsealed(&self) -> Result<Opened, StoreError> {
        match self {
            Self::Sealed { at, .. } => at.open_unsealed(),
            Self::File(path) => {
                let store = SqliteStore::open_file(path, false)?;
                // They read on in the log that is opened here, whatever follows it meanwhile.
                let shard = SqliteStore::open_reader(path)?.head()?.map_or(0, |head| head.shard);
                let path = path.clone();
                let readers = Arc::new(move || SqliteStore::open_shard(&path, shard));
                let about = About { kind: "sqlite", durability: "fsync".into(), schema: sqlite::SCHEMA };
                Ok(Opened { store: Box::new(store), readers, about })
            }
            Self::Postgres(at) => {
                let store = PostgresStore::connect(at)?;
                let (about, reading) = (store.about(), store.reading());
                let readers = Arc::new(move || Ok(reading.reader()));
                Ok(Opened { store: Box::new(store), readers, about })
            }
        }
    }

    /// A reader of the store, which it never writes.
    ///
    /// # Errors
    /// As for [`StoreAt::open`].
    pub fn reader(&self) -> Result<Box<dyn Reader>, StoreError> {
        seal::reading(self.unsealed_reader()?, self.sealed())
    }

    fn unsealed_reader(&self) -> Result<Box<dyn Reader>, StoreError> {
        match self {
            Self::File(path) => SqliteStore::open_reader(path),
            Self::Postgres(at) => PostgresStore::open_reader(at),
            Self::Sealed { at, .. } => at.unsealed_reader(),
        }
    }

    /// A reader of one shard, which it never writes.
    ///
    /// # Errors
    /// As for [`StoreAt::open`].
    pub fn shard(&self, shard: u32) -> Result<Box<dyn Reader>, StoreError> {
        match self {
            Self::File(path) => SqliteStore::open_shard(path, shard),
            Self::Postgres(at) => PostgresStore::open_shard(at, shard),
            Self::Sealed { at, folder } => seal::reading(at.shard(shard)?, Some(folder)),
        }
    }

    /// What opens readers of one shard, in which they share what they can.
    #[must_use]
    pub fn readers_of(&self, shard: u32) -> Arc<OpenReader> {
        match self {
            Self::File(path) => {
                let path = path.clone();
                Arc::new(move || SqliteStore::open_shard(&path, shard))
            }
            Self::Postgres(at) => PostgresStore::readers_of(at, shard),
            Self::Sealed { at, folder } => {
                let (open, folder) = (at.readers_of(shard), folder.clone());
                Arc::new(move || seal::reading(open()?, Some(&folder)))
            }
        }
    }

    /// What seals the store, until it is dropped; none where another seals it.
    ///
    /// # Errors
    /// When it cannot be had, or nobody was named for it.
    pub fn sealer(&self) -> Result<Option<Box<dyn Sealer>>, StoreError> {
        Ok(match self {
            Self::Sealed { at, .. } => return at.sealer(),
            Self::File(path) => Some(Box::new(SqliteSealer::open(path)?)),
            Self::Postgres(at) => {
                PostgresSealer::connect(at)?.map(|sealer| Box::new(sealer) as Box<dyn Sealer>)
            }
        })
    }

    /// Takes the place of a store to be made. None where a store with a log is there already.
    ///
    /// # Errors
    /// When the place cannot be had.
    pub fn claim(&self) -> Result<Option<Claimed>, StoreError> {
        Ok(match self {
            Self::Sealed { at, .. } => return at.claim(),
            Self::File(path) => sqlite::claim(path)?.then(|| Claimed(Held::File(path.clone()))),
            Self::Postgres(at) => {
                PostgresStore::claim(at)?.map(|claim| Claimed(Held::Postgres(Box::new(claim))))
            }
        })
    }

    /// Opens the store at a place that was claimed, empty.
    ///
    /// # Errors
    /// When it cannot be made.
    #[allow(clippy::only_used_in_recursion, reason = "whoever has it may create")]
    pub fn create(&self, claimed: &Claimed) -> Result<Box<dyn Store>, StoreError> {
        Ok(match self {
            Self::Sealed { at, .. } => return at.create(claimed),
            Self::File(path) => Box::new(SqliteStore::open_file(path, true)?),
            Self::Postgres(at) => Box::new(PostgresStore::connect(at)?),
        })
    }
}

impl Claimed {
    /// Leaves nothing of what was made since.
    pub fn undo(self) {
        match self.0 {
            Held::File(path) => sqlite::remove(&path),
            Held::Postgres(claim) => claim.undo(),
        }
    }
}
