pub(crate) mod credentials;

use daypass_evidence::tree::{Frontier, leaf_hash, node_hash};
use ring::rand::SystemRandom;
use ring::signature::Ed25519KeyPair;

use super::*;

pub(crate) const NOW: UnixMs = UnixMs::new(1_795_316_400_123);
pub(crate) const SUBJECT: &str = "spiffe://example.org/prod/billing/nightly";

/// One thing spoiled.
type Spoil<T> = fn(&mut T);

/// A log in memory, of at most two entries where proofs are asked of it.
pub(crate) struct Log {
    key: Ed25519KeyPair,
    origin: String,
    leaves: Vec<Hash>,
}

impl Log {
    pub(crate) fn new(origin: &str) -> Self {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let key = Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap();
        Self { key, origin: origin.to_owned(), leaves: Vec::new() }
    }

    pub(crate) fn append(&mut self, entry: &[u8]) {
        self.leaves.push(leaf_hash(entry));
    }

    pub(crate) fn key(&self) -> VerifierKey {
        VerifierKey::of(&self.origin, &self.key).unwrap()
    }

    pub(crate) fn newest(&self) -> Newest {
        let mut frontier = Frontier::empty();
        self.leaves.iter().for_each(|leaf| frontier.append(*leaf));
        let checkpoint =
            Checkpoint { origin: self.origin.clone(), size: frontier.size(), root: frontier.root() };
        Newest { note: checkpoint.sign(&self.key).unwrap().into(), checkpoint }
    }
}

pub(crate) fn id() -> CredentialId {
    CredentialId::new(NOW, [7; 10])
}

fn request() -> IssueRequest {
    IssueRequest {
        scope: Scope {
            audiences: ["https://ledger.example.org".parse().unwrap()].into(),
            actions: ["invoice:write".parse().unwrap()].into(),
            resources: ["eu/*".parse().unwrap()].into(),
        },
        identity: Some("prod/billing/nightly".parse().unwrap()),
        ttl: Some(Seconds::new(600)),
        ..IssueRequest::token("post-invoices".parse().unwrap())
    }
}

fn wire_grant() -> v1::Grant {
    let at = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
    v1::Grant {
        subject: SUBJECT.into(),
        task: "post-invoices".into(),
        audiences: vec!["https://ledger.example.org".into()],
        actions: vec!["invoice:write".into()],
        resources: vec!["eu/de/*".into()],
        issued_at: at(NOW.seconds()),
        not_before: at(NOW.seconds() - 10),
        expires_at: at(NOW.seconds() + 600),
        reach: v1::Reach::Feed.into(),
    }
}

fn answer() -> v1::IssueResponse {
    v1::IssueResponse { granted: Some(wire_grant()), ..v1::IssueResponse::default() }
}

fn grant() -> Grant {
    granted(&request(), &answer()).unwrap()
}

#[test]
fn a_grant_is_for_what_was_asked_and_no_more() {
    let spoiled: [(&str, Spoil<v1::Grant>); 9] = [
        ("granted.task", |it| it.task = "deploy-web".into()),
        ("granted.subject", |it| it.subject = "spiffe://example.org/prod/other".into()),
        ("granted.subject", |it| it.subject = "prod/billing/nightly".into()),
        ("granted.audiences", |it| it.audiences.push("https://other.example.org".into())),
        ("granted.actions", |it| it.actions.push("invoice:delete".into())),
        ("granted.resources", |it| it.resources.push("us/x".into())),
        ("granted.resources", |it| it.resources = vec!["../x".into()]),
        ("granted.expires_at", |it| it.expires_at.as_mut().unwrap().seconds += 1),
        ("granted.expires_at", |it| it.expires_at = None),
    ];
    for (what, spoil) in spoiled {
        let mut answer = answer();
        spoil(answer.granted.as_mut().unwrap());
        let error = granted(&request(), &answer).unwrap_err().to_string();
        assert!(error.contains(&format!("`{what}`")), "{what}: {error}");
    }
}

#[test]
fn less_than_asked_is_taken_only_where_that_is_allowed() {
    let answer = v1::IssueResponse { narrowed: vec!["ttl".into()], ..answer() };
    assert!(granted(&request(), &answer).is_err());
    assert!(granted(&IssueRequest { allow_narrowed: true, ..request() }, &answer).is_ok());
    assert!(granted(&IssueRequest { ttl: None, ..request() }, &answer).is_ok());
    let answer = v1::IssueResponse { narrowed: vec!["actions".into()], ..answer };
    assert!(granted(&IssueRequest { ttl: None, ..request() }, &answer).is_err());
}

fn two_entries() -> (Log, v1::Receipt) {
    let mut log = Log::new("example.org/evidence/2027h1");
    log.append(b"one");
    log.append(b"two");
    let receipt = v1::Receipt {
        entry: Some(v1::EntryRef { log: log.origin.clone(), index: 1 }),
        leaf_hash: leaf_hash(b"two").to_vec().into(),
        checkpoint: log.newest().note,
        inclusion: vec![leaf_hash(b"one").to_vec().into()],
    };
    (log, receipt)
}

#[test]
fn a_receipt_that_proves_nothing_is_refused() {
    let (log, good) = two_entries();
    let read = receipt(&good, &log.key()).unwrap();
    assert_eq!((read.index, read.checkpoint.size), (1, 2));
    let spoiled: [Spoil<v1::Receipt>; 6] = [
        |it| it.entry = None,
        |it| it.entry.as_mut().unwrap().index = 0,
        |it| it.entry.as_mut().unwrap().log.push('x'),
        |it| it.leaf_hash = vec![1; 32].into(),
        |it| it.leaf_hash = vec![1; 31].into(),
        |it| it.inclusion.clear(),
    ];
    for (at, spoil) in spoiled.iter().enumerate() {
        let mut wire = good.clone();
        spoil(&mut wire);
        assert!(receipt(&wire, &log.key()).is_err(), "spoiled {at}");
    }
    assert!(receipt(&good, &Log::new(&log.origin).key()).is_err());
}

#[test]
fn a_log_that_went_back_or_forked_is_refused() {
    let mut log = Log::new("example.org/evidence/2027h1");
    log.append(b"one");
    let small = log.newest();
    log.append(b"two");
    let large = log.newest();
    assert!(matches!(
        not_behind(&large, &small.checkpoint),
        Err(VerifyError::WentBack { kept: 2, found: 1, .. })
    ));
    assert!(!not_behind(&large, &large.checkpoint).unwrap());
    assert!(not_behind(&small, &large.checkpoint).unwrap());
    consistent(&small, &large.checkpoint, &[leaf_hash(b"two")]).unwrap();
    assert!(consistent(&small, &large.checkpoint, &[leaf_hash(b"three")]).is_err());
    let mut fork = large.checkpoint.clone();
    fork.root = node_hash(&leaf_hash(b"other"), &leaf_hash(b"two"));
    assert!(matches!(not_behind(&large, &fork), Err(VerifyError::Forked { kept: 2, .. })));
}

#[test]
fn a_subject_of_another_trust_domain_than_the_logs_is_refused() {
    trust_domain(&grant(), &Log::new("example.org/evidence/2027h1").key()).unwrap();
    assert!(trust_domain(&grant(), &Log::new("example.com/evidence/2027h1").key()).is_err());
}
