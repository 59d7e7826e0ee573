use std::fs;
use std::path::PathBuf;

use daypass_evidence::audit::FindingCode;
use daypass_evidence::entry::{Alarm, AlarmState, Entry, NewEntry};
use daypass_evidence::tree::{Frontier, inclusion_proof, leaf_hash, verify_inclusion};
use daypass_verify::time::UnixMs;
use proptest::prelude::*;
use ring::signature::Ed25519KeyPair;
use rusqlite::Connection;
use tempfile::TempDir;

use super::*;
use crate::ids::Ids;
use crate::index;
use crate::log::examine_store;
use crate::store::sqlite::{SqliteSealer, SqliteStore};
use crate::store::{Batch, Head, Row, Store as _};

const ORIGIN: &str = "example.org/evidence/2026-2";
const EARLIER: UnixMs = UnixMs::new(1_760_000_000_000);

/// A log in a store of its own, each tenth entry of which the state is folded from.
struct Sealing {
    folder: TempDir,
    rows: Vec<Row>,
    root: Hash,
    key: VerifierKey,
}

impl Sealing {
    fn of(size: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let pair = Ed25519KeyPair::from_seed_unchecked(&[1; 32]).unwrap();
        let ids = Ids::system();
        let rows: Vec<Row> = (0..size).map(|index| row(&ids, index)).collect();
        let (leaves, mut frontier): (Vec<Hash>, _) =
            (rows.iter().map(|row| row.leaf).collect(), Frontier::empty());
        leaves.iter().for_each(|leaf| frontier.append(*leaf));
        let whole = leaves.chunks_exact(256).zip(0..);
        let batch = Batch {
            rows: rows.clone(),
            subtrees: whole.map(|(leaves, index)| (8, index, root_over(leaves).unwrap())).collect(),
            ..Batch::default()
        };
        let signed = Checkpoint { origin: ORIGIN.into(), size, root: frontier.root() };
        let head = Head {
            shard: 0,
            origin: ORIGIN.into(),
            size,
            state: 0,
            time: EARLIER.plus_millis(i64::try_from(size).unwrap()),
            frontier: frontier.nodes().to_vec(),
            checkpoint: signed.sign(&pair).unwrap().into_bytes(),
        };
        let made = Self { folder, rows, root: frontier.root(), key: VerifierKey::of(ORIGIN, &pair).unwrap() };
        SqliteStore::open_file(&made.at(), true).unwrap().open(&batch, &head).unwrap();
        made
    }

    fn at(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    fn archive(&self) -> Archive {
        Archive::of_log(&self.folder.path().join("sealed"), ORIGIN)
    }

    fn reader(&self) -> Archived {
        Archived::new(SqliteStore::open_reader(&self.at()).unwrap(), Some(self.archive()))
    }

    fn seal(&self, entries: u64, before: Before<'_>) -> Result<bool, StoreError> {
        let mut sealer = SqliteSealer::open(&self.at()).unwrap();
        seal_stepwise(&mut sealer, &self.reader(), &self.archive(), &self.key, entries, before)
    }

    fn seal_all(&self, entries: u64) {
        while self.seal(entries, &mut |_| Ok(())).unwrap() {}
    }

    /// How many entries lie in the database itself.
    fn stored(&self) -> u64 {
        let connection = Connection::open(self.at()).unwrap();
        let count: i64 = connection.query_row("SELECT count(*) FROM entries", [], |row| row.get(0)).unwrap();
        count.try_into().unwrap()
    }

    fn change(&self, sql: &str) {
        Connection::open(self.at()).unwrap().execute_batch(sql).unwrap();
    }

    fn assert_whole(&self) {
        assert_eq!(self.reader().rows(0, u32::MAX).unwrap(), self.rows);
    }

    fn files(&self, folder: &str) -> Vec<PathBuf> {
        let listed = fs::read_dir(self.archive().folder().join(folder)).unwrap();
        listed.map(|file| file.unwrap().path()).collect()
    }
}

fn row(ids: &Ids, index: u64) -> Row {
    let time = EARLIER.plus_millis(i64::try_from(index).unwrap());
    let body = Alarm {
        code: "LINT_FAILED".into(),
        state: AlarmState::Raised,
        raised: None,
        detail: Some("x".repeat(usize::try_from(1 + index % 40).unwrap())),
    };
    let entry = NewEntry { id: ids.draw(time).unwrap(), request: None, by: None, body: body.into() };
    let bytes = entry.encode(time, &"example.org".parse().unwrap(), &"b1".parse().unwrap()).unwrap();
    Row { index, leaf: leaf_hash(&bytes), bytes, folds: index.is_multiple_of(10) }
}

fn stopped() -> StoreError {
    StoreError::Unavailable("the test stops it".into())
}

#[test]
fn sealed_entries_are_read_found_and_proven_as_before() {
    let log = Sealing::of(1_300);
    log.seal_all(512);
    assert_eq!(log.reader().sealed_until().unwrap(), 1_024);
    assert_eq!(log.stored(), 276 + 103, "what is not sealed, and what the state is folded from");
    log.assert_whole();
    let reader = log.reader();
    for (start, limit) in
        [(0, 1), (255, 2), (511, 300), (1_000, 24), (1_000, 25), (1_023, 277), (1_299, 9), (1_300, 1)]
    {
        let expected: Vec<Row> = log.rows.iter().skip(start).take(limit).cloned().collect();
        let (start, limit) = (u64::try_from(start).unwrap(), u32::try_from(limit).unwrap());
        assert_eq!(reader.rows(start, limit).unwrap(), expected, "{start} {limit}");
        let leaves: Vec<Hash> = expected.iter().map(|row| row.leaf).collect();
        assert_eq!(reader.leaves(start, limit).unwrap(), leaves, "{start} {limit}");
    }
    for at in [0, 300, 1_023, 1_024, 1_299] {
        let id = Entry::read(&log.rows[at].bytes).unwrap().envelope.id;
        assert_eq!(index::find(&reader, &id).unwrap().as_ref(), Some(&log.rows[at]));
        let place = u64::try_from(at).unwrap();
        let (leaf, path) =
            (log.rows[at].leaf, inclusion_proof(place, 1_300, &StoredNodes::of(&reader)).unwrap());
        assert_eq!(verify_inclusion(leaf, place, 1_300, &path, log.root), Ok(()), "{at}");
    }
    let folded: Vec<Row> = log.rows.iter().filter(|row| row.folds).cloned().collect();
    assert_eq!(reader.fold_rows(0, 2_000).unwrap(), folded);
}

#[test]
fn a_sealed_log_verifies_as_it_did_before() {
    let log = Sealing::of(700);
    let before = examine_store(&log.reader(), &log.key, None).unwrap().report;
    log.seal_all(256);
    assert_eq!(examine_store(&log.reader(), &log.key, None).unwrap().report, before);
}

/// The list of all steps of a sealing, then one run for each of them that is stopped before it.
#[test]
fn whatever_stops_sealing_leaves_the_log_whole_and_it_goes_on() {
    let mut steps = Vec::new();
    Sealing::of(600)
        .seal(512, &mut |step| {
            steps.push(step);
            Ok(())
        })
        .unwrap();
    assert!(steps.len() >= 4 * 3 + 4, "{steps:?}");
    for stop in 0..steps.len() {
        let log = Sealing::of(600);
        let mut done = 0;
        let mut before = |_| {
            done += 1;
            if done > stop { Err(stopped()) } else { Ok(()) }
        };
        assert!(log.seal(512, &mut before).is_err(), "{:?}", steps[stop]);
        log.assert_whole();
        let marked = steps[..stop].contains(&Step::Mark);
        assert_eq!(log.reader().sealed_until().unwrap(), if marked { 512 } else { 0 }, "{:?}", steps[stop]);
        if !marked {
            assert_eq!(log.stored(), 600, "nothing leaves the store before it is said to be elsewhere");
        }
        log.seal_all(512);
        log.assert_whole();
        assert_eq!((log.reader().sealed_until().unwrap(), log.stored()), (512, 88 + 52), "{:?}", steps[stop]);
    }
}

#[test]
fn files_that_are_not_what_was_recorded_are_never_relied_on() {
    for (folder, place) in [("tile/entries", 40), ("tile/0", 40)] {
        let log = Sealing::of(300);
        let spoil = |step| {
            if step == Step::Verify {
                let path = log.files(folder).remove(0);
                let mut content = fs::read(&path).unwrap();
                content[place] ^= 1;
                fs::write(path, content).unwrap();
            }
            Ok(())
        };
        let refused = log.seal(256, &mut { spoil }).unwrap_err();
        assert!(matches!(refused, StoreError::Damaged(_)), "{refused}");
        assert_eq!((log.reader().sealed_until().unwrap(), log.stored()), (0, 300));
        log.seal_all(256);
        log.assert_whole();
    }
}

#[test]
fn a_store_that_was_changed_is_not_sealed() {
    let log = Sealing::of(300);
    let bytes = "UPDATE entries SET bytes = CAST(replace(CAST(bytes AS TEXT), 'raised', 'cleared') AS BLOB) WHERE idx = 77;";
    log.change(bytes);
    assert!(log.seal(256, &mut |_| Ok(())).unwrap_err().to_string().contains("entry 77 of the bundle"));
    let hex = |hash: Hash| hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let changed = SqliteStore::open_reader(&log.at()).unwrap().rows(0, 256).unwrap();
    let leaf = leaf_hash(&changed[77].bytes);
    log.change(&format!("UPDATE entries SET leaf = x'{}' WHERE idx = 77", hex(leaf)));
    assert!(log.seal(256, &mut |_| Ok(())).unwrap_err().to_string().contains("another root than the one"));
    let mut leaves: Vec<Hash> = changed.iter().map(|row| row.leaf).collect();
    leaves[77] = leaf;
    log.change(&format!("UPDATE subtrees SET hash = x'{}'", hex(root_over(&leaves).unwrap())));
    assert!(log.seal(256, &mut |_| Ok(())).unwrap_err().to_string().contains("the signed checkpoint's"));
    assert_eq!((log.reader().sealed_until().unwrap(), log.stored()), (0, 300));
}

#[test]
fn a_broker_without_the_folder_says_so_and_reads_the_rest() {
    let log = Sealing::of(300);
    log.seal_all(256);
    let reader = Archived::new(SqliteStore::open_reader(&log.at()).unwrap(), None);
    let refused = reader.rows(0, 1).unwrap_err().to_string();
    assert!(refused.contains("entries below 256 are sealed") && refused.contains("seal_dir"), "{refused}");
    assert_eq!(reader.rows(256, 9).unwrap(), log.rows[256..265]);
    assert_eq!(reader.fold_rows(0, 3).unwrap().len(), 3);
}

#[test]
fn a_lost_file_is_named_and_a_changed_entry_too() {
    let log = Sealing::of(300);
    log.seal_all(256);
    let path = log.files("tile/entries").remove(0);
    let mut content = fs::read(&path).unwrap();
    let at = content.windows(6).position(|window| window == b"raised").unwrap();
    content[at] ^= 1;
    fs::write(&path, content).unwrap();
    let report = examine_store(&log.reader(), &log.key, None).unwrap().report;
    assert!(report.findings.iter().any(|finding| finding.code == FindingCode::LeafMismatch));
    fs::remove_file(&path).unwrap();
    let refused = log.reader().rows(0, 1).unwrap_err().to_string();
    assert!(refused.contains("2026-2/tile/entries/000"), "{refused}");
}

#[test]
fn a_reader_from_before_the_sealing_sees_no_gap() {
    let log = Sealing::of(600);
    let reader = log.reader();
    assert_eq!(reader.rows(10, 20).unwrap(), log.rows[10..30]);
    log.seal_all(256);
    assert_eq!(reader.rows(10, 20).unwrap(), log.rows[10..30]);
    assert_eq!(reader.rows(500, 100).unwrap(), log.rows[500..600]);
}

#[test]
fn files_are_for_their_owner_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let log = Sealing::of(300);
    log.seal_all(256);
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    for folder in ["", "tile", "tile/0", "tile/entries"] {
        assert_eq!(mode(&log.archive().folder().join(folder)), 0o700, "{folder}");
    }
    for file in [log.files("tile/0"), log.files("tile/entries")].concat() {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
}

#[test]
fn a_store_is_of_the_later_version_only_once_it_is_sealed() {
    let log = Sealing::of(300);
    let version = || -> u32 {
        Connection::open(log.at())
            .unwrap()
            .pragma_query_value(None, "user_version", |row| row.get(0))
            .unwrap()
    };
    assert_eq!(version(), 1);
    log.seal_all(256);
    assert_eq!(version(), 2);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn no_list_of_stops_loses_an_entry(
        size in 256_u64..1_100,
        seals in prop_oneof![Just(256_u64), Just(512)],
        stops in proptest::collection::vec(0_usize..40, 1..6),
        start in 0_u64..1_100,
        limit in 1_u32..600,
    ) {
        let log = Sealing::of(size);
        let reader = log.reader();
        for stop in stops {
            let mut done = 0;
            let outcome = log.seal(seals, &mut |_| {
                done += 1;
                if done > stop { Err(stopped()) } else { Ok(()) }
            });
            drop(outcome);
            log.assert_whole();
            let expected: Vec<Row> = log.rows.iter()
                .filter(|row| row.index >= start && row.index < start + u64::from(limit)).cloned().collect();
            prop_assert_eq!(reader.rows(start, limit).unwrap(), expected);
        }
        log.seal_all(seals);
        prop_assert_eq!(log.reader().sealed_until().unwrap(), size - size % seals);
        log.assert_whole();
    }
}
