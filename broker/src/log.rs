//! The log: the only place where a record becomes durable, and so the only maker of [`Recorded`].
//!
//! One writer thread drains a bounded queue in batches; each batch is one transaction, one checkpoint, one sync,
//! and one message with all its answers.

mod alarm;
mod anchor;
mod answer;
mod arriving;
mod batch;
mod carry;
mod command;
mod doubt;
mod error;
mod follow;
mod halt;
mod open;
mod outcome;
mod pace;
mod past;
mod revocations;
mod settlement;
mod start;
mod turn;
mod work;
mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption};
use daypass_core::draft::Draft;
use daypass_core::state::State;
use daypass_evidence::checkpoint::Checkpoint;
use daypass_evidence::entry::{Index, NewEntry};
use daypass_evidence::note::VerifierKey;
use daypass_verify::time::UnixMs;
use ring::signature::Ed25519KeyPair;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::signer::Statement;
use crate::store::{Head, Live, base};
use past::{Past, Proofs};

pub use alarm::{CLOCK, ROLLBACK};
pub use anchor::{Anchor, AnchorError};
pub use arriving::Arriving;
pub(crate) use batch::{completed, reads_like_state};
pub use carry::Carried;
pub(crate) use carry::{COMPROMISE_OVER_MS, carried};
use command::Command;
pub use command::{Attached, Ends};
pub use doubt::ClockWatch;
pub use error::RecordError;
pub(crate) use follow::ends_by_order;
pub use halt::Halt;
pub use open::{LogSettings, QUEUE, create, open, read_state};
pub use past::Compared;
pub use revocations::Revocations;
pub use settlement::{Settlements, Unsettled, Voided};
pub use start::{
    StartError, Started, evidence_key_entry, examine_from, examine_start, examine_store, examine_tail,
    examine_watched, verify_store,
};
pub(crate) use start::{begins_with, verify_without_key};
pub use turn::{Shards, Turns, next_half_year, next_origin};

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
    /// Which of the logs in the store.
    pub shard: u32,
}

impl Place {
    /// What lives from here until `exp`.
    #[must_use]
    pub fn live(&self, exp: UnixMs) -> Live {
        Live { exp, index: base(self.shard) + self.index }
    }
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
            let live = recorded.place.live(recorded.what.exp());
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

/// What is in force, as of the newest batch.
#[derive(Clone)]
pub struct Published {
    /// The head.
    pub head: Arc<Head>,
    /// The runtime state.
    pub state: Arc<State>,
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
    over: CancellationToken,
    shards: Arc<Shards>,
    revocations: Arc<Revocations>,
}

impl Log {
    /// Says that a draft is on its way: while one is, the writer lingers for it.
    #[must_use]
    pub fn arriving(&self) -> Arriving {
        Arriving::new(&self.arriving)
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

    /// Closes this log, and opens the one that follows it in the same store, in one transaction. Nothing more is written
    /// here then, by any broker.
    ///
    /// # Errors
    /// When the log goes on as it is, or another broker closed it.
    pub async fn turn(&self, origin: String) -> Result<(), RecordError> {
        let (answer, turned) = oneshot::channel();
        self.send(Command::Turn { origin, answer })?;
        turned.await.unwrap_or_else(|_| Err(stopped()))
    }

    /// Ends once this log is closed, by whichever broker: whoever serves it starts again.
    #[must_use]
    pub fn over(&self) -> &CancellationToken {
        &self.over
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

    /// Where entries lie that revoke, as they come.
    #[must_use]
    pub fn revocations(&self) -> &Revocations {
        &self.revocations
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
        let broken = self.halt.broken().map(|why| why.to_string());
        broken.or_else(|| self.stopped.load().as_deref().or(self.fault.load().as_deref()).cloned())
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

    /// Whether no draft is recorded any more until the process ends.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.stopped.load().is_some()
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

fn stopped() -> RecordError {
    RecordError::Halted("it is stopping".into())
}
