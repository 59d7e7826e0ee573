//! The tail of a long log is held to what a whole log is held to, as far as it is read.

use std::path::Path;
use std::sync::Arc;

use daypass_core::bundle::compile;
use daypass_evidence::entry::{NewEntry, StatementSigned};
use daypass_verify::ids::{Digest, KeyId};
use rusqlite::Connection;

use super::*;
use crate::clock::{Clock as _, SystemClock};
use crate::dev::organisation::sample;
use crate::ids::Ids;
use crate::init::{Deployment, init};
use crate::keyring::{Kek, open_evidence_key};
use crate::log::{Attached, LogSettings};
use crate::store::sqlite::SqliteStore;

/// Subtrees of 256 leaves stand for those of 65,536: the log is as many times shorter.
const LEVEL: u8 = 8;
const ENTRIES: usize = 700;

struct Long {
    folder: tempfile::TempDir,
    key: VerifierKey,
}

impl Long {
    async fn log() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (store, kek) = (folder.path().join("store"), folder.path().join("kek"));
        let deployment = Deployment {
            trust_domain: "example.org".parse().unwrap(),
            broker: "b1".parse().unwrap(),
            store: &store.as_path().into(),
            kek: &kek,
            bundle: Some(&compile(&sample()).unwrap()),
            lifetimes: daypass_core::rotation::Lifetimes::default(),
            clock: Arc::new(SystemClock),
        };
        let key = init(&deployment).await.unwrap().log_key;
        grow(&store, &kek, &folder.path().join("anchor")).await;
        Self { folder, key }
    }

    fn at(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn examined(&self, store: &str) -> Report {
        let reader = SqliteStore::open_reader(&self.at(store)).unwrap();
        let anchor = Anchor::open(&self.at("anchor")).unwrap();
        examine_tail(reader.as_ref(), &self.key, Some(&anchor), LEVEL).unwrap().report
    }
}

async fn grow(store: &Path, kek: &Path, anchor: &Path) {
    let opened = SqliteStore::open_file(store, false).unwrap();
    let reader = SqliteStore::open_reader(store).unwrap();
    let entry = evidence_key_entry(reader.as_ref()).unwrap().unwrap();
    let key = open_evidence_key(&reader.keys().unwrap(), &entry, &Kek::read(kek).unwrap()).unwrap();
    let ids = Arc::new(Ids::system());
    let settings = LogSettings {
        trust_domain: "example.org".parse().unwrap(),
        broker: "b1".parse().unwrap(),
        key: Arc::new(key),
        clock: Arc::new(SystemClock),
        ids: Arc::clone(&ids),
        anchor: Some(Anchor::open(anchor).unwrap()),
        queue: crate::log::QUEUE,
    };
    let log = crate::log::open(Box::new(opened), settings).unwrap();
    // Of a kind that the state is not folded from.
    let filling = || StatementSigned {
        statement: "revocations".into(),
        key: KeyId::from_thumbprint([1; 32]),
        digest: Digest::of(b"as long as needed"),
        from_ms: SystemClock.now(),
        until_ms: SystemClock.now(),
        number: None,
    };
    let entry = |_| NewEntry {
        id: ids.draw(SystemClock.now()).unwrap(),
        request: None,
        by: None,
        body: filling().into(),
    };
    log.append((0..ENTRIES).map(entry).collect(), Attached::default()).await.unwrap();
}

#[tokio::test]
async fn the_tail_of_a_sound_log_is_read_from_its_last_kept_subtree_on() {
    let long = Long::log().await;
    let report = long.examined("store");
    assert_eq!(report.findings, []);
    assert!(report.size > 700 && report.from == 512, "{report:?}");
    let reader = SqliteStore::open_reader(&long.at("store")).unwrap();
    let whole = examine_store(reader.as_ref(), &long.key, None).unwrap().report;
    assert_eq!((whole.findings.len(), whole.root, whole.from), (0, report.root, 0));
}

/// What is changed, and what the tail's examination says of it.
const SPOILT: [(&str, &str); 8] = [
    ("UPDATE entries SET bytes = CAST(bytes || ' ' AS BLOB) WHERE idx = 600", "LEAF_MISMATCH at entry 600"),
    ("DELETE FROM entries WHERE idx = 600", "MISSING at entry 600"),
    (
        "UPDATE entries SET bytes = CAST(replace(CAST(bytes AS TEXT), 'eu/*', 'xx/*') AS BLOB) WHERE idx IN folds",
        "LEAF_MISMATCH",
    ),
    ("UPDATE subtrees SET hash = zeroblob(32) WHERE level = 8 AND idx = 1", "ROOT_MISMATCH"),
    ("DELETE FROM subtrees WHERE level = 8 AND idx = 1", "STORE_MISMATCH"),
    ("INSERT INTO folds VALUES (300)", "STORE_MISMATCH"),
    ("UPDATE head SET state = state - 1", "STORE_MISMATCH"),
    ("UPDATE head SET time_ms = time_ms + 1", "STORE_MISMATCH"),
];

#[tokio::test]
async fn what_is_changed_in_the_tail_or_below_the_state_is_found_at_the_start() {
    let long = Long::log().await;
    let sound = Connection::open(long.at("store")).unwrap();
    for (i, (spoil, expected)) in SPOILT.into_iter().enumerate() {
        let name = format!("spoilt-{i}");
        sound.execute("VACUUM INTO ?1", [long.at(&name).to_str().unwrap()]).unwrap();
        let store = Connection::open(long.at(&name)).unwrap();
        assert!(store.execute(spoil, []).unwrap() > 0, "{spoil}");
        drop(store);
        let findings = long.examined(&name).findings;
        assert!(findings.iter().any(|it| it.to_string().starts_with(expected)), "{spoil}: {findings:?}");
    }
}

#[tokio::test]
async fn a_checkpoint_from_before_the_tail_must_be_of_the_same_log() {
    let long = Long::log().await;
    let reader = SqliteStore::open_reader(&long.at("store")).unwrap();
    let entry = evidence_key_entry(reader.as_ref()).unwrap().unwrap();
    let kek = Kek::read(&long.at("kek")).unwrap();
    let signer = open_evidence_key(&reader.keys().unwrap(), &entry, &kek).unwrap();
    let mut audit = Audit::new();
    reader.rows(0, 300).unwrap().iter().for_each(|row| audit.entry(&row.bytes));
    let origin = reader.head().unwrap().unwrap().origin;
    for (root, sound) in [(audit.tree().root(), true), ([7; 32], false)] {
        std::fs::remove_file(long.at("anchor")).unwrap();
        let earlier = Checkpoint { origin: origin.clone(), size: 300, root };
        let mut anchor = Anchor::open(&long.at("anchor")).unwrap();
        anchor.write(earlier.sign(&signer).unwrap().as_bytes()).unwrap();
        let codes: Vec<_> = long.examined("store").findings.iter().map(|finding| finding.code).collect();
        assert_eq!(codes.is_empty(), sound, "{codes:?}");
        assert!(sound || codes == [FindingCode::SplitView], "{codes:?}");
    }
}
