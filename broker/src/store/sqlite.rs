//! The embedded store: SQLite in WAL mode, every commit synced (`synchronous=FULL`).

pub(super) mod carry;
#[cfg(test)]
mod changed;
mod copy;
#[cfg(test)]
mod foreign;
mod mover;
mod read;
mod reserve;
mod sealed;
mod write;

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use daypass_core::draft::Mark;
use daypass_verify::time::UnixMs;
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior, params};

use mover::Mover;
use reserve::Reserve;
use write::{Failed, head_params, insert, write};

use super::columns::{minute, signed, unsigned};
use super::{Batch, Head, Live, Reader, Store, StoreError, Transaction, base};

pub use copy::Alone;
pub(crate) use copy::sync_folder_of;
pub use sealed::SqliteSealer;

/// The newest version of the tables; a store of a later one is refused.
pub const SCHEMA: u32 = 3;

/// The version that a new store has: see [`sealed`] for the second. The third has a shard that is closed.
const NEW: u32 = 1;
const TURNED: u32 = 3;

/// What the name of a store's reserve ends in.
const RESERVE: &str = ".reserve";

/// How long the lock may be waited for.
const LOCK_TIMEOUT: Duration = Duration::from_secs(1);

/// Pages of the write-ahead log above which a resting writer moves them into the database.
const PAGES_AT_REST: usize = 500;

/// Pages above which it is moved under load, about 64 MiB. The larger it is, the fewer times a page that changes with
/// each commit is moved.
const PAGES_MAX: usize = 8_192;

/// How many pages a commit takes, about: what changes each time, and a page for five entries. Pages of 8 KiB: of 4 KiB an
/// entry wastes a third, and a log of the same length takes a fifth longer to verify.
const PAGES_A_COMMIT: usize = 8;
const ROWS_A_PAGE: usize = 5;

const TABLES: &str = "
    CREATE TABLE entries (idx INTEGER PRIMARY KEY, leaf BLOB NOT NULL, bytes BLOB NOT NULL) STRICT;
    CREATE TABLE folds (idx INTEGER PRIMARY KEY) STRICT;
    CREATE TABLE subtrees (level INTEGER, idx INTEGER, hash BLOB NOT NULL, PRIMARY KEY (level, idx)) STRICT, WITHOUT ROWID;
    CREATE TABLE head (id INTEGER PRIMARY KEY CHECK (id = 1), origin TEXT NOT NULL, size INTEGER NOT NULL, state INTEGER NOT NULL,
                       time_ms INTEGER NOT NULL, frontier BLOB NOT NULL, checkpoint BLOB NOT NULL) STRICT;
    CREATE TABLE live (exp_ms INTEGER, idx INTEGER, PRIMARY KEY (exp_ms, idx)) STRICT, WITHOUT ROWID;
    CREATE TABLE marks (minute INTEGER, mark BLOB, PRIMARY KEY (minute, mark)) STRICT, WITHOUT ROWID;
    CREATE TABLE objects (digest BLOB PRIMARY KEY, bytes BLOB NOT NULL) STRICT;
    CREATE TABLE keys (key TEXT PRIMARY KEY, sealed BLOB NOT NULL, certificate BLOB) STRICT;
";

/// Tables that stores of an earlier program get when they are opened; each is empty until it is needed.
const LATER: &str = "
    CREATE TABLE IF NOT EXISTS closed (shard INTEGER PRIMARY KEY, origin TEXT NOT NULL, size INTEGER NOT NULL, state INTEGER NOT NULL,
                         time_ms INTEGER NOT NULL, frontier BLOB NOT NULL, checkpoint BLOB NOT NULL) STRICT;
    CREATE TABLE IF NOT EXISTS sealed (shard INTEGER PRIMARY KEY, until INTEGER NOT NULL) STRICT;
";

/// A store in one SQLite file.
#[derive(Debug)]
pub struct SqliteStore {
    path: PathBuf,
    connection: Connection,
    mover: Mover,
    /// None where a store is opened for something else than to serve it.
    reserve: Option<Reserve>,
    /// Pages of the write-ahead log that were not moved yet, about.
    pages: usize,
    marks_pruned_minute: i64,
}

impl SqliteStore {
    /// Opens the store in the file at `path`; with `create`, makes it where there is none.
    ///
    /// # Errors
    /// When the file is missing, is no store of a known version, or cannot be opened. What is no store is not written.
    pub fn open_file(path: &Path, create: bool) -> Result<Self, StoreError> {
        let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        flags.set(OpenFlags::SQLITE_OPEN_CREATE, create);
        let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
        connection.busy_timeout(LOCK_TIMEOUT).map_err(failed)?;
        let new = create && is_empty(&connection)?;
        if !new {
            check_known(&connection, path)?;
        }
        connection
            .execute_batch(
                "PRAGMA page_size=8192; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=0; PRAGMA temp_store=MEMORY;
                 PRAGMA cache_size=-8000; PRAGMA foreign_keys=ON;",
            )
            .map_err(failed)?;
        #[cfg(feature = "sabotage")]
        if crate::sabotage::breaks("p1") {
            connection.execute_batch("PRAGMA synchronous=NORMAL").map_err(failed)?;
        }
        if new {
            connection
                .execute_batch(&format!("BEGIN IMMEDIATE; {TABLES} PRAGMA user_version={NEW}; COMMIT;"))
                .map_err(failed)?;
        }
        add_later(&connection)?;
        let mover = Mover::start(path).map_err(|error| StoreError::Unavailable(error.to_string()))?;
        Ok(Self { path: path.to_owned(), connection, mover, reserve: None, pages: 0, marks_pruned_minute: 0 })
    }

    /// A reader of the store in the file at `path`, which it never writes.
    ///
    /// # Errors
    /// As for [`SqliteStore::open_file`].
    pub fn open_reader(path: &Path) -> Result<Box<dyn Reader>, StoreError> {
        Ok(Box::new(read::SqliteReader::open(path, None)?))
    }

    /// A reader of one shard.
    ///
    /// # Errors
    /// As for [`SqliteStore::open_file`].
    pub fn open_shard(path: &Path, shard: u32) -> Result<Box<dyn Reader>, StoreError> {
        Ok(Box::new(read::SqliteReader::open(path, Some(shard))?))
    }

    fn move_wal(&mut self) {
        self.pages = 0;
        let _ = mover::move_wal(&self.connection).inspect_err(mover::warn);
    }

    /// The bulk is moved by the mover, and then the rest here, so that the write-ahead log can start over.
    fn keep_wal_short(&mut self) {
        if self.mover.has_moved() || (self.pages > 0 && !self.has_room()) {
            self.move_wal();
        } else if self.pages > PAGES_MAX {
            self.mover.ask();
        }
    }
}

/// Takes `path` for this call alone, so that whoever fails removes nothing that another made; false where something is
/// there. Mode 0600, which the files beside the store follow.
pub(super) fn claim(path: &Path) -> Result<bool, StoreError> {
    match File::options().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(error) => {
            Err(StoreError::Unavailable(format!("`{}` could not be made: {error}", path.display())))
        }
    }
}

/// Removes a store that was claimed, with the files beside it.
pub(super) fn remove(path: &Path) {
    for suffix in ["", "-wal", "-shm", RESERVE] {
        let mut path = path.as_os_str().to_owned();
        path.push(suffix);
        drop(std::fs::remove_file(path));
    }
}

fn is_empty(connection: &Connection) -> Result<bool, StoreError> {
    let tables: u32 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(failed)?;
    Ok(tables == 0 && version(connection)? == 0)
}

/// Refuses what is not a store of a known version. Only reads.
fn check_known(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    if let Some(place) = carry::moved_to(connection)? {
        return Err(carry::moved(&place));
    }
    let version = version(connection)?;
    let ours = version > 0 && connection.table_exists(None, "head").map_err(failed)?;
    match version {
        _ if !ours => Err(StoreError::Damaged(format!(
            "`{}` is not a store of daypass: name the file that `daypass-broker init` made",
            path.display()
        ))),
        ..=SCHEMA => Ok(()),
        newer => Err(StoreError::Damaged(format!(
            "the store has schema version {newer}, and this program knows versions up to {SCHEMA}: run a newer one"
        ))),
    }
}

/// A store that was sealed before there were shards says so of its only one.
fn add_later(connection: &Connection) -> Result<(), StoreError> {
    if !connection.column_exists(None, "sealed", "id").map_err(failed)? {
        return connection.execute_batch(LATER).map_err(failed);
    }
    let sql = format!(
        "BEGIN IMMEDIATE; ALTER TABLE sealed RENAME TO sealed_alone; {LATER}
         INSERT INTO sealed SELECT 0, until FROM sealed_alone; DROP TABLE sealed_alone;
         PRAGMA user_version={TURNED}; COMMIT;"
    );
    connection.execute_batch(&sql).map_err(failed)
}

fn version(connection: &Connection) -> Result<u32, StoreError> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(failed)
}

impl Store for SqliteStore {
    fn begin(&mut self) -> Result<Box<dyn Transaction + '_>, StoreError> {
        self.keep_wal_short();
        let prune = self.marks_pruned_minute;
        let transaction =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        let head = read::newest(&transaction, true)?.ok_or_else(|| {
            StoreError::Damaged("there is no log in this store: run `daypass-broker init` first".into())
        })?;
        let (pages, pruned, reserve) =
            (&mut self.pages, &mut self.marks_pruned_minute, self.reserve.as_mut());
        Ok(Box::new(SqliteTransaction { transaction, head, pages, pruned, prune_after: prune, reserve }))
    }

    fn open(&mut self, batch: &Batch, head: &Head) -> Result<(), StoreError> {
        let transaction =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        if let Some(found) = read::newest(&transaction, true)? {
            return Err(StoreError::HeadMoved { expected: 0, found: found.size });
        }
        insert(&transaction, batch, base(head.shard)).map_err(failed)?;
        transaction
            .execute("INSERT INTO head VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6)", head_params(head))
            .map_err(failed)?;
        transaction.commit().map_err(unknown)
    }

    fn reader(&self) -> Result<Box<dyn Reader>, StoreError> {
        Self::open_reader(&self.path)
    }

    fn keep_room(&mut self) -> Result<(), StoreError> {
        self.reserve = Some(Reserve::open(&self.path)?);
        Ok(())
    }

    fn has_room(&mut self) -> bool {
        self.reserve.as_mut().is_none_or(Reserve::keep)
    }

    fn rest(&mut self) {
        if self.pages > PAGES_AT_REST {
            self.move_wal();
        }
    }
}

struct SqliteTransaction<'a> {
    transaction: rusqlite::Transaction<'a>,
    head: Head,
    pages: &'a mut usize,
    pruned: &'a mut i64,
    prune_after: i64,
    reserve: Option<&'a mut Reserve>,
}

impl Transaction for SqliteTransaction<'_> {
    fn head(&self) -> &Head {
        &self.head
    }

    fn spend(&mut self, marks: &[Mark]) -> Result<Vec<bool>, StoreError> {
        #[cfg(feature = "sabotage")]
        if crate::sabotage::breaks("p7") {
            return Ok(vec![true; marks.len()]);
        }
        let prepare = |sql| self.transaction.prepare_cached(sql).map_err(failed);
        let mut lies = prepare("SELECT 1 FROM marks WHERE minute = ?1 AND mark = ?2")?;
        let mut insert = prepare("INSERT INTO marks VALUES (?1, ?2) ON CONFLICT DO NOTHING")?;
        let mut is_fresh = |mark: &Mark| {
            let mut buckets = std::iter::once(mark.expires).chain(mark.earlier);
            let spent = buckets.try_fold(false, |spent, bucket| {
                Ok::<_, rusqlite::Error>(spent || lies.exists(params![minute(bucket), mark.key.as_slice()])?)
            })?;
            Ok(!spent)
        };
        let fresh = marks.iter().map(&mut is_fresh).collect::<Result<Vec<bool>, _>>().map_err(failed)?;
        if fresh.iter().all(|fresh| *fresh) {
            for mark in marks {
                insert.execute(params![minute(mark.expires), mark.key.as_slice()]).map_err(failed)?;
            }
        }
        Ok(fresh)
    }

    fn expired(&mut self, through: UnixMs, limit: u32) -> Result<Vec<Live>, StoreError> {
        let mut select = self
            .transaction
            .prepare_cached("SELECT exp_ms, idx FROM live WHERE exp_ms <= ?1 ORDER BY exp_ms, idx LIMIT ?2")
            .map_err(failed)?;
        let rows = select
            .query_map(params![through.get(), limit], |row| {
                Ok(Live { exp: UnixMs::new(row.get(0)?), index: unsigned(row.get(1)?) })
            })
            .map_err(failed)?;
        rows.collect::<Result<_, _>>().map_err(failed)
    }

    fn are_live(&mut self, credentials: &[Live]) -> Result<Vec<bool>, StoreError> {
        let mut lies = self
            .transaction
            .prepare_cached("SELECT 1 FROM live WHERE exp_ms = ?1 AND idx = ?2")
            .map_err(failed)?;
        let mut is_live = |live: &Live| lies.exists(params![live.exp.get(), signed(live.index)]);
        credentials.iter().map(&mut is_live).collect::<Result<_, _>>().map_err(failed)
    }

    fn commit(self: Box<Self>, batch: &Batch, head: &Head) -> Result<(), StoreError> {
        let Self { transaction, head: read, pages, pruned, prune_after, reserve } = *self;
        let now_minute = minute(head.time);
        let prune = (now_minute > prune_after).then_some(now_minute - write::MARK_GRACE_MINUTES);
        let written = write(&transaction, batch, head, &read, prune);
        let committed = match written {
            Ok(()) => transaction.commit().map_err(Failed::AtCommit),
            Err(failed) => {
                // Rolled back: only then does what is given up count.
                drop(transaction);
                Err(failed)
            }
        };
        if let (Err(Failed::Before(error) | Failed::AtCommit(error)), Some(reserve)) = (&committed, reserve)
            && reserve.is_for(error)
        {
            reserve.give_up();
        }
        committed?;
        *pruned = (*pruned).max(now_minute);
        *pages += PAGES_A_COMMIT + batch.rows.len() / ROWS_A_PAGE;
        Ok(())
    }
}

fn failed(error: rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => StoreError::Full(error.to_string()),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => StoreError::Damaged(error.to_string()),
        _ => StoreError::Unavailable(error.to_string()),
    }
}

/// A failed COMMIT may have happened: the caller asks the head.
fn unknown(error: rusqlite::Error) -> StoreError {
    StoreError::Unknown(error.to_string())
}
