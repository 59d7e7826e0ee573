//! The reading side: a connection of its own that cannot write.

use std::path::Path;

use daypass_evidence::entry::Index;
use daypass_verify::ids::Digest;
use daypass_verify::time::UnixMs;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Params, params};

use super::{failed, signed, unsigned};
use crate::store::{Head, Live, Reader, Row, SealedKey, StoreError, base, place};

/// Reads what is committed of one shard.
pub(super) struct SqliteReader {
    connection: Connection,
    shard: u32,
    /// Whether there are tables for shards: a program that knew of none may have made the store.
    shards: bool,
}

impl SqliteReader {
    /// Reads a shard, or the newest one.
    pub(super) fn open(path: &Path, shard: Option<u32>) -> Result<Self, StoreError> {
        let mut reader = Self::open_moved(path, 0)?;
        super::check_known(&reader.connection, path)?;
        reader.shards = reader.connection.table_exists(None, "closed").map_err(failed)?;
        reader.shard = match shard {
            Some(shard) => shard,
            None if reader.shards => reader
                .connection
                .query_row("SELECT count(*) FROM closed", [], |row| row.get(0))
                .map_err(failed)?,
            None => 0,
        };
        Ok(reader)
    }

    /// One shard of a store that nobody serves any more.
    pub(super) fn open_moved(path: &Path, shard: u32) -> Result<Self, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
        connection.busy_timeout(super::LOCK_TIMEOUT).map_err(failed)?;
        Ok(Self { connection, shard, shards: true })
    }

    /// The places of entries from `start` on, and where those of other shards begin.
    fn places(&self, start: Index) -> (i64, i64) {
        (signed(base(self.shard).saturating_add(start)), signed(base(self.shard + 1)))
    }

    fn select(&self, sql: &str, start: Index, limit: u32) -> Result<Vec<Row>, StoreError> {
        let mut select = self.connection.prepare_cached(sql).map_err(failed)?;
        let (from, beyond) = self.places(start);
        let rows = select
            .query_map(params![from, limit, beyond], |row| {
                Ok(Row {
                    index: unsigned(row.get(0)?) - base(self.shard),
                    leaf: row.get(1)?,
                    bytes: row.get(2)?,
                    folds: row.get(3)?,
                })
            })
            .map_err(failed)?;
        rows.collect::<Result<_, _>>().map_err(failed)
    }
}

impl Reader for SqliteReader {
    fn head(&self) -> Result<Option<Head>, StoreError> {
        let newest = newest(&self.connection, self.shards)?;
        match newest.filter(|head| head.shard == self.shard) {
            None if self.shards => closed(&self.connection, Some(self.shard)).map(|mut found| found.pop()),
            found => Ok(found),
        }
    }

    fn closed(&self) -> Result<Vec<Head>, StoreError> {
        if self.shards { closed(&self.connection, None) } else { Ok(Vec::new()) }
    }

    fn rows(&self, start: Index, limit: u32) -> Result<Vec<Row>, StoreError> {
        self.select(
            "SELECT e.idx, leaf, bytes, f.idx IS NOT NULL FROM entries e LEFT JOIN folds f USING (idx)
             WHERE e.idx >= ?1 AND e.idx < ?3 ORDER BY e.idx LIMIT ?2",
            start,
            limit,
        )
    }

    fn leaves(&self, start: Index, limit: u32) -> Result<Vec<[u8; 32]>, StoreError> {
        let sql = "SELECT leaf FROM entries WHERE idx >= ?1 AND idx < ?3 ORDER BY idx LIMIT ?2";
        let mut select = self.connection.prepare_cached(sql).map_err(failed)?;
        let (from, beyond) = self.places(start);
        let leaves = select.query_map(params![from, limit, beyond], |row| row.get(0)).map_err(failed)?;
        leaves.collect::<Result<_, _>>().map_err(failed)
    }

    fn sealed_until(&self) -> Result<Index, StoreError> {
        if !self.shards {
            return super::sealed::alone(&self.connection);
        }
        let until = super::sealed::until(&self.connection, self.shard)?;
        Ok(until.map_or(0, |until| until - base(self.shard)))
    }

    fn fold_rows(&self, start: Index, limit: u32) -> Result<Vec<Row>, StoreError> {
        self.select(
            "SELECT idx, leaf, bytes, 1 FROM folds JOIN entries USING (idx) WHERE idx >= ?1 AND idx < ?3
             ORDER BY idx LIMIT ?2",
            start,
            limit,
        )
    }

    fn entry_at(&self, at: Index) -> Result<Option<Row>, StoreError> {
        let sql = "SELECT leaf, bytes, EXISTS (SELECT 1 FROM folds f WHERE f.idx = e.idx) FROM entries e WHERE idx = ?1";
        let index = place(at).1;
        self.connection
            .prepare_cached(sql)
            .and_then(|mut select| {
                let row = |row: &rusqlite::Row<'_>| {
                    Ok(Row { index, leaf: row.get(0)?, bytes: row.get(1)?, folds: row.get(2)? })
                };
                select.query_row([signed(at)], row).optional()
            })
            .map_err(failed)
    }

    fn subtree(&self, level: u8, index: u64) -> Result<Option<[u8; 32]>, StoreError> {
        let index = signed((base(self.shard) >> level) + index);
        self.connection
            .prepare_cached("SELECT hash FROM subtrees WHERE level = ?1 AND idx = ?2")
            .and_then(|mut select| select.query_row(params![level, index], |row| row.get(0)).optional())
            .map_err(failed)
    }

    fn object(&self, digest: &Digest) -> Result<Option<Vec<u8>>, StoreError> {
        self.connection
            .prepare_cached("SELECT bytes FROM objects WHERE digest = ?1")
            .and_then(|mut select| {
                select.query_row([digest.as_bytes().as_slice()], |row| row.get(0)).optional()
            })
            .map_err(failed)
    }

    fn keys(&self) -> Result<Vec<SealedKey>, StoreError> {
        let mut select = self
            .connection
            .prepare_cached("SELECT key, sealed, certificate FROM keys ORDER BY key")
            .map_err(failed)?;
        let rows = select
            .query_map([], |row| Ok((row.get::<_, String>(0)?, row.get(1)?, row.get(2)?)))
            .map_err(failed)?;
        rows.map(|row| {
            let (key, sealed, certificate) = row.map_err(failed)?;
            let key =
                key.parse().map_err(|error| StoreError::Damaged(format!("in the table of keys: {error}")))?;
            Ok(SealedKey { key, sealed, certificate })
        })
        .collect()
    }

    fn live(&self) -> Result<u64, StoreError> {
        self.connection
            .prepare_cached("SELECT count(*) FROM live")
            .and_then(|mut select| select.query_row([], |row| row.get(0)))
            .map(unsigned)
            .map_err(failed)
    }

    fn live_here(&self) -> Result<u64, StoreError> {
        let (from, beyond) = self.places(0);
        self.connection
            .prepare_cached("SELECT count(*) FROM live WHERE idx >= ?1 AND idx < ?2")
            .and_then(|mut select| select.query_row([from, beyond], |row| row.get(0)))
            .map(unsigned)
            .map_err(failed)
    }

    fn live_after(&self, after: Option<Live>, limit: u32) -> Result<Vec<Live>, StoreError> {
        let (exp, index) = after.map_or((i64::MIN, -1), |it| (it.exp.get(), signed(it.index)));
        let mut select = self
            .connection
            .prepare_cached(
                "SELECT exp_ms, idx FROM live WHERE (exp_ms, idx) > (?1, ?2) ORDER BY exp_ms, idx LIMIT ?3",
            )
            .map_err(failed)?;
        let rows = select
            .query_map(params![exp, index, limit], |row| {
                Ok(Live { exp: UnixMs::new(row.get(0)?), index: unsigned(row.get(1)?) })
            })
            .map_err(failed)?;
        rows.collect::<Result<_, _>>().map_err(failed)
    }
}

/// The head of the newest shard.
pub(super) fn newest(connection: &Connection, shards: bool) -> Result<Option<Head>, StoreError> {
    let sql = if shards {
        "SELECT (SELECT count(*) FROM closed), origin, size, state, time_ms, frontier, checkpoint FROM head WHERE id = 1"
    } else {
        "SELECT 0, origin, size, state, time_ms, frontier, checkpoint FROM head WHERE id = 1"
    };
    heads_in(connection, sql, []).map(|mut heads| heads.pop())
}

/// The head of a shard, closed or not.
pub(super) fn head_of(connection: &Connection, shard: u32) -> Result<Option<Head>, StoreError> {
    match newest(connection, true)?.filter(|head| head.shard == shard) {
        None => Ok(closed(connection, Some(shard))?.pop()),
        found => Ok(found),
    }
}

/// The heads of shards that are closed: of one, or of all.
fn closed(connection: &Connection, shard: Option<u32>) -> Result<Vec<Head>, StoreError> {
    let sql = "SELECT shard, origin, size, state, time_ms, frontier, checkpoint FROM closed
        WHERE ?1 IS NULL OR shard = ?1 ORDER BY shard";
    heads_in(connection, sql, [shard])
}

pub(super) fn heads_in(
    connection: &Connection,
    sql: &str,
    parameters: impl Params,
) -> Result<Vec<Head>, StoreError> {
    let mut select = connection.prepare_cached(sql).map_err(failed)?;
    let found = select.query_map(parameters, |row| {
        let head = Head {
            shard: row.get(0)?,
            origin: row.get(1)?,
            size: unsigned(row.get(2)?),
            state: unsigned(row.get(3)?),
            time: UnixMs::new(row.get(4)?),
            frontier: Vec::new(),
            checkpoint: row.get(6)?,
        };
        Ok((head, row.get::<_, Vec<u8>>(5)?))
    });
    let with_frontier = |found: rusqlite::Result<(Head, Vec<u8>)>| {
        let (head, frontier) = found.map_err(failed)?;
        Ok(Head { frontier: hashes(&frontier)?, ..head })
    };
    found.map_err(failed)?.map(with_frontier).collect()
}

fn hashes(bytes: &[u8]) -> Result<Vec<[u8; 32]>, StoreError> {
    let (whole, rest) = bytes.as_chunks::<32>();
    if rest.is_empty() { Ok(whole.to_vec()) } else { Err(StoreError::Damaged("the frontier is cut".into())) }
}
