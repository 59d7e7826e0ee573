//! What callers hold of this log: each checkpoint that one shows is held against our own tree, however old it is. A log
//! that was forked long ago, and has outgrown what callers of the other branch know, is found by the first of them.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use daypass_evidence::checkpoint::{Checkpoint, is_later};
use daypass_evidence::tree::{Frontier, Hash, consistency_proof, verify_consistency};
use tokio::sync::Semaphore;

use super::{Log, RecordError};
use crate::index::{self, Readers};
use crate::store::{Head, StoreError};

/// How many entries back the root at any size is told from memory: 32 octets each.
const RECENT: usize = 65_536;

/// From how many leaves on the next head begins a new run: one root costs as many hashes, on average half.
const RUN: usize = 64;

/// How many sizes are remembered whose root was told before.
const COMPARED: usize = 4_096;

/// How many older ones are held against the store at once: however many callers show them, reading for others goes on.
const SEATS: usize = 2;

/// What a caller's checkpoint is to this log, as far as memory goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compared {
    /// Ours.
    Same,
    /// Larger than what this broker saw, or of another log: the writer compares it with the head, under the lock.
    Ahead,
    /// From before what is in memory: compare it with the store.
    Older,
    /// Of a log that is not known here, and that none of ours can be before.
    Unknown,
}

/// What this broker signed or verified itself, and what it compared.
pub(super) struct Past {
    recent: Mutex<Recent>,
    shard: u32,
    compared: Mutex<BTreeMap<(u32, u64), Hash>>,
    seats: Semaphore,
}

impl Past {
    pub(super) fn beginning_at(head: &Head) -> Self {
        let recent = Mutex::new(Recent::beginning_at(head));
        Self { recent, shard: head.shard, compared: Mutex::default(), seats: Semaphore::new(SEATS) }
    }

    /// The tree grew from `before` by `leaves`.
    pub(super) fn grew(&self, before: &Head, leaves: impl Iterator<Item = Hash>) {
        lock(&self.recent).grow(before, leaves);
    }

    /// The tree grew to `head` by leaves that were not read.
    pub(super) fn jumped(&self, head: &Head) {
        *lock(&self.recent) = Recent::beginning_at(head);
    }

    /// The root at `size`, from memory.
    pub(super) fn root_at(&self, size: u64) -> Option<Hash> {
        if let Some(root) = lock(&self.compared).get(&(self.shard, size)) {
            return Some(*root);
        }
        let (mut tree, leaves) = lock(&self.recent).run_to(size)?;
        leaves.into_iter().for_each(|leaf| tree.append(leaf));
        let root = tree.root();
        self.remember(self.shard, size, root);
        Some(root)
    }

    /// The same of a log that is closed.
    fn closed_root_at(&self, closed: &Head, size: u64) -> Option<Hash> {
        if size == closed.size {
            return Frontier::from_parts(size, closed.frontier.clone()).ok().map(|tree| tree.root());
        }
        lock(&self.compared).get(&(closed.shard, size)).copied()
    }

    fn remember(&self, shard: u32, size: u64, root: Hash) {
        let mut compared = lock(&self.compared);
        compared.insert((shard, size), root);
        if compared.len() > COMPARED {
            compared.pop_first();
        }
    }
}

/// The newest leaves, in runs that each begin where a head was.
struct Recent {
    runs: VecDeque<Run>,
    leaves: usize,
}

struct Run {
    from: Frontier,
    leaves: Vec<Hash>,
}

impl Recent {
    fn beginning_at(head: &Head) -> Self {
        Self { runs: Run::at(head).into_iter().collect(), leaves: 0 }
    }

    fn grow(&mut self, before: &Head, leaves: impl Iterator<Item = Hash>) {
        match self.runs.back() {
            Some(run) if run.end() != before.size => *self = Self::beginning_at(before),
            Some(run) if run.leaves.len() < RUN => {}
            _ => self.runs.extend(Run::at(before)),
        }
        let Some(run) = self.runs.back_mut() else { return };
        let had = run.leaves.len();
        run.leaves.extend(leaves);
        self.leaves += run.leaves.len() - had;
        while self.leaves > RECENT && self.runs.len() > 1 {
            self.leaves -= self.runs.pop_front().map_or(0, |run| run.leaves.len());
        }
    }

    /// Where the run with `size` begins, and its leaves up to there.
    fn run_to(&self, size: u64) -> Option<(Frontier, Vec<Hash>)> {
        let after = self.runs.partition_point(|run| run.from.size() <= size);
        let run = self.runs.get(after.checked_sub(1)?)?;
        let leaves = usize::try_from(size - run.from.size()).ok()?;
        Some((run.from.clone(), run.leaves.get(..leaves)?.to_vec()))
    }
}

impl Run {
    fn at(head: &Head) -> Option<Self> {
        let from = Frontier::from_parts(head.size, head.frontier.clone()).ok()?;
        Some(Self { from, leaves: Vec::new() })
    }

    fn end(&self) -> u64 {
        self.from.size() + self.leaves.len() as u64
    }
}

impl Log {
    /// Holds a caller's checkpoint, whose signature was verified, against what this broker remembers.
    ///
    /// # Errors
    /// `SplitView` where it is not ours: from then on nothing is issued.
    pub fn compare(&self, known: &Checkpoint) -> Result<Compared, RecordError> {
        let newest = Arc::clone(&self.published.load().head);
        let closed = self.shards.closed(&known.origin);
        let root = match closed {
            Some(closed) if known.size > closed.size => return Err(self.forked(known, closed)),
            Some(closed) => self.past.closed_root_at(closed, known.size),
            None if known.origin == newest.origin && known.size <= newest.size => {
                self.past.root_at(known.size)
            }
            None if known.origin == newest.origin || is_later(&known.origin, &newest.origin) => {
                return Ok(Compared::Ahead);
            }
            None => return Ok(Compared::Unknown),
        };
        match root {
            Some(root) if root == known.root => Ok(Compared::Same),
            Some(_) => Err(self.forked(known, closed.unwrap_or(&newest))),
            None => Ok(Compared::Older),
        }
    }

    /// Holds an older one against the store, by readers of its log: the head must be of a tree that begins with the
    /// caller's.
    ///
    /// # Errors
    /// The outer one when the store cannot be read; the inner one is `SplitView`, as for [`Log::compare`].
    pub async fn compare_stored(
        &self,
        known: &Checkpoint,
        readers: &Readers,
    ) -> Result<Result<(), RecordError>, StoreError> {
        let seat = self.past.seats.acquire().await;
        let _seat = seat.map_err(|error| StoreError::Unavailable(error.to_string()))?;
        // Others may have shown the same one while this one waited.
        match self.compare(known) {
            Ok(Compared::Older) => {}
            compared => return Ok(compared.map(|_| ())),
        }
        let newest = Arc::clone(&self.published.load().head);
        let head = self.shards.closed(&known.origin).unwrap_or(&newest);
        let (size, head_size) = (known.size, head.size);
        let read = move |reader: &dyn crate::store::Reader| {
            index::prove(reader, |nodes| consistency_proof(size, head_size, nodes))
        };
        let proof = readers.run(read).await?;
        let root = Frontier::from_parts(head.size, head.frontier.clone()).map(|head| head.root());
        let root = root.map_err(|error| StoreError::Damaged(error.to_string()))?;
        if verify_consistency(known.size, known.root, head.size, root, &proof).is_err() {
            return Ok(Err(self.forked(known, head)));
        }
        self.past.remember(head.shard, known.size, known.root);
        Ok(Ok(()))
    }

    /// Stops this broker, and keeps what proves that the log was forked. Signing the caller's checkpoint again gives the
    /// very note that it showed: Ed25519 has one signature, and it was verified to be ours.
    fn forked(&self, known: &Checkpoint, head: &Head) -> RecordError {
        let error = RecordError::SplitView(format!(
            "a caller holds a checkpoint of size {} that the log of size {} does not begin with, and both are signed",
            known.size, head.size
        ));
        tracing::error!(%error, "a caller holds a checkpoint that excludes this log");
        if let Ok(note) = known.sign(&self.signs) {
            self.proofs.keep(&head.checkpoint, note.as_bytes());
        }
        self.halt.break_off(&error);
        error
    }
}

/// Where two heads that exclude each other are kept: beside the anchor, where there is one.
pub(super) struct Proofs(pub(super) Option<PathBuf>);

impl Proofs {
    /// Keeps two notes, each with its signature: together they prove that the log was forked.
    pub(super) fn keep(&self, seen: &[u8], found: &[u8]) {
        let Some(path) = &self.0 else { return };
        for (kind, note) in [("seen", seen), ("found", found)] {
            let mut path = path.clone().into_os_string();
            path.push(format!(".split-view.{kind}"));
            if let Err(error) = std::fs::write(&path, note) {
                let note = String::from_utf8_lossy(note);
                tracing::error!(%error, %note, "one of two heads that exclude each other could not be saved");
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use daypass_verify::time::UnixMs;

    use super::*;

    fn head(tree: &Frontier) -> Head {
        Head {
            shard: 0,
            origin: "example.org/evidence/2027h1".into(),
            size: tree.size(),
            state: 0,
            time: UnixMs::new(0),
            frontier: tree.nodes().to_vec(),
            checkpoint: Vec::new(),
        }
    }

    fn leaf(index: u64) -> Hash {
        daypass_evidence::tree::leaf_hash(&index.to_be_bytes())
    }

    /// Grows by batches of these sizes, and gives the root at each size.
    fn grow(past: &Past, tree: &mut Frontier, batches: impl IntoIterator<Item = u64>) -> Vec<(u64, Hash)> {
        let mut roots = Vec::new();
        for batch in batches {
            let (before, leaves) = (head(tree), (tree.size()..tree.size() + batch).map(leaf));
            past.grew(&before, leaves.clone());
            leaves.for_each(|leaf| {
                tree.append(leaf);
                roots.push((tree.size(), tree.root()));
            });
        }
        roots
    }

    #[test]
    fn the_root_at_each_size_since_the_start_is_told_from_memory() {
        let mut tree = Frontier::empty();
        (0..1_000).for_each(|index| tree.append(leaf(index)));
        let past = Past::beginning_at(&head(&tree));
        let roots = grow(&past, &mut tree, [1, 1, 60, 1, 1, 1, 512, 3, 0, 200, 1]);
        for (size, root) in roots {
            assert_eq!(past.root_at(size), Some(root), "{size}");
            assert_eq!(past.root_at(size), Some(root), "{size}, again");
        }
        assert_eq!(past.root_at(999), None, "before the start");
        assert_eq!(past.root_at(tree.size() + 1), None, "not there yet");
    }

    #[test]
    fn what_is_remembered_is_bounded_and_the_newest() {
        let mut tree = Frontier::empty();
        let past = Past::beginning_at(&head(&tree));
        let roots = grow(&past, &mut tree, std::iter::repeat_n(500, 200));
        assert!(lock(&past.recent).leaves <= RECENT + 500);
        assert_eq!(past.root_at(1), None);
        for (size, root) in roots.iter().skip(40_000).step_by(7) {
            assert_eq!(past.root_at(*size), Some(*root));
        }
        assert!(lock(&past.compared).len() <= COMPARED);
    }

    #[test]
    fn nothing_is_told_of_leaves_that_were_not_read() {
        let mut tree = Frontier::empty();
        let past = Past::beginning_at(&head(&tree));
        grow(&past, &mut tree, [100]);
        (100..30_000).for_each(|index| tree.append(leaf(index)));
        past.jumped(&head(&tree));
        let roots = grow(&past, &mut tree, [10]);
        assert_eq!(past.root_at(20_000), None);
        assert!(roots.iter().all(|(size, root)| past.root_at(*size) == Some(*root)));
        (0..5).for_each(|index| tree.append(leaf(index)));
        let roots = grow(&past, &mut tree, [10]);
        assert!(roots.iter().all(|(size, root)| past.root_at(*size) == Some(*root)), "a gap begins anew");
    }
}
