//! What is changed in a store beside its entries is found before anything is signed.

use std::path::Path;
use std::sync::Arc;

use daypass_core::bundle::compile;
use daypass_evidence::audit::FindingCode;
use daypass_evidence::note::VerifierKey;

use super::SqliteStore;
use crate::clock::SystemClock;
use crate::dev::organisation::sample;
use crate::init::{Deployment, init};
use crate::log::{StartError, Started, verify_store};
use crate::store::Store as _;

async fn deployment(folder: &Path) -> VerifierKey {
    let bundle = compile(&sample()).unwrap();
    let deployment = Deployment {
        trust_domain: "example.org".parse().unwrap(),
        broker: "b1".parse().unwrap(),
        store: &folder.join("store").into(),
        kek: &folder.join("kek"),
        bundle: Some(&bundle),
        clock: Arc::new(SystemClock),
    };
    init(&deployment).await.unwrap().log_key
}

fn verify(folder: &Path, key: &VerifierKey) -> Result<Started, StartError> {
    let store = SqliteStore::open_file(&folder.join("store"), false).unwrap();
    verify_store(store.reader().unwrap().as_ref(), key, None)
}

#[tokio::test]
async fn a_store_that_was_changed_beside_its_entries_is_refused() {
    for spoil in [
        "DELETE FROM objects",
        "UPDATE objects SET bytes = CAST(replace(CAST(bytes AS TEXT), 'eu/*', 'xx/*') AS BLOB)",
        "DELETE FROM folds WHERE idx = (SELECT max(idx) FROM folds)",
        "INSERT INTO folds VALUES (2)",
    ] {
        let folder = tempfile::tempdir().unwrap();
        let key = deployment(folder.path()).await;
        verify(folder.path(), &key).unwrap();
        let store = rusqlite::Connection::open(folder.path().join("store")).unwrap();
        assert!(store.execute(spoil, []).unwrap() > 0, "{spoil}");
        let Err(StartError::Refused(report)) = verify(folder.path(), &key) else { panic!("{spoil}") };
        let codes: Vec<_> = report.findings.iter().map(|finding| finding.code).collect();
        assert_eq!(codes, [FindingCode::StoreMismatch], "{spoil}");
    }
}
