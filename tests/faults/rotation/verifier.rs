//! A verifier with the oldest copies of the published keys that it may use, and what it is shown.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use daypass_broker::dev::caller::Caller;
use daypass_broker::dev::workload_ca::WorkloadCertificate;
use daypass_proto::v1 as pb;
use daypass_proto::v1::issue_request::Credential as Wanted;
use daypass_tests::harness::{Deployment, NIGHTLY, certificate_of, claims_of, issue, run, task, token_of};
use daypass_verify::ids::KeyId;
use rcgen::{CertificateParams, KeyPair};
use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use serde_json::Value;

/// How long a broker that has just started may take until it issues.
const ISSUES_WITHIN: Duration = Duration::from_secs(10);

/// Where the keys of each kind of token are published.
const KINDS: [(pb::TokenProfile, &str); 2] =
    [(pb::TokenProfile::AccessToken, "/jwks"), (pb::TokenProfile::JwtSvid, "/bundle")];

/// Published keys, by their id, and until when they may be used.
struct Copy {
    path: &'static str,
    until: Instant,
    keys: BTreeMap<String, Vec<u8>>,
}

pub(super) struct Verifier {
    certificate: WorkloadCertificate,
    ca: PathBuf,
    folder: PathBuf,
    issuer: String,
    port: u16,
    copies: Vec<Copy>,
    /// Tokens that may still be shown, each with where its key is published.
    shown: Vec<(&'static str, String, Instant)>,
    given_up: BTreeSet<String>,
}

impl Verifier {
    pub(super) fn of(deployment: &Deployment, port: u16) -> Self {
        let folder = deployment.folder().to_owned();
        std::fs::write(folder.join("root.pem"), pem("CERTIFICATE", &deployment.root)).unwrap();
        Self {
            certificate: deployment.workload(NIGHTLY),
            ca: deployment.listener_ca.clone(),
            folder,
            issuer: deployment.settings.issuer.as_str().to_owned(),
            port,
            copies: Vec::new(),
            shown: Vec::new(),
            given_up: BTreeSet::new(),
        }
    }

    /// From now on nothing that this key signed is good, and what takes its place need not have been known.
    pub(super) fn forget(&mut self, key: &KeyId) {
        self.given_up.insert(key.to_string());
        self.copies.clear();
        let signed = |token: &str| claims_of(token).0["kid"] == key.to_string();
        self.shown.retain(|(_, token, _)| !signed(token));
    }

    /// Is shown a new credential of each kind, and what it was shown before.
    pub(super) async fn meets_all(&mut self) {
        for (profile, path) in KINDS {
            let (token, ends) = self.token(profile).await;
            self.shown.push((path, token, ends));
        }
        self.certificate_holds().await;
        // Before and after it is shown them: the copies that it has are as old as they may be.
        self.check();
        for (_, path) in KINDS {
            let copy = self.fetch(path).await;
            let gone = copy.keys.keys().find(|kid| self.given_up.contains(*kid));
            assert!(gone.is_none(), "a key that was given up is published: {gone:?}");
            self.copies.push(copy);
        }
        self.check();
    }

    fn check(&mut self) {
        let now = Instant::now();
        self.copies.retain(|copy| now < copy.until);
        self.shown.retain(|(_, _, ends)| now < *ends);
        for copy in &self.copies {
            for (_, token, _) in self.shown.iter().filter(|(path, ..)| *path == copy.path) {
                let (signed, signature) = token.rsplit_once('.').unwrap();
                let kid = claims_of(token).0["kid"].as_str().unwrap().to_owned();
                let key =
                    copy.keys.get(&kid).unwrap_or_else(|| panic!("{kid} is not in a copy of {}", copy.path));
                let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
                let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key);
                key.verify(signed.as_bytes(), &signature).expect("the signature verifies");
            }
        }
    }

    async fn token(&self, profile: pb::TokenProfile) -> (String, Instant) {
        let ttl = Some(prost_types::Duration { seconds: 5, nanos: 0 });
        let wanted = pb::TokenParameters { profile: profile.into(), confirmation: None };
        let wanted =
            pb::IssueRequest { ttl, credential: Some(Wanted::Token(wanted)), ..task("post-invoices") };
        let asked = Instant::now();
        let answer = self.issued(wanted).await;
        let (_, claims) = claims_of(token_of(&answer));
        let life = claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap();
        (token_of(&answer).to_owned(), asked + Duration::from_secs(u64::try_from(life).unwrap()))
    }

    /// Whether openssl verifies a certificate that is issued now.
    async fn certificate_holds(&self) {
        let csr = CertificateParams::default().serialize_request(&KeyPair::generate().unwrap()).unwrap();
        let wanted = pb::CertificateParameters { csr: csr.der().to_vec().into(), ..Default::default() };
        let wanted = pb::IssueRequest { credential: Some(Wanted::Certificate(wanted)), ..task("ledger-db") };
        let chain = certificate_of(&self.issued(wanted).await);
        let path = |name: &str| self.folder.join(name).to_str().unwrap().to_owned();
        let (leaf, ca, root) = (path("leaf.pem"), path("ca.pem"), path("root.pem"));
        std::fs::write(&leaf, pem("CERTIFICATE", &chain[0])).unwrap();
        std::fs::write(&ca, pem("CERTIFICATE", &chain[1])).unwrap();
        let arguments =
            ["verify", "-no_check_time", "-x509_strict", "-CAfile", &root, "-untrusted", &ca, &leaf];
        let verified = run("openssl", arguments).await;
        assert_eq!(verified.code, Some(0), "{}{}", verified.stdout, verified.stderr);
    }

    /// A credential, as soon as the broker issues.
    async fn issued(&self, wanted: pb::IssueRequest) -> pb::IssueResponse {
        let began = Instant::now();
        loop {
            let connected = Caller::connect(self.port, &self.ca, Some(&self.certificate)).await;
            let refused = match connected {
                Ok(caller) => match issue(&caller, wanted.clone()).await {
                    Ok(answer) => return answer,
                    Err(refused) => format!("{refused:?}"),
                },
                Err(error) => error.to_string(),
            };
            assert!(began.elapsed() < ISSUES_WITHIN, "{refused}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn fetch(&self, path: &'static str) -> Copy {
        let asked = Instant::now();
        let (url, ca) = (format!("{}{path}", self.issuer), self.ca.to_str().unwrap());
        let arguments = ["--silent", "--fail", "--include", "--noproxy", "*", "--cacert", ca, &url];
        let answer = run("curl", arguments).await;
        let (head, body) = answer.stdout.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?}"));
        let header = head.lines().find_map(|line| line.strip_prefix("cache-control: ")).unwrap();
        let max_age = header.split(", ").find_map(|part| part.strip_prefix("max-age=")).unwrap();
        let document: Value = serde_json::from_str(body).unwrap();
        let keys = document["keys"].as_array().unwrap().iter();
        let keys = keys.filter_map(|key| Some((key["kid"].as_str()?.to_owned(), point(key)?))).collect();
        Copy { path, until: asked + Duration::from_secs(max_age.parse().unwrap()), keys }
    }
}

/// The public key of a JWK, uncompressed (SEC 1, section 2.3.3).
fn point(key: &Value) -> Option<Vec<u8>> {
    let half = |name: &str| URL_SAFE_NO_PAD.decode(key[name].as_str()?).ok();
    Some([vec![4], half("x")?, half("y")?].concat())
}

fn pem(label: &str, der: &[u8]) -> String {
    pem::encode(&pem::Pem::new(label, der))
}
