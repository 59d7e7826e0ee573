//! One batch, assembled in memory: entries to bytes, bytes to leaves, leaves to the next head. Pure.

use daypass_evidence::canonical::CanonicalError;
use daypass_evidence::checkpoint::{Checkpoint, CheckpointError};
use daypass_evidence::entry::{Body, Entry, Index, NewEntry, kind_changes_state};
use daypass_evidence::tree::{self, Frontier, FrontierError};
use daypass_verify::ids::{Name, TrustDomain};
use daypass_verify::time::UnixMs;
use ring::signature::Ed25519KeyPair;

use crate::store::{self, Head, Row};

/// The levels whose perfect subtrees are kept: 256, 65,536, 2^24 and 2^32 leaves.
const KEPT_LEVELS: [u8; 4] = [8, 16, 24, 32];

/// Why a batch could not be made.
#[derive(Debug, thiserror::Error)]
pub(super) enum BatchError {
    #[error("an entry cannot be written: {0}")]
    Entry(#[from] CanonicalError),
    #[error("the head cannot be: {0}")]
    Frontier(#[from] FrontierError),
    #[error("the checkpoint could not be signed: {0}")]
    Checkpoint(#[from] CheckpointError),
}

/// Who writes, into which log, at what time.
pub(super) struct Author<'a> {
    pub(super) trust_domain: &'a TrustDomain,
    pub(super) broker: &'a Name,
    pub(super) key: &'a Ed25519KeyPair,
}

/// Whether the fold of the runtime state reads an entry.
pub(super) fn folds(body: &Body) -> bool {
    body.changes_state()
        || matches!(
            body,
            Body::RegistryChanged(_) | Body::BrokerStarted(_) | Body::BrokerStopped(_) | Body::Alarm(_)
        )
}

/// The same by the name of its kind.
pub(super) fn kind_folds(kind: &str) -> bool {
    kind_changes_state(kind)
        || matches!(kind, "registry.changed" | "broker.started" | "broker.stopped" | "alarm")
}

/// The same of an entry's bytes, at the speed of searching them. Canonical bytes spell a member in one way, so only
/// what names such a kind somewhere is read.
pub(crate) fn reads_like_state(bytes: &[u8]) -> bool {
    let named = memchr::memmem::find_iter(bytes, KIND).any(|at| {
        let kind = bytes.get(at + KIND.len()..).unwrap_or_default();
        let end = memchr::memchr(b'"', kind).unwrap_or_default();
        let kind = kind.get(..end).and_then(|kind| std::str::from_utf8(kind).ok()).unwrap_or_default();
        kind_folds(kind)
    });
    named && Entry::read(bytes).is_ok_and(|entry| folds(&entry.body))
}

const KIND: &[u8] = b"\"kind\":\"";

/// The roots of the kept subtrees that `leaf` completes where it follows `before`: level, index, and the leaf joined
/// with the frontier's smallest nodes.
pub(crate) fn completed(before: &Frontier, leaf: tree::Hash) -> impl Iterator<Item = (u8, u64, tree::Hash)> {
    let size = before.size() + 1;
    let levels = KEPT_LEVELS.into_iter().take_while(move |level| size.trailing_zeros() >= u32::from(*level));
    levels.map(move |level| {
        let joined = before.nodes().iter().rev().take(usize::from(level));
        (level, (size >> level) - 1, joined.fold(leaf, |right, left| tree::node_hash(left, &right)))
    })
}

/// A batch that grows.
pub(super) struct Assembly<'a> {
    author: &'a Author<'a>,
    shard: u32,
    origin: String,
    time: UnixMs,
    state: Index,
    before: Frontier,
    growing: Frontier,
    pub(super) adds: store::Batch,
}

/// A batch that is ready to be committed.
pub(super) struct Assembled {
    pub(super) head: Head,
    pub(super) adds: store::Batch,
    pub(super) tree: tree::Batch,
}

impl<'a> Assembly<'a> {
    pub(super) fn new(author: &'a Author<'a>, head: &Head, time: UnixMs) -> Result<Self, BatchError> {
        let before = Frontier::from_parts(head.size, head.frontier.clone())?;
        Ok(Self {
            author,
            shard: head.shard,
            origin: head.origin.clone(),
            time,
            state: head.state,
            growing: before.clone(),
            before,
            adds: store::Batch::default(),
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.adds.rows.is_empty()
    }

    /// Which of the logs in the store.
    pub(super) fn shard(&self) -> u32 {
        self.shard
    }

    /// The index of the newest entry that changes the runtime state, those of this batch included.
    pub(super) fn state(&self) -> Index {
        self.state
    }

    /// Whether an entry can be written.
    pub(super) fn check(&self, entry: &NewEntry) -> Result<(), BatchError> {
        entry.encode(self.time, self.author.trust_domain, self.author.broker)?;
        Ok(())
    }

    /// Adds an entry; on an error nothing was added.
    pub(super) fn push(&mut self, entry: &NewEntry) -> Result<Index, BatchError> {
        let bytes = entry.encode(self.time, self.author.trust_domain, self.author.broker)?;
        let leaf = tree::leaf_hash(&bytes);
        let index = self.growing.size();
        self.adds.subtrees.extend(completed(&self.growing, leaf));
        self.growing.append(leaf);
        if entry.body.changes_state() {
            self.state = index;
        }
        self.adds.rows.push(Row { index, leaf, bytes, folds: folds(&entry.body) });
        Ok(index)
    }

    pub(super) fn finish(self) -> Result<Assembled, BatchError> {
        let leaves = self.adds.rows.iter().map(|row| row.leaf).collect();
        let tree = tree::Batch::new(&self.before, leaves);
        let frontier = tree.frontier();
        let checkpoint =
            Checkpoint { origin: self.origin.clone(), size: frontier.size(), root: frontier.root() };
        let head = Head {
            shard: self.shard,
            origin: self.origin,
            size: frontier.size(),
            state: self.state,
            time: self.time,
            frontier: frontier.nodes().to_vec(),
            checkpoint: checkpoint.sign(self.author.key)?.into_bytes(),
        };
        Ok(Assembled { head, adds: self.adds, tree })
    }
}
