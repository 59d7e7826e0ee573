//! Where a store that is recovered lies, where the new one is made, and where the old one is left: beside each other.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use daypass_evidence::entry::Predecessor;

use super::RecoverError;
use crate::store::postgres;
use crate::store::sqlite::{Alone, SqliteStore, sync_folder_of};
use crate::store::{StoreAt, StoreError};

/// The last part of a log's origin.
pub(super) fn shard_of(log: &Predecessor) -> &str {
    log.origin.rsplit('/').next().unwrap_or_default()
}

/// Where the store of a log before this one lies.
#[must_use]
pub fn aside(store: &StoreAt, predecessor: &Predecessor) -> StoreAt {
    let shard = shard_of(predecessor);
    match store {
        StoreAt::Sealed { at, folder } => aside(at, predecessor).sealed_in(Some(folder)),
        StoreAt::File(file) => {
            let mut path = file.as_os_str().to_owned();
            path.push(format!(".{shard}-{}", predecessor.size));
            StoreAt::File(path.into())
        }
        StoreAt::Postgres(at) => {
            let plain = |c: char| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '_' };
            let shard: String = shard.chars().map(plain).collect();
            StoreAt::Postgres(Arc::new(at.in_schema(&format!("daypass_{shard}_{}", predecessor.size))))
        }
    }
}

/// A store that nobody else writes to until this is dropped.
pub(super) enum Taken {
    File { path: PathBuf, _alone: Alone },
    Postgres(postgres::Alone),
}

impl Taken {
    pub(super) fn of(store: &StoreAt) -> Result<Self, StoreError> {
        Ok(match store {
            StoreAt::Sealed { at, .. } => return Self::of(at),
            StoreAt::File(path) => Self::File { path: path.clone(), _alone: SqliteStore::take_alone(path)? },
            StoreAt::Postgres(at) => Self::Postgres(postgres::Alone::take(at)?),
        })
    }

    /// Where the new store is made. What an earlier attempt left there is removed.
    pub(super) fn make_room(&self) -> Result<StoreAt, StoreError> {
        Ok(match self {
            Self::File { path, .. } => {
                let new = with_suffix(path, ".recovering");
                for suffix in ["", "-wal", "-shm", "-journal"] {
                    drop(std::fs::remove_file(with_suffix(&new, suffix)));
                }
                StoreAt::File(new)
            }
            Self::Postgres(alone) => StoreAt::Postgres(alone.make_room()?),
        })
    }

    /// Waits until the thread of a writer that was let go is gone: a file must then be a single one.
    pub(super) async fn wait_until_at_rest(&self, new: &StoreAt) {
        let Some(file) = new.file() else { return };
        while SqliteStore::take_alone(file).is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The old store gets its other name, and the new one its place, in one step.
    pub(super) fn swap(&self, new: &StoreAt, aside: &StoreAt) -> Result<(), RecoverError> {
        match (self, new.file().zip(aside.file()), aside.postgres()) {
            (Self::File { path, .. }, Some((new, aside)), _) => {
                let failed = |path: &Path| {
                    let name = path.display().to_string();
                    move |error| RecoverError::File(name, error)
                };
                std::fs::hard_link(path, aside).map_err(failed(aside))?;
                std::fs::rename(new, path).map_err(failed(path))?;
                sync_folder_of(path).map_err(failed(path))
            }
            (Self::Postgres(alone), _, Some(aside)) => alone.swap(aside).map_err(|error| {
                RecoverError::Swap(format!("{error}; `daypass-broker verify` says which log is served now"))
            }),
            _ => Err(RecoverError::Swap("the two stores are not of one kind".into())),
        }
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}
