//! A log that was forked: two stores whose heads are both signed by its key, shown to a broker one after the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use daypass_broker::log::{self, Anchor, Attached, Log, RecordError};
use daypass_broker::store::sqlite::SqliteStore;
use daypass_broker::store::{Batch, Head, Live, Reader, Row, SealedKey, Store, StoreError, Transaction};
use daypass_evidence::checkpoint::Checkpoint;
use daypass_evidence::entry::{Alarm, AlarmState, Index, NewEntry};
use daypass_verify::ids::Digest;

use super::ground::Kind;
use super::op::What;
use super::world::World;

/// A store that shows one of two faces.
struct TwoFaced {
    faces: [SqliteStore; 2],
    shown: Arc<AtomicUsize>,
}

struct TwoFacedReader {
    faces: [Box<dyn Reader>; 2],
    shown: Arc<AtomicUsize>,
}

impl Store for TwoFaced {
    fn keep_room(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    fn has_room(&mut self) -> bool {
        true
    }

    fn begin(&mut self) -> Result<Box<dyn Transaction + '_>, StoreError> {
        self.faces[self.shown.load(Ordering::SeqCst)].begin()
    }

    fn open(&mut self, _: &Batch, _: &Head) -> Result<(), StoreError> {
        Err(StoreError::Unavailable("it is open".into()))
    }

    fn reader(&self) -> Result<Box<dyn Reader>, StoreError> {
        let faces = [self.faces[0].reader()?, self.faces[1].reader()?];
        Ok(Box::new(TwoFacedReader { faces, shown: Arc::clone(&self.shown) }))
    }
}

impl TwoFacedReader {
    fn face(&self) -> &dyn Reader {
        self.faces[self.shown.load(Ordering::SeqCst)].as_ref()
    }
}

impl Reader for TwoFacedReader {
    fn head(&self) -> Result<Option<Head>, StoreError> {
        self.face().head()
    }

    fn rows(&self, start: Index, limit: u32) -> Result<Vec<Row>, StoreError> {
        self.face().rows(start, limit)
    }

    fn closed(&self) -> Result<Vec<Head>, StoreError> {
        self.face().closed()
    }

    fn entry_at(&self, place: Index) -> Result<Option<Row>, StoreError> {
        self.face().entry_at(place)
    }

    fn live_here(&self) -> Result<u64, StoreError> {
        self.face().live_here()
    }

    fn fold_rows(&self, start: Index, limit: u32) -> Result<Vec<Row>, StoreError> {
        self.face().fold_rows(start, limit)
    }

    fn subtree(&self, level: u8, index: u64) -> Result<Option<[u8; 32]>, StoreError> {
        self.face().subtree(level, index)
    }

    fn object(&self, digest: &Digest) -> Result<Option<Vec<u8>>, StoreError> {
        self.face().object(digest)
    }

    fn keys(&self) -> Result<Vec<SealedKey>, StoreError> {
        self.face().keys()
    }

    fn live(&self) -> Result<u64, StoreError> {
        self.face().live()
    }

    fn live_after(&self, after: Option<Live>, limit: u32) -> Result<Vec<Live>, StoreError> {
        self.face().live_after(after, limit)
    }
}

/// A broker before a store with two faces, and one that writes each of them alone.
struct Forked {
    world: World,
    log: Log,
    shown: Arc<AtomicUsize>,
}

impl Forked {
    async fn new() -> Self {
        let world = World::new(1, 1, Kind::File).await.unwrap();
        for end in ["", "-wal"] {
            drop(std::fs::copy(world.path(&format!("store{end}")), world.path(&format!("other{end}"))));
        }
        let open = |name: &str| SqliteStore::open_file(&world.path(name), false).unwrap();
        let shown = Arc::<AtomicUsize>::default();
        let store = TwoFaced { faces: [open("store"), open("other")], shown: Arc::clone(&shown) };
        let anchor = Anchor::open(&world.path("anchor-b7")).unwrap();
        let reader = store.reader().unwrap();
        let settings = world.log_settings("b7", &world.seats[0].clock, reader.as_ref(), Some(anchor));
        let log = log::open(Box::new(store), settings).unwrap();
        Self { world, log, shown }
    }

    /// What another broker writes into the face that is not shown at first.
    async fn write_other(&self, counts: &[usize]) {
        let store = SqliteStore::open_file(&self.world.path("other"), false).unwrap();
        let reader = store.reader().unwrap();
        let settings = self.world.log_settings("b8", &self.world.seats[0].clock, reader.as_ref(), None);
        let log = log::open(Box::new(store), settings).unwrap();
        for count in counts {
            self.append(&log, *count).await.unwrap();
        }
    }

    async fn append(&self, log: &Log, count: usize) -> Result<(), RecordError> {
        let entry = || NewEntry {
            id: self.world.ids.draw(self.world.now()).unwrap(),
            request: None,
            by: None,
            body: Alarm { code: "DRILL".into(), state: AlarmState::Raised, raised: None, detail: None }
                .into(),
        };
        let entries = std::iter::repeat_with(entry).take(count).collect();
        log.append(entries, Attached::default()).await.map(drop)
    }
}

#[tokio::test]
async fn a_forked_log_stops_the_broker_and_both_heads_are_kept() {
    // Of the same size, longer, and so much longer that a proof is asked for.
    for counts in [&[1][..], &[2], &[1, 500], &[400; 52]] {
        let forked = Forked::new().await;
        forked.append(&forked.log, 1).await.unwrap();
        let seen = forked.log.published().head.size;
        forked.write_other(counts).await;
        forked.shown.store(1, Ordering::SeqCst);
        let refused = forked.append(&forked.log, 1).await.unwrap_err();
        assert!(matches!(refused, RecordError::SplitView(_)), "{counts:?}: {refused}");
        forked.shown.store(0, Ordering::SeqCst);
        let refused = forked.append(&forked.log, 1).await.unwrap_err();
        assert!(matches!(refused, RecordError::SplitView(_)), "it stays stopped: {refused}");
        let kept = ["seen", "found"].map(|kind| {
            let note = std::fs::read(forked.world.path(&format!("anchor-b7.split-view.{kind}"))).unwrap();
            Checkpoint::open(&note, &forked.world.key).unwrap()
        });
        let found = seen - 1 + counts.iter().sum::<usize>() as u64;
        assert_eq!((kept[0].size, kept[1].size), (seen, found), "both with good signatures");
    }
}

#[tokio::test]
async fn a_broker_that_was_away_takes_over_what_others_wrote_however_much() {
    for counts in [&[1][..], &[700], &[500; 5], &[400; 52]] {
        let forked = Forked::new().await;
        forked.write_other(counts).await;
        // Nothing was written to the first face: the other one extends it.
        forked.shown.store(1, Ordering::SeqCst);
        forked.append(&forked.log, 1).await.unwrap_or_else(|error| panic!("{counts:?}: {error}"));
        let store = SqliteStore::open_file(&forked.world.path("other"), false).unwrap();
        let head = store.reader().unwrap().head().unwrap().unwrap();
        assert_eq!(*forked.log.published().head, head);
    }
}

#[tokio::test]
async fn a_caller_with_another_checkpoint_of_the_same_size_stops_the_broker() {
    let mut world = World::new(1, 1, Kind::File).await.unwrap();
    let head = world.desk().log.published();
    let (origin, size) = (head.head.origin.clone(), head.head.size);
    let shown = Checkpoint { origin, size, root: [7; 32] };
    let stopped = world.desk().log.compare(&shown).unwrap_err().to_string();
    assert!(stopped.contains("does not begin with"), "{stopped}");
    let held = world.held.len();
    world.issue(What::ReadInvoices, 60).await.ok();
    assert_eq!(world.held.len(), held, "nothing is issued any more");
    let kept = std::fs::read(world.path("anchor-b1.split-view.found")).unwrap();
    assert_eq!(Checkpoint::open(&kept, &world.key).unwrap().root, [7; 32]);
}
