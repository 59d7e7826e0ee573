//! One transaction under the log's lock, in three round trips: lock and head; marks; everything else with its COMMIT.

use std::collections::HashSet;

use daypass_core::draft::Mark;
use daypass_verify::time::UnixMs;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::connect::{Session, check_writable, column};
use super::durability::{Durability, Found};
use super::error::{failed, failed_with_commit};
use super::io::Io;
use super::statements::{Columns, HeadColumns, Step, plain, send};
use super::{ANSWER, COMMIT, PostgresStore, minute, read, signed};
use crate::store::{Batch, Head, Live, StoreError, Transaction, base};

/// Marks outlive what they guard by the leeway that proofs are given.
const MARK_GRACE_MINUTES: i64 = 2;

/// What was read under the lock.
pub(super) struct Begun {
    pub(super) head: Option<Head>,
    pub(super) time: UnixMs,
}

/// Begins a transaction, takes the lock, and reads the head as of then. On an error the transaction is over.
pub(super) fn begin(io: &Io, session: &Session, demanded: Durability) -> Result<Begun, StoreError> {
    let Session { client, statements, .. } = session;
    let locking = &statements.lock;
    #[cfg(feature = "sabotage")]
    let locking = if crate::sabotage::breaks("p3-fork") { &statements.head } else { locking };
    let steps = async {
        let begin = client.batch_execute("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE");
        let lock = client.execute(locking, &[]);
        // A statement of its own: it sees what was committed before the lock was had.
        let head = client.query_one(&statements.head, &[]);
        let (begun, locked, head) = tokio::join!(biased; begin, lock, head);
        begun.and(locked).and(head)
    };
    let begun = session.answer(io, ANSWER, steps).and_then(|row| read_begun(&row, demanded));
    if begun.is_err() {
        roll_back(io, session);
    }
    begun
}

fn read_begun(row: &Row, demanded: Durability) -> Result<Begun, StoreError> {
    // The server may have been configured otherwise since the connection was made.
    check_writable(column(row, 1)?, column(row, 2)?)?;
    Found::read(row, 3).map_err(|error| failed(&error))?.check(demanded)?;
    Ok(Begun { head: read::head(row, 7)?, time: UnixMs::new(column(row, 0)?) })
}

pub(super) fn roll_back(io: &Io, session: &Session) {
    if session.is_usable() && session.answer(io, ANSWER, session.client.batch_execute("ROLLBACK")).is_err() {
        session.spoil();
    }
}

/// Sends `steps` and COMMIT together, and learns what became of them.
pub(super) fn finish<'a>(io: &Io, session: &'a Session, mut steps: Vec<Step<'a>>) -> Result<(), StoreError> {
    let last = steps.len();
    steps.push(plain(&session.client, "COMMIT"));
    let unknown = |why: &str| {
        session.spoil();
        Err(StoreError::Unknown(why.into()))
    };
    let Some(answers) = io.wait(COMMIT, send(steps)) else {
        return unknown("the database did not answer to COMMIT in time");
    };
    // The first that failed is why the others did.
    if let Some((at, error)) =
        answers.into_iter().enumerate().find_map(|(at, answer)| Some((at, answer.err()?)))
    {
        let error = failed_with_commit(&error, at == last);
        if matches!(error, StoreError::Unknown(_)) {
            session.spoil();
        }
        return Err(error);
    }
    if session.is_unreplicated() {
        return unknown("the database answered before its standby had what was committed");
    }
    Ok(())
}

/// Adds rows to a transaction that goes on.
pub(super) fn add(io: &Io, session: &Session, batch: &Batch, marks: &[Mark]) -> Result<(), StoreError> {
    let columns = Columns::of(batch, marks, 0);
    let adding = async {
        let answers = send(session.statements.add(&session.client, &columns)).await;
        answers.into_iter().collect::<Result<Vec<u64>, _>>()
    };
    session.answer(io, COMMIT, adding).map(drop)
}

pub(super) struct PostgresTransaction<'a> {
    store: &'a mut PostgresStore,
    head: Head,
    time: UnixMs,
    /// Marks that this transaction spends: written with its entries, as nobody else writes any until then.
    spending: Vec<Mark>,
    spent: HashSet<(i64, [u8; 32])>,
    over: bool,
}

impl<'a> PostgresTransaction<'a> {
    pub(super) fn new(store: &'a mut PostgresStore, head: Head, time: UnixMs) -> Self {
        Self { store, head, time, spending: Vec::new(), spent: HashSet::new(), over: false }
    }

    fn session(&self) -> Result<&Session, StoreError> {
        self.store.session.as_ref().ok_or_else(|| StoreError::Unavailable("the connection is gone".into()))
    }

    /// Which of these marks lie in the store.
    fn look_up(&self, marks: &[(i64, [u8; 32])]) -> Result<HashSet<(i64, [u8; 32])>, StoreError> {
        let minutes: Vec<i64> = marks.iter().map(|(minute, _)| *minute).collect();
        let keys: Vec<&[u8]> = marks.iter().map(|(_, key)| key.as_slice()).collect();
        let session = self.session()?;
        let (client, spent) = (&session.client, &session.statements.spent);
        let rows = session.answer(&self.store.io, ANSWER, client.query(spent, &[&minutes, &keys]))?;
        let places = places(&rows)?;
        Ok(places.into_iter().filter_map(|place| marks.get(place).copied()).collect())
    }
}

/// Places in what was asked for, which the server counts from one.
fn places(rows: &[Row]) -> Result<HashSet<usize>, StoreError> {
    let place = |row| column::<i64>(row, 0).map(|place| usize::try_from(place - 1).unwrap_or(usize::MAX));
    rows.iter().map(place).collect()
}

/// The minutes in which a mark may lie.
fn buckets(mark: &Mark) -> impl Iterator<Item = (i64, [u8; 32])> {
    std::iter::once(mark.expires).chain(mark.earlier).map(|bucket| (minute(bucket), mark.key))
}

impl Transaction for PostgresTransaction<'_> {
    fn head(&self) -> &Head {
        &self.head
    }

    fn store_time(&self) -> Option<UnixMs> {
        Some(self.time)
    }

    fn spend(&mut self, marks: &[Mark]) -> Result<Vec<bool>, StoreError> {
        Ok(self.spend_all(&[marks])?.pop().unwrap_or_default())
    }

    fn spend_all(&mut self, groups: &[&[Mark]]) -> Result<Vec<Vec<bool>>, StoreError> {
        let wanted: Vec<_> = groups.iter().flat_map(|marks| marks.iter()).flat_map(buckets).collect();
        if !wanted.is_empty() {
            let found = self.look_up(&wanted)?;
            #[cfg(feature = "sabotage")]
            let found = if crate::sabotage::breaks("p7") { HashSet::new() } else { found };
            self.spent.extend(found);
        }
        let mut outcomes = Vec::with_capacity(groups.len());
        for marks in groups {
            let is_fresh = |mark: &Mark| !buckets(mark).any(|bucket| self.spent.contains(&bucket));
            let fresh: Vec<bool> = marks.iter().map(is_fresh).collect();
            if fresh.iter().all(|fresh| *fresh) {
                let new = marks.iter().filter(|mark| self.spent.insert((minute(mark.expires), mark.key)));
                self.spending.extend(new.copied());
            }
            outcomes.push(fresh);
        }
        Ok(outcomes)
    }

    fn expired(&mut self, through: UnixMs, limit: u32) -> Result<Vec<Live>, StoreError> {
        let session = self.session()?;
        let (client, expired) = (&session.client, &session.statements.expired);
        let (through, limit) = (through.get(), i64::from(limit));
        let parameters: [&(dyn ToSql + Sync); 2] = [&through, &limit];
        let rows = session.answer(&self.store.io, ANSWER, client.query(expired, &parameters))?;
        rows.iter().map(read::live).collect()
    }

    fn are_live(&mut self, credentials: &[Live]) -> Result<Vec<bool>, StoreError> {
        let ends: Vec<i64> = credentials.iter().map(|live| live.exp.get()).collect();
        let indexes: Vec<i64> = credentials.iter().map(|live| signed(live.index)).collect();
        let session = self.session()?;
        let (client, live) = (&session.client, &session.statements.live);
        let rows = session.answer(&self.store.io, ANSWER, client.query(live, &[&ends, &indexes]))?;
        let places = places(&rows)?;
        Ok((0..credentials.len()).map(|place| places.contains(&place)).collect())
    }

    fn commit(mut self: Box<Self>, batch: &Batch, head: &Head) -> Result<(), StoreError> {
        self.over = true;
        let Self { store, head: before, spending, .. } = self.as_mut();
        let Some(session) = store.session.as_ref() else {
            return Err(StoreError::Unavailable("the connection is gone".into()));
        };
        let columns = Columns::of(batch, spending, base(before.shard));
        let values = HeadColumns::of(head, &before.origin, before.size);
        let turn = batch.turn.as_deref().map(|turn| {
            let first = Columns::of_entries(&turn.rows, &turn.subtrees, base(head.shard));
            (HeadColumns::of(&turn.closed, "", 0), first)
        });
        let (statements, client) = (&session.statements, &session.client);
        let mut steps = vec![statements.move_head(client, &values)];
        steps.extend(statements.add(client, &columns));
        if let Some((closed, first)) = &turn {
            steps.push(statements.close_head(client, closed));
            steps.extend(statements.add(client, first));
        }
        let (now_minute, forget) = (minute(head.time), minute(head.time) - MARK_GRACE_MINUTES);
        if now_minute > store.marks_pruned_minute {
            steps.push(statements.forget(client, &forget));
        }
        finish(&store.io, session, steps).map_err(|error| match error {
            StoreError::HeadMoved { found, .. } => StoreError::HeadMoved { expected: before.size, found },
            other => other,
        })?;
        store.marks_pruned_minute = now_minute.max(store.marks_pruned_minute);
        Ok(())
    }
}

impl Drop for PostgresTransaction<'_> {
    fn drop(&mut self) {
        if !self.over
            && let Some(session) = &self.store.session
        {
            roll_back(&self.store.io, session);
        }
    }
}
