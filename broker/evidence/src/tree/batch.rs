//! Appending many leaves at once, with their inclusion proofs in the tree that results: from the frontier
//! before and the leaves alone, each interior node hashed once.

use super::{Frontier, Hash, node_hash};

/// What is known of one level of the tree: the perfect subtrees that the batch completed, before them the
/// old one that the first of them needs as its left sibling, and the last node, which may be imperfect.
#[derive(Debug, Clone)]
struct Level {
    first: u64,
    nodes: Vec<Hash>,
    last: Hash,
}

impl Level {
    fn node(&self, index: u64) -> Option<Hash> {
        let offset = usize::try_from(index.checked_sub(self.first)?).ok()?;
        self.nodes.get(offset).copied()
    }
}

/// Leaves appended to a tree, with the tree after them.
#[derive(Debug, Clone)]
pub struct Batch {
    start: u64,
    frontier: Frontier,
    levels: Vec<Level>,
}

impl Batch {
    /// Appends `leaves` (their hashes) to the tree that ends with `before`.
    #[must_use]
    pub fn new(before: &Frontier, leaves: Vec<Hash>) -> Self {
        let start = before.size();
        let mut frontier = before.clone();
        leaves.iter().for_each(|leaf| frontier.append(*leaf));
        let levels = levels(before, leaves, frontier.size());
        Self { start, frontier, levels }
    }

    /// The tree after the batch.
    #[must_use]
    pub fn frontier(&self) -> &Frontier {
        &self.frontier
    }

    /// The inclusion proof of the batch's leaf `i` (from 0) in the tree after the batch; none when there is
    /// no such leaf.
    #[must_use]
    pub fn proof(&self, i: usize) -> Option<Vec<Hash>> {
        let mut index = self.start.checked_add(u64::try_from(i).ok()?)?;
        let mut last = self.frontier.size().checked_sub(1).filter(|last| index <= *last)?;
        let mut path = Vec::with_capacity(self.levels.len());
        for level in &self.levels {
            let sibling = index ^ 1;
            if sibling < last {
                path.push(level.node(sibling)?);
            } else if sibling == last {
                path.push(level.last);
            }
            (index, last) = (index >> 1, last >> 1);
        }
        Some(path)
    }
}

fn levels(before: &Frontier, leaves: Vec<Hash>, size: u64) -> Vec<Level> {
    let (Some(mut last), Some(mut last_index)) = (leaves.last().copied(), size.checked_sub(1)) else {
        return Vec::new();
    };
    let mut levels = Vec::new();
    let mut completed = leaves;
    for height in 0..u64::BITS {
        let mut first = before.size() >> height;
        if let Some(left) = before.perfect(height) {
            completed.insert(0, left);
            first -= 1;
        }
        let above = completed.chunks_exact(2).filter_map(parent).collect();
        let level = Level { first, nodes: std::mem::replace(&mut completed, above), last };
        if last_index == 0 {
            levels.push(level);
            break;
        }
        if last_index & 1 == 1
            && let Some(left) = level.node(last_index - 1)
        {
            last = node_hash(&left, &last);
        }
        last_index >>= 1;
        levels.push(level);
    }
    levels
}

fn parent(pair: &[Hash]) -> Option<Hash> {
    match pair {
        [left, right] => Some(node_hash(left, right)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{leaf_hash, verify_inclusion};

    fn leaves(range: std::ops::Range<u64>) -> Vec<Hash> {
        range.map(|i| leaf_hash(&i.to_be_bytes())).collect()
    }

    fn frontier(size: u64) -> Frontier {
        let mut frontier = Frontier::empty();
        leaves(0..size).into_iter().for_each(|leaf| frontier.append(leaf));
        frontier
    }

    #[test]
    fn a_batch_proves_each_of_its_leaves_in_the_tree_after_it() {
        for before in 0..70 {
            for width in [1, 2, 3, 5, 8, 17, 64] {
                let new = leaves(before..before + width);
                let batch = Batch::new(&frontier(before), new.clone());
                assert_eq!(batch.frontier(), &frontier(before + width));
                let root = batch.frontier().root();
                for (i, leaf) in new.iter().enumerate() {
                    let index = before + u64::try_from(i).unwrap();
                    let path = batch.proof(i).unwrap();
                    assert_eq!(
                        verify_inclusion(*leaf, index, before + width, &path, root),
                        Ok(()),
                        "{i} of {width} after {before}"
                    );
                }
                assert_eq!(batch.proof(new.len()), None);
            }
        }
    }

    #[test]
    fn an_empty_batch_changes_nothing() {
        let batch = Batch::new(&frontier(5), vec![]);
        assert_eq!(batch.frontier(), &frontier(5));
        assert_eq!(batch.proof(0), None);
    }
}
