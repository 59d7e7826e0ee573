//! Entries as a year of issuing writes them: issuances that a real decision could have led to, and their endings.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use daypass_broker::clock::{Clock, SystemClock};
use daypass_broker::dev::organisation::sample;
use daypass_broker::ids::Ids;
use daypass_broker::init::{self, Deployment};
use daypass_broker::log::Log;
use daypass_core::bundle::compile;
use daypass_core::rotation::Lifetimes;
use daypass_evidence::entry::*;
use daypass_evidence::note::VerifierKey;
use daypass_verify::ids::Digest;
use daypass_verify::scope::Scope;
use daypass_verify::time::{Seconds, UnixMs};

use super::Files;
use crate::Fault;
use crate::broker::NIGHTLY;

pub(super) const TRUST_DOMAIN: &str = "example.org";

const TASK: &str = "post-invoices";
const TTL: Seconds = Seconds::new(300);

/// How many entries there are for a second of the log's own time: a large company's peak.
const PER_SECOND: u64 = 1_000;

/// How long after its end a credential is called expired.
const LEEWAY_MS: i64 = 31_000;

/// A clock that goes on as entries are written.
pub(super) struct Passing {
    began: UnixMs,
    passed_ms: AtomicI64,
}

impl Passing {
    pub(super) fn from(began: UnixMs) -> Self {
        Self { began, passed_ms: AtomicI64::new(0) }
    }
}

impl Clock for Passing {
    fn now(&self) -> UnixMs {
        self.began.plus_millis(self.passed_ms.load(Ordering::Relaxed))
    }

    fn boot_ms(&self) -> i64 {
        self.passed_ms.load(Ordering::Relaxed)
    }
}

pub(super) async fn init(files: &Files) -> Result<VerifierKey, Fault> {
    let bundle = compile(&sample()).map_err(|_| "the sample organisation does not compile")?;
    let deployment = Deployment {
        trust_domain: TRUST_DOMAIN.parse()?,
        broker: "b1".parse()?,
        store: &files.store.as_path().into(),
        kek: &files.kek,
        bundle: Some(&bundle),
        lifetimes: Lifetimes::default(),
        clock: Arc::new(SystemClock),
    };
    Ok(init::init(&deployment).await?.log_key)
}

/// What is still to be written.
pub(super) struct Writing {
    template: CredentialIssued,
    ids: Arc<Ids>,
    clock: Arc<Passing>,
    first: Index,
    next: Index,
    live: VecDeque<(UnixMs, Index)>,
    bytes: u64,
}

impl Writing {
    pub(super) fn new(log: &Log, ids: Arc<Ids>, clock: Arc<Passing>) -> Result<Self, Fault> {
        let next = log.published().head.size;
        let template = template(log, clock.now())?;
        Ok(Self { template, ids, clock, first: next, next, live: VecDeque::new(), bytes: 0 })
    }

    pub(super) fn written(&self) -> u64 {
        self.next - self.first
    }

    pub(super) fn bytes_each(&self) -> f64 {
        self.bytes as f64
    }

    /// The next `count` entries: what ended, then issuances.
    pub(super) fn batch(&mut self, count: usize) -> Result<Vec<NewEntry>, Fault> {
        let passed = i64::try_from(self.written() * 1000 / PER_SECOND)?;
        self.clock.passed_ms.store(passed, Ordering::Relaxed);
        let now = self.clock.now();
        let mut bodies: Vec<Body> = self.ended(now).into_iter().map(Body::from).collect();
        while bodies.len() < count {
            let index = self.next + bodies.len() as u64;
            let issued = self.issued(now, index);
            self.live.push_back((issued.credential.exp_ms, index));
            bodies.push(issued.into());
        }
        self.next += bodies.len() as u64;
        let entry = |body| Ok(NewEntry { id: self.ids.draw(now)?, request: None, by: None, body });
        let entries: Vec<NewEntry> = bodies.into_iter().map(entry).collect::<Result<_, Fault>>()?;
        if let Some(last) = entries.last().filter(|_| self.bytes == 0) {
            self.bytes = last.encode(now, &TRUST_DOMAIN.parse()?, &"b1".parse()?)?.len() as u64;
        }
        Ok(entries)
    }

    fn ended(&mut self, now: UnixMs) -> Option<CredentialEnded> {
        let over = self.live.partition_point(|(exp, _)| exp.plus_millis(LEEWAY_MS) <= now);
        let ended: Vec<Index> = self.live.drain(..over).map(|(_, index)| index).collect();
        (!ended.is_empty()).then(|| CredentialEnded {
            how: EndedHow::Expired,
            ended,
            log: None,
            through_ms: None,
            selector: None,
            reason: None,
            comment: None,
            drill: None,
            ordered: None,
            reach: BTreeMap::new(),
        })
    }

    fn issued(&self, now: UnixMs, index: Index) -> CredentialIssued {
        let mut issued = self.template.clone();
        let drawn = |what: &str| Digest::of(format!("{what} {index}").as_bytes());
        issued.proof.digest = drawn("proof");
        issued.proof.issued_ms = now;
        issued.proof.exp_ms = now.plus(TTL);
        issued.credential.iat_ms = now;
        issued.credential.nbf_ms = now.plus_millis(-10_000);
        issued.credential.exp_ms = now.plus(TTL).floor_second();
        issued.credential.until_ms = issued.credential.exp_ms;
        issued.credential.tbs = drawn("tbs");
        issued.credential.bound = Some(format!("x5t:{}", drawn("certificate")));
        issued
    }
}

fn template(log: &Log, now: UnixMs) -> Result<CredentialIssued, Fault> {
    let state = log.state();
    let at = |object, name: &str| state.declared_at(object, name).ok_or("not declared by the sample");
    let bundle = state.bundle().ok_or("no bundle")?;
    let declared = bundle.declared();
    let task = declared.tasks.get(TASK).ok_or("no task")?;
    let target = task.targets.iter().next().ok_or("no target")?;
    let scope = Scope {
        audiences: task.scope.audiences.iter().take(1).cloned().collect(),
        actions: task.scope.actions.iter().take(2).cloned().collect(),
        resources: task.scope.resources.iter().take(1).cloned().collect(),
    };
    let key = state.signing_key(KeyUse::Token, now).ok_or("no key")?.key.clone();
    let issuer = "workloads";
    Ok(CredentialIssued {
        identity: NameAt { name: NIGHTLY.parse()?, at: at(ObjectType::Identity, NIGHTLY)? },
        task: NameAt { name: TASK.parse()?, at: at(ObjectType::Task, TASK)? },
        target: NameAt { name: target.clone(), at: at(ObjectType::Target, target.as_str())? },
        proof: Proof {
            kind: ProofKind::Certificate,
            issuer: issuer.into(),
            at: at(ObjectType::Identity, NIGHTLY)?,
            clause: 0,
            subject: format!("spiffe://{TRUST_DOMAIN}/{NIGHTLY}"),
            instance: None,
            digest: Digest::of(b"proof"),
            issued_ms: now,
            exp_ms: now,
            usage: ProofUse::Once,
            actor: Actor::Workload,
            claims: BTreeMap::new(),
            via: None,
        },
        client: Some(Client { addr: Some("192.0.2.7".into()), agent: Some("daypass-sdk/0.1.0".into()) }),
        asked: Asked { scope: scope.clone(), ttl_s: Some(TTL), run: None },
        granted: Granted { scope, ttl_s: TTL },
        decision: DecisionMade {
            bundle: bundle.digest(),
            state: state.at(),
            rules: BTreeSet::from(["base".to_owned()]),
        },
        credential: Issued {
            credential_type: CredentialType::Jwt,
            profile: Profile::AccessToken,
            key,
            alg: "ES256".into(),
            subject: format!("spiffe://{TRUST_DOMAIN}/{NIGHTLY}").parse()?,
            iat_ms: now,
            nbf_ms: now,
            exp_ms: now,
            until_ms: now,
            bound: None,
            holder_key: None,
            tbs: Digest::of(b"tbs"),
            reach: Reach::Introspection,
            supersedes: None,
        },
        approval: None,
        emergency: None,
    })
}
