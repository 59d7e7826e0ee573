//! How entries leave a store, in any store: once it is said that they are sealed, and by the sealer alone.

use daypass_broker::store::{Batch, StoreError};

use super::Place;
use super::samples::{NOON, commit_live, head, open_log, row};

pub(super) fn only_what_is_sealed_and_not_folded_leaves_the_store(place: &dyn Place) {
    let mut store = place.open().unwrap();
    open_log(store.as_mut());
    commit_live(store.as_mut(), &[NOON; 8]);
    let reader = store.reader().unwrap();
    let whole = reader.rows(0, 99).unwrap();
    assert_eq!((whole.len(), reader.sealed_until().unwrap()), (10, 0));
    let mut sealer = place.sealer().unwrap().unwrap();
    assert!(!sealer.drop_sealed(99).unwrap(), "nothing is sealed");
    sealer.seal(0, 6).unwrap();
    assert_eq!(reader.sealed_until().unwrap(), 6);
    assert_eq!(reader.rows(0, 99).unwrap(), whole, "what is sealed lies here until it is dropped");
    while sealer.drop_sealed(2).unwrap() {}
    let left: Vec<_> = whole.iter().filter(|row| row.folds || row.index >= 6).cloned().collect();
    assert_eq!(reader.rows(0, 99).unwrap(), left);
    assert_eq!(reader.fold_rows(0, 99).unwrap(), [row(0), row(2), row(4), row(6), row(8)]);
    drop((sealer, store));

    let store = place.open().unwrap();
    let reader = store.reader().unwrap();
    assert_eq!((reader.sealed_until().unwrap(), reader.head().unwrap().unwrap().size), (6, 10));
    assert_eq!(reader.rows(0, 99).unwrap(), left, "it is so after opening again");
}

pub(super) fn entries_are_sealed_one_after_another_and_none_that_is_not_there(place: &dyn Place) {
    let mut store = place.open().unwrap();
    open_log(store.as_mut());
    commit_live(store.as_mut(), &[NOON; 4]);
    let mut sealer = place.sealer().unwrap().unwrap();
    sealer.seal(0, 2).unwrap();
    for (from, to) in [(0, 4), (3, 4), (4, 6), (2, 2), (2, 7)] {
        let refused = sealer.seal(from, to);
        assert!(matches!(refused, Err(StoreError::Damaged(_))), "{from} {to}: {refused:?}");
    }
    assert_eq!(store.reader().unwrap().sealed_until().unwrap(), 2);
    sealer.seal(2, 6).unwrap();
    assert_eq!(store.reader().unwrap().sealed_until().unwrap(), 6, "up to the head");
}

pub(super) fn sealing_goes_on_beside_a_writer(place: &dyn Place) {
    let mut store = place.open().unwrap();
    open_log(store.as_mut());
    commit_live(store.as_mut(), &[NOON; 4]);
    let mut sealer = place.sealer().unwrap().unwrap();
    sealer.seal(0, 4).unwrap();
    for size in 6..10 {
        let left = sealer.drop_sealed(1).unwrap();
        let transaction = store.begin().unwrap();
        let batch = Batch { rows: vec![row(size)], ..Batch::default() };
        transaction.commit(&batch, &head(size + 1, NOON)).unwrap();
        assert_eq!(store.reader().unwrap().rows(6, 99).unwrap().len() as u64, size - 5);
        if !left {
            break;
        }
    }
    while sealer.drop_sealed(1).unwrap() {}
    assert_eq!(store.reader().unwrap().rows(0, 3).unwrap(), [row(0), row(2), row(4)]);
}
