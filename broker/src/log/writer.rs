//! The writer: a thread that drains the queue, one transaction a batch.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use daypass_verify::time::UnixMs;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TryRecvError;
use tokio_util::sync::CancellationToken;

use super::answer::{Answer, Covered, answer};
use super::batch::{Assembled, Assembly, Author};
use super::doubt::ClockWatch;
use super::follow::Follower;
use super::open::LogSettings;
use super::outcome::{Miss, Unresolved};
use super::settlement::Waiting;
use super::turn::Shards;
use super::work::{Fate, Ground, append, assembly_failed, record_all, settle, sweep, unavailable};
use super::{Command, Halt, RecordError, Settlements};
use crate::store::Store;
use crate::telemetry;

/// How many commands one batch takes at most.
const BATCH: usize = 512;

/// How long the writer lingers for company: at least, where company is expected; for as long as no two follow each
/// other further apart than `QUIET`; and at most. It looks every `LINGER_STEP`.
const LINGER: Duration = Duration::from_micros(400);
const QUIET: Duration = Duration::from_micros(200);
const LINGER_MAX: Duration = Duration::from_millis(2);
const LINGER_STEP: Duration = Duration::from_micros(50);

/// After how many batches in a row that nobody waited for, one at least in 100 ms, the store may rest.
const REST_AFTER: u32 = 10;

/// How much time may pass between entries before what expired is ended with the next, whether a sweep is due or not.
const SWEEP_AT_LEAST_MS: i64 = 30_000;

/// How often a batch is tried again under a head that others moved meanwhile.
pub(super) const ATTEMPTS: u32 = 4;

pub(super) struct Writer {
    pub(super) store: Box<dyn Store>,
    pub(super) follower: Follower,
    pub(super) settings: LogSettings,
    pub(super) queue: mpsc::Receiver<Command>,
    pub(super) answers: mpsc::Sender<Vec<Answer>>,
    pub(super) settlements: Arc<Settlements>,
    pub(super) arriving: Arc<AtomicUsize>,
    pub(super) fault: Arc<ArcSwapOption<String>>,
    pub(super) full: Arc<AtomicBool>,
    pub(super) unresolved: Option<Unresolved>,
    pub(super) halt: Arc<Halt>,
    pub(super) watch: Arc<ClockWatch>,
    /// How many commands came together lately: the writer lingers for as many, so that one alone never waits.
    pub(super) expected: usize,
    pub(super) swept: Option<UnixMs>,
    /// Whether more has expired than the newest batch ended.
    pub(super) sweeping: bool,
    /// The logs before this one.
    pub(super) shards: Arc<Shards>,
    /// Ends once the log is closed.
    pub(super) over: CancellationToken,
}

impl Writer {
    pub(super) fn run(mut self) {
        let mut unhurried = 0_u32;
        while let Some(first) = self.next() {
            let commands = self.gather(first);
            let idle = !commands.iter().any(Command::is_waited_for);
            let answers = self.write(commands);
            if self.answers.blocking_send(answers).is_err() {
                return;
            }
            unhurried = if idle { unhurried.saturating_add(1) } else { 0 };
            if unhurried >= REST_AFTER && !self.sweeping && self.queue.is_empty() {
                self.store.rest();
            }
        }
    }

    /// The next command. While more has expired than one batch ends, nobody needs to ask for the rest.
    fn next(&mut self) -> Option<Command> {
        if !self.sweeping {
            return self.queue.blocking_recv();
        }
        match self.queue.try_recv() {
            Err(TryRecvError::Empty) => Some(Command::Sweep),
            next => next.ok(),
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

    fn write(&mut self, mut commands: Vec<Command>) -> Vec<Answer> {
        let following = commands.extract_if(.., |command| matches!(command, Command::Follow(_))).collect();
        let turns: Vec<Command> = commands.extract_if(.., |it| matches!(it, Command::Turn { .. })).collect();
        let answers = if commands.is_empty() { Vec::new() } else { self.write_all(commands) };
        self.follow(following);
        for command in turns {
            if let Command::Turn { origin, answer } = command {
                let _unheard = answer.send(self.turn(&origin));
            }
        }
        answers
    }

    /// Takes over what others wrote, for those who wait to read it.
    fn follow(&mut self, following: Vec<Command>) {
        if following.is_empty() || self.halt.broken().is_some() {
            return;
        }
        if let Err(error) = self.follower.catch_up() {
            tracing::warn!(%error, "what other brokers wrote could not be taken over");
            self.halt_if_fatal(&error);
        }
        for command in following {
            if let Command::Follow(Some(answer)) = command {
                let _ = answer.send(());
            }
        }
    }

    fn write_all(&mut self, commands: Vec<Command>) -> Vec<Answer> {
        let mut settling = self.settlements.take();
        let began = Instant::now();
        match self.attempt_until_head_stands(&commands, &mut settling) {
            Ok((fates, assembled)) => {
                self.keep_callers_proof(&commands, &fates);
                match fates.iter().find_map(Fate::halts) {
                    Some(error) => self.halt_if_fatal(&error),
                    None if self.fault.load().is_some() => self.fault.store(None),
                    None => {}
                }
                metrics::histogram!(telemetry::BATCH_ENTRIES).record(fates.len() as f64);
                let stale = fates.iter().filter(|fate| matches!(fate, Fate::Stale)).count();
                metrics::counter!(telemetry::STALE_DRAFTS).increment(stale as u64);
                metrics::histogram!(telemetry::COMMIT_SECONDS).record(began.elapsed().as_secs_f64());
                self.answer(commands, fates, assembled)
            }
            Err(error) => {
                tracing::error!(%error, "a batch was not written");
                self.fault.store(Some(Arc::new(error.to_string())));
                self.halt_if_fatal(&error);
                self.keep(settling);
                self.swept = None;
                self.refuse(commands, &error)
            }
        }
    }

    /// The checkpoint of a caller that excludes our head. Signing it again gives the very note that the caller showed:
    /// Ed25519 has one signature, and it was verified to be ours.
    fn keep_callers_proof(&self, commands: &[Command], fates: &[Fate]) {
        for (command, fate) in commands.iter().zip(fates) {
            if let (
                Command::Record { known: Some(known), .. },
                Fate::Refused(error @ RecordError::SplitView(_)),
            ) = (command, fate)
                && let Ok(note) = known.sign(&self.settings.key)
            {
                tracing::error!(%error, "a caller holds a checkpoint that excludes this log");
                self.follower.proofs.keep(&self.follower.newest().head.checkpoint, note.as_bytes());
            }
        }
    }

    /// A log that is not the one that was seen must not be written any further, nor under another's name.
    pub(super) fn halt_if_fatal(&mut self, error: &RecordError) {
        if *error == RecordError::Turned {
            self.over.cancel();
        }
        if error.is_fatal() {
            self.fault.store(Some(Arc::new(error.to_string())));
            self.halt.break_off(error);
        }
    }

    /// What was not settled is settled later, unless it may be in the store already.
    pub(super) fn keep(&mut self, settling: Waiting) {
        match self.unresolved.as_mut().filter(|unresolved| unresolved.settling.is_none()) {
            Some(unresolved) => unresolved.settling = Some(settling),
            None => self.settlements.put_back(settling),
        }
    }

    /// Nothing was written where the head moved: what others wrote is taken over, and the same commands are tried
    /// under the new head.
    fn attempt_until_head_stands(
        &mut self,
        commands: &[Command],
        settling: &mut Waiting,
    ) -> Result<(Vec<Fate>, Option<Assembled>), RecordError> {
        if let Some(why) = self.halt.broken() {
            return Err(RecordError::clone(&why));
        }
        self.resolve_earlier()?;
        for _ in 0..ATTEMPTS {
            let room = self.store.has_room();
            self.full.store(!room, Ordering::Relaxed);
            match self.attempt(commands, settling, room) {
                Ok(done) => return Ok(done),
                // What must be written is written into the room that was kept for it.
                Err(Miss::Refused(_)) if room && self.unresolved.is_none() && !self.store.has_room() => {}
                Err(Miss::Refused(error)) => return Err(error),
                Err(Miss::Moved) => {
                    self.swept = None;
                    self.follower.catch_up()?;
                }
            }
        }
        Err(RecordError::Unavailable("other brokers moved the head of the log each time".into()))
    }

    /// One transaction. On an error nothing is in the store, or `unresolved` remembers what may be.
    fn attempt(
        &mut self,
        commands: &[Command],
        settling: &mut Waiting,
        room: bool,
    ) -> Result<(Vec<Fate>, Option<Assembled>), Miss> {
        self.sweeping = false;
        let mut transaction = self.store.begin().map_err(unavailable)?;
        let head = transaction.head().clone();
        if head.shard != self.follower.newest().head.shard {
            return Err(RecordError::Turned.into());
        }
        if self.follower.is_far_behind(&head) {
            return Err(Miss::Moved);
        }
        self.follower.take_over(&head)?;
        let time = self.watch.entry_time(head.time, transaction.store_time())?;
        let author = Author {
            trust_domain: &self.settings.trust_domain,
            broker: &self.settings.broker,
            key: &self.settings.key,
        };
        let mut assembly = Assembly::new(&author, &head, time).map_err(assembly_failed)?;
        settle(&mut assembly, transaction.as_mut(), settling, &self.settings.ids, time, &self.shards)?;
        let state = Arc::clone(&self.follower.newest().state);
        let ground = Ground {
            state: &state,
            ids: &self.settings.ids,
            time,
            room,
            past: &self.follower.past,
            shards: &self.shards,
        };
        let mut fates = record_all(&mut assembly, transaction.as_mut(), commands, &ground)?;
        for (command, fate) in commands.iter().zip(&mut fates) {
            if let Command::Append { entries, attached, .. } = command {
                *fate = append(&mut assembly, transaction.as_mut(), entries, attached, room, &self.shards)?;
            }
        }
        // No entry may come long after endings that were due: a log that ends so does not verify.
        let due = self.swept.is_none_or(|swept| time.millis_since(swept) >= SWEEP_AT_LEAST_MS);
        let asked = due || commands.iter().any(|command| matches!(command, Command::Sweep));
        if asked && !self.watch.holds_endings() {
            let (ids, shards) = (&self.settings.ids, &self.shards);
            let whole = sweep(&mut assembly, transaction.as_mut(), ids, time, shards)?;
            self.watch.swept(whole);
            self.swept = Some(time).filter(|_| whole);
            self.sweeping = !whole;
        }
        if assembly.is_empty() {
            return Ok((fates, None));
        }
        let assembled = assembly.finish().map_err(assembly_failed)?;
        let committed = transaction.commit(&assembled.adds, &assembled.head);
        self.conclude(committed, &assembled)?;
        Ok((fates, Some(assembled)))
    }

    pub(super) fn answer(
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
        if let Err(error) = self.follower.take_own(head, &adds.rows) {
            tracing::error!(%error, "the state could not be folded");
        }
        covered
    }
}
