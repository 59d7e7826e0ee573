//! The statements of the writing side, and the columns that they are given.

use std::collections::BTreeMap;
use std::pin::Pin;

use daypass_core::draft::Mark;
use daypass_evidence::entry::Index;
use futures::future::join_all;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Statement};

use super::durability::settings;
use super::{minute, signed};
use crate::store::{Batch, Head, Row};

/// One statement on its way.
pub(super) type Step<'a> = Pin<Box<dyn Future<Output = Result<u64, Error>> + Send + 'a>>;

/// `join_all` sends up to this many in their order: each is sent where it is first polled.
const TOGETHER: usize = 30;

/// Sends statements one behind the other, without waiting for an answer between them.
pub(super) async fn send(steps: Vec<Step<'_>>) -> Vec<Result<u64, Error>> {
    debug_assert!(steps.len() <= TOGETHER);
    join_all(steps).await
}

/// Declares the statements that are prepared on one connection.
macro_rules! statements {
    ($($name:ident: $text:expr),+ $(,)?) => {
        /// Statements that were prepared on one connection.
        pub(super) struct Statements {
            $(pub(super) $name: Statement,)+
        }

        impl Statements {
            pub(super) async fn prepare(client: &Client) -> Result<Self, Error> {
                let ($($name,)+) = tokio::try_join!($(client.prepare($text)),+)?;
                Ok(Self { $($name),+ })
            }
        }
    };
}

statements! {
    // The log's lock: of one database, which serves one log. One that is made beside it has its own.
    lock: "SELECT pg_advisory_xact_lock(28540885003269235 + (current_schema() <> 'daypass')::int)",
    head: concat!(
        "SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint, pg_is_in_recovery(),
                current_setting('transaction_read_only') = 'on', ",
        settings!(),
        ", head.origin, head.size, head.state, head.time_ms, head.frontier, head.checkpoint,
            (SELECT count(*)::integer FROM closed)
         FROM (SELECT 1) AS once LEFT JOIN head ON head.id = 1"
    ),
    spent: "SELECT wanted.place FROM unnest($1::bigint[], $2::bytea[]) WITH ORDINALITY AS wanted (minute, mark, place)
        WHERE EXISTS (SELECT FROM marks WHERE marks.minute = wanted.minute AND marks.mark = wanted.mark)",
    live: "SELECT wanted.place FROM unnest($1::bigint[], $2::bigint[]) WITH ORDINALITY AS wanted (exp_ms, idx, place)
        WHERE EXISTS (SELECT FROM live WHERE live.exp_ms = wanted.exp_ms AND live.idx = wanted.idx)",
    expired: "SELECT exp_ms, idx FROM live WHERE exp_ms <= $1 ORDER BY exp_ms, idx LIMIT $2",
    open_head: "INSERT INTO head VALUES (1, $1, $2, $3, $4, $5, $6)",
    // Where the head is not the one that was read, this fails, and so takes the rest of the transaction with it.
    move_head: "WITH moved AS (UPDATE head SET origin = $1, size = $2, state = $3, time_ms = $4, frontier = $5,
            checkpoint = $6 WHERE id = 1 AND size = $7 AND origin = $8 RETURNING 1) SELECT 1 / count(*) FROM moved",
    close_head: "INSERT INTO closed (origin, size, state, time_ms, frontier, checkpoint, shard)
        VALUES ($1, $2, $3, $4, $5, $6, $7)",
    entries: "INSERT INTO entries SELECT * FROM unnest($1::bigint[], $2::bytea[], $3::bytea[])",
    folds: "INSERT INTO folds SELECT * FROM unnest($1::bigint[])",
    subtrees: "INSERT INTO subtrees SELECT * FROM unnest($1::smallint[], $2::bigint[], $3::bytea[])",
    born: "INSERT INTO live SELECT * FROM unnest($1::bigint[], $2::bigint[])",
    ended: "DELETE FROM live USING unnest($1::bigint[], $2::bigint[]) AS gone (exp_ms, idx)
        WHERE live.exp_ms = gone.exp_ms AND live.idx = gone.idx",
    objects: "INSERT INTO objects SELECT * FROM unnest($1::bytea[], $2::bytea[]) ON CONFLICT DO NOTHING",
    keys: "INSERT INTO keys SELECT * FROM unnest($1::text[], $2::bytea[], $3::bytea[])
        ON CONFLICT (key) DO UPDATE SET sealed = excluded.sealed, certificate = excluded.certificate",
    marks: "INSERT INTO marks SELECT * FROM unnest($1::bigint[], $2::bytea[])",
    forget: "DELETE FROM marks WHERE minute < $1",
}

impl Statements {
    /// The steps that add `columns`.
    pub(super) fn add<'a>(&'a self, client: &'a Client, columns: &'a Columns<'a>) -> Vec<Step<'a>> {
        let c = columns;
        let steps: [(bool, &'a Statement, Vec<&'a (dyn ToSql + Sync)>); 8] = [
            (c.entries.0.is_empty(), &self.entries, vec![&c.entries.0, &c.entries.1, &c.entries.2]),
            (c.folds.is_empty(), &self.folds, vec![&c.folds]),
            (c.subtrees.0.is_empty(), &self.subtrees, vec![&c.subtrees.0, &c.subtrees.1, &c.subtrees.2]),
            (c.born.0.is_empty(), &self.born, vec![&c.born.0, &c.born.1]),
            (c.ended.0.is_empty(), &self.ended, vec![&c.ended.0, &c.ended.1]),
            (c.objects.0.is_empty(), &self.objects, vec![&c.objects.0, &c.objects.1]),
            (c.keys.0.is_empty(), &self.keys, vec![&c.keys.0, &c.keys.1, &c.keys.2]),
            (c.marks.0.is_empty(), &self.marks, vec![&c.marks.0, &c.marks.1]),
        ];
        let wanted = steps.into_iter().filter(|(empty, ..)| !empty);
        wanted.map(|(_, statement, parameters)| step(client, statement, parameters)).collect()
    }

    /// Forgets marks of minutes before `minute`.
    pub(super) fn forget<'a>(&'a self, client: &'a Client, minute: &'a i64) -> Step<'a> {
        step(client, &self.forget, vec![minute])
    }

    /// Moves the head from the size in `columns` that it must have.
    pub(super) fn move_head<'a>(&'a self, client: &'a Client, head: &'a HeadColumns<'a>) -> Step<'a> {
        let mut parameters = head.parameters();
        parameters.extend([&head.from as &(dyn ToSql + Sync), &head.from_origin]);
        step(client, &self.move_head, parameters)
    }

    /// Keeps the head of a shard that is closed.
    pub(super) fn close_head<'a>(&'a self, client: &'a Client, head: &'a HeadColumns<'a>) -> Step<'a> {
        let mut parameters = head.parameters();
        parameters.push(&head.shard);
        step(client, &self.close_head, parameters)
    }

    pub(super) fn open_head<'a>(&'a self, client: &'a Client, head: &'a HeadColumns<'a>) -> Step<'a> {
        step(client, &self.open_head, head.parameters())
    }
}

fn step<'a>(
    client: &'a Client,
    statement: &'a Statement,
    parameters: Vec<&'a (dyn ToSql + Sync)>,
) -> Step<'a> {
    Box::pin(async move { client.execute(statement, &parameters).await })
}

/// A statement without parameters or an answer.
pub(super) fn plain<'a>(client: &'a Client, sql: &'static str) -> Step<'a> {
    Box::pin(async move { client.batch_execute(sql).await.map(|()| 0) })
}

type Subtree = (u8, u64, [u8; 32]);
type Certificates<'a> = Vec<Option<&'a [u8]>>;

/// What a batch adds, column by column.
#[derive(Default)]
pub(super) struct Columns<'a> {
    entries: (Vec<i64>, Vec<&'a [u8]>, Vec<&'a [u8]>),
    folds: Vec<i64>,
    subtrees: (Vec<i16>, Vec<i64>, Vec<&'a [u8]>),
    born: (Vec<i64>, Vec<i64>),
    ended: (Vec<i64>, Vec<i64>),
    objects: (Vec<&'a [u8]>, Vec<&'a [u8]>),
    keys: (Vec<&'a str>, Vec<&'a [u8]>, Certificates<'a>),
    marks: (Vec<i64>, Vec<&'a [u8]>),
}

impl<'a> Columns<'a> {
    /// What a batch adds where its entries begin at `base`.
    pub(super) fn of(batch: &'a Batch, marks: &'a [Mark], base: Index) -> Self {
        // A statement writes a row once: the last is what stays.
        let last: BTreeMap<_, _> = batch.keys.iter().map(|key| (key.key.as_str(), key)).collect();
        let keys = || last.values();
        Self {
            born: (
                batch.born.iter().map(|live| live.exp.get()).collect(),
                batch.born.iter().map(|live| signed(live.index)).collect(),
            ),
            ended: (
                batch.ended.iter().map(|live| live.exp.get()).collect(),
                batch.ended.iter().map(|live| signed(live.index)).collect(),
            ),
            objects: (
                batch.objects.iter().map(|(digest, _)| digest.as_bytes().as_slice()).collect(),
                batch.objects.iter().map(|(_, bytes)| bytes.as_slice()).collect(),
            ),
            keys: (
                keys().map(|key| key.key.as_str()).collect(),
                keys().map(|key| key.sealed.as_slice()).collect(),
                keys().map(|key| key.certificate.as_deref()).collect(),
            ),
            marks: (
                marks.iter().map(|mark| minute(mark.expires)).collect(),
                marks.iter().map(|mark| mark.key.as_slice()).collect(),
            ),
            ..Self::of_entries(&batch.rows, &batch.subtrees, base)
        }
    }

    /// The same of entries alone, with the subtrees that they complete.
    pub(super) fn of_entries(rows: &'a [Row], subtrees: &'a [Subtree], base: Index) -> Self {
        let raised = |row: &Row| signed(base + row.index);
        Self {
            entries: (
                rows.iter().map(raised).collect(),
                rows.iter().map(|row| row.leaf.as_slice()).collect(),
                rows.iter().map(|row| row.bytes.as_slice()).collect(),
            ),
            folds: rows.iter().filter(|row| row.folds).map(raised).collect(),
            subtrees: (
                subtrees.iter().map(|(level, ..)| i16::from(*level)).collect(),
                subtrees.iter().map(|(level, index, _)| signed((base >> level) + index)).collect(),
                subtrees.iter().map(|(.., hash)| hash.as_slice()).collect(),
            ),
            ..Self::default()
        }
    }
}

/// A head as columns, and the log and size of the one that it follows.
pub(super) struct HeadColumns<'a> {
    origin: &'a str,
    size: i64,
    state: i64,
    time: i64,
    frontier: Vec<u8>,
    checkpoint: &'a [u8],
    shard: i32,
    from_origin: &'a str,
    from: i64,
}

impl<'a> HeadColumns<'a> {
    pub(super) fn of(head: &'a Head, from_origin: &'a str, from: u64) -> Self {
        Self {
            origin: &head.origin,
            size: signed(head.size),
            state: signed(head.state),
            time: head.time.get(),
            frontier: head.frontier.concat(),
            checkpoint: &head.checkpoint,
            shard: i32::try_from(head.shard).unwrap_or(i32::MAX),
            from_origin,
            from: signed(from),
        }
    }

    fn parameters(&self) -> Vec<&(dyn ToSql + Sync)> {
        vec![&self.origin, &self.size, &self.state, &self.time, &self.frontier, &self.checkpoint]
    }
}
