//! The end of a long log: what was written since the last kept subtree is hashed and read again, everything before it
//! is taken from the kept subtrees, which the signed root binds. The scrubber reads the rest.

use std::cell::RefCell;
use std::collections::HashMap;

use daypass_evidence::audit::{Audit, FindingCode, Prepared};
use daypass_evidence::checkpoint::Checkpoint;
use daypass_evidence::entry::Entry;
use daypass_evidence::tree::{
    Frontier, Hash, Nodes, consistency_proof, inclusion_proof, leaf_hash, verify_consistency,
    verify_inclusion,
};

use super::{Beside, feed};
use crate::index::StoredNodes;
use crate::store::{Head, Reader, StoreError};

const PAGE: u32 = 1_000;

/// The stored tree, each node looked up once.
struct Kept<'a> {
    stored: StoredNodes<'a>,
    seen: RefCell<HashMap<(u8, u64), Option<Hash>>>,
}

impl Nodes for Kept<'_> {
    fn node(&self, level: u8, index: u64) -> Option<Hash> {
        if let Some(known) = self.seen.borrow().get(&(level, index)) {
            return *known;
        }
        let found = self.stored.node(level, index);
        self.seen.borrow_mut().insert((level, index), found);
        found
    }
}

/// Examines the entries of `head`'s log from `base` on, where a kept subtree begins; those before it only where
/// the state is folded from them, each against the tree.
pub(super) fn examine(
    reader: &dyn Reader,
    head: &Head,
    base: u64,
    anchored: Option<Checkpoint>,
) -> Result<(Audit, Beside), StoreError> {
    let kept = Kept { stored: StoredNodes::of(reader), seen: RefCell::default() };
    let Some(before) = frontier(base, &kept) else {
        let mut audit = Audit::of_bytes_after(Frontier::empty(), &head.origin);
        audit.fault(
            FindingCode::StoreMismatch,
            "a kept subtree is missing: verify the whole log with `daypass-broker verify`",
        );
        return Ok((audit, Beside::default()));
    };
    let root = before.root();
    let mut audit = Audit::of_bytes_after(before, &head.origin);
    let mut beside = Beside::default();
    compare_folds(&mut audit, &mut beside, reader, &kept, base, root)?;
    match anchored {
        Some(anchored) if anchored.size < base => compare_earlier(&mut audit, &kept, &anchored, base, root),
        Some(anchored) => audit.expect(anchored),
        None => {}
    }
    feed::each(reader, base..head.size, Prepared::read, |row, prepared| {
        super::take(&mut audit, &mut beside, reader, &row, prepared)
    })?;
    Ok((audit, beside))
}

/// The roots of the perfect subtrees of the tree of `size` leaves, from what is kept.
fn frontier(size: u64, nodes: &impl Nodes) -> Option<Frontier> {
    let levels = (0..64_u8).rev().filter(|level| size >> level & 1 == 1);
    let roots = levels.map(|level| nodes.node(level, (size >> level) - 1)).collect::<Option<Vec<_>>>()?;
    Frontier::from_parts(size, roots).ok()
}

/// The state is folded from entries anywhere in the log: each of them must lie in the tree.
fn compare_folds(
    audit: &mut Audit,
    beside: &mut Beside,
    reader: &dyn Reader,
    kept: &Kept<'_>,
    base: u64,
    root: Hash,
) -> Result<(), StoreError> {
    let mut from = 0;
    loop {
        let rows = reader.fold_rows(from, PAGE)?;
        let Some(last) = rows.last() else { return Ok(()) };
        from = last.index + 1;
        for row in rows.iter().filter(|row| row.index < base) {
            let leaf = leaf_hash(&row.bytes);
            let path = inclusion_proof(row.index, base, kept);
            if path.is_none_or(|path| verify_inclusion(leaf, row.index, base, &path, root).is_err()) {
                let detail = "the entry, from which the state is folded, is not what the tree holds there";
                audit.fault_at(row.index, FindingCode::LeafMismatch, detail);
            }
            match Entry::read(&row.bytes) {
                Ok(entry) => beside.compare(audit, reader, row, &entry)?,
                Err(error) => audit.fault_at(row.index, FindingCode::Malformed, error.to_string()),
            }
        }
        if from >= base {
            return Ok(());
        }
    }
}

/// A checkpoint from before the tail must be of a tree that this one begins with.
fn compare_earlier(audit: &mut Audit, kept: &Kept<'_>, earlier: &Checkpoint, base: u64, root: Hash) {
    let proof = consistency_proof(earlier.size, base, kept);
    let consistent =
        proof.is_some_and(|proof| verify_consistency(earlier.size, earlier.root, base, root, &proof).is_ok());
    if !consistent {
        let detail =
            format!("the log had another root at size {} in a checkpoint kept earlier", earlier.size);
        audit.fault(FindingCode::SplitView, detail);
    }
}
