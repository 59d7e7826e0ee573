//! Who asks: the workloads of the sample organisation, with proofs of issuers whose keys are made here.

use std::collections::HashMap;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use daypass_broker::dev::organisation::sample;
use daypass_core::bundle::{Bundle, SourceFile, compile};
use daypass_core::proof::{IssuerKeys, KnownKeys, Principal, ProofError, UnverifiedProof};
use daypass_core::request::{Bind, Form, Request};
use daypass_evidence::entry::Profile;
use daypass_verify::csr::{CsrKey, key_of_csr};
use daypass_verify::ids::{KeyId, RequestId};
use daypass_verify::jose::UnverifiedToken;
use daypass_verify::jwks::{KeySet, VerifyingKey, thumbprint_p256};
use daypass_verify::time::{Seconds, UnixMs};
use rcgen::{CertificateParams, KeyPair};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use rustls_pki_types::CertificateDer;
use serde_json::{Map, Value, json};

use super::op::What;

/// The broker's issuer URL.
pub(crate) const OURS: &str = "https://broker.example.org";

/// What all runs share: making keys and compiling bundles costs more than a run.
pub(crate) static PEOPLE: LazyLock<People> = LazyLock::new(People::new);

pub(crate) struct People {
    /// Two bundles that differ in what a task allows.
    pub(crate) bundles: [Bundle; 2],
    key: EcdsaKeyPair,
    key_id: KeyId,
    known: KnownKeys,
    possession: CertificateDer<'static>,
    csr: CsrKey,
}

impl People {
    fn new() -> Self {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let key =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).unwrap();
        let point: [u8; 65] = key.public_key().as_ref().try_into().unwrap();
        let key_id = thumbprint_p256(&point);
        let bundles = [bundle(|text| text), bundle(|text| text.replace("ttl = \"15m\"", "ttl = \"14m\""))];
        let set = || [VerifyingKey::from_p256_point(key_id.as_str(), &point)].into_iter().collect::<KeySet>();
        let issuers = bundles[0].declared().issuers.keys();
        let known: HashMap<_, _> =
            issuers.map(|name| (name.clone(), IssuerKeys::Jwks(set().into()))).collect();
        let holder = KeyPair::generate().unwrap();
        let csr = CertificateParams::default().serialize_request(&holder).unwrap();
        Self {
            bundles,
            key,
            known: KnownKeys::new(known),
            possession: CertificateParams::default().self_signed(&holder).unwrap().der().clone(),
            csr: key_of_csr(csr.der()).unwrap(),
            key_id,
        }
    }

    /// A fresh ID token for whoever asks for `what`; `serial` tells it from all others.
    pub(crate) fn token(&self, what: What, serial: u64, now: UnixMs) -> String {
        let mut claims = claims(what, serial);
        claims.insert("aud".into(), OURS.into());
        claims.insert("iat".into(), now.seconds().into());
        claims.insert("exp".into(), (now.seconds() + 300).into());
        claims.insert("jti".into(), serial.to_string().into());
        let header = json!({"alg": "ES256", "kid": self.key_id.as_str(), "typ": "JWT"});
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let input = format!("{}.{}", part(&header), part(&Value::Object(claims)));
        let signature = self.key.sign(&SystemRandom::new(), input.as_bytes()).unwrap();
        format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }

    /// The token's principal, on a connection with a certificate of its own.
    pub(crate) fn principal(
        &self,
        token: &str,
        bundle: &Bundle,
        now: UnixMs,
    ) -> Result<Principal, ProofError> {
        let token = UnverifiedToken::parse(token).unwrap();
        let proof = UnverifiedProof::Both { token, chain: vec![self.possession.clone()] };
        proof.verify(bundle, &self.known, OURS, now)
    }

    pub(crate) fn request(&self, what: What, ttl_s: u32, id: RequestId) -> Request {
        let token = |profile| Form::Token { profile, bind: Bind::Auto };
        let certificate = || Form::Certificate { profile: None, key: self.csr.clone() };
        let (task, form) = match what {
            What::PostInvoices => ("post-invoices", token(None)),
            What::ReadInvoices => ("read-invoices", token(None)),
            What::LedgerDb => ("ledger-db", certificate()),
            What::DeployWeb => ("deploy-web", token(None)),
            What::MeshCertificate => ("mesh-identity", certificate()),
            What::MeshToken => {
                ("mesh-identity", Form::Token { profile: Some(Profile::JwtSvid), bind: Bind::Bearer })
            }
            What::SyncOrders => ("sync-orders", token(None)),
        };
        let audience = "https://ledger.example.org".parse().unwrap();
        Request {
            id,
            id_is_callers: true,
            task: task.into(),
            identity: None,
            audiences: if what == What::ReadInvoices { [audience].into() } else { [].into() },
            actions: [].into(),
            resources: [].into(),
            ttl_s: Some(Seconds::new(ttl_s)),
            form,
            run: None,
            supersedes: None,
            refuse_narrowed: false,
            client: None,
            approval: None,
            emergency: None,
            for_workload: false,
        }
    }
}

/// The sample organisation, whose issuers all sign with ES256 here.
fn bundle(change: impl Fn(String) -> String) -> Bundle {
    let es256 = |text: String| {
        text.replace("[\"ES256\", \"RS256\"]", "[\"ES256\"]").replace("[\"RS256\"]", "[\"ES256\"]")
    };
    let files: Vec<_> = sample()
        .into_iter()
        .map(|file| SourceFile { text: change(es256(file.text)), path: file.path })
        .collect();
    compile(&files).unwrap()
}

fn claims(what: What, serial: u64) -> Map<String, Value> {
    let claims = match what {
        What::PostInvoices | What::ReadInvoices | What::LedgerDb => json!({
            "iss": "https://ci.example.org", "sub": "project:42:ref:main", "repository_id": "42",
            "event": "schedule", "run_id": serial.to_string(),
        }),
        What::DeployWeb => json!({
            "iss": "https://ci.example.org", "sub": "project:77:ref:main", "repository_id": "77",
            "event": "push", "run_id": serial.to_string(),
        }),
        What::MeshCertificate | What::MeshToken => json!({
            "iss": "https://cluster.example.org", "sub": "system:serviceaccount:shop:frontend",
            "kubernetes.io": {"pod": {"uid": "pod-1"}},
        }),
        What::SyncOrders => json!({"iss": "https://id.acme.example", "sub": "connector-eu-1"}),
    };
    claims.as_object().unwrap().clone()
}
