//! The reading side: a connection of its own that cannot write.

use std::path::Path;

use daypass_evidence::entry::Index;
use daypass_verify::ids::Digest;
use daypass_verify::time::UnixMs;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, params};

use super::{failed, signed, unsigned};
use crate::store::{Head, Live, Reader, Row, SealedKey, StoreError};

/// Reads what is committed.
pub(super) struct SqliteReader {
    connection: Connection,
}

impl SqliteReader {
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let reader = Self::open_moved(path)?;
        super::check_known(&reader.connection, path)?;
        Ok(reader)
    }

    /// The same of a store that nobody serves any more.
    pub(super) fn open_moved(path: &Path) -> Result<Self, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
        connection.busy_timeout(super::LOCK_TIMEOUT).map_err(failed)?;
        Ok(Self { connection })
    }

    fn select(&self, sql: &str, start: Index, limit: u32) -> Result<Vec<Row>, StoreError> {
        let mut select = self.connection.prepare_cached(sql).map_err(failed)?;
        let rows = select
            .query_map(params![signed(start), limit], |row| {
                Ok(Row {
                    index: unsigned(row.get(0)?),
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
        head(&self.connection)
    }

    fn rows(&self, start: Index, limit: u32) -> Result<Vec<Row>, StoreError> {
        self.select(
            "SELECT e.idx, leaf, bytes, f.idx IS NOT NULL FROM entries e LEFT JOIN folds f USING (idx)
             WHERE e.idx >= ?1 ORDER BY e.idx LIMIT ?2",
            start,
            limit,
        )
    }

    fn leaves(&self, start: Index, limit: u32) -> Result<Vec<[u8; 32]>, StoreError> {
        let mut select = self
            .connection
            .prepare_cached("SELECT leaf FROM entries WHERE idx >= ?1 ORDER BY idx LIMIT ?2")
            .map_err(failed)?;
        let leaves = select.query_map(params![signed(start), limit], |row| row.get(0)).map_err(failed)?;
        leaves.collect::<Result<_, _>>().map_err(failed)
    }

    fn sealed_until(&self) -> Result<Index, StoreError> {
        super::sealed::until(&self.connection)
    }

    fn fold_rows(&self, start: Index, limit: u32) -> Result<Vec<Row>, StoreError> {
        self.select(
            "SELECT idx, leaf, bytes, 1 FROM folds JOIN entries USING (idx) WHERE idx >= ?1 ORDER BY idx LIMIT ?2",
            start,
            limit,
        )
    }

    fn subtree(&self, level: u8, index: u64) -> Result<Option<[u8; 32]>, StoreError> {
        self.connection
            .prepare_cached("SELECT hash FROM subtrees WHERE level = ?1 AND idx = ?2")
            .and_then(|mut select| {
                select.query_row(params![level, signed(index)], |row| row.get(0)).optional()
            })
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

pub(super) fn head(connection: &Connection) -> Result<Option<Head>, StoreError> {
    head_in(connection, "SELECT origin, size, state, time_ms, frontier, checkpoint FROM head WHERE id = 1")
}

pub(super) fn head_in(connection: &Connection, select: &str) -> Result<Option<Head>, StoreError> {
    let found = connection
        .prepare_cached(select)
        .and_then(|mut select| {
            select
                .query_row([], |row| {
                    let frontier: Vec<u8> = row.get(4)?;
                    Ok((
                        Head {
                            origin: row.get(0)?,
                            size: unsigned(row.get(1)?),
                            state: unsigned(row.get(2)?),
                            time: UnixMs::new(row.get(3)?),
                            frontier: Vec::new(),
                            checkpoint: row.get(5)?,
                        },
                        frontier,
                    ))
                })
                .optional()
        })
        .map_err(failed)?;
    found.map(|(head, frontier)| Ok(Head { frontier: hashes(&frontier)?, ..head })).transpose()
}

fn hashes(bytes: &[u8]) -> Result<Vec<[u8; 32]>, StoreError> {
    let (whole, rest) = bytes.as_chunks::<32>();
    if rest.is_empty() { Ok(whole.to_vec()) } else { Err(StoreError::Damaged("the frontier is cut".into())) }
}
