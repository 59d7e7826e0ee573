//! The tables: made and migrated as their owner, only checked by brokers. Migrations add, so that brokers of the
//! version before go on while one is made.

use std::sync::Arc;
use std::time::Duration;

use daypass_evidence::entry::Index;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::address::PostgresAt;
use super::connect::column;
use super::error::{failed, late};
use super::io::Io;
use crate::store::StoreError;

/// The version of the tables that this program writes.
pub const SCHEMA: u32 = 3;

/// How long making and migrating may take.
const WITHIN: Duration = Duration::from_secs(60);

/// The lock of whoever makes a store, other than the log's own.
const CLAIM: i64 = 0x6461_7970_6173_7331;

struct Migration {
    version: u32,
    /// The oldest program that can go on with the tables as they are then.
    needs: u32,
    sql: &'static str,
}

const MIGRATIONS: &[Migration] = &[
    Migration { version: 1, needs: 1, sql: include_str!("migrations/0001_log.sql") },
    Migration { version: 2, needs: 1, sql: include_str!("migrations/0002_sealed.sql") },
    Migration { version: 3, needs: 3, sql: include_str!("migrations/0003_shards.sql") },
];

const GRANTS: &str = include_str!("migrations/grants.sql");
const SEALER_GRANTS: &str = include_str!("migrations/grants_sealer.sql");

const BASE: &str = "CREATE SCHEMA IF NOT EXISTS :schema; SET search_path = :schema;
    CREATE TABLE IF NOT EXISTS migrations (version integer PRIMARY KEY, needs integer NOT NULL,
                                           program text NOT NULL, applied timestamptz NOT NULL DEFAULT now())";

/// A connection as the owner, which nobody else has at the same time.
pub(crate) struct Claim {
    io: Io,
    owner: Client,
}

impl Claim {
    /// Makes or migrates the tables of `at` as its owner; keeps others from doing so until it is dropped.
    pub(super) fn take(at: &PostgresAt) -> Result<Self, StoreError> {
        let owner = owner_of(at)?;
        let io = Io::start()?;
        let prepared = io.wait(WITHIN, prepare(&io, &owner, at));
        let owner = prepared.ok_or_else(|| late("make the tables"))??;
        Ok(Self { io, owner })
    }

    /// Whether a log lies in the tables.
    pub(super) fn has_log(&self) -> Result<bool, StoreError> {
        let asked = self.io.wait(WITHIN, self.owner.query_one("SELECT EXISTS (SELECT 1 FROM head)", &[]));
        let row = asked.ok_or_else(|| late("answer"))?.map_err(|error| failed(&error))?;
        column(&row, 0)
    }

    /// Says of tables that are still empty that what comes into them lacks what is sealed: of shards, the entries below a
    /// place.
    pub(crate) fn without(&self, sealed: &[(u32, Index)]) -> Result<(), StoreError> {
        let row = |(shard, until): &(u32, Index)| {
            format!(
                "DELETE FROM sealed WHERE shard = {shard}; INSERT INTO sealed VALUES ({shard}, {until}, {until});"
            )
        };
        let sql: String = sealed.iter().map(row).collect();
        let said = self.io.wait(WITHIN, self.owner.batch_execute(&sql));
        said.ok_or_else(|| late("answer"))?.map_err(|error| failed(&error))
    }

    /// Empties the tables again.
    pub(crate) fn undo(self) {
        let sql = "TRUNCATE entries, folds, subtrees, head, live, marks, objects, keys, closed, sealed";
        match self.io.wait(WITHIN, self.owner.batch_execute(sql)) {
            Some(Ok(())) => {}
            Some(Err(error)) => tracing::error!(%error, "what was begun could not be removed"),
            None => tracing::error!("what was begun could not be removed in time"),
        }
    }
}

/// The owner of the tables, who is not the brokers' role.
pub(super) fn owner_of(at: &PostgresAt) -> Result<Arc<PostgresAt>, StoreError> {
    let owner = at.owner.clone().filter(|owner| owner.role() != at.role());
    owner.ok_or_else(|| {
        StoreError::Unavailable(
            "the tables are made by their owner, who is not the brokers' role: name it with --owner".into(),
        )
    })
}

async fn prepare(io: &Io, owner: &PostgresAt, at: &PostgresAt) -> Result<Client, StoreError> {
    let mut client = connect(io, owner).await?;
    let sql = format!("SELECT pg_try_advisory_lock({CLAIM})");
    let row = client.query_one(&sql, &[]).await.map_err(|error| failed(&error))?;
    if !column::<bool>(&row, 0)? {
        return Err(StoreError::Unavailable("another makes or migrates this store: wait for it".into()));
    }
    migrate(&mut client, at).await.map_err(|error| failed(&error))?;
    Ok(client)
}

/// A connection as the owner.
pub(super) async fn connect(io: &Io, owner: &PostgresAt) -> Result<Client, StoreError> {
    let (client, connection) = owner.config()?.connect(owner.tls()).await.map_err(|error| failed(&error))?;
    io.spawn(async move { drop(connection.await) });
    Ok(client)
}

/// Applies what is missing, all or nothing, then says what the brokers' role may do.
async fn migrate(client: &mut Client, at: &PostgresAt) -> Result<(), tokio_postgres::Error> {
    let transaction = client.transaction().await?;
    transaction.batch_execute(&BASE.replace(":schema", at.schema())).await?;
    let row = transaction.query_one("SELECT coalesce(max(version), 0) FROM migrations", &[]).await?;
    let found = u32::try_from(row.try_get::<_, i32>(0)?).unwrap_or_default();
    for migration in MIGRATIONS.iter().filter(|migration| migration.version > found) {
        transaction.batch_execute(&migration.sql.replace(":schema", at.schema())).await?;
        let insert = format!(
            "INSERT INTO migrations (version, needs, program) VALUES ({}, {}, '{}')",
            migration.version,
            migration.needs,
            env!("CARGO_PKG_VERSION")
        );
        transaction.batch_execute(&insert).await?;
        tracing::info!(version = migration.version, "migrated the store");
    }
    let grants = GRANTS.replace(":service", &quoted(at.role())).replace(":schema", at.schema());
    transaction.batch_execute(&grants).await?;
    if let Some(sealer) = &at.sealer {
        let grants = SEALER_GRANTS.replace(":sealer", &quoted(sealer.role())).replace(":schema", at.schema());
        transaction.batch_execute(&grants).await?;
    }
    transaction.commit().await?;
    client.batch_execute(&format!("SET search_path = {}", at.schema())).await
}

/// A role's name as a statement takes it.
pub(super) fn quoted(role: &str) -> String {
    format!("\"{}\"", role.replace('"', "\"\""))
}

/// What a broker's session must find: tables that it knows, and no right to change what is recorded.
pub(super) async fn check(client: &Client) -> Result<u32, StoreError> {
    let version = known(client).await?;
    let sql = "SELECT bool_or(has_table_privilege(name, 'UPDATE') OR has_table_privilege(name, 'DELETE') \
               OR has_table_privilege(name, 'TRUNCATE')) OR has_function_privilege('drop_sealed(bigint)', 'EXECUTE') \
               FROM unnest(ARRAY['entries', 'folds', 'subtrees', 'objects', 'closed', 'sealed']) AS name";
    let row = client.query_one(sql, &[]).await.map_err(|error| failed(&error))?;
    if column::<bool>(&row, 0)? {
        return Err(StoreError::Unavailable(
            "the role could change what is recorded: serve as one that `init` or `migrate` was told of, not as the \
             tables' owner, the sealer or a superuser"
                .into(),
        ));
    }
    Ok(version)
}

/// The version of the tables, where this program knows it.
pub(super) async fn known(client: &Client) -> Result<u32, StoreError> {
    let row =
        client.query_one("SELECT coalesce(max(version), 0), coalesce(max(needs), 0) FROM migrations", &[]);
    let row = row.await.map_err(|error| match error.code() {
        Some(&SqlState::INSUFFICIENT_PRIVILEGE) => StoreError::Unavailable(format!(
            "the role may not read the store: run `daypass-broker migrate` for it ({error})"
        )),
        _ => failed(&error),
    })?;
    let number = |at| column::<i32>(&row, at).map(|number| u32::try_from(number).unwrap_or_default());
    match (number(0)?, number(1)?) {
        (version, _) if version < SCHEMA => Err(StoreError::Damaged(format!(
            "the store has schema version {version}, and this program needs {SCHEMA}: run `daypass-broker migrate`"
        ))),
        (version, needs) if needs > SCHEMA => Err(StoreError::Damaged(format!(
            "the store has schema version {version}, and this program knows versions up to {SCHEMA}: run a newer one"
        ))),
        (version, _) => Ok(version),
    }
}
