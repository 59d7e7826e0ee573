//! The writer: a thread that drains the queue, one transaction a batch.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use daypass_core::state::State;
use daypass_evidence::checkpoint::Checkpoint;
use daypass_evidence::entry::Index;
use daypass_evidence::note::VerifierKey;
use daypass_evidence::tree::Frontier;
use daypass_verify::time::UnixMs;
use tokio::sync::mpsc;

use super::answer::{Answer, Covered, answer, refused};
use super::batch::{Assembled, Assembly, Author};
use super::open::{LogSettings, fold};
use super::pace::Pace;
use super::settlement::Waiting;
use super::work::{Fate, append, assembly_failed, record_all, settle, sweep, unavailable};
use super::{Command, Published, RecordError, Settlements, Voided};
use crate::store::{Head, Live, Reader, Store, StoreError};
use crate::telemetry;

/// How many commands one batch takes at most.
const BATCH: usize = 512;

/// How long the writer lingers for company: at least, where company is expected; for as long as no two follow each
/// other further apart than `QUIET`; and at most. It looks every `LINGER_STEP`.
const LINGER: Duration = Duration::from_micros(400);
const QUIET: Duration = Duration::from_micros(200);
const LINGER_MAX: Duration = Duration::from_millis(2);
const LINGER_STEP: Duration = Duration::from_micros(50);

/// How much time may pass between entries before what expired is ended with the next, whether a sweep is due or not.
const SWEEP_AT_LEAST_MS: i64 = 30_000;

/// How long the outcome of a commit is asked for.
const RESOLVE: Duration = Duration::from_secs(2);

pub(super) struct Writer {
    pub(super) store: Box<dyn Store>,
    pub(super) reader: Box<dyn Reader>,
    pub(super) settings: LogSettings,
    pub(super) queue: mpsc::Receiver<Command>,
    pub(super) answers: mpsc::Sender<Vec<Answer>>,
    pub(super) published: Arc<ArcSwap<Published>>,
    pub(super) settlements: Arc<Settlements>,
    pub(super) arriving: Arc<AtomicUsize>,
    pub(super) key: Arc<VerifierKey>,
    pub(super) fault: Arc<ArcSwapOption<String>>,
    pub(super) unresolved: Option<Unresolved>,
    pub(super) halted: Option<RecordError>,
    pub(super) pace: Pace,
    /// How many commands came together lately: the writer lingers for as many, so that one alone never waits.
    pub(super) expected: usize,
    pub(super) swept: Option<UnixMs>,
}

/// A batch whose commit has an unknown outcome, and whose callers were told that nothing was recorded.
pub(super) struct Unresolved {
    last: (Index, [u8; 32]),
    born: Vec<Live>,
    settling: Option<Waiting>,
}

impl Writer {
    pub(super) fn run(mut self) {
        while let Some(first) = self.queue.blocking_recv() {
            let commands = self.gather(first);
            let idle = !commands.iter().any(Command::is_waited_for);
            let answers = self.write(commands);
            if self.answers.blocking_send(answers).is_err() {
                return;
            }
            if idle && self.queue.is_empty() {
                self.store.rest();
            }
        }
    }

    /// Takes all that wait, and lingers while as many as came lately are still on their way.
    fn gather(&mut self, first: Command) -> Vec<Command> {
        let mut commands = vec![first];
        let began = Instant::now();
        let mut newest = began;
        loop {
            let before = commands.len();
            while commands.len() < BATCH {
                match self.queue.try_recv() {
                    Ok(command) => commands.push(command),
                    Err(_) => break,
                }
            }
            let now = Instant::now();
            if commands.len() > before {
                newest = now;
            }
            let company = commands.len() < self.expected || self.arriving.load(Ordering::Relaxed) > 0;
            let coming = now - began < LINGER || (now - newest < QUIET && now - began < LINGER_MAX);
            if !company || !coming || commands.len() >= BATCH {
                self.expected = usize::midpoint(self.expected, commands.len());
                return commands;
            }
            thread::sleep(LINGER_STEP);
        }
    }

    fn write(&mut self, commands: Vec<Command>) -> Vec<Answer> {
        let mut settling = self.settlements.take();
        let began = Instant::now();
        match self.attempt(&commands, &mut settling) {
            Ok((fates, assembled)) => {
                self.halted = fates.iter().find_map(Fate::halts);
                if self.fault.load().is_some() {
                    self.fault.store(None);
                }
                // What made them stale may be another broker's: it is decided again under what the store holds.
                if fates.iter().any(Fate::is_stale) {
                    self.publish();
                }
                metrics::histogram!(telemetry::BATCH_ENTRIES).record(fates.len() as f64);
                metrics::histogram!(telemetry::COMMIT_SECONDS).record(began.elapsed().as_secs_f64());
                self.answer(commands, fates, assembled)
            }
            Err(error) => {
                tracing::error!(%error, "a batch was not written");
                self.fault.store(Some(Arc::new(error.to_string())));
                self.keep(settling);
                self.swept = None;
                commands.into_iter().filter_map(|command| refused(command, &error)).collect()
            }
        }
    }

    /// What was not settled is settled later, unless it may be in the store already.
    fn keep(&mut self, settling: Waiting) {
        match self.unresolved.as_mut().filter(|unresolved| unresolved.settling.is_none()) {
            Some(unresolved) => unresolved.settling = Some(settling),
            None => self.settlements.put_back(settling),
        }
    }

    /// One transaction. On an error nothing is in the store, or `unresolved` remembers what may be.
    fn attempt(
        &mut self,
        commands: &[Command],
        settling: &mut Waiting,
    ) -> Result<(Vec<Fate>, Option<Assembled>), RecordError> {
        if let Some(why) = &self.halted {
            return Err(why.clone());
        }
        self.resolve_earlier()?;
        let now = Pace::new(self.settings.clock.now(), self.settings.clock.boot_ms());
        let mut transaction = self.store.begin().map_err(unavailable)?;
        let head = transaction.head().clone();
        let newest = self.published.load();
        check_head(&head, &newest.head, &self.key)?;
        let time = self.pace.entry_time(now, head.time)?;
        let author = Author {
            trust_domain: &self.settings.trust_domain,
            broker: &self.settings.broker,
            key: &self.settings.key,
        };
        let mut assembly = Assembly::new(&author, &head, time).map_err(assembly_failed)?;
        settle(&mut assembly, transaction.as_mut(), settling, &self.settings.ids, time)?;
        let mut fates = record_all(&mut assembly, transaction.as_mut(), commands, time)?;
        for (command, fate) in commands.iter().zip(&mut fates) {
            if let Command::Append { entries, attached, .. } = command {
                *fate = append(&mut assembly, transaction.as_mut(), entries, attached)?;
            }
        }
        // No entry may come long after endings that were due: a log that ends so does not verify.
        let due = self.swept.is_none_or(|swept| time.millis_since(swept) >= SWEEP_AT_LEAST_MS);
        if due || commands.iter().any(|command| matches!(command, Command::Sweep)) {
            let whole = sweep(&mut assembly, transaction.as_mut(), &self.settings.ids, time)?;
            self.swept = Some(time).filter(|_| whole);
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
    fn conclude(
        &mut self,
        committed: Result<(), StoreError>,
        assembled: &Assembled,
    ) -> Result<(), RecordError> {
        match committed {
            Ok(()) => Ok(()),
            Err(StoreError::Unknown(detail)) => {
                let last = assembled.adds.rows.last().map(|row| (row.index, row.leaf));
                match last.map(|last| self.ask_head(last)) {
                    Some(Some(true)) => Ok(()),
                    Some(Some(false)) => Err(RecordError::Unavailable(detail)),
                    _ => {
                        let born = assembled.adds.born.clone();
                        self.unresolved = last.map(|last| Unresolved { last, born, settling: None });
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
            Some(false) => {
                self.settlements.put_back(unresolved.settling.unwrap_or_default());
                Ok(())
            }
            Some(true) => {
                self.publish();
                for live in unresolved.born {
                    self.settlements.void(Voided {
                        live,
                        reason: "the outcome of the commit was not known in time".into(),
                    });
                }
                Ok(())
            }
            None => {
                self.unresolved = Some(unresolved);
                Err(RecordError::Unavailable("the outcome of an earlier commit is not known yet".into()))
            }
        }
    }

    fn answer(
        &mut self,
        commands: Vec<Command>,
        fates: Vec<Fate>,
        assembled: Option<Assembled>,
    ) -> Vec<Answer> {
        let covered = assembled.map(|assembled| self.take_effect(assembled));
        let pairs = commands.into_iter().zip(fates);
        pairs
            .filter_map(|(command, fate)| answer(command, fate, covered.as_ref(), &self.settlements))
            .collect()
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
        metrics::gauge!(telemetry::LOG_ENTRIES).set(head.size as f64);
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
    let frontier = Frontier::from_parts(head.size, head.frontier.clone());
    match frontier {
        Ok(frontier) if frontier.size() == checkpoint.size && frontier.root() == checkpoint.root => Ok(()),
        _ => Err(RecordError::Rollback("its frontier does not lead to the root that was signed".into())),
    }
}
