//! A database whose log nobody writes, so that another one can take its place.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tokio_postgres::Client;

use super::address::{PostgresAt, SCHEMA_NAME};
use super::connect::column;
use super::error::{failed, late};
use super::io::Io;
use super::schema::{connect, owner_of, quoted};
use crate::store::StoreError;

/// Where a log is made beside the one that is served.
const NEW: &str = "daypass_recovering";

/// How long a statement of the owner may take.
const WITHIN: Duration = Duration::from_secs(60);

/// How long sessions of brokers that were stopped may take to end.
const GONE_WITHIN: Duration = Duration::from_secs(3);

/// The owner's connection, which keeps all others from writing to the log until it is dropped.
pub(crate) struct Alone {
    owner: Client,
    // After what it drives.
    io: Io,
    at: Arc<PostgresAt>,
}

impl Alone {
    /// # Errors
    /// When the owner cannot be had, or a broker is connected.
    pub(crate) fn take(at: &Arc<PostgresAt>) -> Result<Self, StoreError> {
        let owner_at = owner_of(at)?;
        let io = Io::start()?;
        let owner = io.wait(WITHIN, connect(&io, &owner_at)).ok_or_else(|| late("take a connection"))??;
        let alone = Self { owner, io, at: Arc::clone(at) };
        alone.wait_for_brokers()?;
        // The log's own lock: a broker that starts meanwhile does not write.
        if !alone.ask::<bool>("SELECT pg_try_advisory_lock(28540885003269235)")? {
            return Err(StoreError::Unavailable(
                "another writes to the log, or recovers it: wait for it".into(),
            ));
        }
        Ok(alone)
    }

    /// Where the new log is made. What an earlier attempt left there is removed.
    pub(crate) fn make_room(&self) -> Result<Arc<PostgresAt>, StoreError> {
        self.run(&format!("DROP SCHEMA IF EXISTS {NEW} CASCADE"))?;
        Ok(Arc::new(self.at.in_schema(NEW)))
    }

    /// Gives the log the name of `aside`, where brokers only read it, and the new one its place: in one transaction.
    pub(crate) fn swap(&self, aside: &PostgresAt) -> Result<(), StoreError> {
        let (aside, role) = (aside.schema(), quoted(self.at.role()));
        self.run(&format!(
            "BEGIN; ALTER SCHEMA {SCHEMA_NAME} RENAME TO {aside}; ALTER SCHEMA {NEW} RENAME TO {SCHEMA_NAME};
             REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON ALL TABLES IN SCHEMA {aside} FROM {role};
             DROP FUNCTION {aside}.seal(bigint, bigint), {aside}.drop_sealed(bigint);
             ALTER FUNCTION {SCHEMA_NAME}.seal(bigint, bigint) SET search_path = {SCHEMA_NAME}, pg_temp;
             ALTER FUNCTION {SCHEMA_NAME}.drop_sealed(bigint) SET search_path = {SCHEMA_NAME}, pg_temp; COMMIT"
        ))
    }

    fn wait_for_brokers(&self) -> Result<(), StoreError> {
        let began = Instant::now();
        let sql = "SELECT coalesce(string_agg(pid::text, ', '), '') FROM pg_stat_activity
            WHERE datname = current_database() AND usename = $ROLE$::name";
        let role = format!("'{}'", self.at.role().replace('\'', "''"));
        loop {
            let sessions: String = self.ask(&sql.replace("$ROLE$", &role))?;
            if sessions.is_empty() {
                return Ok(());
            }
            if began.elapsed() > GONE_WITHIN {
                return Err(StoreError::Unavailable(format!(
                    "brokers are connected to the database, by its processes {sessions}: stop all brokers first"
                )));
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn ask<T: for<'a> tokio_postgres::types::FromSql<'a>>(&self, sql: &str) -> Result<T, StoreError> {
        let asked = self.io.wait(WITHIN, self.owner.query_one(sql, &[])).ok_or_else(|| late("answer"))?;
        column(&asked.map_err(|error| failed(&error))?, 0)
    }

    fn run(&self, sql: &str) -> Result<(), StoreError> {
        let done = self.io.wait(WITHIN, self.owner.batch_execute(sql)).ok_or_else(|| late("answer"))?;
        done.map_err(|error| failed(&error))
    }
}
