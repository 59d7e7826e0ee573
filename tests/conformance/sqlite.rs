//! SQLite: where its stores lie, and what it must refuse to open.

use std::path::PathBuf;

use daypass_broker::store::sqlite::{SCHEMA, SqliteStore};
use daypass_broker::store::{Reader, Sealer, Store, StoreAt, StoreError};
use rusqlite::Connection;
use tempfile::TempDir;

use super::Place;
use super::samples::open_log;

/// A file in a directory of its own.
pub(super) struct File {
    folder: TempDir,
}

impl File {
    pub(super) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    /// A store with a log, changed behind its back.
    fn spoiled(sql: &str) -> Self {
        let file = Self::new();
        open_log(file.open().unwrap().as_mut());
        Connection::open(file.path()).unwrap().execute_batch(sql).unwrap();
        file
    }

    fn reader(&self) -> Result<Box<dyn Reader>, StoreError> {
        SqliteStore::open_file(&self.path(), false)?.reader()
    }
}

impl Place for File {
    fn shard(&self, shard: u32) -> Result<Box<dyn Reader>, StoreError> {
        StoreAt::from(self.path()).shard(shard)
    }

    fn sealer(&self) -> Result<Option<Box<dyn Sealer>>, StoreError> {
        StoreAt::from(self.path()).sealer()
    }

    fn open(&self) -> Result<Box<dyn Store>, StoreError> {
        Ok(Box::new(SqliteStore::open_file(&self.path(), true)?))
    }
}

#[test]
fn a_missing_file_is_not_made_unless_asked() {
    let file = File::new();
    assert!(SqliteStore::open_file(&file.path(), false).is_err());
    assert!(!file.path().exists());
}

#[test]
fn a_store_of_a_newer_program_is_refused() {
    let newer = File::spoiled(&format!("PRAGMA user_version={}", SCHEMA + 1)).reader().err();
    assert!(matches!(&newer, Some(StoreError::Damaged(detail)) if detail.contains("newer")), "{newer:?}");
}

#[test]
fn a_store_that_was_sealed_before_there_were_shards_stays_sealed() {
    let before = "DROP TABLE closed; DROP TABLE sealed;
        CREATE TABLE sealed (id INTEGER PRIMARY KEY CHECK (id = 1), until INTEGER NOT NULL) STRICT;
        INSERT INTO sealed VALUES (1, 1); PRAGMA user_version=2";
    let file = File::spoiled(before);
    let sealed = || SqliteStore::open_reader(&file.path()).unwrap().sealed_until().unwrap();
    assert_eq!(sealed(), 1, "to whom only reads");
    drop(file.open().unwrap());
    assert_eq!(sealed(), 1);
    drop(file.open().unwrap());
    let sealer = file.sealer().unwrap().unwrap().seal(0, 1);
    assert!(sealer.is_err(), "it goes on from there");
}

#[test]
fn a_file_that_is_no_store_is_refused_and_left_alone() {
    let file = File::new();
    let text = "a letter to a friend, long enough to be no empty database\n".repeat(100);
    std::fs::write(file.path(), &text).unwrap();
    assert!(matches!(SqliteStore::open_file(&file.path(), false), Err(StoreError::Damaged(_))));
    assert_eq!(std::fs::read_to_string(file.path()).unwrap(), text);
}

#[test]
fn a_head_or_a_key_that_was_damaged_is_not_read() {
    let cut = File::spoiled("UPDATE head SET frontier = x'00'");
    assert!(matches!(cut.reader().unwrap().head(), Err(StoreError::Damaged(_))));
    let renamed = File::spoiled("UPDATE keys SET key = 'not a key id'");
    assert!(matches!(renamed.reader().unwrap().keys(), Err(StoreError::Damaged(_))));
}
