//! A whole store on its way to another: read page by page, and marked so that nobody writes here again.

use std::path::Path;

use daypass_core::draft::{Mark, MarkKind};
use daypass_evidence::entry::Index;
use daypass_verify::ids::Digest;
use daypass_verify::time::UnixMs;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Row, TransactionBehavior};

use super::read::{self, SqliteReader};
use super::{LOCK_TIMEOUT, add_later, check_known, failed, unsigned};
use crate::store::carry::Take;
use crate::store::{Batch, Head, Live, Reader as _, StoreError, base};

const HEAD: &str = "SELECT (SELECT count(*) FROM closed), origin, size, state, time_ms, frontier, checkpoint FROM moved_head WHERE id = 1";

/// How many rows are carried at once.
const PAGE: u32 = 2_000;
const CHUNK: usize = 2_000;

/// A store that was marked as moved.
pub(crate) struct Moving {
    connection: Connection,
    shards: Vec<SqliteReader>,
    head: Head,
}

impl Moving {
    /// Marks the store as moved to `place`: whoever opens it, or has it open, writes no more. A store that was marked for
    /// the same place before is taken up again.
    ///
    /// # Errors
    /// When it was moved elsewhere, has no log, or is written by somebody else.
    pub(crate) fn leave_for(path: &Path, place: &str) -> Result<Self, StoreError> {
        let mut connection =
            Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(failed)?;
        connection.busy_timeout(LOCK_TIMEOUT).map_err(failed)?;
        let known = moved_to(&connection)?;
        if known.is_none() {
            check_known(&connection, path)?;
            add_later(&connection)?;
        }
        let transaction =
            connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        match known {
            None => {
                // No statement of a broker finds its head any more, not even of one that runs.
                let sql =
                    "ALTER TABLE head RENAME TO moved_head; CREATE TABLE moved (place TEXT NOT NULL) STRICT";
                transaction.execute_batch(sql).map_err(failed)?;
                transaction.execute("INSERT INTO moved VALUES (?1)", [place]).map_err(failed)?;
            }
            Some(known) if known == place => {}
            Some(known) => return Err(moved(&known)),
        }
        let head = read::heads_in(&transaction, HEAD, [])?.pop();
        let head = head.ok_or_else(|| StoreError::Damaged("there is no log in this store".into()))?;
        transaction.commit().map_err(failed)?;
        let shards = (0..=head.shard).map(|shard| SqliteReader::open_moved(path, shard));
        let shards = shards.collect::<Result<_, _>>()?;
        Ok(Self { connection, shards, head })
    }
}

impl Moving {
    /// The head that it was left with.
    pub(crate) fn head(&self) -> &Head {
        &self.head
    }

    /// The heads of the shards that are closed.
    pub(crate) fn closed(&self) -> Result<Vec<Head>, StoreError> {
        self.shards.first().map_or_else(|| Ok(Vec::new()), |reader| reader.closed())
    }

    /// In each shard, the place below which its entries are sealed, and are not carried.
    pub(crate) fn sealed(&self) -> Result<Vec<(u32, Index)>, StoreError> {
        self.all("SELECT shard, until FROM sealed", |row| Ok((row.get(0)?, unsigned(row.get(1)?))))
    }

    /// Takes the mark away: the store is served here again.
    pub(crate) fn come_back(self) {
        let sql = "BEGIN IMMEDIATE; ALTER TABLE moved_head RENAME TO head; DROP TABLE moved; COMMIT";
        if let Err(error) = self.connection.execute_batch(sql) {
            tracing::error!(%error, "the store is still marked as moved");
        }
    }

    /// Gives all that lies in it to `take`, page by page.
    pub(crate) fn each(&self, take: &mut Take<'_>) -> Result<(), StoreError> {
        for (shard, reader) in (0..).zip(&self.shards) {
            let mut from = 0;
            loop {
                let mut rows = reader.rows(from, PAGE)?;
                let Some(last) = rows.last() else { break };
                from = last.index + 1;
                rows.iter_mut().for_each(|row| row.index += base(shard));
                take(&Batch { rows, ..Batch::default() }, &[])?;
            }
        }
        let batch = |batch: Batch, take: &mut Take<'_>| take(&batch, &[]);
        for live in self.all("SELECT exp_ms, idx FROM live", read_live)?.chunks(CHUNK) {
            batch(Batch { born: live.to_vec(), ..Batch::default() }, take)?;
        }
        for subtrees in self.all("SELECT level, idx, hash FROM subtrees", read_subtree)?.chunks(CHUNK) {
            batch(Batch { subtrees: subtrees.to_vec(), ..Batch::default() }, take)?;
        }
        for object in self.all("SELECT digest, bytes FROM objects", read_object)? {
            let digest = Digest::of(&object.1);
            if object.0 != digest.as_bytes() {
                return Err(StoreError::Damaged("an object is not what its digest says".into()));
            }
            batch(Batch { objects: vec![(digest, object.1)], ..Batch::default() }, take)?;
        }
        let keys = self.shards.first().map_or_else(|| Ok(Vec::new()), |reader| reader.keys())?;
        batch(Batch { keys, ..Batch::default() }, take)?;
        for marks in self.all("SELECT minute, mark FROM marks", read_mark)?.chunks(CHUNK) {
            take(&Batch::default(), marks)?;
        }
        Ok(())
    }

    fn all<T>(&self, sql: &str, read: fn(&Row<'_>) -> rusqlite::Result<T>) -> Result<Vec<T>, StoreError> {
        let mut select = self.connection.prepare(sql).map_err(failed)?;
        let rows = select.query_map([], read).map_err(failed)?;
        rows.collect::<Result<_, _>>().map_err(failed)
    }
}

fn read_object(row: &Row<'_>) -> rusqlite::Result<(Vec<u8>, Vec<u8>)> {
    Ok((row.get(0)?, row.get(1)?))
}

fn read_live(row: &Row<'_>) -> rusqlite::Result<Live> {
    Ok(Live { exp: UnixMs::new(row.get(0)?), index: unsigned(row.get(1)?) })
}

fn read_subtree(row: &Row<'_>) -> rusqlite::Result<(u8, u64, [u8; 32])> {
    Ok((row.get(0)?, unsigned(row.get(1)?), row.get(2)?))
}

/// Of a mark its minute and its key are kept, and nothing else is asked for.
fn read_mark(row: &Row<'_>) -> rusqlite::Result<Mark> {
    let expires = UnixMs::new(row.get::<_, i64>(0)? * 60_000);
    Ok(Mark { expires, earlier: None, key: row.get(1)?, kind: MarkKind::Proof })
}

/// Why a store is not opened any more.
pub(super) fn moved(place: &str) -> StoreError {
    StoreError::Damaged(format!("this store was moved to `{place}`: name that as the store"))
}

/// Where a store was moved to; none where it was not.
pub(super) fn moved_to(connection: &Connection) -> Result<Option<String>, StoreError> {
    if !connection.table_exists(None, "moved").map_err(failed)? {
        return Ok(None);
    }
    connection.query_row("SELECT place FROM moved", [], |row| row.get(0)).optional().map_err(failed)
}
