//! Small batches and the heads that they lead to. The store reads neither entries nor checkpoints, so any bytes do.

use daypass_broker::store::{Batch, Head, Live, Row, SealedKey, Store};
use daypass_core::draft::{Mark, MarkKind};
use daypass_verify::ids::{Digest, KeyId};
use daypass_verify::time::UnixMs;

/// A moment at the beginning of a minute.
pub(super) const NOON: UnixMs = UnixMs::new(1_796_126_400_000);

pub(super) fn row(index: u64) -> Row {
    let bytes = format!("entry {index}").into_bytes();
    Row { index, leaf: *Digest::of(&bytes).as_bytes(), bytes, folds: index.is_multiple_of(2) }
}

pub(super) fn head(size: u64, time: UnixMs) -> Head {
    Head {
        shard: 0,
        origin: "example.org/evidence/2026h2".into(),
        size,
        state: size.saturating_sub(1),
        time,
        frontier: vec![[7; 32]; size.count_ones() as usize],
        checkpoint: format!("checkpoint of {size}").into_bytes(),
    }
}

/// One of everything, from `size` on.
pub(super) fn batch(size: u64) -> Batch {
    Batch {
        rows: vec![row(size), row(size + 1)],
        subtrees: vec![(8, size, [8; 32])],
        born: vec![Live { exp: NOON.plus_millis(300_000), index: size }],
        ended: Vec::new(),
        turn: None,
        objects: vec![(object(size), b"an object".to_vec())],
        keys: vec![key(size)],
    }
}

pub(super) fn object(size: u64) -> Digest {
    Digest::of(&size.to_be_bytes())
}

pub(super) fn key(size: u64) -> SealedKey {
    let key = KeyId::from_thumbprint(*object(size).as_bytes());
    SealedKey { key, sealed: vec![1, 2, 3], certificate: size.is_multiple_of(2).then(|| vec![4, 5]) }
}

pub(super) fn mark(text: &str, expires: UnixMs) -> Mark {
    Mark { expires, earlier: None, key: *Digest::of(text.as_bytes()).as_bytes(), kind: MarkKind::Proof }
}

/// Opens the log with its first two entries.
pub(super) fn open_log(store: &mut dyn Store) {
    store.open(&batch(0), &head(2, NOON)).unwrap();
}

/// Commits credentials that live until these moments, as entries of their own.
pub(super) fn commit_live(store: &mut dyn Store, ends: &[UnixMs]) -> Vec<Live> {
    let transaction = store.begin().unwrap();
    let size = transaction.head().size;
    let born: Vec<Live> = ends.iter().zip(size..).map(|(exp, index)| Live { exp: *exp, index }).collect();
    let rows = born.iter().map(|live| row(live.index)).collect();
    let next = head(size + born.len() as u64, NOON);
    transaction.commit(&Batch { rows, born: born.clone(), ..Batch::default() }, &next).unwrap();
    born
}

/// Spends marks in a transaction of its own, that commits one entry at `time`.
pub(super) fn spend(store: &mut dyn Store, marks: &[Mark], time: UnixMs) -> Vec<bool> {
    let mut transaction = store.begin().unwrap();
    let fresh = marks.iter().flat_map(|mark| transaction.spend(&[*mark]).unwrap()).collect();
    let size = transaction.head().size;
    let batch = Batch { rows: vec![row(size)], ..Batch::default() };
    transaction.commit(&batch, &head(size + 1, time)).unwrap();
    fresh
}
