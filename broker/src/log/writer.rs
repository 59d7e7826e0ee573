//! The writer: a thread that drains the queue, one transaction a batch.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use daypass_core::bundle::Bundle;
use daypass_core::draft::{Draft, Mark, MarkKind};
use daypass_core::state::State;
use daypass_evidence::checkpoint::Checkpoint;
use daypass_evidence::entry::{Body, CredentialEnded, EndedHow, Entry, Index, NewEntry, StatementSigned};
use daypass_evidence::note::VerifierKey;
use daypass_verify::ids::{Digest, Name, TrustDomain};
use daypass_verify::time::UnixMs;
use ring::signature::Ed25519KeyPair;
use tokio::sync::{mpsc, oneshot};

use super::batch::{Assembled, Assembly, Author, BatchError};
use super::settlement::Waiting;
use super::{Anchor, Attached, Command, Log, Place, Published, RecordError, Recorded, Recording, Settlements, Voided};
use crate::clock::Clock;
use crate::ids::Ids;
use crate::signer::Statement;
use crate::store::{Batch, Head, Live, Reader, SealedKey, Store, StoreError, Transaction};

/// How many commands may wait: past that, callers are told to come back.
const QUEUE: usize = 4_096;

/// How many commands one batch takes at most.
const BATCH: usize = 512;

/// How long the writer lingers for company, when others are in flight; in steps, so that it never lingers longer
/// than the last of them needs.
const LINGER: Duration = Duration::from_micros(400);
const LINGER_STEP: Duration = Duration::from_micros(50);

/// Endings wait out the leeway that receivers may give.
const LEEWAY_MS: i64 = 30_000;

/// How many credentials one sweep ends, and how many one entry names within 16 KiB.
const SWEEP: u32 = 8_000;
const ENDED_PER_ENTRY: usize = 1_000;

/// How far the clock may lie behind the newest entry before the broker stops itself.
const CLOCK_BEHIND_MS: i64 = 2_000;

/// How old a draft may be when it is recorded: older ones are decided again.
const DRAFT_AGE_MS: i64 = 5_000;

/// How long the outcome of a commit is asked for.
const RESOLVE: Duration = Duration::from_secs(2);

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
}

/// Starts the writer on an opened and verified store.
///
/// # Errors
/// When the store has no log, or the state cannot be folded.
pub fn open(store: Box<dyn Store>, settings: LogSettings) -> Result<Log, StoreError> {
    let reader = store.reader()?;
    let head = reader.head()?.ok_or_else(|| StoreError::Damaged("there is no log in this store".into()))?;
    let state = read_state(reader.as_ref())?;
    let key = VerifierKey::of(&head.origin, &settings.key).map_err(|error| StoreError::Damaged(error.to_string()))?;
    let published = Published { head: Arc::new(head), state: Arc::new(state) };
    let (commands, queue) = mpsc::channel(QUEUE);
    let (answers, outbox) = mpsc::channel(QUEUE);
    let log = Log {
        commands,
        published: Arc::new(ArcSwap::from_pointee(published)),
        settlements: Arc::default(),
        arriving: Arc::default(),
        key: Arc::new(key),
        fault: Arc::default(),
    };
    let writer = Writer {
        store,
        reader,
        settings,
        queue,
        answers,
        published: Arc::clone(&log.published),
        settlements: Arc::clone(&log.settlements),
        arriving: Arc::clone(&log.arriving),
        key: Arc::clone(&log.key),
        fault: Arc::clone(&log.fault),
        unresolved: None,
    };
    tokio::spawn(answer_all(outbox, Arc::clone(&log.settlements)));
    thread::Builder::new()
        .name("log-writer".into())
        .spawn(move || writer.run())
        .map_err(|error| StoreError::Unavailable(error.to_string()))?;
    Ok(log)
}

/// An answer, and whom to give it to.
enum Answer {
    Record(oneshot::Sender<Result<Recording, RecordError>>, Result<Recording, RecordError>),
    Append(oneshot::Sender<Result<Vec<Place>, RecordError>>, Result<Vec<Place>, RecordError>),
}

/// Wakes the callers of a batch from the runtime: one message from the writer, however many wait.
async fn answer_all(mut outbox: mpsc::Receiver<Vec<Answer>>, settlements: Arc<Settlements>) {
    while let Some(batch) = outbox.recv().await {
        for answer in batch {
            match answer {
                Answer::Record(caller, outcome) => {
                    if let Err(Ok(Recording::Recorded(recorded))) = caller.send(outcome) {
                        settlements.void(voided(&recorded, "the caller was gone before the credential was signed"));
                    }
                }
                Answer::Append(caller, outcome) => drop(caller.send(outcome)),
            }
        }
    }
}

fn voided(recorded: &Recorded<Draft>, reason: &str) -> Voided {
    let live = Live { exp: recorded.what.exp(), index: recorded.place.index };
    Voided { live, reason: reason.into() }
}

struct Writer {
    store: Box<dyn Store>,
    reader: Box<dyn Reader>,
    settings: LogSettings,
    queue: mpsc::Receiver<Command>,
    answers: mpsc::Sender<Vec<Answer>>,
    published: Arc<ArcSwap<Published>>,
    settlements: Arc<Settlements>,
    arriving: Arc<AtomicUsize>,
    key: Arc<VerifierKey>,
    fault: Arc<ArcSwapOption<String>>,
    unresolved: Option<Unresolved>,
}

/// A batch whose commit has an unknown outcome, and whose callers were told that nothing was recorded.
struct Unresolved {
    last: (Index, [u8; 32]),
    born: Vec<Live>,
}

/// What became of each command of a batch, before anything is committed.
enum Fate {
    Ready,
    Recorded(Index),
    Stale,
    Refused(RecordError),
    Appended(Vec<Index>),
    Nothing,
}

impl Writer {
    fn run(mut self) {
        while let Some(first) = self.queue.blocking_recv() {
            let commands = self.gather(first);
            let answers = self.write(commands);
            if self.answers.blocking_send(answers).is_err() {
                return;
            }
            if self.queue.is_empty() {
                self.store.rest();
            }
        }
    }

    /// Takes all that wait, and lingers a little while others are on their way.
    fn gather(&mut self, first: Command) -> Vec<Command> {
        let mut commands = vec![first];
        let began = Instant::now();
        loop {
            while commands.len() < BATCH {
                match self.queue.try_recv() {
                    Ok(command) => commands.push(command),
                    Err(_) => break,
                }
            }
            let alone = self.arriving.load(Ordering::Relaxed) == 0;
            if alone || commands.len() >= BATCH || began.elapsed() > LINGER {
                return commands;
            }
            thread::sleep(LINGER_STEP);
        }
    }

    fn write(&mut self, commands: Vec<Command>) -> Vec<Answer> {
        let settling = self.settlements.take();
        let began = Instant::now();
        match self.attempt(&commands, &settling) {
            Ok((fates, assembled)) => {
                if self.fault.load().is_some() {
                    self.fault.store(None);
                }
                metrics::histogram!(crate::telemetry::BATCH_ENTRIES).record(fates.len() as f64);
                metrics::histogram!(crate::telemetry::COMMIT_SECONDS).record(began.elapsed().as_secs_f64());
                self.answer(commands, fates, assembled)
            }
            Err(error) => {
                tracing::error!(%error, "a batch was not written");
                self.fault.store(Some(Arc::new(error.to_string())));
                self.settlements.put_back(settling);
                commands.into_iter().filter_map(|command| refused(command, &error)).collect()
            }
        }
    }

    /// One transaction. On an error nothing is in the store, or `unresolved` remembers what may be.
    fn attempt(
        &mut self,
        commands: &[Command],
        settling: &Waiting,
    ) -> Result<(Vec<Fate>, Option<Assembled>), RecordError> {
        self.resolve_earlier()?;
        let now = self.settings.clock.now();
        let mut transaction = self.store.begin().map_err(unavailable)?;
        let head = transaction.head().clone();
        let newest = self.published.load();
        check_head(&head, &newest.head, &self.key)?;
        let time = entry_time(now, head.time)?;
        let author = Author {
            trust_domain: &self.settings.trust_domain,
            broker: &self.settings.broker,
            key: &self.settings.key,
        };
        let mut assembly = Assembly::new(&author, &head, time).map_err(assembly_failed)?;
        settle(&mut assembly, settling, &self.settings.ids, time)?;
        let mut fates = record_all(&mut assembly, transaction.as_mut(), commands, time)?;
        for (command, fate) in commands.iter().zip(&mut fates) {
            match command {
                Command::Append { entries, attached, .. } => *fate = append(&mut assembly, entries, attached),
                Command::Sweep => sweep(&mut assembly, transaction.as_mut(), &self.settings.ids, time)?,
                Command::Record { .. } | Command::Flush => {}
            }
        }
        if assembly.is_empty() {
            return Ok((fates, None));
        }
        let assembled = assembly.finish().map_err(assembly_failed)?;
        let committed = transaction.commit(&assembled.adds, &assembled.head);
        self.conclude(committed, &assembled)?;
        Ok((fates, Some(assembled)))
    }

    /// Learns what became of a commit: from its answer, or else from the head, never by writing again.
    fn conclude(&mut self, committed: Result<(), StoreError>, assembled: &Assembled) -> Result<(), RecordError> {
        match committed {
            Ok(()) => Ok(()),
            Err(StoreError::Unknown(detail)) => {
                let last = assembled.adds.rows.last().map(|row| (row.index, row.leaf));
                match last.map(|last| self.ask_head(last)) {
                    Some(Some(true)) => Ok(()),
                    Some(Some(false)) => Err(RecordError::Unavailable(detail)),
                    _ => {
                        self.unresolved =
                            last.map(|last| Unresolved { last, born: assembled.adds.born.clone() });
                        Err(RecordError::Unavailable(detail))
                    }
                }
            }
            Err(error) => Err(unavailable(error)),
        }
    }

    /// Whether the entry `last` is in the store; none when the store does not answer in time.
    fn ask_head(&mut self, last: (Index, [u8; 32])) -> Option<bool> {
        let began = Instant::now();
        loop {
            let locked = self.store.begin().map(drop);
            let found = locked.and_then(|()| self.reader.rows(last.0, 1));
            match found {
                Ok(rows) => return Some(rows.first().is_some_and(|row| (row.index, row.leaf) == last)),
                Err(_) if began.elapsed() > RESOLVE => return None,
                Err(_) => thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// Credentials of an unresolved batch that turns out to be in the store were never signed: they are void.
    fn resolve_earlier(&mut self) -> Result<(), RecordError> {
        let Some(unresolved) = self.unresolved.take() else { return Ok(()) };
        match self.ask_head(unresolved.last) {
            Some(false) => Ok(()),
            Some(true) => {
                self.publish();
                for live in unresolved.born {
                    self.settlements.void(Voided { live, reason: "the outcome of the commit was not known in time".into() });
                }
                Ok(())
            }
            None => {
                self.unresolved = Some(unresolved);
                Err(RecordError::Unavailable("the outcome of an earlier commit is not known yet".into()))
            }
        }
    }

    fn answer(&mut self, commands: Vec<Command>, fates: Vec<Fate>, assembled: Option<Assembled>) -> Vec<Answer> {
        let covered = assembled.map(|assembled| self.take_effect(assembled));
        let pairs = commands.into_iter().zip(fates);
        pairs.filter_map(|(command, fate)| answer(command, fate, covered.as_ref())).collect()
    }

    /// After a commit: the anchor, then what is in force, then the answers.
    fn take_effect(&mut self, assembled: Assembled) -> Covered {
        let Assembled { head, adds, tree } = assembled;
        if let Some(anchor) = &mut self.settings.anchor
            && let Err(error) = anchor.write(&head.checkpoint)
        {
            tracing::error!(%error, "the anchor file could not be written");
        }
        let covered = Covered::of(&head, &adds, tree);
        metrics::gauge!(crate::telemetry::LOG_ENTRIES).set(head.size as f64);
        if adds.rows.iter().any(|row| row.folds) {
            self.publish();
        } else {
            let state = Arc::clone(&self.published.load().state);
            self.published.store(Arc::new(Published { head: Arc::new(head), state }));
        }
        covered
    }

    /// Publishes the head and the state as the store holds them.
    fn publish(&mut self) {
        let mut state = State::clone(&self.published.load().state);
        let from = state.at() + 1;
        let read = fold(&mut state, self.reader.as_ref(), from).and_then(|()| self.reader.head());
        match read {
            Ok(Some(head)) => {
                self.published.store(Arc::new(Published { head: Arc::new(head), state: Arc::new(state) }));
            }
            Ok(None) => tracing::error!("the head is gone"),
            Err(error) => tracing::error!(%error, "the state could not be folded"),
        }
    }
}

/// What one commit covered.
struct Covered {
    first: Index,
    time: UnixMs,
    leaves: Vec<[u8; 32]>,
    tree: daypass_evidence::tree::Batch,
    checkpoint: Arc<[u8]>,
    origin: Arc<str>,
}

impl Covered {
    fn of(head: &Head, adds: &Batch, tree: daypass_evidence::tree::Batch) -> Self {
        Self {
            first: head.size - adds.rows.len() as u64,
            time: head.time,
            leaves: adds.rows.iter().map(|row| row.leaf).collect(),
            tree,
            checkpoint: head.checkpoint.as_slice().into(),
            origin: head.origin.as_str().into(),
        }
    }

    fn place(&self, index: Index) -> Option<Place> {
        let at = usize::try_from(index.checked_sub(self.first)?).ok()?;
        Some(Place {
            index,
            time: self.time,
            leaf: *self.leaves.get(at)?,
            checkpoint: Arc::clone(&self.checkpoint),
            inclusion: self.tree.proof(at)?,
            origin: Arc::clone(&self.origin),
        })
    }
}

fn answer(command: Command, fate: Fate, covered: Option<&Covered>) -> Option<Answer> {
    let missing = || RecordError::Unavailable("the place of an entry was lost".into());
    let find = |index| covered.and_then(|covered| covered.place(index)).ok_or_else(missing);
    match (command, fate) {
        (Command::Record { draft, answer, .. }, fate) => {
            let outcome = match fate {
                Fate::Recorded(index) => {
                    find(index).map(|place| Recording::Recorded(Box::new(Recorded { what: *draft, place })))
                }
                Fate::Refused(error) => Err(error),
                _ => Ok(Recording::Stale),
            };
            Some(Answer::Record(answer, outcome))
        }
        (Command::Append { answer, .. }, fate) => {
            let outcome = match fate {
                Fate::Appended(indexes) => indexes.into_iter().map(find).collect(),
                Fate::Refused(error) => Err(error),
                _ => Err(missing()),
            };
            Some(Answer::Append(answer, outcome))
        }
        (Command::Sweep | Command::Flush, _) => None,
    }
}

fn refused(command: Command, error: &RecordError) -> Option<Answer> {
    match command {
        Command::Record { answer, .. } => Some(Answer::Record(answer, Err(error.clone()))),
        Command::Append { answer, .. } => Some(Answer::Append(answer, Err(error.clone()))),
        Command::Sweep | Command::Flush => None,
    }
}

/// The head read under the lock must follow the newest one that this broker saw, and carry our own signature.
fn check_head(head: &Head, newest: &Head, key: &VerifierKey) -> Result<(), RecordError> {
    if head == newest {
        return Ok(());
    }
    let checkpoint =
        Checkpoint::open(&head.checkpoint, key).map_err(|error| RecordError::Rollback(error.to_string()))?;
    if head.size <= newest.size {
        let detail = format!("its size was {}, and is {} now", newest.size, head.size);
        return Err(RecordError::Rollback(detail));
    }
    let frontier = daypass_evidence::tree::Frontier::from_parts(head.size, head.frontier.clone());
    match frontier {
        Ok(frontier) if frontier.size() == checkpoint.size && frontier.root() == checkpoint.root => Ok(()),
        _ => Err(RecordError::Rollback("its frontier does not lead to the root that was signed".into())),
    }
}

/// Entry time never goes back; a clock that lies far behind stops the broker.
fn entry_time(now: UnixMs, newest: UnixMs) -> Result<UnixMs, RecordError> {
    let behind = newest.millis_since(now);
    if behind > CLOCK_BEHIND_MS {
        return Err(RecordError::Clock(format!(
            "it says {now}, and the newest entry was written at {newest}: set it right, then issuance goes on by itself"
        )));
    }
    Ok(now.max(newest))
}

/// Records the drafts of a batch, before anything in it can change the state they were decided under: so a draft
/// is stale or not by the head alone, and the proof of a stale one is not spent.
fn record_all(
    assembly: &mut Assembly<'_>,
    transaction: &mut dyn Transaction,
    commands: &[Command],
    time: UnixMs,
) -> Result<Vec<Fate>, RecordError> {
    let head = transaction.head().clone();
    let mut fates: Vec<Fate> = commands.iter().map(|command| before_spending(command, &head, time)).collect();
    let marks = |command: &Command| match command {
        Command::Record { draft, .. } => draft.marks().to_vec(),
        _ => Vec::new(),
    };
    let ready = || commands.iter().zip(&fates).filter(|(_, fate)| matches!(fate, Fate::Ready));
    let all: Vec<Mark> = ready().flat_map(|(command, _)| marks(command)).collect();
    let mut fresh = transaction.spend(&all).map_err(unavailable)?.into_iter();
    for (command, fate) in commands.iter().zip(&mut fates) {
        if let (Command::Record { draft, .. }, Fate::Ready) = (command, &fate) {
            *fate = record_one(assembly, draft, &mut fresh);
        }
    }
    Ok(fates)
}

fn before_spending(command: &Command, head: &Head, time: UnixMs) -> Fate {
    let Command::Record { draft, known, .. } = command else { return Fate::Nothing };
    if let Some(detail) = known.as_ref().and_then(|known| went_back(known, head)) {
        return Fate::Refused(RecordError::Rollback(detail));
    }
    let aged = time.millis_since(draft.grant().issued_at()).abs() > DRAFT_AGE_MS;
    if aged || draft.state() != head.state { Fate::Stale } else { Fate::Ready }
}

/// Each draft has its own outcome: a replay fails alone, never the batch.
fn record_one(assembly: &mut Assembly<'_>, draft: &Draft, fresh: &mut impl Iterator<Item = bool>) -> Fate {
    let spent = draft.marks().iter().filter(|_| !fresh.next().unwrap_or(false)).map(|mark| mark.kind).collect::<Vec<_>>();
    match spent.first() {
        Some(MarkKind::Request) => Fate::Refused(RecordError::AlreadyIssued),
        Some(MarkKind::Proof) => Fate::Refused(RecordError::Replayed),
        None => match assembly.push(draft.entry()) {
            Ok(index) => {
                assembly.adds.born.push(Live { exp: draft.exp(), index });
                Fate::Recorded(index)
            }
            Err(error) => Fate::Refused(assembly_failed(error)),
        },
    }
}

/// What a checkpoint in a caller's hand says against the head, if anything.
fn went_back(known: &Checkpoint, head: &Head) -> Option<String> {
    let ahead = known.origin == head.origin && known.size > head.size;
    ahead.then(|| format!("a caller holds a checkpoint of size {}, and the store has {}", known.size, head.size))
}

fn append(assembly: &mut Assembly<'_>, entries: &[NewEntry], attached: &Attached) -> Fate {
    assembly.adds.objects.extend(attached.objects.iter().cloned());
    assembly.adds.keys.extend(attached.keys.iter().cloned());
    match entries.iter().map(|entry| assembly.push(entry)).collect() {
        Ok(indexes) => Fate::Appended(indexes),
        Err(error) => Fate::Refused(assembly_failed(error)),
    }
}

fn settle(assembly: &mut Assembly<'_>, settling: &Waiting, ids: &Ids, time: UnixMs) -> Result<(), RecordError> {
    for settled in settling.entries() {
        push(assembly, ids, time, settled.into())?;
    }
    assembly.adds.ended.extend(settling.void.iter().map(|voided| voided.live));
    Ok(())
}

fn sweep(
    assembly: &mut Assembly<'_>,
    transaction: &mut dyn Transaction,
    ids: &Ids,
    time: UnixMs,
) -> Result<(), RecordError> {
    let through = time.plus_millis(-LEEWAY_MS);
    let expired = transaction.expired(through, SWEEP).map_err(unavailable)?;
    let expired: Vec<Live> =
        expired.into_iter().filter(|live| !assembly.adds.ended.contains(live)).collect();
    let whole = expired.len() < SWEEP as usize;
    for chunk in expired.chunks(ENDED_PER_ENTRY) {
        let mut ended: Vec<Index> = chunk.iter().map(|live| live.index).collect();
        ended.sort_unstable();
        let complete = whole && chunk.last() == expired.last();
        let body = CredentialEnded {
            how: EndedHow::Expired,
            ended,
            through_ms: if complete { Some(through) } else { chunk.last().map(|live| before_minute(live.exp)) },
            selector: None,
            reason: None,
            comment: None,
            drill: None,
            ordered: None,
            reach: std::collections::BTreeMap::new(),
        };
        push(assembly, ids, time, body.into())?;
    }
    assembly.adds.ended.extend(expired);
    Ok(())
}

/// Endings come by minute: when one of a minute is named, all of the minutes before it are.
fn before_minute(exp: UnixMs) -> UnixMs {
    UnixMs::new(exp.get().div_euclid(60_000) * 60_000 - 1)
}

fn push(assembly: &mut Assembly<'_>, ids: &Ids, time: UnixMs, body: Body) -> Result<Index, RecordError> {
    let id = ids.draw(time).map_err(|error| RecordError::Unavailable(error.to_string()))?;
    assembly.push(&NewEntry { id, request: None, by: None, body }).map_err(assembly_failed)
}

fn assembly_failed(error: BatchError) -> RecordError {
    RecordError::Unavailable(error.to_string())
}

fn unavailable(error: StoreError) -> RecordError {
    RecordError::Unavailable(error.to_string())
}

/// The runtime state as the store's entries fold to it.
///
/// # Errors
/// When the store fails, or its entries do not fold.
pub fn read_state(reader: &dyn Reader) -> Result<State, StoreError> {
    let mut state = State::empty();
    fold(&mut state, reader, 0)?;
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
    let author = Author { trust_domain: &settings.trust_domain, broker: &settings.broker, key: &settings.key };
    let empty = Head {
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
    let recorded = statements.into_iter().zip(indexes).filter_map(|((what, _), index)| {
        covered.place(index).map(|place| Recorded { what, place })
    });
    Ok(recorded.collect())
}

/// Folds the entries from `from` on into `state`.
fn fold(state: &mut State, reader: &dyn Reader, from: Index) -> Result<(), StoreError> {
    let damaged = |index: Index, error: &dyn std::fmt::Display| StoreError::Damaged(format!("entry {index}: {error}"));
    let bundle = |digest: &Digest| {
        let bytes = reader.object(digest).ok().flatten()?;
        Bundle::from_object(&bytes).ok().map(Arc::new)
    };
    let mut from = from;
    loop {
        let rows = reader.fold_rows(from, 1_000)?;
        let Some(last) = rows.last() else { return Ok(()) };
        from = last.index + 1;
        for row in &rows {
            let entry = Entry::read(&row.bytes).map_err(|error| damaged(row.index, &error))?;
            state
                .apply(row.index, entry.envelope.time, &entry.body, &bundle)
                .map_err(|error| damaged(row.index, &error))?;
        }
    }
}
