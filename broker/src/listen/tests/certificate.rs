//! The certificate that is shown, before and after its files change.

use super::*;

#[tokio::test]
async fn a_new_certificate_is_shown_and_a_bad_one_never() {
    let mut bench = Bench::open(Speaks::Http2, Limits::default()).await;
    let (old, new) = (bench.roots.clone(), pair("localhost", 0));
    let key = bench.dir.path().join("k");
    assert!(!bench.certificate.reload().unwrap());

    write(&bench.dir.path().join("c"), &new.pem.0);
    assert!(bench.certificate.reload().unwrap_err().to_string().contains("does not belong"));
    std::fs::write(&key, "no key").unwrap();
    assert!(bench.certificate.reload().unwrap_err().to_string().contains("private key in PEM"));
    assert!(bench.connect(bench.client(&TLS13, None)).await.is_ok(), "the old one stays");

    write(&key, &new.pem.1);
    assert!(bench.certificate.reload().unwrap());
    assert!(!bench.certificate.reload().unwrap(), "what is shown already is not read again");
    bench.trust(&new);
    assert!(bench.connect(bench.client(&TLS13, None)).await.is_ok());
    bench.roots = old;
    assert!(bench.connect(bench.client(&TLS13, None)).await.is_err());
}

#[tokio::test]
async fn a_changed_file_is_met_without_being_told() {
    let mut bench = Bench::open(Speaks::Http2, Limits::default()).await;
    let watching = Arc::clone(&bench.certificate).watch(Duration::from_millis(10), bench.shutdown.clone());
    let watching = tokio::spawn(watching);
    let new = pair("localhost", 0);
    write_pair(&bench.dir, &new);
    bench.trust(&new);
    let mut attempts = 0;
    while bench.connect(bench.client(&TLS13, None)).await.is_err() {
        attempts += 1;
        assert!(attempts < 100, "the new certificate was never shown");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    bench.shutdown.cancel();
    watching.await.unwrap();
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    write_pair(&dir, &pair("localhost", 0));
    let (certificate, key) = (dir.path().join("c"), dir.path().join("k"));
    for (mode, good) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false), (0o620, false)] {
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(ReloadableCertificate::open(&certificate, &key).is_ok(), good, "{mode:o}");
    }
}
