//! The one place where entries leave the database: those that lie in entry bundles, verified, and only after the
//! store says so. The rows that the state is folded from stay.

use std::path::Path;

use daypass_evidence::entry::Index;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Transaction, TransactionBehavior, params};

use super::{LOCK_TIMEOUT, add_later, check_known, failed, read, signed, unknown, unsigned, version};
use crate::store::{SHARD_BITS, Sealer, StoreError, base, place};

/// The first version that has sealed entries. A store becomes one when it is first sealed: until then programs of the
/// version before can serve it, and from then on they must not.
const SEALED: u32 = 2;

/// Where what is sealed of a shard ends, as a place in the store.
pub(super) fn until(connection: &Connection, shard: u32) -> Result<Option<Index>, StoreError> {
    let until = connection
        .prepare_cached("SELECT until FROM sealed WHERE shard = ?1")
        .and_then(|mut select| select.query_row([shard], |row| row.get(0)).optional())
        .map_err(failed)?;
    Ok(until.map(unsigned))
}

/// The same in a store that knows of no shards, and that nobody has opened to write since there are any.
pub(super) fn alone(connection: &Connection) -> Result<Index, StoreError> {
    if version(connection)? < SEALED {
        return Ok(0);
    }
    let until = connection
        .query_row("SELECT until FROM sealed WHERE id = 1", [], |row| row.get(0))
        .optional()
        .map_err(failed)?;
    Ok(until.map_or(0, unsigned))
}

/// Seals the store in one file, by a connection of its own.
#[derive(Debug)]
pub struct SqliteSealer(Connection);

impl SqliteSealer {
    /// Opens the store in the file at `path`.
    ///
    /// # Errors
    /// When it is missing or no store of a known version.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
        connection.busy_timeout(LOCK_TIMEOUT).map_err(failed)?;
        check_known(&connection, path)?;
        add_later(&connection)?;
        connection.execute_batch("PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=0").map_err(failed)?;
        Ok(Self(connection))
    }

    fn begin(&mut self) -> Result<Transaction<'_>, StoreError> {
        self.0.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)
    }
}

impl Sealer for SqliteSealer {
    fn seal(&mut self, from: Index, to: Index) -> Result<(), StoreError> {
        let transaction = self.begin()?;
        let shard = u32::try_from(place(from).0).unwrap_or(u32::MAX);
        let size = read::head_of(&transaction, shard)?.map_or(0, |head| head.size);
        let until = until(&transaction, shard)?.unwrap_or(base(shard));
        if until != from || to <= from || to > base(shard) + size {
            return Err(StoreError::Damaged(format!(
                "entries {from} to {to} cannot be sealed where {until} of {size} are"
            )));
        }
        if version(&transaction)? < SEALED {
            transaction.pragma_update(None, "user_version", SEALED).map_err(failed)?;
        }
        let sql = "INSERT INTO sealed VALUES (?1, ?2) ON CONFLICT (shard) DO UPDATE SET until = ?2";
        transaction.execute(sql, params![shard, signed(to)]).map_err(failed)?;
        transaction.commit().map_err(unknown)
    }

    fn drop_sealed(&mut self, limit: u32) -> Result<bool, StoreError> {
        let transaction = self.begin()?;
        let dropped = transaction
            .prepare_cached(
                "DELETE FROM entries WHERE idx IN
                 (SELECT idx FROM sealed JOIN entries ON idx >= shard << ?1 AND idx < until
                  WHERE idx NOT IN (SELECT idx FROM folds) ORDER BY idx LIMIT ?2)",
            )
            .and_then(|mut delete| delete.execute(params![SHARD_BITS, limit]))
            .map_err(failed)?;
        transaction.commit().map_err(unknown)?;
        Ok(dropped > 0)
    }
}
