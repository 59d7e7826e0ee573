//! Keys rotate by themselves, and nothing that verifies ceases to.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use daypass_broker::clock::Clock as _;
use daypass_broker::dev::caller::Caller;
use daypass_broker::serve;
use daypass_core::rotation::Lifetimes;
use daypass_evidence::entry::{Body, KeyChanged, KeyState, KeyUse};
use daypass_proto::v1 as pb;
use daypass_proto::v1::issue_request::Credential as Wanted;
use daypass_tests::harness::{
    Deployment, NIGHTLY, certificate_of, eventually, issue, python, run, stores, task, token_of,
};
use daypass_verify::time::Seconds;
use rcgen::{CertificateParams, KeyPair};

const DAY_MS: i64 = 86_400_000;
const AUDIENCE: &str = "https://ledger.example.org";

/// Keys of ten seconds, of which copies may be used for two.
const BRIEF: Lifetimes = Lifetimes { token: Seconds::new(10), ca: Seconds::new(12), ahead: Seconds::new(7) };

/// A verifier that runs beside the broker, and is told each token as it is issued.
fn verifier(deployment: &Deployment) -> Child {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("stock/verify_stream.py");
    let issuer = deployment.settings.issuer.as_str();
    Command::new(python())
        .args([script.as_os_str(), issuer.as_ref(), AUDIENCE.as_ref(), deployment.listener_ca.as_os_str()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

async fn token(deployment: &Deployment) -> String {
    let wanted = pb::IssueRequest {
        ttl: Some(prost_types::Duration { seconds: 5, nanos: 0 }),
        ..task("post-invoices")
    };
    token_of(&issue(&deployment.service().await, wanted).await.unwrap()).to_owned()
}

/// Whether openssl verifies a certificate that is issued now, under the deployment's root; and which CA issued it.
async fn certificate_holds(deployment: &Deployment) -> Vec<u8> {
    let csr = CertificateParams::default().serialize_request(&KeyPair::generate().unwrap()).unwrap();
    let wanted = pb::CertificateParameters { csr: csr.der().to_vec().into(), ..Default::default() };
    let wanted = pb::IssueRequest { credential: Some(Wanted::Certificate(wanted)), ..task("ledger-db") };
    let chain = certificate_of(&issue(&deployment.service().await, wanted).await.unwrap());
    let write = |name: &str, der: &[u8]| {
        let path = deployment.folder().join(name);
        std::fs::write(&path, pem::encode(&pem::Pem::new("CERTIFICATE", der))).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (leaf, ca) = (write("leaf.pem", &chain[0]), write("ca.pem", &chain[1]));
    let root = write("root.pem", &deployment.root);
    let arguments =
        ["verify", "-x509_strict", "-purpose", "sslclient", "-CAfile", &root, "-untrusted", &ca, &leaf];
    let verified = run("openssl", arguments).await;
    assert_eq!(verified.code, Some(0), "{}{}", verified.stdout, verified.stderr);
    chain[1].to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stock_verifiers_with_the_oldest_copies_allowed_never_meet_an_unknown_key() {
    let mut deployment = Deployment::start_rotating(BRIEF).await;
    let mut verifier = verifier(&deployment);
    let mut stdin = verifier.stdin.take().unwrap();
    let (began, mut cas, mut issued, mut restarted) = (Instant::now(), BTreeSet::new(), 0, false);
    while began.elapsed() < Duration::from_secs(27) {
        writeln!(stdin, "{}", token(&deployment).await).unwrap();
        issued += 1;
        cas.insert(certificate_holds(&deployment).await);
        if began.elapsed() > Duration::from_secs(12) && !restarted {
            deployment.stop().await;
            deployment.resume().await.unwrap();
            restarted = true;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    drop(stdin);
    let ended = tokio::task::spawn_blocking(move || verifier.wait_with_output()).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&ended.stdout).into_owned();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    let counts: Vec<usize> = said.split_whitespace().map(|it| it.parse().unwrap()).collect();
    assert_eq!(counts[0], issued);
    assert!(counts[1] >= 3, "{} keys in 27 s", counts[1]);
    assert!(cas.len() >= 2, "{} CAs in 27 s", cas.len());
    deployment.stop().await;
    let opened = deployment.copied().open().unwrap();
    assert!(opened.started.report.is_clean(), "{:?}", opened.started.report.findings);
}

/// The newest entry of each key of a use, in the order of their time.
async fn keys(deployment: &Deployment, usage: KeyUse) -> Vec<KeyChanged> {
    let state = deployment.broker().log().state();
    let mut keys: Vec<_> = state.keys().values().filter(|key| key.usage == usage).cloned().collect();
    keys.sort_by_key(|key| key.sign_from_ms);
    keys
}

#[tokio::test]
async fn a_month_later_another_key_signs_and_in_the_end_the_first_is_destroyed() {
    let deployment = Deployment::start().await;
    let first = keys(&deployment, KeyUse::Token).await[0].clone();
    let made = |count: usize| {
        let deployment = &deployment;
        move || async move { keys(deployment, KeyUse::Token).await.len() == count }
    };
    deployment.clock.advance(29 * DAY_MS - 1_000);
    eventually("the next key", made(2)).await;
    let next = keys(&deployment, KeyUse::Token).await[1].clone();
    assert_eq!(next.sign_from_ms, keys(&deployment, KeyUse::Token).await[0].sign_until_ms);
    assert!(next.sign_from_ms.millis_since(first.sign_until_ms) <= 3_000);
    assert!(next.sign_from_ms.millis_since(next.publish_from_ms) >= DAY_MS, "published a day ahead");
    let kid = |token: String| {
        let header = daypass_verify::jose::UnverifiedToken::parse(&token).unwrap();
        header.kid().unwrap().to_owned()
    };
    assert_eq!(kid(token(&deployment).await), first.key.as_str());
    deployment.clock.advance(DAY_MS + 3_000);
    assert_eq!(kid(token(&deployment).await), next.key.as_str());
    let destroyed = || async { keys(&deployment, KeyUse::Token).await[0].state == KeyState::Destroyed };
    deployment.clock.advance(3_600_000 + 60_000);
    eventually("the first key's end", destroyed).await;
    let sealed = deployment.broker().readers.run(|reader| reader.keys()).await.unwrap();
    let blob = sealed.iter().find(|blob| blob.key == first.key).unwrap();
    assert!(blob.sealed.is_empty(), "nothing is left to unseal");
    let forgotten = || async { deployment.broker().desk.keyring.describe(&first.key).is_err() };
    eventually("it is forgotten", forgotten).await;
}

#[tokio::test]
async fn after_months_of_outage_the_broker_issues_at_once_by_a_key_that_was_known() {
    let mut deployment = Deployment::start().await;
    let first = keys(&deployment, KeyUse::Token).await[0].clone();
    deployment.stop().await;
    deployment.clock.advance(100 * DAY_MS);
    deployment.resume().await.unwrap();
    token(&deployment).await;
    certificate_holds_later(&deployment).await;
    let now = deployment.clock.now();
    let found = keys(&deployment, KeyUse::Token).await;
    assert_eq!(found.len(), 2);
    assert_eq!((&found[0].key, found[0].sign_until_ms), (&first.key, found[1].sign_from_ms));
    assert!(found[1].sign_from_ms.millis_since(now) > DAY_MS - 60_000);
    assert_eq!(keys(&deployment, KeyUse::Ca).await.len(), 2, "a CA travels with what it signs");
}

/// openssl's clock is not the test's: the issuance alone shows that a CA signs.
async fn certificate_holds_later(deployment: &Deployment) {
    let csr = CertificateParams::default().serialize_request(&KeyPair::generate().unwrap()).unwrap();
    let wanted = pb::CertificateParameters { csr: csr.der().to_vec().into(), ..Default::default() };
    let wanted = pb::IssueRequest { credential: Some(Wanted::Certificate(wanted)), ..task("ledger-db") };
    issue(&deployment.service().await, wanted).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_brokers_on_postgresql_make_one_key_after_the_other_and_both_sign_with_each() {
    // Nobody can set the database's clock: the keys are brief.
    let deployment = Deployment::start_rotating_on(stores()[1].clone(), BRIEF).await;
    let other = serve::start(deployment.second_settings()).await.unwrap();
    let workload = deployment.workload(NIGHTLY);
    let there = Caller::connect(other.api.port(), &deployment.listener_ca, Some(&workload)).await.unwrap();
    let (began, mut here_by, mut there_by) = (Instant::now(), BTreeSet::new(), BTreeSet::new());
    let kid =
        |token: &str| daypass_verify::jose::UnverifiedToken::parse(token).unwrap().kid().unwrap().to_owned();
    while here_by.len() < 3 || there_by.len() < 3 {
        assert!(began.elapsed() < Duration::from_secs(60), "{here_by:?}, {there_by:?}");
        here_by.insert(kid(&token(&deployment).await));
        there_by.insert(kid(token_of(&issue(&there, task("post-invoices")).await.unwrap())));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(here_by.intersection(&there_by).count() >= 2, "{here_by:?}, {there_by:?}");
    made_once(&deployment).await;
    other.stop("the test stops it").await.unwrap();
}

/// No key is in the log as one that was made twice, and none of two that take one place.
async fn made_once(deployment: &Deployment) {
    let entries = deployment.entries().await;
    let made: Vec<_> = entries
        .iter()
        .filter_map(|(_, entry)| match &entry.body {
            Body::KeyChanged(key) if key.state == KeyState::Prepared => Some(key.key.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(made.len(), made.iter().collect::<BTreeSet<_>>().len(), "none is made twice");
}

#[tokio::test]
async fn two_brokers_make_one_key_and_both_sign_with_it() {
    let deployment = Deployment::start().await;
    let other = serve::start(deployment.second_settings()).await.unwrap();
    for month in 1..=3 {
        deployment.clock.advance(30 * DAY_MS);
        let known = |count: usize| {
            let (deployment, other) = (&deployment, &other);
            move || async move {
                let (one, two) = (deployment.broker().log().state(), other.log().state());
                let made = one.keys().values().filter(|key| key.usage == KeyUse::Token).count() == count;
                made && one.at() == two.at()
            }
        };
        eventually("one next key a month, on both", known(month + 1)).await;
        token(&deployment).await;
    }
    let held = |running: &serve::Running| running.desk.keyring.held_keys();
    eventually("the same keys", || async { held(deployment.broker()) == held(&other) }).await;
    made_once(&deployment).await;
    other.stop("the test stops it").await.unwrap();
}
