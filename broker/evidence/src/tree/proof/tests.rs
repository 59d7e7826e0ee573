//! Proofs against another implementation, and spoiled one thing at a time.

use proptest::prelude::*;
use tlog_tiles::tlog::{self, HashReader};

use super::*;
use crate::tree::{Frontier, leaf_hash};

/// A whole tree in memory, by level.
pub(crate) struct Whole(Vec<Vec<Hash>>);

impl Whole {
    pub(crate) fn of(leaves: &[Hash]) -> Self {
        let mut levels = vec![leaves.to_vec()];
        while levels.last().unwrap().len() > 1 {
            let level = levels.last().unwrap();
            levels.push(level.chunks_exact(2).map(|pair| node_hash(&pair[0], &pair[1])).collect());
        }
        Self(levels)
    }
}

impl Nodes for Whole {
    fn node(&self, level: u8, index: u64) -> Option<Hash> {
        self.0.get(usize::from(level))?.get(usize::try_from(index).ok()?).copied()
    }
}

/// The hashes of the oracle, in its own storage order.
struct Stored(Vec<tlog::Hash>);

impl HashReader for Stored {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<tlog::Hash>, tlog_tiles::Error> {
        Ok(indexes.iter().map(|at| self.0[usize::try_from(*at).unwrap()]).collect())
    }
}

fn entry(i: u64) -> Vec<u8> {
    format!("entry {i}").into_bytes()
}

fn oracle(size: u64) -> Stored {
    let mut stored = Stored(Vec::new());
    for i in 0..size {
        let new = tlog::stored_hashes(i, &entry(i), &stored).unwrap();
        stored.0.extend(new);
    }
    stored
}

fn leaves(size: u64) -> Vec<Hash> {
    (0..size).map(|i| leaf_hash(&entry(i))).collect()
}

fn root(size: u64) -> Hash {
    let mut frontier = Frontier::empty();
    leaves(size).into_iter().for_each(|leaf| frontier.append(leaf));
    frontier.root()
}

fn theirs(path: &[tlog::Hash]) -> Vec<Hash> {
    path.iter().map(|hash| hash.0).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn roots_and_proofs_are_those_of_another_implementation(size in 1_u64..200, a in 0_u64..200, b in 1_u64..200) {
        let (index, first) = (a % size, b % size + 1);
        let (stored, whole) = (oracle(size), Whole::of(&leaves(size)));
        prop_assert_eq!(root(size), tlog::tree_hash(size, &stored).unwrap().0);

        let path = inclusion_proof(index, size, &whole).unwrap();
        prop_assert_eq!(&path, &theirs(&tlog::prove_record(size, index, &stored).unwrap()));
        prop_assert_eq!(verify_inclusion(leaves(size)[usize::try_from(index).unwrap()], index, size, &path, root(size)), Ok(()));

        let path = consistency_proof(first, size, &whole).unwrap();
        prop_assert_eq!(&path, &theirs(&tlog::prove_tree(size, first, &stored).unwrap()));
        prop_assert_eq!(verify_consistency(first, root(first), size, root(size), &path), Ok(()));
    }
}

/// Every way in which one part of a proof's path can be spoiled.
fn spoiled(path: &[Hash]) -> Vec<Vec<Hash>> {
    let mut out: Vec<Vec<Hash>> = (0..path.len())
        .map(|i| {
            let mut path = path.to_vec();
            path[i][7] ^= 1;
            path
        })
        .collect();
    out.push([path, &[[7; 32]]].concat());
    out.extend(path.split_last().map(|(_, short)| short.to_vec()));
    out.extend(path.split_first().map(|(_, short)| short.to_vec()));
    out
}

#[test]
fn an_inclusion_proof_holds_for_one_leaf_in_one_tree_only() {
    for size in 1..20 {
        let whole = Whole::of(&leaves(size));
        for index in 0..size {
            let leaf = leaves(size)[usize::try_from(index).unwrap()];
            let path = inclusion_proof(index, size, &whole).unwrap();
            assert_eq!(verify_inclusion(leaf, index, size, &path, root(size)), Ok(()), "{index}/{size}");
            assert!(verify_inclusion([9; 32], index, size, &path, root(size)).is_err());
            assert!(verify_inclusion(leaf, index, size, &path, [9; 32]).is_err());
            assert!(verify_inclusion(leaf, size, size, &path, root(size)).is_err());
            for other in (0..size).filter(|other| *other != index) {
                assert!(
                    verify_inclusion(leaf, other, size, &path, root(size)).is_err(),
                    "{index} as {other}/{size}"
                );
            }
            for path in spoiled(&path) {
                assert!(verify_inclusion(leaf, index, size, &path, root(size)).is_err(), "{index}/{size}");
            }
        }
    }
    assert_eq!(inclusion_proof(3, 3, &Whole::of(&leaves(3))), None);
}

#[test]
fn a_consistency_proof_holds_for_two_trees_only() {
    for size in 1..20 {
        let whole = Whole::of(&leaves(size));
        for first in 1..=size {
            let path = consistency_proof(first, size, &whole).unwrap();
            assert_eq!(verify_consistency(first, root(first), size, root(size), &path), Ok(()));
            assert!(verify_consistency(first, [9; 32], size, root(size), &path).is_err());
            assert!(verify_consistency(first, root(first), size, [9; 32], &path).is_err());
            assert!(verify_consistency(size + 1, root(first), size, root(size), &path).is_err());
            for path in spoiled(&path) {
                assert!(verify_consistency(first, root(first), size, root(size), &path).is_err());
            }
        }
    }
}

#[test]
fn every_tree_begins_with_the_empty_one() {
    assert_eq!(consistency_proof(0, 5, &Whole::of(&leaves(5))), Some(vec![]));
    assert_eq!(verify_consistency(0, empty_root(), 5, root(5), &[]), Ok(()));
    assert_eq!(verify_consistency(0, root(1), 5, root(5), &[]), Err(ProofError::Root));
    assert_eq!(verify_consistency(0, empty_root(), 5, root(5), &[root(1)]), Err(ProofError::Length));
}
