//! The log: the only place where a record becomes durable, and so the only maker of [`Recorded`].
//!
//! One writer thread drains a bounded queue in batches; each batch is one transaction, one checkpoint, one sync,
//! and one message with all its answers.

mod alarm;
mod anchor;
mod answer;
mod batch;
mod doubt;
mod error;
mod follow;
mod halt;
mod open;
mod outcome;
mod pace;
mod past;
mod settlement;
mod start;
mod work;
mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption};
use daypass_core::draft::{Draft, Mark};
use daypass_core::state::State;
use daypass_evidence::checkpoint::Checkpoint;
use daypass_evidence::entry::{Index, NewEntry, Reach};
use daypass_evidence::note::VerifierKey;
use daypass_verify::ids::Digest;
use daypass_verify::time::UnixMs;
use ring::signature::Ed25519KeyPair;
use tokio::sync::{mpsc, oneshot, watch};

use crate::signer::Statement;
use crate::store::{Head, Live, SealedKey};
use past::{Past, Proofs};
use work::ENDED_PER_ENTRY;

pub use alarm::{CLOCK, ROLLBACK};
pub use anchor::{Anchor, AnchorError};
pub(crate) use batch::{completed, reads_like_state};
pub use doubt::ClockWatch;
pub use error::RecordError;
pub use halt::Halt;
pub use open::{LogSettings, QUEUE, create, open, read_state};
pub use past::Compared;
pub use settlement::Settlements;
pub use start::{
    StartError, Started, evidence_key_entry, examine_from, examine_start, examine_store, examine_tail,
    examine_watched, verify_store,
};
pub(crate) use start::{begins_with, verify_without_key};

/// What was recorded: proof that an entry naming it is durable. There is no other way to get one than to have
/// the log write it, and it is spent by the one signature that it allows.
#[derive(Debug)]
pub struct Recorded<T> {
    what: T,
    place: Place,
}

/// Where an entry lies, and the proof of it.
#[derive(Debug, Clone)]
pub struct Place {
    /// Its index.
    pub index: Index,
    /// Its time.
    pub time: UnixMs,
    /// Its leaf hash.
    pub leaf: [u8; 32],
    /// The signed checkpoint that covers it.
    pub checkpoint: Arc<[u8]>,
    /// The RFC 6962 path from the leaf to that checkpoint's root.
    pub inclusion: Vec<[u8; 32]>,
    /// The origin of the log.
    pub origin: Arc<str>,
}

impl<T> Recorded<T> {
    /// What was recorded.
    #[must_use]
    pub fn what(&self) -> &T {
        &self.what
    }

    /// Where.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Gives up the permission to sign, and keeps what was recorded.
    #[must_use]
    pub fn into_parts(self) -> (T, Place) {
        (self.what, self.place)
    }
}

/// What became of a draft.
#[derive(Debug)]
pub enum Recording {
    /// It is durable.
    Recorded(Delivery),
    /// The state it was decided under is no longer the newest: decide again.
    Stale,
}

/// A recorded draft on its way to whom it belongs. Whoever does not take it, because the caller is gone by then, leaves
/// a credential that was never signed: it is void.
pub struct Delivery {
    recorded: Option<Box<Recorded<Draft>>>,
    settlements: Arc<Settlements>,
}

impl Delivery {
    fn new(recorded: Recorded<Draft>, settlements: &Arc<Settlements>) -> Self {
        Self { recorded: Some(Box::new(recorded)), settlements: Arc::clone(settlements) }
    }

    /// The recorded draft; none if it was taken before.
    #[must_use]
    pub fn take(mut self) -> Option<Recorded<Draft>> {
        self.recorded.take().map(|recorded| *recorded)
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if let Some(recorded) = self.recorded.take() {
            let live = Live { exp: recorded.what.exp(), index: recorded.place.index };
            self.settlements
                .void(Voided { live, reason: "the caller was gone before the credential was signed".into() });
        }
    }
}

impl std::fmt::Debug for Delivery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Delivery").field("recorded", &self.recorded).finish_non_exhaustive()
    }
}

/// What goes with appended entries.
#[derive(Debug, Default)]
pub struct Attached {
    /// Objects that the entries name by digest.
    pub objects: Vec<(Digest, Vec<u8>)>,
    /// Sealed keys.
    pub keys: Vec<SealedKey>,
    /// The newest state entry that the entries were decided under: where there is a newer one, nothing is written.
    pub if_state: Option<Index>,
    /// What the act spends: where a mark was spent before, nothing is written.
    pub marks: Vec<Mark>,
    /// Credentials that an order ends.
    pub ends: Option<Box<Ends>>,
}

/// Credentials that an order ends, found live before: those that still are, are named by one entry.
#[derive(Debug)]
pub struct Ends {
    /// The entry, without those that it names. It is not written where none is left.
    pub entry: NewEntry,
    /// Which, with the reach of their targets.
    pub live: Vec<(Live, Reach)>,
}

impl Ends {
    /// How many one entry can name within 16 KiB.
    pub const MOST: usize = ENDED_PER_ENTRY;
}

/// What is in force, as of the newest batch.
#[derive(Clone)]
pub struct Published {
    /// The head.
    pub head: Arc<Head>,
    /// The runtime state.
    pub state: Arc<State>,
}

enum Command {
    Record {
        draft: Box<Draft>,
        known: Option<Checkpoint>,
        answer: oneshot::Sender<Result<Recording, RecordError>>,
    },
    Append {
        entries: Vec<NewEntry>,
        attached: Attached,
        answer: oneshot::Sender<Result<Vec<Place>, RecordError>>,
    },
    Sweep,
    Flush,
    Follow(Option<oneshot::Sender<()>>),
}

impl Command {
    /// Whether somebody waits for what becomes of it.
    fn is_waited_for(&self) -> bool {
        matches!(self, Self::Record { .. } | Self::Append { .. })
    }
}

/// A handle to the log; cheap to clone.
#[derive(Clone)]
pub struct Log {
    commands: mpsc::Sender<Command>,
    published: Arc<ArcSwap<Published>>,
    state_at: watch::Sender<Index>,
    settlements: Arc<Settlements>,
    arriving: Arc<AtomicUsize>,
    key: Arc<VerifierKey>,
    fault: Arc<ArcSwapOption<String>>,
    full: Arc<AtomicBool>,
    watch: Arc<ClockWatch>,
    halt: Arc<Halt>,
    stopped: Arc<ArcSwapOption<String>>,
    past: Arc<Past>,
    proofs: Arc<Proofs>,
    signs: Arc<Ed25519KeyPair>,
}

impl Log {
    /// Says that a draft is on its way: while one is, the writer lingers for it.
    #[must_use]
    pub fn arriving(&self) -> Arriving {
        self.arriving.fetch_add(1, Ordering::Relaxed);
        Arriving(Arc::clone(&self.arriving))
    }

    /// Records a draft: on `Recorded` its entry is durable and its marks are spent.
    ///
    /// `known` is the newest checkpoint that the caller holds, already verified, where it was found to be [`Compared::Ahead`].
    ///
    /// # Errors
    /// When nothing was recorded; [`RecordError`] says why.
    pub async fn record(
        &self,
        arriving: Arriving,
        draft: Draft,
        known: Option<Checkpoint>,
    ) -> Result<Recording, RecordError> {
        self.halt.check()?;
        if self.settlements.is_crowded() {
            return Err(RecordError::Overloaded);
        }
        if let Some(why) = self.stopped.load().as_deref() {
            return Err(RecordError::Halted(why.clone()));
        }
        let (answer, recorded) = oneshot::channel();
        let sent = self.send(Command::Record { draft: Box::new(draft), known, answer });
        drop(arriving);
        sent?;
        recorded.await.unwrap_or_else(|_| Err(stopped()))
    }

    /// Appends entries that no credential hangs on, in one transaction, with what they name.
    ///
    /// # Errors
    /// When nothing was written.
    pub async fn append(
        &self,
        entries: Vec<NewEntry>,
        attached: Attached,
    ) -> Result<Vec<Place>, RecordError> {
        let (answer, written) = oneshot::channel();
        self.send(Command::Append { entries, attached, answer })?;
        written.await.unwrap_or_else(|_| Err(stopped()))
    }

    /// Records what a key is to sign beside credentials: on return its entry is durable.
    ///
    /// # Errors
    /// When nothing was written.
    pub async fn record_statement(
        &self,
        statement: Statement,
        entry: NewEntry,
        attached: Attached,
    ) -> Result<Recorded<Statement>, RecordError> {
        let places = self.append(vec![entry], attached).await?;
        let place = places.into_iter().next().ok_or_else(stopped)?;
        Ok(Recorded { what: statement, place })
    }

    /// What became of a recorded credential; written with the next batch, or within 100 ms.
    pub fn settlements(&self) -> &Settlements {
        &self.settlements
    }

    /// Asks the writer to end what expired.
    pub fn sweep(&self) {
        drop(self.send(Command::Sweep));
    }

    /// Asks the writer to write settlements that wait.
    pub fn flush(&self) {
        if !self.settlements.is_empty() {
            drop(self.send(Command::Flush));
        }
    }

    /// Asks the writer to take over what other brokers wrote.
    pub fn follow(&self) {
        drop(self.send(Command::Follow(None)));
    }

    /// What is in force, as of `size` entries or more, where the store has as many: others may have written them.
    pub async fn published_at(&self, size: u64) -> Arc<Published> {
        if self.published.load().head.size < size {
            let (answer, followed) = oneshot::channel();
            if self.send(Command::Follow(Some(answer))).is_ok() {
                // Without an answer the writer is gone, and what was published last stands.
                drop(followed.await);
            }
        }
        self.published()
    }

    /// Tells of each change of the runtime state, by whichever broker: the index of the entry that made it.
    #[must_use]
    pub fn state_changes(&self) -> watch::Receiver<Index> {
        self.state_at.subscribe()
    }

    /// What is in force.
    #[must_use]
    pub fn published(&self) -> Arc<Published> {
        self.published.load_full()
    }

    /// The runtime state in force.
    #[must_use]
    pub fn state(&self) -> Arc<State> {
        Arc::clone(&self.published.load().state)
    }

    /// Why nothing is issued, or why the newest batch could not be written; none when all is well.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        self.stopped.load().as_deref().or(self.fault.load().as_deref()).cloned()
    }

    /// Whether there was no room, as of the newest batch, but what is kept for what must be written.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    /// Records no draft any more until the process ends: endings, alarms and revocations are still written.
    pub fn stop_issuing(&self, why: &str) {
        self.stopped.store(Some(Arc::new(why.to_owned())));
    }

    /// This broker's stop switch.
    #[must_use]
    pub fn halt(&self) -> &Halt {
        &self.halt
    }

    /// The watch on this broker's clock.
    #[must_use]
    pub fn watch(&self) -> &ClockWatch {
        &self.watch
    }

    /// The key that verifies this log's checkpoints.
    #[must_use]
    pub fn key(&self) -> &VerifierKey {
        &self.key
    }

    fn send(&self, command: Command) -> Result<(), RecordError> {
        self.commands.try_send(command).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => RecordError::Overloaded,
            mpsc::error::TrySendError::Closed(_) => stopped(),
        })
    }
}

/// A draft that is on its way to the log, until this is dropped.
pub struct Arriving(Arc<AtomicUsize>);

impl Drop for Arriving {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn stopped() -> RecordError {
    RecordError::Halted("it is stopping".into())
}

/// The end of a credential that was recorded and never left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Voided {
    /// Which.
    pub live: Live,
    /// Why.
    pub reason: String,
}
