//! The role that lets sealed entries leave the database, and may do nothing else to it.

use std::time::Duration;

use daypass_evidence::entry::Index;
use tokio_postgres::Client;
use tokio_postgres::types::ToSql;

use super::address::PostgresAt;
use super::connect::column;
use super::error::{failed, late};
use super::io::Io;
use super::{schema, signed};
use crate::store::{Sealer, StoreError};

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(30);

/// The lock of whoever seals: two would only do each other's work.
const SEALING: i64 = 0x6461_7970_6173_7332;

/// A connection as the sealer.
pub(crate) struct PostgresSealer {
    // Before the runtime that drives it.
    client: Client,
    io: Io,
}

impl PostgresSealer {
    /// Connects as the sealer of `at`. None where another is sealing.
    ///
    /// # Errors
    /// When no sealer was named, or the database cannot be reached as that.
    pub(crate) fn connect(at: &PostgresAt) -> Result<Option<Self>, StoreError> {
        let nobody = || StoreError::Unavailable("no role that seals is named: set `store.sealer_url`".into());
        let sealer = at.sealer.as_ref().ok_or_else(nobody)?;
        let io = Io::start()?;
        let connected =
            io.wait(ANSWER, connect(&io, at, sealer)).ok_or_else(|| late("take a connection"))??;
        Ok(connected.map(|client| Self { client, io }))
    }

    fn call(&self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<tokio_postgres::Row, StoreError> {
        let answer =
            self.io.wait(ANSWER, self.client.query_one(sql, values)).ok_or_else(|| late("answer"))?;
        answer.map_err(|error| failed(&error))
    }
}

async fn connect(io: &Io, at: &PostgresAt, sealer: &PostgresAt) -> Result<Option<Client>, StoreError> {
    let client = schema::connect(io, sealer).await?;
    let path = format!("SET search_path = {}", at.schema());
    client.batch_execute(&path).await.map_err(|error| failed(&error))?;
    schema::known(&client).await?;
    let sql = format!("SELECT pg_try_advisory_lock({SEALING})");
    let row = client.query_one(&sql, &[]).await.map_err(|error| failed(&error))?;
    Ok(column::<bool>(&row, 0)?.then_some(client))
}

impl Sealer for PostgresSealer {
    fn seal(&mut self, from: Index, to: Index) -> Result<(), StoreError> {
        self.call("SELECT seal($1, $2)", &[&signed(from), &signed(to)]).map(drop)
    }

    fn drop_sealed(&mut self, limit: u32) -> Result<bool, StoreError> {
        let row = self.call("SELECT drop_sealed($1)", &[&i64::from(limit)])?;
        column(&row, 0)
    }
}
