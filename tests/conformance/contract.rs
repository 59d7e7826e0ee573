//! The promises, each over any store.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use daypass_broker::store::{Batch, Live, SealedKey, StoreError};
use daypass_core::draft::Mark;

use super::Place;
use super::samples::{NOON, batch, commit_live, head, key, mark, object, open_log, row, spend};

pub(super) fn a_log_is_opened_once(place: &dyn Place) {
    let mut store = place.open().unwrap();
    open_log(store.as_mut());
    let again = place.open().unwrap().open(&batch(0), &head(2, NOON));
    assert!(matches!(again, Err(StoreError::HeadMoved { expected: 0, found: 2 })), "{again:?}");
    assert_eq!(store.reader().unwrap().rows(0, 10).unwrap(), [row(0), row(1)]);
}

pub(super) fn a_store_without_a_log_takes_no_transaction(place: &dyn Place) {
    let mut store = place.open().unwrap();
    assert_eq!(store.reader().unwrap().head().unwrap(), None);
    assert!(matches!(store.begin().map(drop), Err(StoreError::Damaged(_))));
    open_log(store.as_mut());
    assert_eq!(store.begin().unwrap().head(), &head(2, NOON));
}

pub(super) fn the_lock_keeps_a_second_writer_out(place: &dyn Place) {
    let mut first = place.open().unwrap();
    open_log(first.as_mut());
    let (done, order) = mpsc::channel();
    let transaction = first.begin().unwrap();
    thread::scope(|scope| {
        let second_done = done.clone();
        scope.spawn(move || {
            let mut second = place.open().unwrap();
            let size = second.begin().unwrap().head().size;
            second_done.send(("second begins", size)).unwrap();
        });
        thread::sleep(Duration::from_millis(200));
        done.send(("first commits", transaction.head().size)).unwrap();
        transaction.commit(&batch(2), &head(4, NOON)).unwrap();
    });
    let order: Vec<_> = order.try_iter().collect();
    assert_eq!(order, [("first commits", 2), ("second begins", 4)]);
}

pub(super) fn a_writer_that_waits_too_long_is_told_so(place: &dyn Place) {
    let mut first = place.open().unwrap();
    open_log(first.as_mut());
    let mut transaction = first.begin().unwrap();
    let mut second = place.open().unwrap();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let began = Instant::now();
            (second.begin().map(drop), began.elapsed())
        });
        // It is at work all the time: one that stalls is another matter.
        while !waiting.is_finished() {
            transaction.expired(NOON, 1).unwrap();
            thread::sleep(Duration::from_millis(50));
        }
        let (refused, waited) = waiting.join().unwrap();
        assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
        assert!(waited < Duration::from_secs(3), "waited {waited:?}");
    });
    drop(transaction);
    second.begin().unwrap();
}

pub(super) fn a_dropped_transaction_leaves_no_trace(place: &dyn Place) {
    let mut store = place.open().unwrap();
    open_log(store.as_mut());
    let marks = [mark("proof", NOON.plus_millis(60_000))];
    let mut transaction = store.begin().unwrap();
    assert_eq!(transaction.spend(&marks).unwrap(), [true]);
    drop(transaction);
    let mut again = store.begin().unwrap();
    assert_eq!(again.head(), &head(2, NOON));
    assert_eq!(again.spend(&marks).unwrap(), [true], "the mark was given back");
}

pub(super) fn a_commit_that_fails_leaves_no_trace(place: &dyn Place) {
    let mut store = place.open().unwrap();
    open_log(store.as_mut());
    let marks = [mark("proof", NOON.plus_millis(60_000))];
    let mut transaction = store.begin().unwrap();
    transaction.spend(&marks).unwrap();
    // The second of its entries stands where another one is.
    let impossible = Batch { rows: vec![row(2), row(1)], ..batch(2) };
    assert!(transaction.commit(&impossible, &head(4, NOON)).is_err());

    let reader = store.reader().unwrap();
    assert_eq!(reader.head().unwrap(), Some(head(2, NOON)));
    assert_eq!(reader.rows(0, 10).unwrap(), [row(0), row(1)]);
    assert_eq!((reader.live().unwrap(), reader.object(&object(2)).unwrap()), (1, None));
    assert_eq!(store.begin().unwrap().spend(&marks).unwrap(), [true]);
    store.begin().unwrap().commit(&batch(2), &head(4, NOON)).unwrap();
}

pub(super) fn what_was_committed_is_there_after_opening_again(place: &dyn Place) {
    let mut store = place.open().unwrap();
    open_log(store.as_mut());
    store.begin().unwrap().commit(&batch(2), &head(4, NOON.plus_millis(1))).unwrap();
    drop(store);

    let reader = place.open().unwrap().reader().unwrap();
    assert_eq!(reader.head().unwrap(), Some(head(4, NOON.plus_millis(1))));
    assert_eq!(reader.rows(0, 10).unwrap(), [row(0), row(1), row(2), row(3)]);
    assert_eq!(reader.subtree(8, 2).unwrap(), Some([8; 32]));
    assert_eq!(reader.subtree(16, 2).unwrap(), None);
    assert_eq!(reader.object(&object(2)).unwrap(), Some(b"an object".to_vec()));
    assert_eq!(reader.object(&object(9)).unwrap(), None);
    assert_eq!(reader.live().unwrap(), 2);
    let mut keys = [key(0), key(2)];
    keys.sort_by(|a, b| a.key.cmp(&b.key));
    assert_eq!(reader.keys().unwrap(), keys);
}

pub(super) fn a_reader_sees_what_is_committed_and_nothing_else(place: &dyn Place) {
    let mut store = place.open().unwrap();
    open_log(store.as_mut());
    let reader = store.reader().unwrap();
    let mut transaction = store.begin().unwrap();
    transaction.spend(&[mark("proof", NOON)]).unwrap();
    assert_eq!(reader.head().unwrap(), Some(head(2, NOON)), "a reader waits for no writer");
    transaction.commit(&batch(2), &head(4, NOON)).unwrap();
    assert_eq!(reader.head().unwrap(), Some(head(4, NOON)));
    assert_eq!(reader.rows(2, 10).unwrap(), [row(2), row(3)]);
}

pub(super) fn a_mark_is_fresh_once(place: &dyn Place) {
    let mut store = place.open().unwrap();
    open_log(store.as_mut());
    let expires = NOON.plus_millis(300_000);
    let (one, other) = (mark("one", expires), mark("other", expires));
    assert_eq!(spend(store.as_mut(), &[one, other, one], NOON), [true, true, false]);
    assert_eq!(spend(store.as_mut(), &[other, mark("third", expires)], NOON), [false, true]);
    let mut elsewhere = place.open().unwrap();
    assert_eq!(spend(elsewhere.as_mut(), &[one], NOON), [false], "on whichever connection");
}

pub(super) fn marks_are_spent_together_or_not_at_all(place: &dyn Place) {
    let mut store = place.open().unwrap();
    open_log(store.as_mut());
    let expires = NOON.plus_millis(300_000);
    let (spent, fresh) = (mark("spent", expires), mark("fresh", expires));
    assert_eq!(spend(store.as_mut(), &[spent], NOON), [true]);
    let mut transaction = store.begin().unwrap();
    assert_eq!(transaction.spend(&[fresh, spent]).unwrap(), [true, false]);
    assert_eq!(transaction.spend(&[fresh]).unwrap(), [true], "it was not spent with the other");
}

pub(super) fn marks_of_a_whole_batch_are_spent_as_one_after_another(place: &dyn Place) {
    let mut store = place.open().unwrap();
    open_log(store.as_mut());
    let expires = NOON.plus_millis(300_000);
    let [spent, one, other, third] = ["spent", "one", "other", "third"].map(|text| mark(text, expires));
    assert_eq!(spend(store.as_mut(), &[spent], NOON), [true]);
    let mut transaction = store.begin().unwrap();
    let groups: [&[Mark]; 6] = [&[one, spent], &[one], &[], &[other, one], &[other, third], &[third]];
    let fresh = transaction.spend_all(&groups).unwrap();
    let expected: [&[bool]; 6] = [&[true, false], &[true], &[], &[true, false], &[true, true], &[false]];
    assert_eq!(fresh, expected);
    transaction.commit(&Batch { rows: vec![row(3)], ..Batch::default() }, &head(4, NOON)).unwrap();
    assert_eq!(
        spend(store.as_mut(), &[one, other, third, mark("new", expires)], NOON),
        [false, false, false, true]
    );
}

pub(super) fn a_mark_is_found_in_the_bucket_before(place: &dyn Place) {
    let mut store = place.open().unwrap();
    open_log(store.as_mut());
    let (before, after) = (NOON.plus_millis(600_000), NOON.plus_millis(1_200_000));
    let looking_back = |text| Mark { earlier: Some(before), ..mark(text, after) };
    assert_eq!(spend(store.as_mut(), &[mark("id", before)], NOON), [true]);
    let marks = [looking_back("id"), looking_back("another id")];
    assert_eq!(spend(store.as_mut(), &marks, NOON), [false, true]);
}

pub(super) fn a_mark_is_remembered_until_it_expires(place: &dyn Place) {
    let mut store = place.open().unwrap();
    open_log(store.as_mut());
    let expires = NOON.plus_millis(300_000);
    let proof = mark("proof", expires);
    assert_eq!(spend(store.as_mut(), &[proof], NOON), [true]);
    for later in [60_000, 240_000, 299_999] {
        assert_eq!(spend(store.as_mut(), &[proof], NOON.plus_millis(later)), [false], "{later} ms later");
    }
}

pub(super) fn what_expired_comes_oldest_first_and_no_more_than_asked(place: &dyn Place) {
    let mut store = place.open().unwrap();
    open_log(store.as_mut());
    let at = |ms: i64| NOON.plus_millis(ms);
    let born = commit_live(store.as_mut(), &[at(120_000), at(60_500), at(1_000), at(59_999), at(61_000)]);
    let expected: Vec<Live> = [2, 3, 1, 4].map(|place| born[place]).to_vec();
    let mut transaction = store.begin().unwrap();
    assert_eq!(transaction.expired(at(61_000), 10).unwrap(), expected);
    assert_eq!(transaction.expired(at(61_000), 2).unwrap(), expected[..2]);
    assert_eq!(transaction.expired(at(60_999), 10).unwrap(), expected[..3], "to the millisecond");
    assert_eq!(transaction.expired(at(999), 10).unwrap(), []);
}

pub(super) fn what_ended_is_not_live(place: &dyn Place) {
    let mut store = place.open().unwrap();
    open_log(store.as_mut());
    let born = commit_live(store.as_mut(), &[NOON.plus_millis(1_000), NOON.plus_millis(2_000)]);
    let before = store.reader().unwrap().live().unwrap();
    let transaction = store.begin().unwrap();
    let size = transaction.head().size;
    let ending = Batch { rows: vec![row(size)], ended: vec![born[0]], ..Batch::default() };
    transaction.commit(&ending, &head(size + 1, NOON)).unwrap();
    assert_eq!(store.reader().unwrap().live().unwrap(), before - 1);
    let left = store.begin().unwrap().expired(NOON.plus_millis(5_000), 10).unwrap();
    assert_eq!(left, [born[1]]);
}

pub(super) fn what_was_found_live_is_asked_again_under_the_lock(place: &dyn Place) {
    let mut store = place.open().unwrap();
    open_log(store.as_mut());
    let born = commit_live(store.as_mut(), &[NOON.plus_millis(1_000), NOON.plus_millis(61_000)]);
    let never = Live { exp: NOON.plus_millis(1_000), index: 99 };
    let mut transaction = store.begin().unwrap();
    assert_eq!(transaction.are_live(&[born[1], never, born[0]]).unwrap(), [true, false, true]);
    let size = transaction.head().size;
    let ending = Batch { rows: vec![row(size)], ended: vec![born[1]], ..Batch::default() };
    transaction.commit(&ending, &head(size + 1, NOON)).unwrap();
    assert_eq!(store.begin().unwrap().are_live(&born).unwrap(), [true, false]);
    assert!(store.begin().unwrap().are_live(&[]).unwrap().is_empty());
}

pub(super) fn all_that_lives_is_found_page_by_page(place: &dyn Place) {
    let mut store = place.open().unwrap();
    open_log(store.as_mut());
    let ends = [120_000, 60_500, 1_000, 60_400, 59_999].map(|ms| NOON.plus_millis(ms));
    let born = commit_live(store.as_mut(), &ends);
    let reader = store.reader().unwrap();
    let mut found = Vec::new();
    loop {
        let page = reader.live_after(found.last().copied(), 2).unwrap();
        if page.is_empty() {
            break;
        }
        found.extend(page);
    }
    let mut all = reader.live_after(None, 100).unwrap();
    assert_eq!(found, all, "none is passed over, and none comes twice");
    all.retain(|live| born.contains(live));
    assert_eq!(all, [2, 4, 3, 1, 0].map(|place| born[place]), "by their end");
}

pub(super) fn a_key_that_is_kept_again_is_replaced(place: &dyn Place) {
    let mut store = place.open().unwrap();
    open_log(store.as_mut());
    let destroyed = SealedKey { sealed: Vec::new(), certificate: None, ..key(0) };
    let transaction = store.begin().unwrap();
    let size = transaction.head().size;
    let batch = Batch { rows: vec![row(size)], keys: vec![destroyed.clone()], ..Batch::default() };
    transaction.commit(&batch, &head(size + 1, NOON)).unwrap();
    assert_eq!(store.reader().unwrap().keys().unwrap(), [destroyed]);
}

pub(super) fn entries_are_read_from_where_and_as_many_as_asked(place: &dyn Place) {
    let mut store = place.open().unwrap();
    open_log(store.as_mut());
    commit_live(store.as_mut(), &[NOON; 6]);
    let reader = store.reader().unwrap();
    assert_eq!(reader.rows(3, 2).unwrap(), [row(3), row(4)]);
    assert_eq!(reader.rows(7, 9).unwrap(), [row(7)]);
    assert_eq!(reader.rows(8, 9).unwrap(), []);
    assert_eq!(reader.fold_rows(1, 2).unwrap(), [row(2), row(4)], "of those that the state folds");
}

pub(super) fn a_batch_of_thousands_is_committed_whole(place: &dyn Place) {
    const MANY: u64 = 5_000;
    let mut store = place.open().unwrap();
    open_log(store.as_mut());
    let born = commit_live(store.as_mut(), &vec![NOON.plus_millis(1_000); 5_000]);
    let reader = store.reader().unwrap();
    assert_eq!(reader.rows(0, u32::MAX).unwrap(), (0..MANY + 2).map(row).collect::<Vec<_>>());
    let mut transaction = store.begin().unwrap();
    assert_eq!(transaction.expired(NOON.plus_millis(1_000), u32::MAX).unwrap(), born);
    let ending = Batch { rows: vec![row(MANY + 2)], ended: born, ..Batch::default() };
    transaction.commit(&ending, &head(MANY + 3, NOON)).unwrap();
    assert_eq!(store.begin().unwrap().expired(NOON.plus_millis(1_000), u32::MAX).unwrap(), []);
}
