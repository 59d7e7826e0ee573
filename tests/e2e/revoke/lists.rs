//! What is told of revocations: the feed and the lists of the CAs, as stock programs read them.

use std::path::{Path, PathBuf};

use daypass_broker::clock::Clock as _;
use daypass_evidence::entry::{Body, StatementSigned};
use daypass_proto::v1 as pb;
use daypass_proto::v1::selector::What;
use daypass_tests::harness::{Deployment, NIGHTLY, Output, certificate_of, eventually, issue, run, task};
use daypass_verify::certificate::{Crls, TrustAnchors};
use daypass_verify::credential::verify_certificate;
use daypass_verify::jwks::KeySet;
use daypass_verify::revocations::{By, Known, Revocations, Shown};
use daypass_verify::time::Seconds;
use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};

use super::{order, revoke};

async fn fetch(deployment: &Deployment, web: u16, path: &str, more: &[&str]) -> Output {
    let url = format!("https://127.0.0.1:{web}{path}");
    let ca = deployment.listener_ca.to_str().unwrap();
    let plain = ["--silent", "--noproxy", "*", "--cacert", ca, url.as_str()];
    run("curl", plain.iter().chain(more)).await
}

/// The feed of a broker, as a receiver reads it.
async fn feed(deployment: &Deployment, web: u16) -> Option<Revocations> {
    let jwks = fetch(deployment, web, "/jwks", &["--fail"]).await.stdout;
    let keys = KeySet::parse(jwks.as_bytes()).unwrap().0;
    let fetched = fetch(deployment, web, "/revocations", &["--fail"]).await;
    let issuer = deployment.settings.issuer.as_str();
    let now = deployment.clock.now();
    let known = Known { issuer, keys: &keys, sequence: None, now, leeway: Seconds::new(30) };
    (fetched.code == Some(0)).then(|| Revocations::open(&fetched.stdout, &known).unwrap())
}

async fn statements(deployment: &Deployment, of: &str) -> Vec<StatementSigned> {
    let entries = deployment.entries().await.into_iter();
    let signed = entries.filter_map(|(_, entry)| match entry.body {
        Body::StatementSigned(signed) if signed.statement == of => Some(*signed),
        _ => None,
    });
    signed.collect()
}

#[tokio::test]
async fn a_revocation_is_in_the_feed_of_every_broker_within_five_seconds() {
    let deployment = Deployment::start().await;
    let other = deployment.second().await;
    let webs = [deployment.broker().web.port(), other.web.port()];
    let service = deployment.service().await;
    let one = issue(&service, task("post-invoices")).await.unwrap();
    let two = issue(&service, task("post-invoices")).await.unwrap();
    for web in webs {
        eventually("the feed is there", || async { feed(&deployment, web).await.is_some() }).await;
        assert!(feed(&deployment, web).await.unwrap().revoked.ids().is_empty());
    }
    let subject = one.granted.as_ref().unwrap().subject.parse().unwrap();
    let id = one.credential_id.parse().unwrap();
    let shown = Shown { id, subject: &subject, issuer: None, key: None };
    revoke(&service, order(What::CredentialId(one.credential_id.clone()))).await.unwrap();
    let began = std::time::Instant::now();
    for web in webs {
        let listed =
            || async { feed(&deployment, web).await.unwrap().revoked.covers(&shown) == Some(By::Id) };
        eventually("it is in the feed", listed).await;
        // Twice what is promised, on a machine that does much else.
        assert!(began.elapsed().as_secs() < 10, "{:?}", began.elapsed());
    }
    let id = two.credential_id.parse().unwrap();
    assert_eq!(feed(&deployment, webs[0]).await.unwrap().revoked.covers(&Shown { id, ..shown }), None);
    // An order about an identity is a cut-off: also for what no list could name.
    revoke(&deployment.operator().await, order(What::Identity(NIGHTLY.into()))).await.unwrap();
    let unlisted = daypass_verify::ids::CredentialId::new(id.drawn_at(), [9; 10]);
    for web in webs {
        let cut = || async {
            feed(&deployment, web).await.unwrap().revoked.covers(&Shown { id: unlisted, ..shown })
                == Some(By::Identity)
        };
        eventually("the cut-off is in the feed", cut).await;
    }
    other.stop("the test is over").await.unwrap();
}

#[tokio::test]
async fn the_feed_is_signed_anew_without_a_change_never_goes_back_and_is_recorded_first() {
    let mut deployment = Deployment::start().await;
    let web = deployment.broker().web.port();
    eventually("the feed is there", || async { feed(&deployment, web).await.is_some() }).await;
    let first = feed(&deployment, web).await.unwrap();
    deployment.clock.advance(30_000);
    eventually("it is signed anew", || async {
        feed(&deployment, web).await.unwrap().signed_at > first.signed_at
    })
    .await;
    let next = feed(&deployment, web).await.unwrap();
    assert!(next.sequence > first.sequence);
    deployment.stop().await;
    deployment.resume().await.unwrap();
    let web = deployment.broker().web.port();
    eventually("the feed is there again", || async { feed(&deployment, web).await.is_some() }).await;
    let last = feed(&deployment, web).await.unwrap();
    assert!(last.sequence > next.sequence);
    let recorded = statements(&deployment, "revocations").await;
    for feed in [&first, &next, &last] {
        assert!(recorded.iter().any(|it| it.number == Some(feed.sequence) && it.from_ms == feed.signed_at));
    }
    // Whoever has it already is told so; and it is no document to keep without asking.
    let headers = fetch(&deployment, web, "/revocations", &["--head"]).await.stdout.to_lowercase();
    assert!(headers.contains("content-type: application/jwt"), "{headers}");
    assert!(headers.contains("cache-control: no-cache"), "{headers}");
    let etag = headers.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap().trim().to_owned();
    let known = format!("if-none-match: {etag}");
    let again = fetch(&deployment, web, "/revocations", &["--head", "--header", &known]).await.stdout;
    assert!(again.starts_with("HTTP/2 304") || again.starts_with("HTTP/2 200"), "{again}");
}

struct Files<'a> {
    folder: &'a Path,
}

impl Files<'_> {
    fn pem(&self, name: &str, kind: &str, ders: &[Vec<u8>]) -> PathBuf {
        let text: String = ders.iter().map(|der| pem::encode(&pem::Pem::new(kind, der.clone()))).collect();
        self.write(name, text.as_bytes())
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.folder.join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

/// A certificate for the ledger's database, whose target reads revocation lists: leaf first.
async fn certificate(deployment: &Deployment) -> (String, Vec<CertificateDer<'static>>) {
    let csr = CertificateParams::default().serialize_request(&KeyPair::generate().unwrap()).unwrap();
    let wanted = pb::CertificateParameters { csr: csr.der().to_vec().into(), ..Default::default() };
    let wanted = pb::issue_request::Credential::Certificate(wanted);
    let wanted = pb::IssueRequest { credential: Some(wanted), ..task("ledger-db") };
    let issued = issue(&deployment.service().await, wanted).await.unwrap();
    (issued.credential_id.clone(), certificate_of(&issued))
}

/// What `openssl verify` says of a leaf, held to the lists that the broker serves.
async fn openssl_says(deployment: &Deployment, chain: &[CertificateDer<'static>]) -> Output {
    let files = Files { folder: deployment.folder() };
    let web = deployment.broker().web.port();
    let crls = fetch(deployment, web, "/crl", &["--fail"]).await.stdout;
    let root = files.pem("root.pem", "CERTIFICATE", &[deployment.root.to_vec()]);
    let above: Vec<Vec<u8>> = chain[1..].iter().map(|der| der.to_vec()).collect();
    let above = files.pem("above.pem", "CERTIFICATE", &above);
    let leaf = files.pem("leaf.pem", "CERTIFICATE", &[chain[0].to_vec()]);
    let crls = files.write("crl.pem", crls.as_bytes());
    let at = deployment.clock.now().seconds().to_string();
    let arguments: [&std::ffi::OsStr; 12] = [
        "verify".as_ref(),
        "-crl_check_all".as_ref(),
        "-attime".as_ref(),
        at.as_ref(),
        "-CAfile".as_ref(),
        root.as_ref(),
        "-untrusted".as_ref(),
        above.as_ref(),
        "-CRLfile".as_ref(),
        crls.as_ref(),
        "-verbose".as_ref(),
        leaf.as_ref(),
    ];
    run("openssl", arguments).await
}

/// What receivers in Rust say, held to all lists that the broker serves.
async fn receivers_say(
    deployment: &Deployment,
    chain: &[CertificateDer<'static>],
) -> Result<(), &'static str> {
    let anchors = TrustAnchors::new(vec![deployment.root.clone()]).unwrap();
    let all = fetch(deployment, deployment.broker().web.port(), "/crl", &["--fail"]).await.stdout;
    let lists = pem::parse_many(all).unwrap().into_iter();
    let lists: Vec<_> = lists.map(|it| CertificateRevocationListDer::from(it.into_contents())).collect();
    let (crls, td) = (Crls::new(&lists).unwrap(), "example.org".parse().unwrap());
    let verified = verify_certificate(chain, &anchors, Some(&crls), &td, deployment.clock.now());
    verified.map(drop).map_err(|error| error.inner_reason())
}

#[tokio::test]
async fn openssl_holds_certificates_to_our_lists_and_our_own_verifier_too() {
    let deployment = Deployment::start().await;
    let web = deployment.broker().web.port();
    let (id, chain) = certificate(&deployment).await;
    let (_, spared) = certificate(&deployment).await;
    eventually("the lists are there", || async {
        fetch(&deployment, web, "/crl", &["--fail"]).await.code == Some(0)
    })
    .await;
    for chain in [&chain, &spared] {
        let good = openssl_says(&deployment, chain).await;
        assert_eq!(good.code, Some(0), "{}{}", good.stdout, good.stderr);
    }
    revoke(&deployment.operator().await, order(What::CredentialId(id.clone()))).await.unwrap();
    eventually("openssl refuses it", || async {
        let said = openssl_says(&deployment, &chain).await;
        said.code != Some(0) && said.stderr.contains("certificate revoked")
    })
    .await;
    let good = openssl_says(&deployment, &spared).await;
    assert_eq!(good.code, Some(0), "{}{}", good.stdout, good.stderr);

    // `openssl crl` reads the list of the CA alone, DER, and names reason and number.
    let ca = deployment.issued(&id).await.credential.key;
    let der = deployment.folder().join("crl.der");
    let path = der.to_str().unwrap();
    let fetched = fetch(&deployment, web, &format!("/crl/{ca}"), &["--fail", "--output", path]).await;
    assert_eq!(fetched.code, Some(0), "{}", fetched.stderr);
    let text = run("openssl", ["crl", "-inform", "DER", "-in", path, "-noout", "-text"]).await.stdout;
    let serial = id.replace('-', "").to_uppercase();
    assert!(text.contains(serial.trim_start_matches('0')), "{text}");
    assert!(text.contains("Privilege Withdrawn") && text.contains("X509v3 CRL Number"), "{text}");
    let missing = fetch(&deployment, web, "/crl/nobody", &["--fail"]).await;
    assert_eq!(missing.code, Some(22));

    assert_eq!(receivers_say(&deployment, &chain).await, Err("REVOKED"));
    assert_eq!(receivers_say(&deployment, &spared).await, Ok(()));
}

#[tokio::test]
async fn the_list_of_the_root_names_a_ca_that_others_know() {
    let deployment = Deployment::start().await;
    let (id, chain) = certificate(&deployment).await;
    let web = deployment.broker().web.port();
    eventually("openssl takes it", || async {
        fetch(&deployment, web, "/crl", &["--fail"]).await.code == Some(0)
            && openssl_says(&deployment, &chain).await.code == Some(0)
    })
    .await;
    let ca = deployment.issued(&id).await.credential.key.to_string();
    let stolen = pb::RotateKeyRequest {
        r#use: pb::KeyUse::Ca.into(),
        compromised_key_id: ca,
        reason: "a backup was stolen".into(),
        validate_only: false,
    };
    let security = deployment.security().await;
    security.governance().rotate_key(security.request(stolen).unwrap()).await.unwrap();
    eventually("openssl refuses all that it signed", || async {
        openssl_says(&deployment, &chain).await.code != Some(0)
    })
    .await;
    // The root says it of the CA itself.
    let root = deployment.broker().log().state();
    let now = deployment.clock.now();
    let root = root.published_keys(daypass_evidence::entry::KeyUse::Root, now).next().unwrap().key.clone();
    let path = deployment.folder().join("root.crl");
    let path = path.to_str().unwrap();
    eventually("the root's list names it", || async {
        fetch(&deployment, web, &format!("/crl/{root}"), &["--fail", "--output", path]).await;
        let text = run("openssl", ["crl", "-inform", "DER", "-in", path, "-noout", "-text"]).await.stdout;
        text.contains("CA Compromise")
    })
    .await;
    let (_, next) = certificate(&deployment).await;
    eventually("what the next CA signs is taken", || async {
        openssl_says(&deployment, &next).await.code == Some(0)
    })
    .await;
    // Some choose a list by the name of its CA alone.
    assert_eq!(receivers_say(&deployment, &next).await, Ok(()));
    assert_eq!(receivers_say(&deployment, &chain).await, Err("REVOKED"));
}
