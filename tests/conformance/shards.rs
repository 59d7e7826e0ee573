//! Logs that follow each other in one store.

use daypass_broker::store::{Batch, Head, Live, Store, Turn, base};

use super::Place;
use super::samples::{NOON, commit_live, head, mark, open_log, row, spend};

/// The head of the second log.
fn second(size: u64) -> Head {
    Head { shard: 1, origin: "example.org/evidence/2027h1".into(), ..head(size, NOON) }
}

/// A turn after `size` entries: one more closes the log, and three open the next.
fn turn(size: u64) -> Batch {
    let turn = Turn {
        closed: head(size + 1, NOON),
        rows: vec![row(0), row(1), row(2)],
        subtrees: vec![(8, 2, [9; 32])],
    };
    Batch { rows: vec![row(size)], turn: Some(Box::new(turn)), ..Batch::default() }
}

fn take_turn(store: &mut dyn Store) {
    let transaction = store.begin().unwrap();
    let size = transaction.head().size;
    transaction.commit(&turn(size), &second(3)).unwrap();
}

pub(super) fn a_turn_moves_both_heads_or_none(place: &dyn Place) {
    let mut store = place.open().unwrap();
    open_log(store.as_mut());
    let reader = store.reader().unwrap();
    // The last of its entries stands where another one is.
    let mut impossible = turn(2);
    impossible.turn.as_mut().unwrap().rows.push(row(0));
    assert!(store.begin().unwrap().commit(&impossible, &second(4)).is_err());
    assert_eq!(reader.head().unwrap(), Some(head(2, NOON)));
    assert_eq!((reader.rows(0, 9).unwrap().len(), reader.closed().unwrap()), (2, vec![]));

    take_turn(store.as_mut());
    assert_eq!(store.begin().unwrap().head(), &second(3));
    assert_eq!(reader.head().unwrap(), Some(head(3, NOON)), "who read the first goes on reading it");
    let newer = place.open().unwrap().reader().unwrap();
    assert_eq!((newer.head().unwrap(), newer.closed().unwrap()), (Some(second(3)), vec![head(3, NOON)]));
}

pub(super) fn each_shard_is_read_alone_and_what_lives_is_shared(place: &dyn Place) {
    let mut store = place.open().unwrap();
    open_log(store.as_mut());
    let born = commit_live(store.as_mut(), &[NOON.plus_millis(1_000)]);
    let proof = mark("proof", NOON.plus_millis(300_000));
    assert_eq!(spend(store.as_mut(), &[proof], NOON), [true]);
    let size = store.begin().unwrap().head().size;
    take_turn(store.as_mut());
    let (first, next) = (place.shard(0).unwrap(), place.shard(1).unwrap());
    let expected: Vec<_> = (0..=size).map(row).collect();
    assert_eq!(first.rows(0, 99).unwrap(), expected);
    assert_eq!(next.rows(0, 99).unwrap(), [row(0), row(1), row(2)]);
    assert_eq!(next.rows(1, 1).unwrap(), [row(1)]);
    assert_eq!(next.leaves(1, 9).unwrap(), [row(1).leaf, row(2).leaf]);
    assert_eq!(next.fold_rows(0, 99).unwrap(), [row(0), row(2)]);
    assert_eq!(first.fold_rows(2, 1).unwrap(), [row(2)]);
    let subtrees = |index| [first.subtree(8, index).unwrap(), next.subtree(8, index).unwrap()];
    assert_eq!((subtrees(0), subtrees(2)), ([Some([8; 32]), None], [None, Some([9; 32])]));
    assert_eq!(first.entry_at(base(1) + 2).unwrap(), Some(row(2)));
    assert_eq!(first.entry_at(base(1) + 3).unwrap(), None);

    let mut transaction = store.begin().unwrap();
    assert_eq!(transaction.are_live(&born).unwrap(), [true]);
    assert_eq!(transaction.spend(&[proof]).unwrap(), [false], "it was spent in the log before");
    let live = Live { exp: NOON.plus_millis(1_000), index: base(1) + 3 };
    let adds = Batch { rows: vec![row(3)], born: vec![live], ..Batch::default() };
    transaction.commit(&adds, &second(4)).unwrap();
    assert_eq!(next.rows(3, 9).unwrap(), [row(3)]);
    assert_eq!((next.live_here().unwrap(), next.live().unwrap() - first.live_here().unwrap()), (1, 1));
    let expired = store.begin().unwrap().expired(NOON.plus_millis(2_000), 9).unwrap();
    assert_eq!(expired, [born[0], live], "of both logs");
}

pub(super) fn each_shard_is_sealed_by_itself(place: &dyn Place) {
    let mut store = place.open().unwrap();
    open_log(store.as_mut());
    take_turn(store.as_mut());
    let mut sealer = place.sealer().unwrap().unwrap();
    sealer.seal(base(1), base(1) + 2).unwrap();
    assert!(sealer.seal(base(1) + 2, base(1) + 9).is_err(), "it has no such entries");
    sealer.seal(0, 2).unwrap();
    while sealer.drop_sealed(1).unwrap() {}
    let (first, next) = (place.shard(0).unwrap(), place.shard(1).unwrap());
    assert_eq!((first.sealed_until().unwrap(), next.sealed_until().unwrap()), (2, 2));
    assert_eq!(first.rows(0, 9).unwrap(), [row(0), row(2)]);
    assert_eq!(next.rows(0, 9).unwrap(), [row(0), row(2)]);
}
