//! The log against stored hashes and signed checkpoints.

use proptest::prelude::*;
use serde_json::json;

use super::log::Log;
use super::{checkpoint, found};
use crate::audit::Audit;
use crate::audit::FindingCode::{LeafMismatch, RootMismatch, SplitView, Truncated, WrongLog};
use crate::checkpoint::Checkpoint;
use crate::tree::leaf_hash;

#[test]
fn a_log_that_is_right_is_right_at_every_size() {
    let log = Log::valid();
    for size in 1..=log.len() {
        let head = checkpoint(size, &log);
        let mut audit = Audit::new();
        log.bytes().iter().take(size).for_each(|bytes| audit.entry(bytes));
        assert_eq!(audit.finish(Some(&head)).findings, [], "at size {size}");
    }
}

#[test]
fn an_edited_entry_is_found_by_its_stored_leaf_and_by_the_root() {
    let log = Log::valid();
    let head = checkpoint(log.len(), &log);
    let mut edited = Log::valid();
    edited.set("b", "/credential/alg", json!("ES384"));
    let mut audit = Audit::new();
    let leaves = log.bytes();
    edited
        .bytes()
        .iter()
        .zip(&leaves)
        .for_each(|(bytes, kept)| drop(audit.entry_with_leaf(bytes, leaf_hash(kept))));
    let report = audit.finish(Some(&head));
    assert_eq!(found(&report), [(LeafMismatch, Some(log.index("b"))), (RootMismatch, None)]);
}

#[test]
fn a_log_that_was_cut_or_continued_is_told_from_its_checkpoint() {
    let log = Log::valid();
    let head = checkpoint(log.len(), &log);
    for (size, code) in [(log.len() - 1, Truncated), (0, Truncated)] {
        let mut audit = Audit::new();
        log.bytes().iter().take(size).for_each(|bytes| audit.entry(bytes));
        assert!(found(&audit.finish(Some(&head))).contains(&(code, None)));
    }
    let mut audit = Audit::new();
    log.bytes().iter().for_each(|bytes| audit.entry(bytes));
    let earlier = checkpoint(log.len() - 1, &log);
    assert_eq!(found(&audit.finish(Some(&earlier))), [(RootMismatch, None)]);
}

#[test]
fn a_log_is_held_to_the_checkpoints_that_were_kept_of_it() {
    let (log, mut other) = (Log::valid(), Log::valid());
    other.set("b", "/credential/alg", json!("ES384"));
    let b = usize::try_from(log.index("b")).unwrap();
    let run = |kept: Checkpoint| {
        let mut audit = Audit::new();
        audit.expect(kept);
        log.bytes().iter().for_each(|bytes| audit.entry(bytes));
        found(&audit.finish(None))
    };
    assert_eq!(run(checkpoint(b, &other)), []);
    assert_eq!(run(checkpoint(b + 1, &other)), [(SplitView, None)]);
    assert_eq!(run(checkpoint(other.len(), &other)), [(SplitView, None)]);
    assert_eq!(run(Checkpoint { size: 1000, ..checkpoint(3, &log) }), [(Truncated, None)]);
    assert_eq!(
        run(Checkpoint { origin: "example.org/evidence/x".into(), ..checkpoint(3, &log) }),
        [(WrongLog, None)]
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_changed_byte_of_any_entry_is_found(
        entry in any::<prop::sample::Index>(), byte in any::<prop::sample::Index>(), flip in 1_u8..,
    ) {
        let log = Log::valid();
        let head = checkpoint(log.len(), &log);
        let (kept, mut stored) = (log.bytes(), log.bytes());
        let entry = entry.index(stored.len());
        let byte = byte.index(stored[entry].len());
        stored[entry][byte] ^= flip;
        let mut audit = Audit::new();
        stored.iter().zip(&kept).for_each(|(bytes, kept)| drop(audit.entry_with_leaf(bytes, leaf_hash(kept))));
        let found = found(&audit.finish(Some(&head)));
        prop_assert!(found.contains(&(LeafMismatch, Some(u64::try_from(entry).unwrap()))));
        prop_assert!(found.contains(&(RootMismatch, None)));
    }
}
