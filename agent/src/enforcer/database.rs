//! The server's sessions: who is there by which certificate, and their end. All SQL of the agent is here.

use std::time::Duration;

use daypass_verify::ids::CredentialId;
use daypass_verify::time::UnixMs;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row};

use super::known::Session;
use super::server::{Connected, Server};
use crate::clock::now;

/// How long the server may take for anything.
const PATIENCE: Duration = Duration::from_secs(5);

const BEGIN: &str =
    "SET application_name = 'daypass-agent'; SET statement_timeout = '4s'; SET client_min_messages = warning";

/// Rights, and whether this role has more of them than it needs.
const RIGHTS: &str = "SELECT pg_has_role(current_user, 'pg_read_all_stats', 'usage'),
        pg_has_role(current_user, 'pg_signal_backend', 'usage'),
        rolsuper, current_user::text, current_setting('server_version'), current_setting('ssl') = 'on',
        pg_backend_pid(), (extract(epoch FROM clock_timestamp()) * 1000)::int8
    FROM pg_roles WHERE rolname = current_user";

/// Each session that showed a certificate. Times are the server's.
const SESSIONS: &str =
    "SELECT a.pid, coalesce(a.usename::text, ''), s.client_serial::text, coalesce(s.issuer_dn, ''),
        (extract(epoch FROM a.backend_start) * 1000)::int8
    FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid)
    WHERE s.client_serial IS NOT NULL";

/// The sessions of clients that showed none.
const WITHOUT: &str = "SELECT count(*) FROM pg_stat_activity a LEFT JOIN pg_stat_ssl s USING (pid)
    WHERE a.backend_type IN ('client backend', 'walsender') AND s.client_serial IS NULL AND a.pid <> pg_backend_pid()";

/// The sessions of these roles whose clients showed none, parallel workers not counted.
const STRAYS: &str = "SELECT a.pid, a.usename::text, '', '', (extract(epoch FROM a.backend_start) * 1000)::int8
    FROM pg_stat_activity a LEFT JOIN pg_stat_ssl s USING (pid)
    WHERE a.usename = ANY($1) AND a.backend_type IN ('client backend', 'walsender') AND s.client_serial IS NULL
        AND a.pid <> pg_backend_pid()";

/// Ends a session, if it is still the one that began then.
const END_STRAY: &str = "SELECT pg_terminate_backend(a.pid) FROM pg_stat_activity a
    WHERE a.pid = $1 AND a.usename = $2 AND (extract(epoch FROM a.backend_start) * 1000)::int8 = $3";

/// Ends a session, if it is still the one with this certificate: its number may be another's by now.
const END: &str =
    "SELECT pg_terminate_backend(s.pid) FROM pg_stat_ssl s WHERE s.pid = $1 AND s.client_serial::text = $2";

/// Why the server could not be asked, in words.
pub(super) type Failed = String;

/// A session of our own.
pub(super) struct Database {
    client: Client,
    driving: JoinHandle<()>,
    /// The server's version.
    pub(super) version: String,
    /// The number of our own session's process.
    pub(super) own_pid: i32,
    /// The credential that was shown to the server; none at a Unix socket.
    pub(super) shown: Option<CredentialId>,
    /// How far the server's clock is ahead of ours, in milliseconds.
    ahead_ms: i64,
}

impl Drop for Database {
    fn drop(&mut self) {
        // A server that hangs would otherwise keep it.
        self.driving.abort();
    }
}

impl Database {
    /// Connects, and checks that this role sees what it must and may do what it must.
    pub(super) async fn open(server: &Server) -> Result<Self, Failed> {
        let connected = timeout(PATIENCE, server.connect()).await.map_err(|_| late())??;
        let Connected { client, driving, shown } = connected;
        let mut made = Self { client, driving, version: String::new(), own_pid: 0, shown, ahead_ms: 0 };
        answered(made.client.batch_execute(BEGIN)).await?;
        let rights = answered(made.client.query_one(RIGHTS, &[])).await?;
        (made.version, made.own_pid) = (column(&rights, 4)?, column(&rights, 6)?);
        if server.is_remote() {
            made.ahead_ms = UnixMs::new(column(&rights, 7)?).millis_since(now());
        }
        check(&rights)?;
        Ok(made)
    }

    /// Each session that showed a certificate.
    pub(super) async fn sessions(&self) -> Result<Vec<Session>, Failed> {
        let rows = answered(self.client.query(SESSIONS, &[])).await?;
        rows.iter().map(|row| self.session(row)).collect()
    }

    /// How many sessions showed no certificate.
    pub(super) async fn without_certificate(&self) -> Result<i64, Failed> {
        column(&answered(self.client.query_one(WITHOUT, &[])).await?, 0)
    }

    /// Each session of one of these roles whose client showed no certificate.
    pub(super) async fn without(&self, roles: &[&str]) -> Result<Vec<Session>, Failed> {
        if roles.is_empty() {
            return Ok(Vec::new());
        }
        let rows = answered(self.client.query(STRAYS, &[&roles])).await?;
        rows.iter().map(|row| self.session(row)).collect()
    }

    /// Has a session ended that showed no certificate, or one of another CA.
    pub(super) async fn end_stray(&self, stray: &Session) -> Result<(), Failed> {
        let which: [&(dyn ToSql + Sync); 3] = [&stray.pid, &stray.role, &stray.began.get()];
        answered(self.client.query(END_STRAY, &which)).await.map(drop)
    }

    fn session(&self, row: &Row) -> Result<Session, Failed> {
        let began = UnixMs::new(column(row, 4)?);
        Ok(Session {
            pid: column(row, 0)?,
            role: column(row, 1)?,
            serial: column(row, 2)?,
            issuer: column(row, 3)?,
            began,
            since: began.plus_millis(-self.ahead_ms),
        })
    }

    /// Has a session ended; it takes the server a moment.
    pub(super) async fn end(&self, session: &Session) -> Result<(), Failed> {
        answered(self.client.query(END, &[&session.pid, &session.serial])).await.map(drop)
    }
}

fn check(rights: &Row) -> Result<(), Failed> {
    let role: String = column(rights, 3)?;
    for (at, needed) in [(0, "pg_read_all_stats"), (1, "pg_signal_backend")] {
        if !column::<bool>(rights, at)? {
            return Err(format!("the role `{role}` lacks a right: expected `GRANT {needed} TO {role}`"));
        }
    }
    if column::<bool>(rights, 2)? {
        return Err(format!(
            "the role `{role}` is a superuser: expected one that has `pg_read_all_stats` and `pg_signal_backend`, and nothing else"
        ));
    }
    if !column::<bool>(rights, 5)? {
        return Err("the server has `ssl = off`: nobody can show it a certificate".into());
    }
    Ok(())
}

fn column<'a, T: tokio_postgres::types::FromSql<'a>>(row: &'a Row, at: usize) -> Result<T, Failed> {
    row.try_get(at).map_err(|error| failed(&error))
}

async fn answered<T>(asked: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T, Failed> {
    timeout(PATIENCE, asked).await.map_err(|_| late())?.map_err(|error| failed(&error))
}

pub(super) fn failed(error: &tokio_postgres::Error) -> Failed {
    match (error.as_db_error(), std::error::Error::source(error)) {
        (Some(said), _) => said.message().to_owned(),
        (None, Some(source)) => format!("{error}: {source}"),
        (None, None) => error.to_string(),
    }
}

fn late() -> Failed {
    format!("the server does not answer within {} s", PATIENCE.as_secs())
}
