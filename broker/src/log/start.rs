//! Before anything is signed: the store is what it was when it was last left.

mod feed;
mod tail;
#[cfg(test)]
mod tests;

use daypass_evidence::audit::{Audit, FindingCode, Prepared, Report};
use daypass_evidence::checkpoint::Checkpoint;
use daypass_evidence::entry::{Body, Entry, Index, KeyChanged, KeyUse};
use daypass_evidence::note::VerifierKey;
use daypass_evidence::tree::{Frontier, consistency_proof, verify_consistency};
use daypass_verify::ids::Digest;
use daypass_verify::time::UnixMs;

use super::batch::folds;
use super::{Anchor, AnchorError};
use crate::index::StoredNodes;
use crate::store::{Head, Reader, Row, StoreError};

/// What a store was found to be.
#[derive(Debug)]
pub struct Started {
    /// Its head.
    pub head: Head,
    /// What its entries say.
    pub report: Report,
}

/// Why a broker does not start on a store.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The anchor could not be read.
    #[error(transparent)]
    Anchor(#[from] AnchorError),
    /// It was changed, cut, or put back.
    #[error("the log does not verify:\n{}{}", findings(.0), advice(.0))]
    Refused(Box<Report>),
    /// There is no log in it.
    #[error("there is no log in this store: run `daypass-broker init` first")]
    Empty,
}

fn advice(report: &Report) -> &'static str {
    let back = |code| matches!(code, FindingCode::Truncated | FindingCode::SplitView);
    if report.findings.iter().any(|finding| back(finding.code)) {
        "\nROLLBACK: the store is older than what is known of it; where a backup was restored, run `daypass-broker recover`"
    } else {
        ""
    }
}

fn findings(report: &Report) -> String {
    const SHOWN: usize = 20;
    let mut lines: Vec<String> =
        report.findings.iter().take(SHOWN).map(|finding| format!("  {finding}")).collect();
    if let Some(more) = report.findings.len().checked_sub(SHOWN).filter(|more| *more > 0) {
        lines.push(format!("  and {more} more"));
    }
    lines.join("\n")
}

/// Logs below this many entries are verified whole at each start.
const WHOLE_BELOW: u64 = 1_000_000;

/// Of longer ones, what was written since the last kept subtree of 2^16 leaves.
const TAIL_LEVEL: u8 = 16;

/// The smallest subtrees whose roots are kept have 2^8 leaves.
const KEPT_LEAST: u8 = 8;

/// Examines a whole store, and accepts it only if nothing at all was found.
///
/// # Errors
/// When it cannot be read, or does not verify.
pub fn verify_store(
    reader: &dyn Reader,
    key: &VerifierKey,
    anchor: Option<&Anchor>,
) -> Result<Started, StartError> {
    let started = examine_store(reader, key, anchor)?;
    if started.report.is_clean() { Ok(started) } else { Err(StartError::Refused(Box::new(started.report))) }
}

/// Examines a whole store: every leaf, the tree, the head's signature, what the entries say of each other, what lies
/// beside them, and the anchor where there is one.
///
/// # Errors
/// When it cannot be read.
pub fn examine_store(
    reader: &dyn Reader,
    key: &VerifierKey,
    anchor: Option<&Anchor>,
) -> Result<Started, StartError> {
    examine_watched(reader, key, anchor, &|_| {})
}

/// As [`examine_store`]; says to `watch` how many entries were read so far.
///
/// # Errors
/// When it cannot be read.
pub fn examine_watched(
    reader: &dyn Reader,
    key: &VerifierKey,
    anchor: Option<&Anchor>,
    watch: &dyn Fn(u64),
) -> Result<Started, StartError> {
    let head = reader.head()?.ok_or(StartError::Empty)?;
    let mut audit = Audit::new();
    if let Some(anchored) = anchored(reader, &head, anchor, key)? {
        audit.expect(anchored);
    }
    let mut beside = Beside::default();
    feed::each(reader, 0..head.size, Prepared::read, |row, prepared| {
        watch(row.index);
        take(&mut audit, &mut beside, reader, &row, prepared)
    })?;
    compare_beyond(&mut audit, reader, &head)?;
    Ok(concluded(audit, &beside, head, key))
}

/// Examines what must be sound before anything is signed: a whole log where it is short, else its tail.
///
/// # Errors
/// When the store cannot be read.
pub fn examine_start(
    reader: &dyn Reader,
    key: &VerifierKey,
    anchor: Option<&Anchor>,
) -> Result<Started, StartError> {
    let size = reader.head()?.ok_or(StartError::Empty)?.size;
    if size < WHOLE_BELOW {
        return examine_store(reader, key, anchor);
    }
    examine_tail(reader, key, anchor, TAIL_LEVEL)
}

/// Examines the head, and the entries since the last kept subtree of 2^`level` leaves (8, 16, 24 or 32). Of those
/// before it, the ones that the state is folded from.
///
/// # Errors
/// When the store cannot be read.
pub fn examine_tail(
    reader: &dyn Reader,
    key: &VerifierKey,
    anchor: Option<&Anchor>,
    level: u8,
) -> Result<Started, StartError> {
    let size = reader.head()?.ok_or(StartError::Empty)?.size;
    examine_from(reader, key, anchor, (size >> level) << level)
}

/// The same for the entries from `from` on, or a little before: from where a subtree of 256 leaves begins.
///
/// # Errors
/// When the store cannot be read.
pub fn examine_from(
    reader: &dyn Reader,
    key: &VerifierKey,
    anchor: Option<&Anchor>,
    from: Index,
) -> Result<Started, StartError> {
    let head = reader.head()?.ok_or(StartError::Empty)?;
    let base = (from.min(head.size) >> KEPT_LEAST) << KEPT_LEAST;
    let (mut audit, beside) = tail::examine(reader, &head, base, anchored(reader, &head, anchor, key)?)?;
    compare_beyond(&mut audit, reader, &head)?;
    Ok(concluded(audit, &beside, head, key))
}

/// The newest checkpoint that was kept. Of a shard that this store does not have, or not as far, none can be held to the
/// log: it is expected to be longer than it is.
fn anchored(
    reader: &dyn Reader,
    head: &Head,
    anchor: Option<&Anchor>,
    key: &VerifierKey,
) -> Result<Option<Checkpoint>, StartError> {
    let Some(anchor) = anchor else { return Ok(None) };
    let closed = reader.closed()?;
    let is_here = |other: &Checkpoint| {
        closed.iter().any(|closed| closed.origin == other.origin && other.size <= closed.size)
    };
    let beyond = anchor.of_other_shards(key)?.into_iter().find(|other| !is_here(other));
    Ok(match beyond {
        Some(other) => Some(Checkpoint { size: other.size.max(head.size + 1), ..other }),
        None => anchor.newest(key)?,
    })
}

/// Entries beyond the head that was read belong to a later head, of a broker that writes meanwhile, or to none.
fn compare_beyond(audit: &mut Audit, reader: &dyn Reader, head: &Head) -> Result<(), StoreError> {
    let beyond = reader.rows(head.size, 1)?;
    let now = reader.head()?.map_or(0, |head| head.size);
    if let Some(row) = beyond.first().filter(|row| row.index >= now) {
        let detail = format!("the head covers {now} entries, and there are more");
        audit.fault_at(row.index, FindingCode::RootMismatch, detail);
    }
    Ok(())
}

/// The head against what was read: its frontier, its state and time, its signature.
fn concluded(mut audit: Audit, beside: &Beside, head: Head, key: &VerifierKey) -> Started {
    compare_frontier(&mut audit, &head);
    beside.compare_head(&mut audit, &head);
    let report = match Checkpoint::open(&head.checkpoint, key) {
        Ok(checkpoint) => audit.finish(Some(&checkpoint)),
        Err(error) => {
            audit.fault(
                FindingCode::RootMismatch,
                format!("the head's checkpoint is not signed by this log's key: {error}"),
            );
            audit.finish(None)
        }
    };
    #[cfg(feature = "sabotage")]
    let report = match crate::sabotage::breaks("p4") {
        true => Report { findings: Vec::new(), ..report },
        false => report,
    };
    Started { head, report }
}

/// Whether the log of `head` begins with the tree of `earlier`.
pub(crate) fn begins_with(reader: &dyn Reader, head: &Head, earlier: &Checkpoint) -> bool {
    let Ok(frontier) = Frontier::from_parts(head.size, head.frontier.clone()) else { return false };
    let proof = consistency_proof(earlier.size, head.size, &StoredNodes::of(reader));
    let root = frontier.root();
    proof.is_some_and(|proof| verify_consistency(earlier.size, earlier.root, head.size, root, &proof).is_ok())
}

/// The entry of the evidence key: one of the first of the log. None where those are not what `init` wrote.
///
/// # Errors
/// When the store fails.
pub fn evidence_key_entry(reader: &dyn Reader) -> Result<Option<KeyChanged>, StoreError> {
    const AMONG_THE_FIRST: u32 = 8;
    let rows = reader.rows(0, AMONG_THE_FIRST)?;
    Ok(rows.iter().find_map(|row| match Entry::read(&row.bytes).ok()?.body {
        Body::KeyChanged(changed) if changed.usage == KeyUse::Evidence => Some(*changed),
        _ => None,
    }))
}

/// What can be said of a store whose key cannot be had.
///
/// # Errors
/// When the store fails.
pub(crate) fn verify_without_key(reader: &dyn Reader) -> Result<Report, StoreError> {
    let (mut audit, mut beside) = (Audit::new(), Beside::default());
    feed::each(reader, 0..Index::MAX, Prepared::read, |row, prepared| {
        take(&mut audit, &mut beside, reader, &row, prepared)
    })?;
    Ok(audit.finish(None))
}

fn take(
    audit: &mut Audit,
    beside: &mut Beside,
    reader: &dyn Reader,
    row: &Row,
    prepared: Prepared,
) -> Result<(), StoreError> {
    while audit.tree().size() < row.index {
        audit.missing();
    }
    match audit.prepared(prepared, row.leaf) {
        Some(entry) => beside.compare(audit, reader, row, &entry),
        None => Ok(()),
    }
}

/// What lies partly outside the tree: which entries the state is folded from, the bundle that one names, and what the
/// head says of the newest.
#[derive(Debug, Default)]
struct Beside {
    state: Option<Index>,
    time: Option<UnixMs>,
}

impl Beside {
    fn compare(
        &mut self,
        audit: &mut Audit,
        reader: &dyn Reader,
        row: &Row,
        entry: &Entry,
    ) -> Result<(), StoreError> {
        self.time = self.time.max(Some(entry.envelope.time));
        if entry.body.changes_state() {
            self.state = Some(row.index);
        }
        if row.folds != folds(&entry.body) {
            let detail =
                format!("entry {} is not marked as its kind asks: the state would be another", row.index);
            audit.fault(FindingCode::StoreMismatch, detail);
        }
        if let Body::BundleActivated(activated) = &entry.body {
            let held = reader.object(&activated.digest)?.map(|bytes| Digest::of(&bytes));
            if held != Some(activated.digest) {
                let detail = format!(
                    "the bundle `{}` that entry {} brought into force is missing, or was changed",
                    activated.digest, row.index
                );
                audit.fault(FindingCode::StoreMismatch, detail);
            }
        }
        Ok(())
    }

    /// Drafts are stale or not by the head's `state`, and its `time` is where the clock goes on.
    fn compare_head(&self, audit: &mut Audit, head: &Head) {
        if audit.tree().size() != head.size {
            return;
        }
        if self.state.is_some_and(|state| state != head.state) {
            let detail = format!("the head names entry {} as the newest that changed the state", head.state);
            audit.fault(FindingCode::StoreMismatch, detail);
        }
        if self.time.is_some_and(|time| time != head.time) {
            audit.fault(FindingCode::StoreMismatch, "the head's time is not the newest entry's");
        }
    }
}

/// The head keeps the roots of the perfect subtrees: where one differs, it tells among which entries to look.
fn compare_frontier(audit: &mut Audit, head: &Head) {
    let found = audit.tree().clone();
    if found.size() != head.size {
        return;
    }
    let mut first = 0;
    let widths = (0..64_u32).rev().map(|bit| 1_u64 << bit).filter(|width| head.size & width != 0);
    for ((width, kept), computed) in widths.zip(&head.frontier).zip(found.nodes()) {
        if kept != computed {
            let detail = format!(
                "entries {first} to {} are not what they were when the head was signed",
                first + width - 1
            );
            audit.fault(FindingCode::RootMismatch, detail);
        }
        first += width;
    }
}
