//! A log that a real broker wrote, and what signs an edited one.

use std::path::{Path, PathBuf};

use daypass_broker::clock::Clock as _;
use daypass_broker::dev::caller::Caller;
use daypass_evidence::canonical::to_vec_unbounded;
use daypass_evidence::checkpoint::Checkpoint;
use daypass_evidence::entry::{Body, KeyUse};
use daypass_evidence::note::VerifierKey;
use daypass_evidence::tree::{Frontier, leaf_hash};
use daypass_proto::v1 as pb;
use daypass_tests::harness::{CI, Deployment, NIGHTLY, eventually, issue, task};
use daypass_verify::ids::Digest;
use ring::rand::SystemRandom;
use ring::signature::Ed25519KeyPair;
use serde_json::Value;

use crate::e2e::recover::recover_here;
use crate::e2e::shards::{closing_at, grow, shards};

/// A log as its broker left it.
pub(super) struct Recorded {
    pub(super) entries: Vec<Vec<u8>>,
    pub(super) checkpoint: Vec<u8>,
    pub(super) log_key: VerifierKey,
}

/// Entries, and the checkpoint that they are held against.
pub(super) struct SignedLog {
    pub(super) entries: Vec<Vec<u8>>,
    pub(super) checkpoint: Vec<u8>,
}

/// Signs checkpoints of the same log with a key of its own.
pub(super) struct Signer {
    origin: String,
    key: Ed25519KeyPair,
    pub(super) verifier: VerifierKey,
}

impl Recorded {
    /// Issuances of every profile, a refusal, a supplier's, endings, a restart, and a key that others know.
    pub(super) async fn by_a_broker() -> Self {
        let mut deployment = Deployment::start().await;
        busy(&deployment, 5).await;
        deployment.clock.advance(91_000);
        entry_of(&deployment, "an ending", |body| matches!(body, Body::CredentialEnded(_))).await;
        busy(&deployment, 30).await;
        deployment.stop().await;
        deployment.clock.advance(400_000);
        deployment.resume().await.unwrap();
        busy(&deployment, 900).await;
        compromise(&deployment).await;
        busy(&deployment, 900).await;
        Self::of(&deployment).await
    }

    /// The log that a broker writes.
    async fn of(deployment: &Deployment) -> Self {
        let log_key = deployment.broker().log().key().clone();
        let operator = deployment.operator().await;
        let request = operator.request(pb::GetCheckpointRequest::default()).unwrap();
        let checkpoint = operator.evidence().get_checkpoint(request).await.unwrap().into_inner().checkpoint;
        let size = Checkpoint::open(&checkpoint, &log_key).unwrap().size;
        let limit = u32::try_from(size).unwrap();
        let rows = deployment.broker().readers.run(move |reader| reader.rows(0, limit)).await.unwrap();
        let entries = rows.into_iter().map(|row| row.bytes.to_vec()).collect();
        Self { entries, checkpoint: checkpoint.to_vec(), log_key }
    }

    /// A log that goes on for another one, of which the end was lost, and ends what that one had issued.
    pub(super) async fn by_a_broker_that_recovered() -> Self {
        let mut deployment = Deployment::start().await;
        busy(&deployment, 60).await;
        deployment.stop().await;
        let copy = deployment.copied();
        deployment.resume().await.unwrap();
        busy(&deployment, 60).await;
        deployment.stop().await;
        std::fs::copy(&copy.store, deployment.store()).unwrap();
        recover_here(&deployment).await;
        // Proofs of a time of which it is not known what they bought are refused.
        deployment.clock.advance(45_000);
        deployment.resume().await.unwrap();
        busy(&deployment, 5).await;
        deployment.clock.advance(91_000);
        let before = |body: &Body| matches!(body, Body::CredentialEnded(ended) if ended.log.is_some());
        entry_of(&deployment, "an ending of the log before", before).await;
        busy(&deployment, 900).await;
        compromise(&deployment).await;
        Self::of(&deployment).await
    }

    /// The logs of a store in which each follows the one before it, and all that any of them issued ended in the last.
    pub(super) async fn by_a_broker_that_turned_twice() -> Vec<Self> {
        let mut deployment = closing_at(200).await;
        for _ in 0..2 {
            busy(&deployment, 900).await;
            grow(&deployment, 160).await;
            deployment.turn().await;
        }
        busy(&deployment, 900).await;
        deployment.stop().await;
        deployment.clock.advance(1_000_000);
        deployment.resume().await.unwrap();
        let store = deployment.settings.store.clone();
        eventually("all ends", || async { store.reader().unwrap().live().unwrap() == 0 }).await;
        // A start excuses for a minute that something was not ended yet.
        deployment.clock.advance(61_000);
        deployment.stop().await;
        let logs = shards(&store).into_iter();
        logs.map(|(entries, bytes, checkpoint)| {
            let Body::LogOpened(opened) = &entries[0].body else { panic!("it is not opened") };
            Self { entries: bytes, checkpoint, log_key: opened.key.parse().unwrap() }
        })
        .collect()
    }

    /// It as its broker signed it.
    pub(super) fn signed(&self) -> SignedLog {
        SignedLog { entries: self.entries.clone(), checkpoint: self.checkpoint.clone() }
    }

    pub(super) fn origin(&self) -> String {
        self.values()[0]["origin"].as_str().unwrap().to_owned()
    }

    pub(super) fn values(&self) -> Vec<Value> {
        self.entries.iter().map(|bytes| serde_json::from_slice(bytes).unwrap()).collect()
    }
}

/// What callers do in a while.
async fn busy(deployment: &Deployment, ttl_s: i64) {
    let ttl = Some(prost_types::Duration { seconds: ttl_s, nanos: 0 });
    let wanted = |name| pb::IssueRequest { ttl, ..task(name) };
    let service = deployment.service().await;
    for _ in 0..3 {
        issue(&service, wanted("post-invoices")).await.unwrap();
        issue(&deployment.job().await, wanted("post-invoices")).await.unwrap();
    }
    issue(&service, wanted("deploy-web")).await.unwrap_err();
    issue(&by(deployment, "supplier-idp", "prod/acme/connector").await, wanted("sync-orders")).await.unwrap();
    issue(&by(deployment, "cluster", "prod/web/frontend").await, wanted("mesh-identity")).await.unwrap();
    let one = vec!["https://ledger.example.org".into()];
    let read = pb::IssueRequest { audiences: one, ..wanted("read-invoices") };
    issue(&by(deployment, CI, NIGHTLY).await, read).await.unwrap();
}

/// All tokens that live are ended with their key.
async fn compromise(deployment: &Deployment) {
    let state = deployment.broker().log().state();
    let key = state.signing_key(KeyUse::Token, deployment.clock.now()).unwrap().key.to_string();
    let security = deployment.security().await;
    let order = pb::RotateKeyRequest {
        r#use: pb::KeyUse::Token.into(),
        compromised_key_id: key,
        ..Default::default()
    };
    let ended = security.governance().rotate_key(security.request(order).unwrap()).await.unwrap();
    assert!(ended.into_inner().revoked > 3);
}

async fn by(deployment: &Deployment, issuer: &str, identity: &str) -> Caller {
    deployment.bound(deployment.organisation.token(issuer, identity).unwrap()).await
}

async fn entry_of(deployment: &Deployment, what: &str, wanted: impl Fn(&Body) -> bool) {
    deployment.entry(what, |entry| wanted(&entry.body).then_some(())).await;
}

impl Signer {
    pub(super) fn new(origin: String) -> Self {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let key = Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap();
        let verifier = VerifierKey::of(&origin, &key).unwrap();
        Self { origin, key, verifier }
    }

    /// As [`Self::sign`], of another log that the same key signs.
    pub(super) fn sign_for(&self, origin: &str, values: &[Value]) -> SignedLog {
        let entries = values.iter().map(encode).collect();
        let log = SignedLog { entries, checkpoint: Vec::new() };
        let (root, size) = log.tree();
        let checkpoint = Checkpoint { origin: origin.into(), size, root: *root.as_bytes() };
        SignedLog { checkpoint: checkpoint.sign(&self.key).unwrap().into_bytes(), ..log }
    }

    /// The log of these entries, as a broker that means them would sign it.
    pub(super) fn sign(&self, values: &[Value]) -> SignedLog {
        self.sign_for(&self.origin, values)
    }
}

/// Canonical where it can be; what an entry may not hold is spelled as JSON has it.
fn encode(value: &Value) -> Vec<u8> {
    to_vec_unbounded(value).unwrap_or_else(|_| serde_json::to_vec(value).unwrap())
}

impl SignedLog {
    /// The root over its entries, and how many they are.
    pub(super) fn tree(&self) -> (Digest, u64) {
        let mut tree = Frontier::default();
        self.entries.iter().for_each(|bytes| tree.append(leaf_hash(bytes)));
        (Digest::from_bytes(tree.root()), tree.size())
    }

    /// Writes entries and checkpoint as `daypass log --format ndjson` and `daypass log checkpoint` print them.
    pub(super) fn write(&self, folder: &Path, at: usize) -> [PathBuf; 2] {
        let (entries, checkpoint) = (folder.join(format!("{at}.ndjson")), folder.join(format!("{at}.note")));
        let lines: Vec<u8> =
            self.entries.iter().flat_map(|bytes| [bytes.as_slice(), b"\n"].concat()).collect();
        std::fs::write(&entries, lines).unwrap();
        std::fs::write(&checkpoint, &self.checkpoint).unwrap();
        [entries, checkpoint]
    }
}
