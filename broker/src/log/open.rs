//! Making a log, and opening one: the state folded, the writer started.

use std::sync::Arc;
use std::thread;

use arc_swap::ArcSwap;
use daypass_core::state::State;
use daypass_evidence::entry::{Body, Index, StatementSigned};
use daypass_evidence::note::VerifierKey;
use daypass_verify::ids::{Name, TrustDomain};
use ring::signature::Ed25519KeyPair;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::answer::{Covered, answer_all};
use super::batch::{Assembly, Author};
use super::doubt::ClockWatch;
use super::follow::{Follower, fold_row};
use super::past::{Past, Proofs};
use super::turn::Shards;
use super::work::{assembly_failed, push, unavailable};
use super::writer::Writer;
use super::{Anchor, Log, Published, RecordError, Recorded};
use crate::clock::Clock;
use crate::ids::Ids;
use crate::signer::Statement;
use crate::store::{Head, Reader, SealedKey, Store, StoreError};

/// How many commands may wait, unless it is said otherwise: past that, callers are told to come back.
pub const QUEUE: usize = 4_096;

/// How many batches of answers may wait for the runtime.
const OUTBOX: usize = 4_096;

/// What a log is opened with.
pub struct LogSettings {
    /// The trust domain.
    pub trust_domain: TrustDomain,
    /// This broker's name.
    pub broker: Name,
    /// The evidence key.
    pub key: Arc<Ed25519KeyPair>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Where ids come from.
    pub ids: Arc<Ids>,
    /// Where the newest checkpoint is kept outside the store.
    pub anchor: Option<Anchor>,
    /// How many commands may wait: past that, callers are told to come back.
    pub queue: usize,
}

/// Starts the writer on an opened and verified store.
///
/// # Errors
/// When the store has no log, or the state cannot be folded.
pub fn open(store: Box<dyn Store>, settings: LogSettings) -> Result<Log, StoreError> {
    let reader = store.reader()?;
    let head = reader.head()?.ok_or_else(|| StoreError::Damaged("there is no log in this store".into()))?;
    // Other brokers may have written since the head was read.
    let mut state = State::empty();
    fold(&mut state, reader.as_ref(), 0, head.size)?;
    let key = VerifierKey::of(&head.origin, &settings.key)
        .map_err(|error| StoreError::Damaged(error.to_string()))?;
    let (state_at, _) = watch::channel(state.at());
    let published = Published { head: Arc::new(head), state: Arc::new(state) };
    let past = Arc::new(Past::beginning_at(&published.head));
    let proofs = Arc::new(Proofs(settings.anchor.as_ref().map(|anchor| anchor.path().to_owned())));
    let (commands, queue) = mpsc::channel(settings.queue.max(1));
    let (answers, outbox) = mpsc::channel(OUTBOX);
    let shards = Arc::new(Shards::of(reader.as_ref(), Arc::clone(&settings.ids))?);
    let log = Log {
        shards: Arc::clone(&shards),
        commands,
        published: Arc::new(ArcSwap::from_pointee(published)),
        state_at,
        settlements: Arc::default(),
        arriving: Arc::default(),
        key: Arc::new(key),
        fault: Arc::default(),
        full: Arc::default(),
        halt: Arc::default(),
        watch: Arc::new(ClockWatch::new(Arc::clone(&settings.clock))),
        stopped: Arc::default(),
        past,
        proofs,
        signs: Arc::clone(&settings.key),
        over: CancellationToken::new(),
        revocations: Arc::default(),
    };
    let writer = Writer {
        store,
        follower: follower(reader, &log, &settings),
        settings,
        queue,
        answers,
        settlements: Arc::clone(&log.settlements),
        arriving: Arc::clone(&log.arriving),
        fault: Arc::clone(&log.fault),
        full: Arc::clone(&log.full),
        unresolved: None,
        halt: Arc::clone(&log.halt),
        watch: Arc::clone(&log.watch),
        expected: 0,
        swept: None,
        shards,
        over: log.over.clone(),
        sweeping: false,
    };
    tokio::spawn(answer_all(outbox));
    thread::Builder::new()
        .name("log-writer".into())
        .spawn(move || writer.run())
        .map_err(|error| StoreError::Unavailable(error.to_string()))?;
    Ok(log)
}

fn follower(reader: Box<dyn Reader>, log: &Log, settings: &LogSettings) -> Follower {
    Follower {
        reader,
        published: Arc::clone(&log.published),
        state_at: log.state_at.clone(),
        key: Arc::clone(&log.key),
        broker: settings.broker.clone(),
        run: None,
        proofs: Arc::clone(&log.proofs),
        past: Arc::clone(&log.past),
        revocations: Arc::clone(&log.revocations),
    }
}

/// The runtime state as the store's entries fold to it.
///
/// # Errors
/// When the store fails, or its entries do not fold.
pub fn read_state(reader: &dyn Reader) -> Result<State, StoreError> {
    let mut state = State::empty();
    fold(&mut state, reader, 0, Index::MAX)?;
    Ok(state)
}

/// Opens a log in an empty store: `opened` and what else is true from its first entry on. Statements that are
/// recorded with it may be signed.
///
/// # Errors
/// When there is a log already, or the store fails.
pub fn create(
    store: &mut dyn Store,
    settings: &LogSettings,
    origin: &str,
    entries: Vec<Body>,
    statements: Vec<(Statement, StatementSigned)>,
    keys: Vec<SealedKey>,
) -> Result<Vec<Recorded<Statement>>, RecordError> {
    let time = settings.clock.now();
    let author =
        Author { trust_domain: &settings.trust_domain, broker: &settings.broker, key: &settings.key };
    let empty = Head {
        shard: 0,
        origin: origin.into(),
        size: 0,
        state: 0,
        time,
        frontier: Vec::new(),
        checkpoint: Vec::new(),
    };
    let mut assembly = Assembly::new(&author, &empty, time).map_err(assembly_failed)?;
    for body in entries {
        push(&mut assembly, &settings.ids, time, body)?;
    }
    let mut indexes = Vec::new();
    for (_, entry) in &statements {
        indexes.push(push(&mut assembly, &settings.ids, time, entry.clone().into())?);
    }
    assembly.adds.keys = keys;
    let assembled = assembly.finish().map_err(assembly_failed)?;
    store.open(&assembled.adds, &assembled.head).map_err(unavailable)?;
    let covered = Covered::of(&assembled.head, &assembled.adds, assembled.tree);
    let recorded = statements
        .into_iter()
        .zip(indexes)
        .filter_map(|((what, _), index)| covered.place(index).map(|place| Recorded { what, place }));
    Ok(recorded.collect())
}

/// Folds the entries from `from` on, and before `until`, into `state`.
pub(super) fn fold(
    state: &mut State,
    reader: &dyn Reader,
    from: Index,
    until: Index,
) -> Result<(), StoreError> {
    let mut from = from;
    loop {
        let rows = reader.fold_rows(from, 1_000)?;
        let Some(last) = rows.last() else { return Ok(()) };
        from = last.index + 1;
        for row in &rows {
            if row.index >= until {
                return Ok(());
            }
            fold_row(state, reader, row)?;
        }
    }
}
