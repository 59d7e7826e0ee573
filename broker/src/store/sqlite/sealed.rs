//! The one place where entries leave the database: those that lie in entry bundles, verified, and only after the
//! store says so. The rows that the state is folded from stay.

use daypass_evidence::entry::Index;
use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior, params};

use super::{failed, read, signed, unknown, unsigned, version};
use crate::store::StoreError;

/// The first version that has sealed entries. A store becomes one when it is first sealed: until then programs of the
/// version before can serve it, and from then on they must not.
const SEALED: u32 = 2;

const TABLE: &str = "CREATE TABLE IF NOT EXISTS sealed (id INTEGER PRIMARY KEY CHECK (id = 1), until INTEGER NOT NULL) STRICT";

pub(super) fn until(connection: &Connection) -> Result<Index, StoreError> {
    if version(connection)? < SEALED {
        return Ok(0);
    }
    let until = connection
        .prepare_cached("SELECT until FROM sealed WHERE id = 1")
        .and_then(|mut select| select.query_row([], |row| row.get(0)).optional())
        .map_err(failed)?;
    Ok(until.map_or(0, unsigned))
}

pub(super) fn seal(connection: &mut Connection, from: Index, to: Index) -> Result<(), StoreError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    let size = read::head(&transaction)?.map_or(0, |head| head.size);
    let until = until(&transaction)?;
    if until != from || to <= from || to > size {
        return Err(StoreError::Damaged(format!(
            "entries {from} to {to} cannot be sealed where {until} of {size} are"
        )));
    }
    if version(&transaction)? < SEALED {
        transaction.execute_batch(&format!("{TABLE}; PRAGMA user_version={SEALED};")).map_err(failed)?;
    }
    transaction
        .execute("INSERT INTO sealed VALUES (1, ?1) ON CONFLICT (id) DO UPDATE SET until = ?1", [signed(to)])
        .map_err(failed)?;
    transaction.commit().map_err(unknown)
}

pub(super) fn drop_some(connection: &mut Connection, limit: u32) -> Result<u64, StoreError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    let until = until(&transaction)?;
    let dropped = transaction
        .prepare_cached(
            "DELETE FROM entries WHERE idx IN
             (SELECT idx FROM entries WHERE idx < ?1 AND idx NOT IN (SELECT idx FROM folds) ORDER BY idx LIMIT ?2)",
        )
        .and_then(|mut delete| delete.execute(params![signed(until), limit]))
        .map_err(failed)?;
    transaction.commit().map_err(unknown)?;
    u64::try_from(dropped).map_err(|error| StoreError::Damaged(error.to_string()))
}
