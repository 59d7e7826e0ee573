//! Issuing CAs that an organisation's own CA signs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use daypass_broker::clock::Clock as _;
use daypass_evidence::entry::{AlarmState, Body, KeyChanged, KeyUse};
use daypass_proto::v1 as pb;
use daypass_proto::v1::issue_request::Credential as Wanted;
use daypass_tests::harness::{Deployment, Output, certificate_of, eventually, issue, program, run, task};
use daypass_verify::time::Seconds;
use rcgen::{CertificateParams, KeyPair};
use serde_json::Value;

const DAY_MS: i64 = 86_400_000;

/// What a CA below another is.
const ISSUING: &str = "basicConstraints=critical,CA:true,pathlen:0\nkeyUsage=critical,keyCertSign,cRLSign\n\
                       subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\nsubjectAltName=URI:spiffe://example.org\n";
const INTERMEDIATE: &str = "basicConstraints=critical,CA:true,pathlen:1\nkeyUsage=critical,keyCertSign,cRLSign\n\
                            subjectKeyIdentifier=hash\n";

/// An organisation's CA, run by openssl: a root with an RSA key, and one CA below it.
struct Upstream(PathBuf);

impl Upstream {
    async fn made(folder: &Path) -> Self {
        let upstream = Self(folder.join("upstream"));
        std::fs::create_dir(&upstream.0).unwrap();
        upstream.root("root").await;
        upstream.below_root("intermediate", INTERMEDIATE).await;
        upstream
    }

    fn at(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    async fn root(&self, name: &str) {
        let (key, certificate) = (self.at(&format!("{name}.key")), self.at(&format!("{name}.pem")));
        let subject = format!("/CN=Example {name}");
        openssl(&[
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-keyout",
            &key,
            "-out",
            &certificate,
            "-days",
            "3650",
            "-subj",
            &subject,
            "-addext",
            "keyUsage=critical,keyCertSign,cRLSign",
        ])
        .await;
    }

    async fn below_root(&self, name: &str, extensions: &str) {
        let (key, request) = (self.at(&format!("{name}.key")), self.at(&format!("{name}.csr")));
        let subject = format!("/CN=Example {name}");
        openssl(&[
            "req",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-384",
            "-nodes",
            "-keyout",
            &key,
            "-out",
            &request,
            "-subj",
            &subject,
        ])
        .await;
        self.sign(&request, "root", name, extensions, 1800).await;
    }

    /// Signs a request, and returns the certificate's file.
    async fn sign(&self, request: &str, by: &str, name: &str, extensions: &str, days: i32) -> String {
        let (ext, out) = (self.at(&format!("{name}.ext")), self.at(&format!("{name}.pem")));
        std::fs::write(&ext, extensions).unwrap();
        let (ca, key) = (self.at(&format!("{by}.pem")), self.at(&format!("{by}.key")));
        let days = days.to_string();
        openssl(&[
            "x509",
            "-req",
            "-in",
            request,
            "-CA",
            &ca,
            "-CAkey",
            &key,
            "-CAcreateserial",
            "-days",
            &days,
            "-sha384",
            "-extfile",
            &ext,
            "-out",
            &out,
        ])
        .await;
        out
    }

    /// Several certificates in one file.
    fn chain(&self, name: &str, files: &[&str]) -> PathBuf {
        let text: String = files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

async fn openssl(arguments: &[&str]) {
    let made = run("openssl", arguments).await;
    assert_eq!(made.code, Some(0), "{arguments:?}: {}", made.stderr);
}

/// A deployment whose roots need be known for six seconds before what is below them is used.
async fn deployment() -> Deployment {
    let mut deployment = Deployment::stopped(daypass_broker::dev::organisation::sample()).await;
    deployment.settings.lifetimes.ahead = Seconds::new(6);
    deployment.resume().await.unwrap();
    deployment
}

async fn ca(deployment: &Deployment, order: &str, more: &[&str]) -> Output {
    let config = deployment.config_file();
    let text = std::fs::read_to_string(&config).unwrap().replace("[keys]\n", "[keys]\nahead_s = 6\n");
    std::fs::write(&config, text).unwrap();
    let common = ["ca", order, "--config", config.to_str().unwrap()];
    run(program("daypass-broker"), common.into_iter().chain(more.iter().copied())).await
}

async fn requested(deployment: &Deployment, name: &str) -> String {
    let csr = deployment.folder().join(name).to_str().unwrap().to_owned();
    let asked = ca(deployment, "request", &["--out", &csr]).await;
    assert_eq!(asked.code, Some(0), "{}", asked.stderr);
    let verified = run("openssl", ["req", "-verify", "-noout", "-in", &csr]).await;
    assert_eq!(verified.code, Some(0), "{}", verified.stderr);
    csr
}

async fn install(deployment: &Deployment, chain: &Path, more: &[&str]) -> Output {
    ca(deployment, "install", &[&["--chain", chain.to_str().unwrap()], more].concat()).await
}

/// The newest entry of each key that has a part in it, whichever program wrote it.
async fn keys(deployment: &Deployment, usage: KeyUse, origin: &str) -> Vec<KeyChanged> {
    let written = deployment.entries().await.len() as u64;
    let published = deployment.broker().log().published_at(written).await;
    let keys = published.state.keys();
    keys.values().filter(|key| key.usage == usage && key.origin == origin).cloned().collect()
}

async fn issued(deployment: &Deployment) -> Vec<Vec<u8>> {
    let csr = CertificateParams::default().serialize_request(&KeyPair::generate().unwrap()).unwrap();
    let wanted = pb::CertificateParameters { csr: csr.der().to_vec().into(), ..Default::default() };
    let wanted = pb::IssueRequest { credential: Some(Wanted::Certificate(wanted)), ..task("ledger-db") };
    let answer = issue(&deployment.service().await, wanted).await.unwrap();
    certificate_of(&answer).into_iter().map(|der| der.to_vec()).collect()
}

/// The roots that `/bundle` shows.
async fn roots(deployment: &Deployment) -> Vec<Value> {
    let url = format!("{}/bundle", deployment.settings.issuer.as_str());
    let ca = deployment.listener_ca.to_str().unwrap();
    let fetched = run("curl", ["--silent", "--noproxy", "*", "--cacert", ca, &url]).await;
    let bundle: Value = serde_json::from_str(&fetched.stdout).unwrap();
    let keys = bundle["keys"].as_array().unwrap().clone();
    keys.into_iter().filter(|key| key["use"] == "x509-svid").collect()
}

#[tokio::test]
async fn a_ca_below_an_upstream_root_issues_what_openssl_verifies() {
    let mut deployment = deployment().await;
    let upstream = Upstream::made(deployment.folder()).await;
    requested(&deployment, "lost.csr").await;
    let csr = requested(&deployment, "ca.csr").await;
    assert_eq!(
        keys(&deployment, KeyUse::Ca, "upstream").await.len(),
        1,
        "one key waits, however often it is asked"
    );
    assert_eq!(issued(&deployment).await.len(), 2, "the deployment's own CA goes on");

    let ours = upstream.sign(&csr, "intermediate", "ours", ISSUING, 90).await;
    let chain =
        upstream.chain("chain.pem", &[&ours, &upstream.at("intermediate.pem"), &upstream.at("root.pem")]);
    let dry = install(&deployment, &chain, &["--dry-run"]).await;
    assert_eq!(dry.code, Some(0), "{}", dry.stderr);
    assert!(keys(&deployment, KeyUse::Root, "upstream").await.is_empty());
    let done = install(&deployment, &chain, &[]).await;
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    eventually("both roots are published", || async { roots(&deployment).await.len() == 2 }).await;
    let shown = roots(&deployment).await;
    assert!(
        shown.iter().any(|key| key["kty"] == "RSA" && key["x5c"].as_array().unwrap().len() == 1),
        "{shown:?}"
    );
    assert_eq!(issued(&deployment).await.len(), 2, "not everybody can know the new root yet");

    tokio::time::sleep(Duration::from_secs(8)).await;
    let found = issued(&deployment).await;
    assert_eq!(found.len(), 3, "the leaf, its CA, and the CA above");
    let write = |name: &str, ders: &[Vec<u8>]| {
        let text: String =
            ders.iter().map(|der| pem::encode(&pem::Pem::new("CERTIFICATE", der.clone()))).collect();
        std::fs::write(deployment.folder().join(name), text).unwrap();
        deployment.folder().join(name).to_str().unwrap().to_owned()
    };
    let (leaf, above) = (write("leaf.pem", &found[..1]), write("above.pem", &found[1..]));
    let root = upstream.at("root.pem");
    let arguments =
        ["verify", "-x509_strict", "-purpose", "sslclient", "-CAfile", &root, "-untrusted", &above, &leaf];
    let verified = run("openssl", arguments).await;
    assert_eq!(verified.code, Some(0), "{}{}", verified.stdout, verified.stderr);
    let wanted = daypass_sdk::IssueRequest::certificate("ledger-db".parse().unwrap());
    deployment.sdk().issue(wanted).await.unwrap();

    // The deployment's own root is published for as long as what its CA signed can live.
    let (own, ca) = (
        &keys(&deployment, KeyUse::Root, "generated").await[0],
        keys(&deployment, KeyUse::Ca, "generated").await,
    );
    assert_eq!(own.publish_until_ms, ca[0].publish_until_ms);
    deployment.clock.advance(own.publish_until_ms.millis_since(deployment.clock.now()) + 60_000);
    eventually("one root is left", || async { roots(&deployment).await.len() <= 1 }).await;
    deployment.stop().await;
    let report = deployment.copied().open().unwrap().started.report;
    assert!(report.findings.iter().all(|finding| finding.code.is_of_operation()), "{:?}", report.findings);
}

#[tokio::test]
async fn a_chain_that_verifiers_would_not_take_is_never_put_in_force() {
    let deployment = deployment().await;
    let upstream = Upstream::made(deployment.folder()).await;
    let csr = requested(&deployment, "ca.csr").await;
    let (intermediate, root) = (upstream.at("intermediate.pem"), upstream.at("root.pem"));
    upstream.root("other").await;
    upstream.below_root("narrow", &INTERMEDIATE.replace("pathlen:1", "pathlen:0")).await;
    upstream.below_root("uris", &format!("{INTERMEDIATE}nameConstraints=permitted;URI:example.org\n")).await;
    upstream.below_root("mail", &format!("{INTERMEDIATE}extendedKeyUsage=emailProtection\n")).await;
    let stranger = upstream.at("stranger.csr");
    openssl(&[
        "req",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-keyout",
        &upstream.at("s.key"),
        "-out",
        &stranger,
        "-subj",
        "/CN=stranger",
    ])
    .await;
    let sign = |csr: &str, by: &str, name: &str, extensions: String, days| {
        let (upstream, csr, by, name) = (&upstream, csr.to_owned(), by.to_owned(), name.to_owned());
        async move { upstream.sign(&csr, &by, &name, &extensions, days).await }
    };
    let good = sign(&csr, "intermediate", "good", ISSUING.into(), 90).await;
    let spoil = |from: &str, to: &str| ISSUING.replace(from, to);
    let leaf = sign(&csr, "intermediate", "leaf", spoil("CA:true,pathlen:0", "CA:false"), 90).await;
    let usage = sign(&csr, "intermediate", "usage", spoil("keyCertSign,", ""), 90).await;
    let id = sign(
        &csr,
        "intermediate",
        "id",
        spoil("subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid", "subjectKeyIdentifier=none"),
        90,
    )
    .await;
    let foreign =
        sign(&csr, "intermediate", "foreign", spoil("spiffe://example.org", "spiffe://example.com"), 90)
            .await;
    let ended = sign(&csr, "intermediate", "ended", ISSUING.into(), -1).await;
    let other_key = sign(&stranger, "intermediate", "other-key", ISSUING.into(), 90).await;
    let [narrow, uris, mail] = ["narrow", "uris", "mail"].map(|by| (by, upstream.at(&format!("{by}.pem"))));
    let mut cases: Vec<(&str, Vec<String>, &str)> = vec![
        ("no root", vec![good.clone(), intermediate.clone()], "its issuer"),
        ("alone", vec![good.clone()], "up to the root"),
        ("another root", vec![good.clone(), intermediate.clone(), upstream.at("other.pem")], "as its issuer"),
        ("the wrong order", vec![intermediate.clone(), good.clone(), root.clone()], "its issuer"),
        ("a leaf", vec![leaf, intermediate.clone(), root.clone()], "certificate of a CA"),
        ("no right to sign", vec![usage, intermediate.clone(), root.clone()], "keyCertSign"),
        ("no key identifier", vec![id, intermediate.clone(), root.clone()], "subject key identifier"),
        ("another trust domain", vec![foreign, intermediate.clone(), root.clone()], "SPIFFE ID"),
        ("ended", vec![ended, intermediate.clone(), root.clone()], "valid now"),
        ("another key", vec![other_key, intermediate.clone(), root.clone()], "ca request"),
    ];
    for ((by, file), said) in [(narrow, "path length"), (uris, "name constraint"), (mail, "clientAuth")] {
        let ours = sign(&csr, by, &format!("by-{by}"), ISSUING.into(), 90).await;
        cases.push((by, vec![ours, file, root.clone()], said));
    }
    for (what, files, said) in &cases {
        let files: Vec<&str> = files.iter().map(String::as_str).collect();
        let chain = upstream.chain("chain.pem", &files);
        let refused = install(&deployment, &chain, &[]).await;
        assert_eq!(refused.code, Some(1), "{what}: {}", refused.stdout);
        assert!(refused.stderr.contains(said), "{what}: {}", refused.stderr);
    }
    assert!(keys(&deployment, KeyUse::Root, "upstream").await.is_empty());
    let good = install(&deployment, &upstream.chain("good.chain", &[&good, &intermediate, &root]), &[]).await;
    assert_eq!(good.code, Some(0), "{}", good.stderr);
}

#[tokio::test]
async fn operators_are_asked_for_the_next_ca_by_an_alarm_until_it_is_there() {
    let deployment = deployment().await;
    let upstream = Upstream::made(deployment.folder()).await;
    let csr = requested(&deployment, "first.csr").await;
    let (intermediate, root) = (upstream.at("intermediate.pem"), upstream.at("root.pem"));
    let first = upstream.sign(&csr, "intermediate", "first", ISSUING, 60).await;
    let install = |name: &'static str, ours: String| {
        let (deployment, chain) = (&deployment, upstream.chain(name, &[&ours, &intermediate, &root]));
        let ders = rustls_pki_types::pem::PemObject::pem_file_iter(chain).unwrap();
        let ders: Vec<rustls_pki_types::CertificateDer<'static>> = ders.map(Result::unwrap).collect();
        async move { deployment.broker().rotation.install_ca(&ders, false).await }
    };
    install("first.chain", first).await.unwrap();
    let alarms = |state| {
        let deployment = &deployment;
        async move {
            let entries = deployment.entries().await.into_iter();
            let alarms = entries.filter(|(_, entry)| {
                matches!(&entry.body, Body::Alarm(alarm) if alarm.code == "CA_ENDING" && alarm.state == state)
            });
            alarms.count()
        }
    };
    deployment.clock.advance(30 * DAY_MS);
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(alarms(AlarmState::Raised).await, 0, "there is time");
    deployment.clock.advance(12 * DAY_MS);
    eventually("the alarm", || async { alarms(AlarmState::Raised).await == 1 }).await;
    let second_csr = deployment.folder().join("second.csr");
    let (_, der) = deployment.broker().rotation.request_ca().await.unwrap();
    std::fs::write(&second_csr, pem::encode(&pem::Pem::new("CERTIFICATE REQUEST", der))).unwrap();
    let second = upstream.sign(second_csr.to_str().unwrap(), "intermediate", "second", ISSUING, 120).await;
    install("second.chain", second).await.unwrap();
    eventually("the alarm is over", || async { alarms(AlarmState::Cleared).await == 1 }).await;
    deployment.clock.advance(8_000);
    assert_eq!(issued(&deployment).await.len(), 3);
}
