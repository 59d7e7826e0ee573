//! One pass over a log: every byte against its hash, every hash against the tree, the tree against the signed root.

use daypass_evidence::checkpoint::Checkpoint;
use daypass_evidence::entry::Index;
use daypass_evidence::tree::{Frontier, leaf_hash};

use crate::log::{completed, reads_like_state};
use crate::store::{Reader, Row, StoreError};

/// What was changed, in words that name the place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage(pub String);

/// How far a pass has come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pass {
    tree: Frontier,
}

/// What became of one step.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// So many entries were read, and there are more.
    Read(u64),
    /// The pass came to its end: the root is the one that was signed.
    Done,
    /// Something was changed.
    Damaged(Damage),
}

impl Pass {
    /// A pass from the first entry on.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A pass that goes on where the tree `read` ends.
    #[must_use]
    pub fn after(read: Frontier) -> Self {
        Self { tree: read }
    }

    /// The tree over what was read.
    #[must_use]
    pub fn tree(&self) -> &Frontier {
        &self.tree
    }

    /// Reads at most `limit` of the entries that `end`, a checkpoint whose signature was verified, covers.
    ///
    /// # Errors
    /// When the store fails.
    pub fn step(&mut self, reader: &dyn Reader, end: &Checkpoint, limit: u32) -> Result<Step, StoreError> {
        if self.tree.size() >= end.size {
            return Ok(self.conclude(end));
        }
        let mut rows = reader.rows(self.tree.size(), limit)?;
        rows.retain(|row| row.index < end.size);
        let read = rows.len() as u64;
        for row in &rows {
            if let Some(damage) = self.read(reader, row)? {
                return Ok(Step::Damaged(damage));
            }
        }
        Ok(if read > 0 { Step::Read(read) } else { Step::Damaged(missing(self.tree.size())) })
    }

    fn read(&mut self, reader: &dyn Reader, row: &Row) -> Result<Option<Damage>, StoreError> {
        if row.index != self.tree.size() {
            return Ok(Some(missing(self.tree.size())));
        }
        if leaf_hash(&row.bytes) != row.leaf {
            return Ok(Some(Damage(format!(
                "entry {}: its bytes do not have the hash that was stored beside them",
                row.index
            ))));
        }
        if reads_like_state(&row.bytes) != row.folds {
            return Ok(Some(Damage(format!(
                "entry {} is not marked as its kind asks: the state would be another",
                row.index
            ))));
        }
        for (level, index, root) in completed(&self.tree, row.leaf) {
            if reader.subtree(level, index)? != Some(root) {
                let (first, last) = (index << level, ((index + 1) << level) - 1);
                return Ok(Some(Damage(format!(
                    "entries {first} to {last} are not what they were when they were written"
                ))));
            }
        }
        self.tree.append(row.leaf);
        Ok(None)
    }

    fn conclude(&self, end: &Checkpoint) -> Step {
        if self.tree.size() == end.size && self.tree.root() == end.root {
            return Step::Done;
        }
        let detail = format!("the {} entries lead to another root than the one that was signed", end.size);
        Step::Damaged(Damage(detail))
    }
}

fn missing(index: Index) -> Damage {
    Damage(format!("entry {index} is missing, and the signed head covers it"))
}
