//! The turn from one log to the next, in the same store: both heads move in one transaction. Marks, keys, objects and
//! what lives stay where they are; what the state is folded from is written again, so that each log stands alone.

use std::sync::Arc;

use daypass_core::state::State;
use daypass_evidence::entry::{Body, Entry, Index, LogClosed, LogOpened, OpenReason, Predecessor};
use daypass_evidence::note::VerifierKey;
use daypass_evidence::tree::Frontier;
use daypass_verify::ids::{CredentialId, Digest};
use daypass_verify::time::UnixMs;

use super::batch::{Assembly, Author};
use super::carry;
use super::outcome::Miss;
use super::settlement::Waiting;
use super::work::{assembly_failed, push, settle, sweep, unavailable};
use super::writer::{ATTEMPTS, Writer};
use super::{Published, RecordError};
use crate::ids::Ids;
use crate::init::shard;
use crate::store::{Head, Live, PREDECESSOR, Reader, StoreError, Turn, base, place};

/// For so long after a loss the log is not closed: it says from when on proofs are believed.
const AFTER_A_LOSS_MS: i64 = 86_400_000;

/// The logs before the one that is written, in the same store and before that.
pub struct Shards {
    closed: Vec<Head>,
    /// The one before all in this store, and those of which more was alive when it was lost.
    before: Vec<String>,
    ids: Arc<Ids>,
}

impl Shards {
    pub(crate) fn of(reader: &dyn Reader, ids: Arc<Ids>) -> Result<Self, StoreError> {
        let closed = reader.closed()?;
        let first = reader.entry_at(base(0))?.and_then(|row| Entry::read(&row.bytes).ok());
        let before = match first.map(|entry| entry.body) {
            Some(Body::LogOpened(opened)) => {
                opened.predecessor.map(|before| before.origin).into_iter().chain(opened.earlier).collect()
            }
            _ => Vec::new(),
        };
        Ok(Self { closed, before, ids })
    }

    /// The origin of the log in which what lies in `shard` was issued; none where that is the own one.
    pub(crate) fn log_of(&self, shard: Index, own: u32) -> Option<String> {
        if shard == Index::from(own) {
            return None;
        }
        let at = |shard: Index| usize::try_from(shard).unwrap_or(usize::MAX);
        match shard.checked_sub(place(PREDECESSOR).0) {
            Some(before) => self.before.get(at(before)).cloned(),
            None => self.closed.get(at(shard)).map(|head| head.origin.clone()),
        }
    }

    /// The head that a closed log was left with.
    pub(super) fn closed(&self, origin: &str) -> Option<&Head> {
        self.closed.iter().find(|head| head.origin == origin)
    }

    /// An id as of the same time as `other`.
    pub(super) fn draw_beside(&self, other: &CredentialId) -> Option<CredentialId> {
        self.ids.draw(other.drawn_at()).ok()
    }
}

/// When a log is closed, and another opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turns {
    /// With the half-year, as a deployment's logs always are: only a test's clock may go through months in one log.
    pub half_years: bool,
    /// At so many entries; 0: at none.
    pub entries: u64,
}

/// The origin of the log that is to follow the one that is written. None where it goes on.
#[must_use]
pub fn next_origin(published: &Published, now: UnixMs, turns: Turns) -> Option<String> {
    let head = &published.head;
    let (family, name) = head.origin.rsplit_once('/')?;
    let lost = published.state.proofs_from();
    if lost.is_some_and(|from| now.millis_since(from) < AFTER_A_LOSS_MS) {
        return None;
    }
    let half_year = shard(now);
    if turns.half_years && half_year.as_str() > name.get(..half_year.len()).unwrap_or(name) {
        return Some(format!("{family}/{half_year}"));
    }
    let numbered = name.rsplit_once('-').and_then(|(name, number)| Some((name, number.parse::<u64>().ok()?)));
    let (name, number) = numbered.unwrap_or((name, 1));
    (turns.entries > 0 && head.size >= turns.entries).then(|| format!("{family}/{name}-{}", number + 1))
}

/// The origin of the log of the half-year that follows that of `origin`.
#[must_use]
pub fn next_half_year(origin: &str) -> Option<String> {
    let (family, name) = origin.rsplit_once('/')?;
    let (year, half) = name.get(..6)?.split_once('h')?;
    let year: u32 = year.parse().ok()?;
    Some(if half == "1" { format!("{family}/{year}h2") } else { format!("{family}/{}h1", year + 1) })
}

impl Writer {
    /// Closes this log and opens `origin`, whatever others write meanwhile. Nothing is written after it.
    pub(super) fn turn(&mut self, origin: &str) -> Result<(), RecordError> {
        if let Some(why) = self.halt.broken() {
            return Err(RecordError::clone(&why));
        }
        self.resolve_earlier()?;
        let mut settling = self.settlements.take();
        for _ in 0..ATTEMPTS {
            let missed = match self.attempt_turn(origin, &mut settling) {
                Ok(()) => {
                    self.halt_if_fatal(&RecordError::Turned);
                    return Ok(());
                }
                Err(Miss::Moved) => self.follower.catch_up().err(),
                Err(Miss::Refused(error)) => Some(error),
            };
            if let Some(error) = missed {
                self.halt_if_fatal(&error);
                self.keep(settling);
                return Err(error);
            }
        }
        self.keep(settling);
        Err(RecordError::Unavailable("other brokers moved the head of the log each time".into()))
    }

    fn attempt_turn(&mut self, origin: &str, settling: &mut Waiting) -> Result<(), Miss> {
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
        let ids = Arc::clone(&self.settings.ids);
        let author = Author {
            trust_domain: &self.settings.trust_domain,
            broker: &self.settings.broker,
            key: &self.settings.key,
        };
        let mut last = Assembly::new(&author, &head, time).map_err(assembly_failed)?;
        settle(&mut last, transaction.as_mut(), settling, &ids, time, &self.shards)?;
        // As before any entry: none may come long after endings that were due.
        if !self.watch.holds_endings() && !sweep(&mut last, transaction.as_mut(), &ids, time, &self.shards)? {
            return Err(RecordError::Unavailable("more expired than ends with one batch".into()).into());
        }
        let live = live_after(self.follower.reader.as_ref(), &last)?;
        push(&mut last, &ids, time, LogClosed { successor: origin.to_owned(), live }.into())?;
        let mut closed = last.finish().map_err(assembly_failed)?;

        let next = Head {
            shard: head.shard + 1,
            origin: origin.to_owned(),
            size: 0,
            state: 0,
            time,
            frontier: Vec::new(),
            checkpoint: Vec::new(),
        };
        let mut first = Assembly::new(&author, &next, time).map_err(assembly_failed)?;
        let state = Arc::clone(&self.follower.newest().state);
        for body in opening(&state, &closed.head, origin, author.key, time)? {
            push(&mut first, &ids, time, body)?;
        }
        let opened = first.finish().map_err(assembly_failed)?;
        closed.adds.turn = Some(Box::new(Turn {
            closed: closed.head.clone(),
            rows: opened.adds.rows,
            subtrees: opened.adds.subtrees,
        }));
        let committed = transaction.commit(&closed.adds, &opened.head);
        self.conclude(committed, &closed)?;
        if let Some(anchor) = &mut self.settings.anchor
            && let Err(error) = anchor.write(&opened.head.checkpoint)
        {
            tracing::error!(%error, "the anchor file could not be written");
        }
        tracing::info!(closed = closed.head.origin, opened = origin, "the log goes on in another shard");
        Ok(())
    }
}

/// How many of this log live once what is assembled is written. The lock is held: what a reader counts is what there
/// is, but for what this transaction ends.
fn live_after(reader: &dyn Reader, last: &Assembly<'_>) -> Result<u64, RecordError> {
    let own = |live: &&Live| place(live.index).0 == Index::from(last.shard());
    let ended = last.adds.ended.iter().filter(own).count() as u64;
    Ok(reader.live_here().map_err(unavailable)?.saturating_sub(ended))
}

/// The first entries of the log that follows `closed`: where it goes on, its keys, and all that holds.
fn opening(
    state: &State,
    closed: &Head,
    origin: &str,
    key: &ring::signature::Ed25519KeyPair,
    now: UnixMs,
) -> Result<Vec<Body>, RecordError> {
    let failed = |error: &dyn std::fmt::Display| RecordError::Unavailable(error.to_string());
    let root =
        Frontier::from_parts(closed.size, closed.frontier.clone()).map_err(|error| failed(&error))?.root();
    let opened = LogOpened {
        origin: origin.to_owned(),
        key: VerifierKey::of(origin, key).map_err(|error| failed(&error))?.to_string(),
        reason: OpenReason::Period,
        predecessor: Some(Predecessor {
            origin: closed.origin.clone(),
            size: closed.size,
            root: Digest::from_bytes(root),
        }),
        gap: None,
        earlier: Vec::new(),
    };
    let mut bodies = vec![Body::from(opened)];
    bodies.extend(carry::keys(now, state).into_iter().map(Body::from));
    bodies.extend(carry::carried(now, state).1);
    Ok(bodies)
}
