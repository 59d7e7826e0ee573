//! The Merkle tree of RFC 6962: leaf `SHA-256(0x00 || entry)`, node `SHA-256(0x01 || left || right)`.
//!
//! A tree is known by its *frontier*: the roots of the perfect subtrees that its size is the sum of. That is
//! enough to append and to tell the root. Proofs need more hashes, which they ask [`Nodes`] for.

mod batch;
mod proof;

use ring::digest::{Context, SHA256, digest};

pub use batch::Batch;
pub use proof::{
    Nodes, ProofError, consistency_proof, inclusion_proof, root_of, verify_consistency, verify_inclusion,
};

/// A SHA-256 hash: of a leaf, a node, or a whole tree.
pub type Hash = [u8; 32];

/// The hash of a leaf (RFC 6962, section 2.1).
#[must_use]
pub fn leaf_hash(entry: &[u8]) -> Hash {
    let mut context = Context::new(&SHA256);
    context.update(&[0]);
    context.update(entry);
    octets(&context.finish())
}

/// The hash of a node over its two children (RFC 6962, section 2.1).
#[must_use]
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    let mut bytes = [1; 65];
    for (slot, byte) in bytes.iter_mut().skip(1).zip(left.iter().chain(right)) {
        *slot = *byte;
    }
    octets(&digest(&SHA256, &bytes))
}

/// The root of the tree without leaves: the hash of nothing.
#[must_use]
pub fn empty_root() -> Hash {
    octets(&digest(&SHA256, &[]))
}

fn octets(digest: &ring::digest::Digest) -> Hash {
    let mut out = [0; 32];
    out.copy_from_slice(digest.as_ref());
    out
}

/// Parts that are no frontier: as many nodes are needed as the size has one-bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a tree of size {size} has {} perfect subtrees: {nodes} were given", .size.count_ones())]
pub struct FrontierError {
    /// The tree's size.
    pub size: u64,
    /// How many nodes were given.
    pub nodes: usize,
}

/// The size of a tree, and the roots of its perfect subtrees, largest first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Frontier {
    size: u64,
    nodes: Vec<Hash>,
}

impl Frontier {
    /// The tree without leaves.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    /// The frontier that was stored as its parts.
    ///
    /// # Errors
    /// When the number of nodes does not fit the size.
    pub fn from_parts(size: u64, nodes: Vec<Hash>) -> Result<Self, FrontierError> {
        if u32::try_from(nodes.len()) == Ok(size.count_ones()) {
            Ok(Self { size, nodes })
        } else {
            Err(FrontierError { size, nodes: nodes.len() })
        }
    }

    /// Adds one leaf by its hash.
    pub fn append(&mut self, leaf: Hash) {
        let mut node = leaf;
        for _ in 0..self.size.trailing_ones() {
            if let Some(left) = self.nodes.pop() {
                node = node_hash(&left, &node);
            }
        }
        self.nodes.push(node);
        self.size += 1;
    }

    /// How many leaves the tree has.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The tree's root.
    #[must_use]
    pub fn root(&self) -> Hash {
        let fold = self.nodes.iter().rev().copied().reduce(|right, left| node_hash(&left, &right));
        fold.unwrap_or_else(empty_root)
    }

    /// The roots of the perfect subtrees, largest first.
    #[must_use]
    pub fn nodes(&self) -> &[Hash] {
        &self.nodes
    }

    /// The root of the perfect subtree of 2^`level` leaves, where the size has one.
    fn perfect(&self, level: u32) -> Option<Hash> {
        let bit = self.size.checked_shr(level).filter(|rest| rest & 1 == 1)?;
        let larger = usize::try_from(bit.count_ones() - 1).ok()?;
        self.nodes.get(larger).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(hash: Hash) -> String {
        hash.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn the_hashes_are_those_of_rfc_6962() {
        assert_eq!(hex(empty_root()), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(hex(leaf_hash(b"")), "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d");
        assert_eq!(hex(Frontier::empty().root()), hex(empty_root()));
    }

    #[test]
    fn a_frontier_is_stored_and_restored_by_its_parts() {
        let mut frontier = Frontier::empty();
        for leaf in 0..100_u8 {
            frontier.append(leaf_hash(&[leaf]));
            let restored = Frontier::from_parts(frontier.size(), frontier.nodes().to_vec()).unwrap();
            assert_eq!(restored, frontier);
        }
        let mut short = frontier.nodes().to_vec();
        short.pop();
        assert_eq!(
            Frontier::from_parts(100, short).unwrap_err().to_string(),
            "a tree of size 100 has 3 perfect subtrees: 2 were given"
        );
    }
}
