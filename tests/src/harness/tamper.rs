//! A copy of a store at rest, for whoever wants to change it behind the broker's back.

use std::path::{Path, PathBuf};

use daypass_broker::serve::{ServeError, Settings, Verified, open_verified};
use rusqlite::Connection;
use tempfile::TempDir;

/// Store, anchor and key of a deployment, copied.
pub struct Copied {
    /// The store.
    pub store: PathBuf,
    /// The anchor.
    pub anchor: PathBuf,
    kek: PathBuf,
    _folder: TempDir,
}

impl Copied {
    pub(super) fn of(settings: &Settings) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let (store, anchor, kek) = (path("daypass.db"), path("daypass.anchor"), path("kek"));
        std::fs::copy(settings.store.file().unwrap(), &store).unwrap();
        std::fs::copy(&settings.anchor, &anchor).unwrap();
        std::fs::copy(&settings.kek, &kek).unwrap();
        Self { store, anchor, kek, _folder: folder }
    }

    /// Changes the store as whoever can write its file can.
    pub fn change(&self, change: impl FnOnce(&Connection) -> rusqlite::Result<()>) {
        self::change(&self.store, change);
    }

    /// Opens it as a broker does before it serves.
    pub fn open(&self) -> Result<Verified, ServeError> {
        open_verified(&self.store.as_path().into(), &self.kek, Some(&self.anchor))
    }

    /// Puts the store of another copy here, and keeps the anchor.
    pub fn put_back(&self, older: &Path) {
        std::fs::copy(older, &self.store).unwrap();
    }
}

/// Changes a store's file, and leaves it whole.
pub(super) fn change(store: &Path, change: impl FnOnce(&Connection) -> rusqlite::Result<()>) {
    let connection = Connection::open(store).unwrap();
    change(&connection).unwrap();
    drop(connection);
    assert!(is_whole(store));
}

/// Moves the write-ahead log into the store, as far as nobody keeps it busy.
pub(super) fn is_whole(store: &Path) -> bool {
    let connection = Connection::open(store).unwrap();
    let busy: i64 = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0)).unwrap();
    busy == 0
}
