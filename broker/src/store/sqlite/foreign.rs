//! A file that is not ours is refused as it is, and a store under examination stays as it was.

use rusqlite::Connection;

use super::SqliteStore;
use crate::store::StoreError;

/// Files that are no store, by what was run to make them.
const FOREIGN: [(&str, &str); 3] = [
    ("an empty file", ""),
    ("somebody else's tables", "CREATE TABLE letters (text TEXT)"),
    ("somebody else's tables with our version", "CREATE TABLE letters (text TEXT); PRAGMA user_version=1"),
];

fn is_refused<T>(opened: Result<T, StoreError>) -> bool {
    matches!(opened, Err(StoreError::Damaged(why)) if why.contains("not a store of daypass"))
}

#[test]
fn what_is_no_store_is_refused_and_not_written() {
    for (what, sql) in FOREIGN {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("other");
        std::fs::write(&path, "").unwrap();
        Connection::open(&path).unwrap().execute_batch(sql).unwrap();
        let before = std::fs::read(&path).unwrap();
        assert!(is_refused(SqliteStore::open_file(&path, false)), "{what}");
        assert!(is_refused(SqliteStore::open_reader(&path)), "{what}");
        assert!(sql.is_empty() || is_refused(SqliteStore::open_file(&path, true)), "{what}");
        assert_eq!(std::fs::read(&path).unwrap(), before, "{what}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "{what}: nothing is left beside it");
    }
}

#[test]
fn a_reader_writes_neither_the_store_nor_what_waits_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let held = SqliteStore::open_file(&at("live"), true).unwrap();
    // As a crash leaves it: what was committed last is still beside the database.
    for (from, to) in [("live", "copy"), ("live-wal", "copy-wal")] {
        std::fs::copy(at(from), at(to)).unwrap();
    }
    drop(held);
    let read = || ["copy", "copy-wal"].map(|name| std::fs::read(at(name)).unwrap());
    let before = read();
    assert!(!before[1].is_empty());
    let reader = SqliteStore::open_reader(&at("copy")).unwrap();
    assert_eq!(reader.head().unwrap(), None);
    drop(reader);
    assert!(read() == before);
}
