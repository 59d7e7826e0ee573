//! Inclusion and consistency proofs (RFC 9162, sections 2.1.3 and 2.1.4; the tree is that of RFC 6962).

use super::{Hash, empty_root, node_hash};

/// Where the hashes of perfect subtrees are found.
pub trait Nodes {
    /// The hash of the perfect subtree of 2^`level` leaves that begins at leaf `index` * 2^`level`; level 0
    /// holds the leaves. None when it is not stored.
    fn node(&self, level: u8, index: u64) -> Option<Hash>;
}

/// Why a proof does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// The index lies outside the tree, or the first tree is the larger one.
    #[error("position {position} lies outside a tree of size {size}")]
    Outside {
        /// The index, or the size of the first tree.
        position: u64,
        /// The size of the tree.
        size: u64,
    },
    /// The path has too few or too many hashes for the sizes it claims.
    #[error("the proof has the wrong number of hashes")]
    Length,
    /// The hashes lead to another root.
    #[error("the proof leads to another root")]
    Root,
}

/// The audit path of leaf `index` in the tree of `size` leaves, from the leaf's sibling upwards. None when the
/// leaf lies outside or `nodes` lacks a hash.
pub fn inclusion_proof(index: u64, size: u64, nodes: &impl Nodes) -> Option<Vec<Hash>> {
    if index >= size {
        return None;
    }
    let mut path = Vec::new();
    let (mut from, mut to) = (0, size);
    while to - from > 1 {
        let middle = from + split(to - from);
        if index < middle {
            path.push(subtree(middle, to, nodes)?);
            to = middle;
        } else {
            path.push(subtree(from, middle, nodes)?);
            from = middle;
        }
    }
    path.reverse();
    Some(path)
}

/// The proof that the tree of `size` leaves begins with the tree of `first` leaves. None when `first` is the
/// larger one or `nodes` lacks a hash; empty when `first` is 0 or `size`.
pub fn consistency_proof(first: u64, size: u64, nodes: &impl Nodes) -> Option<Vec<Hash>> {
    if first > size {
        return None;
    }
    if first == 0 || first == size {
        return Some(Vec::new());
    }
    let mut path = Vec::new();
    let (mut from, mut to) = (0, size);
    while to != first {
        let middle = from + split(to - from);
        if first <= middle {
            path.push(subtree(middle, to, nodes)?);
            to = middle;
        } else {
            path.push(subtree(from, middle, nodes)?);
            from = middle;
        }
    }
    if from != 0 {
        path.push(subtree(from, to, nodes)?);
    }
    path.reverse();
    Some(path)
}

/// The root of the tree of `size` leaves. None when `nodes` lacks a hash.
pub fn root_of(size: u64, nodes: &impl Nodes) -> Option<Hash> {
    if size == 0 { Some(empty_root()) } else { subtree(0, size, nodes) }
}

/// The largest power of two below `width`, which is at least 2: where RFC 6962 splits a tree.
fn split(width: u64) -> u64 {
    1 << (width - 1).ilog2()
}

/// The hash over the leaves `from..to`, a subtree of the tree that ends at `to`.
fn subtree(from: u64, to: u64, nodes: &impl Nodes) -> Option<Hash> {
    let width = to - from;
    if width.is_power_of_two() {
        let level = width.ilog2();
        return nodes.node(u8::try_from(level).ok()?, from >> level);
    }
    let middle = from + split(width);
    Some(node_hash(&subtree(from, middle, nodes)?, &subtree(middle, to, nodes)?))
}

/// Checks that `leaf` stands at `index` in the tree of `size` leaves and `root` (RFC 9162, section 2.1.3.2).
///
/// # Errors
/// When the path does not prove it.
pub fn verify_inclusion(
    leaf: Hash,
    index: u64,
    size: u64,
    path: &[Hash],
    root: Hash,
) -> Result<(), ProofError> {
    if index >= size {
        return Err(ProofError::Outside { position: index, size });
    }
    let (mut node, mut last, mut reached) = (index, size - 1, leaf);
    for sibling in path {
        if last == 0 {
            return Err(ProofError::Length);
        }
        if node & 1 == 1 || node == last {
            reached = node_hash(sibling, &reached);
            let up = if node & 1 == 1 { 0 } else { node.trailing_zeros() };
            (node, last) = (node >> up, last >> up);
        } else {
            reached = node_hash(&reached, sibling);
        }
        (node, last) = (node >> 1, last >> 1);
    }
    match (last, reached == root) {
        (0, true) => Ok(()),
        (0, false) => Err(ProofError::Root),
        _ => Err(ProofError::Length),
    }
}

/// Checks that the tree of `size` leaves and `root` begins with the tree of `first` leaves and `first_root`
/// (RFC 9162, section 2.1.4.2). Every tree begins with the empty one.
///
/// # Errors
/// When the path does not prove it.
pub fn verify_consistency(
    first: u64,
    first_root: Hash,
    size: u64,
    root: Hash,
    path: &[Hash],
) -> Result<(), ProofError> {
    if first > size {
        return Err(ProofError::Outside { position: first, size });
    }
    if first == 0 || first == size {
        let known = if first == size { root } else { empty_root() };
        return match (path.is_empty(), first_root == known) {
            (true, true) => Ok(()),
            (true, false) => Err(ProofError::Root),
            _ => Err(ProofError::Length),
        };
    }
    let (seed, rest) = if first.is_power_of_two() {
        (first_root, path)
    } else {
        path.split_first().map(|(seed, rest)| (*seed, rest)).ok_or(ProofError::Length)?
    };
    climb(first, size, seed, rest)
        .and_then(|reached| if reached == (first_root, root) { Ok(()) } else { Err(ProofError::Root) })
}

/// The roots of the trees of `first` and `size` leaves that a consistency path leads to from `seed`.
fn climb(first: u64, size: u64, seed: Hash, path: &[Hash]) -> Result<(Hash, Hash), ProofError> {
    let up = (first - 1).trailing_ones();
    let (mut node, mut last) = ((first - 1) >> up, (size - 1) >> up);
    let (mut old, mut new) = (seed, seed);
    for sibling in path {
        if last == 0 {
            return Err(ProofError::Length);
        }
        if node & 1 == 1 || node == last {
            (old, new) = (node_hash(sibling, &old), node_hash(sibling, &new));
            let up = if node & 1 == 1 { 0 } else { node.trailing_zeros() };
            (node, last) = (node >> up, last >> up);
        } else {
            new = node_hash(&new, sibling);
        }
        (node, last) = (node >> 1, last >> 1);
    }
    if last == 0 { Ok((old, new)) } else { Err(ProofError::Length) }
}

#[cfg(test)]
mod tests;
