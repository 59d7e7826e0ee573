//! Whole copies of a store, and a store that nobody else has open.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};

use super::{SqliteStore, failed};
use crate::store::StoreError;

impl SqliteStore {
    /// Copies the store at `from`, as it is at one moment, into a new file at `to`, mode 0600, synced. Whoever writes
    /// to it meanwhile is not held up: the copy is read in one transaction.
    ///
    /// # Errors
    /// When `to` exists, or either file cannot be used. No part of a copy is left then.
    pub fn copy_to(from: &Path, to: &Path) -> Result<(), StoreError> {
        let refused = |error: &dyn std::fmt::Display| {
            StoreError::Unavailable(format!("`{}` could not be written: {error}", to.display()))
        };
        let source = Connection::open_with_flags(from, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(failed)?;
        super::check_known(&source, from)?;
        match File::options().write(true).create_new(true).mode(0o600).open(to) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                return Err(refused(&"there is such a file already, and it is left as it is"));
            }
            claimed => drop(claimed.map_err(|error| refused(&error))?),
        }
        let copied = copy(&source, to).and_then(|()| {
            let synced = File::open(to).and_then(|file| file.sync_all());
            synced.and_then(|()| sync_folder_of(to)).map_err(|error| refused(&error))
        });
        if copied.is_err() {
            drop(std::fs::remove_file(to));
        }
        copied
    }

    /// Takes a store for one process alone, with all of its log in its one file: until what is returned is dropped,
    /// nobody else can write to it or begin to serve it.
    ///
    /// # Errors
    /// When a broker, or anybody else, has it open.
    pub fn take_alone(path: &Path) -> Result<Alone, StoreError> {
        let connection =
            Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(failed)?;
        super::check_known(&connection, path)?;
        let mode: Result<String, _> =
            connection.query_row("PRAGMA journal_mode=DELETE", [], |row| row.get(0));
        let alone =
            mode.is_ok_and(|mode| mode == "delete") && connection.execute_batch("BEGIN IMMEDIATE").is_ok();
        if alone {
            return Ok(Alone(connection));
        }
        Err(StoreError::Unavailable(format!("`{}` is in use: stop the broker first", path.display())))
    }
}

/// A store that nobody else writes to.
#[derive(Debug)]
pub struct Alone(#[allow(dead_code, reason = "its lock is what matters")] Connection);

fn copy(source: &Connection, to: &Path) -> Result<(), StoreError> {
    let mut target = Connection::open_with_flags(to, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(failed)?;
    {
        let backup = Backup::new(source, &mut target).map_err(failed)?;
        // In one step: in several, each write to the store would begin the copy anew.
        match backup.step(-1).map_err(failed)? {
            StepResult::Done => {}
            other => return Err(StoreError::Unavailable(format!("the copy was not finished: {other:?}"))),
        }
    }
    // One file, whole: a copy needs no write-ahead log beside it.
    target.query_row("PRAGMA journal_mode=DELETE", [], |_| Ok(())).map_err(failed)?;
    Ok(())
}

/// Makes the name of a file durable.
pub(crate) fn sync_folder_of(path: &Path) -> std::io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}
