//! What one transaction writes.

use daypass_evidence::entry::Index;
use rusqlite::params;

use super::super::columns::signed;
use super::{TURNED, failed, unknown};
use crate::store::{Batch, Head, Row, StoreError, Turn, base};

/// Where a transaction failed.
pub(super) enum Failed {
    Before(rusqlite::Error),
    HeadMoved(u64),
    /// It may have happened: the caller asks the head.
    AtCommit(rusqlite::Error),
}

impl From<rusqlite::Error> for Failed {
    fn from(error: rusqlite::Error) -> Self {
        Self::Before(error)
    }
}

impl From<Failed> for StoreError {
    fn from(failure: Failed) -> Self {
        match failure {
            Failed::Before(error) => failed(error),
            Failed::HeadMoved(expected) => Self::HeadMoved { expected, found: u64::MAX },
            Failed::AtCommit(error) => unknown(error),
        }
    }
}

/// All of a transaction but its end. `prune` is the minute before which marks have no use.
pub(super) fn write(
    transaction: &rusqlite::Transaction<'_>,
    batch: &Batch,
    head: &Head,
    read: &Head,
    prune: Option<i64>,
) -> Result<(), Failed> {
    insert(transaction, batch, base(read.shard))?;
    if let Some(turn) = &batch.turn {
        take_turn(transaction, turn, head)?;
    }
    if let Some(before) = prune {
        transaction.prepare_cached("DELETE FROM marks WHERE minute < ?1")?.execute([before])?;
    }
    let (origin, size, state, time, frontier, checkpoint) = head_params(head);
    let mut update = transaction.prepare_cached(
        "UPDATE head SET origin = ?1, size = ?2, state = ?3, time_ms = ?4, frontier = ?5, checkpoint = ?6
         WHERE size = ?7 AND origin = ?8",
    )?;
    let from = (signed(read.size), &read.origin);
    match update.execute(params![origin, size, state, time, frontier, checkpoint, from.0, from.1])? {
        1 => Ok(()),
        _ => Err(Failed::HeadMoved(read.size)),
    }
}

/// Marks outlive what they guard by the leeway that proofs are given.
pub(super) const MARK_GRACE_MINUTES: i64 = 2;

pub(super) type HeadParams<'a> = (&'a str, i64, i64, i64, Vec<u8>, &'a [u8]);

pub(super) fn head_params(head: &Head) -> HeadParams<'_> {
    let frontier = head.frontier.concat();
    (&head.origin, signed(head.size), signed(head.state), head.time.get(), frontier, &head.checkpoint)
}

const KEEP_KEY: &str = "INSERT INTO keys VALUES (?1, ?2, ?3)
    ON CONFLICT (key) DO UPDATE SET sealed = excluded.sealed, certificate = excluded.certificate";

/// Keeps the head of the shard that ends, and adds the first entries of the next.
fn take_turn(transaction: &rusqlite::Transaction<'_>, turn: &Turn, next: &Head) -> rusqlite::Result<()> {
    let (origin, size, state, time, frontier, checkpoint) = head_params(&turn.closed);
    transaction.execute(
        "INSERT INTO closed VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![turn.closed.shard, origin, size, state, time, frontier, checkpoint],
    )?;
    transaction.pragma_update(None, "user_version", TURNED)?;
    insert_entries(transaction, &turn.rows, &turn.subtrees, base(next.shard))
}

fn insert_entries(
    transaction: &rusqlite::Transaction<'_>,
    rows: &[Row],
    subtrees: &[(u8, u64, [u8; 32])],
    base: Index,
) -> rusqlite::Result<()> {
    let mut entry = transaction.prepare_cached("INSERT INTO entries VALUES (?1, ?2, ?3)")?;
    for row in rows {
        entry.execute(params![signed(base + row.index), row.leaf.as_slice(), row.bytes])?;
    }
    let mut fold = transaction.prepare_cached("INSERT INTO folds VALUES (?1)")?;
    for row in rows.iter().filter(|row| row.folds) {
        fold.execute([signed(base + row.index)])?;
    }
    let mut subtree = transaction.prepare_cached("INSERT INTO subtrees VALUES (?1, ?2, ?3)")?;
    for (level, index, hash) in subtrees {
        subtree.execute(params![level, signed((base >> level) + index), hash.as_slice()])?;
    }
    Ok(())
}

pub(super) fn insert(
    transaction: &rusqlite::Transaction<'_>,
    batch: &Batch,
    base: Index,
) -> rusqlite::Result<()> {
    insert_entries(transaction, &batch.rows, &batch.subtrees, base)?;
    let run =
        |sql: &str, each: &mut dyn FnMut(&mut rusqlite::CachedStatement<'_>) -> rusqlite::Result<()>| {
            transaction.prepare_cached(sql).and_then(|mut statement| each(&mut statement))
        };
    run("INSERT INTO live VALUES (?1, ?2)", &mut |statement| {
        batch
            .born
            .iter()
            .try_for_each(|live| statement.execute(params![live.exp.get(), signed(live.index)]).map(drop))
    })?;
    if !batch.ended.is_empty() {
        run("DELETE FROM live WHERE exp_ms = ?1 AND idx = ?2", &mut |statement| {
            batch
                .ended
                .iter()
                .try_for_each(|live| statement.execute(params![live.exp.get(), signed(live.index)]).map(drop))
        })?;
    }
    for (digest, bytes) in &batch.objects {
        run("INSERT INTO objects VALUES (?1, ?2) ON CONFLICT DO NOTHING", &mut |statement| {
            statement.execute(params![digest.as_bytes().as_slice(), bytes]).map(drop)
        })?;
    }
    for key in &batch.keys {
        run(KEEP_KEY, &mut |statement| {
            statement.execute(params![key.key.as_str(), key.sealed, key.certificate]).map(drop)
        })?;
    }
    Ok(())
}
