//! One connection that writes: what must be true of the server before anything is written through it.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;
use tokio_postgres::{AsyncMessage, Client, Connection, Error, Row, Socket};

use super::address::PostgresAt;
use super::durability::{Found, settings};
use super::error::{failed, late};
use super::io::Io;
use super::schema;
use super::statements::Statements;
use crate::store::StoreError;

/// How long a connection may take from its first byte until it can be used: what is committed may first have to
/// come to the standby.
const WITHIN: Duration = Duration::from_secs(5);

/// The oldest server that the statements are written for.
const OLDEST: i32 = 130_000;

/// A session that stalls within a transaction holds everybody's lock: the server ends it, before those who wait give
/// up. Plans are made once, and
/// for tables that will be large.
const WRITING: &str = "SET lock_timeout = '1500ms'; SET statement_timeout = '5s';
    SET idle_in_transaction_session_timeout = '1s'; SET client_min_messages = warning;
    SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off;
    SET plan_cache_mode = force_generic_plan";

const READING: &str = "SET statement_timeout = '30s'; SET enable_seqscan = off;
    SET default_transaction_read_only = on";

/// A connection as the broker's own role, ready to write.
pub(super) struct Session {
    pub(super) client: Client,
    pub(super) statements: Statements,
    pub(super) schema: u32,
    pub(super) durability: Found,
    driving: JoinHandle<()>,
    unreplicated: Arc<AtomicBool>,
    spoilt: AtomicBool,
}

impl Session {
    /// Connects, and checks what must be true.
    pub(super) fn open(io: &Io, at: &PostgresAt) -> Result<Self, StoreError> {
        io.wait(WITHIN, Self::connect(io, at)).ok_or_else(|| late("take a connection"))?
    }

    async fn connect(io: &Io, at: &PostgresAt) -> Result<Self, StoreError> {
        let (client, connection) = at.config()?.connect(at.tls()).await.map_err(|error| failed(&error))?;
        let unreplicated = Arc::new(AtomicBool::new(false));
        let driving = io.spawn(drive(connection, Arc::clone(&unreplicated)));
        let driven = Driven(Some(driving));
        set(&client, at, WRITING).await?;
        let durability = check(&client, at).await?;
        let schema = schema::check(&client).await?;
        #[cfg(feature = "sabotage")]
        if crate::sabotage::breaks("p1-standby") {
            let local = client.batch_execute("SET synchronous_commit = local").await;
            local.map_err(|error| failed(&error))?;
        }
        // The outcome of an earlier commit may be asked for next: what is there must first be as durable as any.
        let barrier = "SELECT pg_logical_emit_message(true, 'daypass', '')";
        client.batch_execute(barrier).await.map_err(|error| failed(&error))?;
        if unreplicated.load(Ordering::SeqCst) {
            return Err(StoreError::Unavailable("the database gave up waiting for its standby".into()));
        }
        let statements = Statements::prepare(&client).await.map_err(|error| failed(&error))?;
        Ok(Self {
            client,
            statements,
            schema,
            durability,
            driving: driven.keep(),
            unreplicated,
            spoilt: AtomicBool::new(false),
        })
    }

    pub(super) fn is_usable(&self) -> bool {
        !self.client.is_closed() && !self.is_unreplicated() && !self.spoilt.load(Ordering::SeqCst)
    }

    /// What was asked of it may still be answered: it is asked nothing else.
    pub(super) fn spoil(&self) {
        self.spoilt.store(true, Ordering::SeqCst);
    }

    /// The answer to a statement.
    pub(super) fn answer<T>(
        &self,
        io: &Io,
        limit: Duration,
        asked: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, StoreError> {
        let answer = io.wait(limit, asked).ok_or_else(|| {
            self.spoil();
            late("answer")
        })?;
        answer.map_err(|error| failed(&error))
    }

    /// Whether the server answered a COMMIT before its standby had it.
    pub(super) fn is_unreplicated(&self) -> bool {
        self.unreplicated.load(Ordering::SeqCst)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // A server that hangs would otherwise keep the connection.
        self.driving.abort();
    }
}

/// A connection that is given up where nobody keeps it.
struct Driven(Option<JoinHandle<()>>);

impl Driven {
    fn keep(mut self) -> JoinHandle<()> {
        self.0.take().unwrap_or_else(|| tokio::spawn(async {}))
    }
}

impl Drop for Driven {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

/// Drives a connection, and remembers what the server says beside its answers.
async fn drive<S: AsyncRead + AsyncWrite + Unpin>(
    mut connection: Connection<Socket, S>,
    unreplicated: Arc<AtomicBool>,
) {
    while let Some(message) = poll_fn(|context| connection.poll_message(context)).await {
        match message {
            Ok(AsyncMessage::Notice(notice)) => {
                // By the name of the place in the server: its texts are translated.
                if notice.routine() == Some("SyncRepWaitForLSN") {
                    unreplicated.store(true, Ordering::SeqCst);
                }
                tracing::warn!(code = notice.code().code(), "the database says: {}", notice.message());
            }
            Ok(_) => {}
            Err(error) => return tracing::debug!(%error, "a connection to the database ended"),
        }
    }
}

async fn set(client: &Client, at: &PostgresAt, settings: &str) -> Result<(), StoreError> {
    let sql = format!("SET search_path = {}; {settings}", at.schema());
    client.batch_execute(&sql).await.map_err(|error| failed(&error))
}

/// The server must be a primary that takes writes, durable as demanded, and give this role no more than it needs.
async fn check(client: &Client, at: &PostgresAt) -> Result<Found, StoreError> {
    let query = concat!(
        "SELECT current_setting('server_version_num')::int, pg_is_in_recovery(),
                current_setting('transaction_read_only') = 'on', ",
        settings!()
    );
    let row = client.query_one(query, &[]).await.map_err(|error| failed(&error))?;
    let version: i32 = column(&row, 0)?;
    if version < OLDEST {
        return Err(StoreError::Unavailable(format!(
            "the server is PostgreSQL {}: expected 13 or later",
            version / 10_000
        )));
    }
    check_writable(column(&row, 1)?, column(&row, 2)?)?;
    let found = Found::read(&row, 3).map_err(|error| failed(&error))?;
    found.check(at.durability)?;
    Ok(found)
}

pub(super) fn check_writable(recovering: bool, read_only: bool) -> Result<(), StoreError> {
    if recovering {
        return Err(StoreError::Unavailable(
            "the server is a standby: name the primary, or promote it".into(),
        ));
    }
    if read_only {
        return Err(StoreError::Unavailable(
            "the server takes no writes: `transaction_read_only` is on".into(),
        ));
    }
    Ok(())
}

/// What a connection that only reads begins with.
pub(super) async fn prepare_reading(client: &Client, at: &PostgresAt) -> Result<(), StoreError> {
    set(client, at, READING).await?;
    let row = client.query_one("SELECT pg_is_in_recovery()", &[]).await.map_err(|error| failed(&error))?;
    check_writable(column(&row, 0)?, false)?;
    schema::known(client).await.map(drop)
}

pub(super) fn column<'a, T: tokio_postgres::types::FromSql<'a>>(
    row: &'a Row,
    at: usize,
) -> Result<T, StoreError> {
    row.try_get(at).map_err(|error| failed(&error))
}
