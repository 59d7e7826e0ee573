//! The shared store: one PostgreSQL for any number of brokers. Each writes through one connection of its own, and
//! takes the log's lock before it reads the head; the head moves only from the size that was read.
//!
//! Whoever owns the tables can do what whoever writes a file can. The brokers' own role adds entries, and can neither
//! change nor remove one.

mod address;
mod alone;
mod connect;
mod durability;
mod error;
mod io;
mod read;
mod schema;
mod sealer;
mod statements;
mod transaction;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::carry::Take;
use super::columns::{minute, signed, unsigned};
use super::{About, Batch, Head, OpenReader, Reader, Store, StoreError, Transaction, base};
use connect::Session;
use io::Io;
use statements::{Columns, HeadColumns};
use transaction::{Begun, PostgresTransaction};

pub use address::{Password, PostgresAt};
pub(crate) use alone::Alone;
pub use durability::Durability;
pub use read::Reading;
pub(crate) use schema::Claim;
pub use schema::SCHEMA;
pub(crate) use sealer::PostgresSealer;

/// How long an answer may take: the lock, one second; a statement, five. A COMMIT may wait for the standby.
const ANSWER: Duration = Duration::from_secs(6);
const COMMIT: Duration = Duration::from_secs(10);

/// The writing side of a store in a PostgreSQL database.
pub struct PostgresStore {
    // Before the runtime that drives it.
    session: Option<Session>,
    at: Arc<PostgresAt>,
    reading: Arc<Reading>,
    io: Arc<Io>,
    about: About,
    marks_pruned_minute: i64,
}

impl PostgresStore {
    /// Connects as the brokers' own role.
    ///
    /// # Errors
    /// When the server cannot be reached, is not a primary that takes writes, survives less than was demanded, or its
    /// tables are missing or of an unknown version.
    pub fn connect(at: &Arc<PostgresAt>) -> Result<Self, StoreError> {
        let io = Arc::new(Io::start()?);
        let session = Session::open(&io, at)?;
        let about =
            About { kind: "postgresql", durability: session.durability.to_string(), schema: session.schema };
        let reading = Arc::new(Reading::new(Arc::clone(&io), at, None)?);
        Ok(Self { session: Some(session), at: Arc::clone(at), reading, io, about, marks_pruned_minute: 0 })
    }

    /// A reader of the store.
    ///
    /// # Errors
    /// When the server cannot be reached, or its tables are missing or of an unknown version.
    pub fn open_reader(at: &Arc<PostgresAt>) -> Result<Box<dyn Reader>, StoreError> {
        let reader = Arc::new(Reading::new(Arc::new(Io::start()?), at, None)?).reader();
        reader.head()?;
        Ok(reader)
    }

    /// A reader of one shard.
    ///
    /// # Errors
    /// As for [`PostgresStore::open_reader`].
    pub fn open_shard(at: &Arc<PostgresAt>, shard: u32) -> Result<Box<dyn Reader>, StoreError> {
        Ok(Arc::new(Reading::new(Arc::new(Io::start()?), at, Some(shard))?).reader())
    }

    /// What opens readers of one shard: they share connections, which are made for the first of them.
    pub(super) fn readers_of(at: &Arc<PostgresAt>, shard: u32) -> Arc<OpenReader> {
        let (at, made) = (Arc::clone(at), OnceLock::new());
        Arc::new(move || {
            if made.get().is_none() {
                let reading = Reading::new(Arc::new(Io::start()?), &at, Some(shard))?;
                let _another_was_first = made.set(Arc::new(reading));
            }
            made.get()
                .map(|reading: &Arc<Reading>| reading.reader())
                .ok_or_else(|| error::late("keep its connections"))
        })
    }

    /// Makes the tables, as their owner. None where a log lies in them.
    pub(super) fn claim(at: &Arc<PostgresAt>) -> Result<Option<Claim>, StoreError> {
        let claim = Claim::take(at)?;
        Ok(if claim.has_log()? { None } else { Some(claim) })
    }

    /// Opens a log with all that `feed` gives, in one transaction: all of it or nothing.
    pub(super) fn fill(
        &mut self,
        head: &Head,
        closed: &[Head],
        feed: &dyn Fn(&mut Take<'_>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        if let Some(found) = self.lock()?.head {
            self.give_up();
            return Err(StoreError::HeadMoved { expected: 0, found: found.size });
        }
        let Some(session) = &self.session else { return Err(error::late("keep its connection")) };
        let fed = feed(&mut |batch, marks| transaction::add(&self.io, session, batch, marks));
        if let Err(error) = fed {
            self.give_up();
            return Err(error);
        }
        let values = HeadColumns::of(head, "", 0);
        let closed: Vec<_> = closed.iter().map(|head| HeadColumns::of(head, "", 0)).collect();
        let mut steps = vec![session.statements.open_head(&session.client, &values)];
        steps.extend(closed.iter().map(|head| session.statements.close_head(&session.client, head)));
        transaction::finish(&self.io, session, steps)
    }

    /// What it is.
    #[must_use]
    pub fn about(&self) -> About {
        self.about.clone()
    }

    /// What makes its readers.
    #[must_use]
    pub fn reading(&self) -> Arc<Reading> {
        Arc::clone(&self.reading)
    }

    /// Ends a transaction in which there is nothing to do.
    fn give_up(&self) {
        if let Some(session) = &self.session {
            transaction::roll_back(&self.io, session);
        }
    }

    /// Takes the lock and reads the head, on a new connection where the one that there was is gone.
    fn lock(&mut self) -> Result<Begun, StoreError> {
        if let Some(session) = self.session.take().filter(Session::is_usable) {
            let begun = transaction::begin(&self.io, &session, self.at.durability);
            // Nothing was written yet: that is tried again on a new connection, once.
            if begun.is_ok() || session.is_usable() {
                self.session = Some(session);
                return begun;
            }
        }
        let session = Session::open(&self.io, &self.at)?;
        let begun = transaction::begin(&self.io, &session, self.at.durability);
        self.session = Some(session).filter(Session::is_usable);
        begun
    }
}

impl Store for PostgresStore {
    /// The database's operators watch its disks: there is no room here to keep.
    fn keep_room(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    fn has_room(&mut self) -> bool {
        true
    }

    fn begin(&mut self) -> Result<Box<dyn Transaction + '_>, StoreError> {
        let Begun { head, time } = self.lock()?;
        match head {
            Some(head) => Ok(Box::new(PostgresTransaction::new(self, head, time))),
            None => {
                self.give_up();
                let what = "there is no log in this store: run `daypass-broker init` first";
                Err(StoreError::Damaged(what.into()))
            }
        }
    }

    fn open(&mut self, batch: &Batch, head: &Head) -> Result<(), StoreError> {
        if let Some(found) = self.lock()?.head {
            self.give_up();
            return Err(StoreError::HeadMoved { expected: 0, found: found.size });
        }
        let Some(session) = &self.session else { return Err(error::late("keep its connection")) };
        let (columns, values) = (Columns::of(batch, &[], base(head.shard)), HeadColumns::of(head, "", 0));
        let mut steps = vec![session.statements.open_head(&session.client, &values)];
        steps.extend(session.statements.add(&session.client, &columns));
        transaction::finish(&self.io, session, steps)
    }

    fn reader(&self) -> Result<Box<dyn Reader>, StoreError> {
        Ok(self.reading.reader())
    }
}
