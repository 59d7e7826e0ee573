//! The reading side: a few connections that cannot write, shared by all readers of a broker.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use daypass_evidence::entry::Index;
use daypass_verify::ids::Digest;
use daypass_verify::time::UnixMs;
use deadpool_postgres::{Client, Connect, Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
use tokio::task::JoinHandle;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Config, Error, Row as Found};

use super::address::PostgresAt;
use super::connect::{column, prepare_reading};
use super::error::{failed, late};
use super::io::Io;
use super::{signed, unsigned};
use crate::store::{Head, Live, Reader, Row, SealedKey, StoreError, base, place};

/// How many connections read at once: as many as readers work at once, operators' and strangers', and one for the writer.
const CONNECTIONS: usize = 17;

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(35);

const HEAD: &str =
    "SELECT origin, size, state, time_ms, frontier, checkpoint, (SELECT count(*)::integer FROM closed)
    FROM (SELECT 1) AS once LEFT JOIN head ON id = 1";
const CLOSED: &str =
    "SELECT origin, size, state, time_ms, frontier, checkpoint, shard FROM closed ORDER BY shard";
const ROWS: &str =
    "SELECT e.idx, e.leaf, e.bytes, f.idx IS NOT NULL FROM entries e LEFT JOIN folds f ON f.idx = e.idx
    WHERE e.idx >= $1 AND e.idx < $3 ORDER BY e.idx LIMIT $2";
const FOLDS: &str = "SELECT e.idx, e.leaf, e.bytes, true FROM folds f JOIN entries e ON e.idx = f.idx
    WHERE f.idx >= $1 AND f.idx < $3 ORDER BY f.idx LIMIT $2";

/// The connections that read.
pub struct Reading {
    // Before the runtime that drives it.
    pool: Pool,
    io: Arc<Io>,
    at: Arc<PostgresAt>,
    /// Which shard: once it is known.
    shard: OnceLock<u32>,
}

/// Connects with the password of the moment.
struct Connecting(Arc<PostgresAt>);

type Connected = Result<(tokio_postgres::Client, JoinHandle<()>), Error>;

impl Connect for Connecting {
    fn connect(&self, config: &Config) -> Pin<Box<dyn Future<Output = Connected> + Send + '_>> {
        // Without its password the server says what is wrong.
        let config = self.0.config().unwrap_or_else(|error| {
            tracing::error!(%error, "reading from the database");
            config.clone()
        });
        Box::pin(async move {
            let (client, connection) = config.connect(self.0.tls()).await?;
            let driving = tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "a reading connection to the database ended");
                }
            });
            Ok((client, driving))
        })
    }
}

impl Reading {
    pub(super) fn new(io: Arc<Io>, at: &Arc<PostgresAt>, shard: Option<u32>) -> Result<Self, StoreError> {
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = Manager::from_connect(at.config()?, Connecting(Arc::clone(at)), recycling);
        let pool = Pool::builder(manager).max_size(CONNECTIONS).runtime(Runtime::Tokio1).build();
        let pool = pool.map_err(|error| StoreError::Unavailable(error.to_string()))?;
        let reading = Self { pool, io, at: Arc::clone(at), shard: OnceLock::new() };
        if let Some(shard) = shard {
            let _unset = reading.shard.set(shard);
        }
        Ok(reading)
    }

    /// A reader that takes one of the connections for each question.
    #[must_use]
    pub fn reader(self: &Arc<Self>) -> Box<dyn Reader> {
        Box::new(PostgresReader(Arc::clone(self)))
    }

    /// Asks; again on a new connection where the one at hand is gone.
    fn ask(&self, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<Vec<Found>, StoreError> {
        let asked = self.io.wait(ANSWER, async {
            let client = self.client().await?;
            let first = query(&client, sql, parameters).await;
            match first {
                Err(_) if client.is_closed() => {
                    drop(Client::take(client));
                    let client = self.client().await?;
                    query(&client, sql, parameters).await.map_err(|error| failed(&error))
                }
                other => other.map_err(|error| failed(&error)),
            }
        });
        asked.ok_or_else(|| late("answer a reader"))?
    }

    /// The shard that is read: where none was named, the newest one when this is first asked.
    fn shard(&self) -> Result<u32, StoreError> {
        if let Some(shard) = self.shard.get() {
            return Ok(*shard);
        }
        let found = self.ask("SELECT count(*)::integer FROM closed", &[])?;
        let count: i32 = found.first().map_or(Ok(0), |row| column(row, 0))?;
        Ok(*self.shard.get_or_init(|| u32::try_from(count).unwrap_or_default()))
    }

    async fn client(&self) -> Result<Client, StoreError> {
        let lent = self.pool.get().await.map_err(|error| match error {
            deadpool_postgres::PoolError::Backend(error) => failed(&error),
            other => StoreError::Unavailable(other.to_string()),
        })?;
        if Client::metrics(&lent).recycle_count == 0
            && let Err(error) = prepare_reading(&lent, &self.at).await
        {
            drop(Client::take(lent));
            return Err(error);
        }
        Ok(lent)
    }
}

async fn query(client: &Client, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<Vec<Found>, Error> {
    let statement = client.prepare_cached(sql).await?;
    client.query(&statement, parameters).await
}

/// Reads what is committed.
struct PostgresReader(Arc<Reading>);

impl PostgresReader {
    fn select(&self, sql: &str, start: Index, limit: u32) -> Result<Vec<Row>, StoreError> {
        let (from, beyond) = self.places(start)?;
        let found = self.0.ask(sql, &[&from, &i64::from(limit), &beyond])?;
        let base = base(self.0.shard()?);
        let row = |found: &Found| {
            Ok(Row {
                index: unsigned(column(found, 0)?) - base,
                leaf: hash(column(found, 1)?)?,
                bytes: column(found, 2)?,
                folds: column(found, 3)?,
            })
        };
        found.iter().map(row).collect()
    }

    /// The places of entries from `start` on, and where those of other shards begin.
    fn places(&self, start: Index) -> Result<(i64, i64), StoreError> {
        let shard = self.0.shard()?;
        Ok((signed(base(shard).saturating_add(start)), signed(base(shard + 1))))
    }

    /// The first column of the only row; none where there is no row.
    fn one<T>(
        &self,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
        read: impl FnOnce(&Found) -> Result<T, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        self.0.ask(sql, parameters)?.first().map(read).transpose()
    }
}

impl Reader for PostgresReader {
    fn head(&self) -> Result<Option<Head>, StoreError> {
        let shard = self.0.shard()?;
        let newest = self.one(HEAD, &[], |found| head(found, 0))?.flatten();
        match newest.filter(|head| head.shard == shard) {
            None => Ok(self.closed()?.into_iter().find(|head| head.shard == shard)),
            found => Ok(found),
        }
    }

    fn closed(&self) -> Result<Vec<Head>, StoreError> {
        let found = self.0.ask(CLOSED, &[])?;
        let heads: Result<Vec<_>, _> = found.iter().map(|found| head(found, 0)).collect();
        Ok(heads?.into_iter().flatten().collect())
    }

    fn live_here(&self) -> Result<u64, StoreError> {
        let (from, beyond) = self.places(0)?;
        let sql = "SELECT count(*) FROM live WHERE idx >= $1 AND idx < $2";
        let count = self.one(sql, &[&from, &beyond], |found| column(found, 0))?;
        Ok(unsigned(count.unwrap_or_default()))
    }

    fn rows(&self, start: Index, limit: u32) -> Result<Vec<Row>, StoreError> {
        self.select(ROWS, start, limit)
    }

    fn leaves(&self, start: Index, limit: u32) -> Result<Vec<[u8; 32]>, StoreError> {
        let sql = "SELECT leaf FROM entries WHERE idx >= $1 AND idx < $3 ORDER BY idx LIMIT $2";
        let (from, beyond) = self.places(start)?;
        let found = self.0.ask(sql, &[&from, &i64::from(limit), &beyond])?;
        found.iter().map(|found| hash(column(found, 0)?)).collect()
    }

    fn sealed_until(&self) -> Result<Index, StoreError> {
        let shard = self.0.shard()?;
        let number = i32::try_from(shard).unwrap_or(i32::MAX);
        let sql = "SELECT until FROM sealed WHERE shard = $1";
        let until = self.one(sql, &[&number], |found| column(found, 0))?;
        Ok(until.map_or(0, |until| unsigned(until) - base(shard)))
    }

    fn fold_rows(&self, start: Index, limit: u32) -> Result<Vec<Row>, StoreError> {
        self.select(FOLDS, start, limit)
    }

    fn entry_at(&self, at: Index) -> Result<Option<Row>, StoreError> {
        let sql = "SELECT leaf, bytes, EXISTS (SELECT FROM folds f WHERE f.idx = e.idx) FROM entries e WHERE idx = $1";
        self.one(sql, &[&signed(at)], |found| {
            Ok(Row {
                index: place(at).1,
                leaf: hash(column(found, 0)?)?,
                bytes: column(found, 1)?,
                folds: column(found, 2)?,
            })
        })
    }

    fn subtree(&self, level: u8, index: u64) -> Result<Option<[u8; 32]>, StoreError> {
        let sql = "SELECT hash FROM subtrees WHERE level = $1 AND idx = $2";
        let index = signed((base(self.0.shard()?) >> level) + index);
        self.one(sql, &[&i16::from(level), &index], |found| hash(column(found, 0)?))
    }

    fn object(&self, digest: &Digest) -> Result<Option<Vec<u8>>, StoreError> {
        let sql = "SELECT bytes FROM objects WHERE digest = $1";
        self.one(sql, &[&digest.as_bytes().as_slice()], |found| column(found, 0))
    }

    fn keys(&self) -> Result<Vec<SealedKey>, StoreError> {
        let key = |found: &Found| {
            let damaged = |error| StoreError::Damaged(format!("in the table of keys: {error}"));
            Ok(SealedKey {
                key: column::<&str>(found, 0)?.parse().map_err(damaged)?,
                sealed: column(found, 1)?,
                certificate: column(found, 2)?,
            })
        };
        let sql = "SELECT key, sealed, certificate FROM keys ORDER BY key COLLATE \"C\"";
        self.0.ask(sql, &[])?.iter().map(key).collect()
    }

    fn live(&self) -> Result<u64, StoreError> {
        let count = self.one("SELECT count(*) FROM live", &[], |found| column(found, 0))?;
        Ok(unsigned(count.unwrap_or_default()))
    }

    fn live_after(&self, after: Option<Live>, limit: u32) -> Result<Vec<Live>, StoreError> {
        let (exp, index) = after.map_or((i64::MIN, -1), |it| (it.exp.get(), signed(it.index)));
        let sql = "SELECT exp_ms, idx FROM live WHERE (exp_ms, idx) > ($1, $2) ORDER BY exp_ms, idx LIMIT $3";
        let found = self.0.ask(sql, &[&exp, &index, &i64::from(limit)])?;
        found.iter().map(live).collect()
    }
}

/// A credential in the columns `exp_ms, idx`.
pub(super) fn live(found: &Found) -> Result<Live, StoreError> {
    Ok(Live { exp: UnixMs::new(column(found, 0)?), index: unsigned(column(found, 1)?) })
}

/// The head in the columns from `first` on; none where the first of them is null.
pub(super) fn head(found: &Found, first: usize) -> Result<Option<Head>, StoreError> {
    let Some(origin) = column::<Option<String>>(found, first)? else { return Ok(None) };
    let (whole, rest) = column::<&[u8]>(found, first + 4)?.as_chunks::<32>();
    if !rest.is_empty() {
        return Err(StoreError::Damaged("the frontier is cut".into()));
    }
    let shard: i32 = column(found, first + 6)?;
    Ok(Some(Head {
        shard: u32::try_from(shard).unwrap_or_default(),
        origin,
        size: unsigned(column(found, first + 1)?),
        state: unsigned(column(found, first + 2)?),
        time: UnixMs::new(column(found, first + 3)?),
        frontier: whole.to_vec(),
        checkpoint: column(found, first + 5)?,
    }))
}

fn hash(bytes: &[u8]) -> Result<[u8; 32], StoreError> {
    bytes
        .try_into()
        .map_err(|_| StoreError::Damaged(format!("a hash has {} bytes: expected 32", bytes.len())))
}
