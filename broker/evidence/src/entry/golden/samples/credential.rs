//! Issued, refused, settled, ended.

use std::collections::{BTreeMap, BTreeSet};

use crate::entry::*;
use daypass_verify::scope::Scope;
use daypass_verify::time::Seconds;

use super::{at, digest, key, p};

pub(super) fn full() -> Vec<Body> {
    vec![issued().into(), refused().into(), settled().into(), revoked().into()]
}

pub(super) fn minimal() -> Vec<Body> {
    vec![minimal_issued().into(), minimal_refused().into(), expired().into()]
}

fn scope() -> Scope {
    Scope {
        audiences: BTreeSet::from([p("https://ledger.example"), p("ledger")]),
        actions: BTreeSet::from([p("invoice:write"), p("invoice:read")]),
        resources: BTreeSet::from([p("eu/*"), p("us/books")]),
    }
}

fn proof() -> Proof {
    Proof {
        kind: ProofKind::IdToken,
        issuer: "https://ci.example.org".into(),
        at: 1031,
        clause: 0,
        subject: "project:42:ref:main".into(),
        instance: Some("run:88123".into()),
        digest: digest(b't'),
        issued_ms: at(-10_000),
        exp_ms: at(290_000),
        usage: ProofUse::Once,
        actor: Actor::Workload,
        claims: BTreeMap::from([("repository_id".into(), "42".into())]),
        via: Some(Via {
            node: p("prod/node/db1"),
            at: Some(1044),
            unit: Some("billing.service".into()),
            uid: Some(1001),
        }),
    }
}

fn asked() -> Asked {
    Asked { scope: scope(), ttl_s: Some(Seconds::new(900)), run: Some("JOB-88123".into()) }
}

fn client() -> Client {
    Client { addr: Some("192.0.2.7".into()), agent: Some("daypass-sdk/1.0".into()) }
}

fn decision() -> DecisionMade {
    let rules = BTreeSet::from(["base/no-prod-from-test".into(), "billing/post".into()]);
    DecisionMade { bundle: digest(b'b'), state: 1188, rules }
}

fn issued() -> CredentialIssued {
    CredentialIssued {
        identity: NameAt { name: p("prod/billing/nightly"), at: 1042 },
        task: NameAt { name: p("post-invoices"), at: 1043 },
        target: NameAt { name: p("ledger-db"), at: 1040 },
        proof: proof(),
        client: Some(client()),
        asked: asked(),
        granted: Granted { scope: scope(), ttl_s: Seconds::new(600) },
        decision: decision(),
        credential: Issued {
            credential_type: CredentialType::Jwt,
            profile: Profile::AccessToken,
            key: key(),
            alg: "ES256".into(),
            subject: p("spiffe://example.org/prod/billing/nightly"),
            iat_ms: at(-123),
            nbf_ms: at(-10_123),
            exp_ms: at(599_877),
            until_ms: at(4_199_877),
            bound: Some(format!("x5t:{}", digest(b'c'))),
            holder_key: Some(digest(b'h')),
            tbs: digest(b's'),
            reach: Reach::Feed,
            supersedes: Some(1170),
        },
        approval: Some(1181),
        emergency: Some(EmergencyUse {
            reason: "ledger is down".into(),
            reference: "INC-7".into(),
            review_due_ms: at(86_400_000),
        }),
    }
}

fn minimal_issued() -> CredentialIssued {
    let mut issued = issued();
    issued.proof = bare_proof();
    issued.proof.kind = ProofKind::Certificate;
    issued.proof.usage = ProofUse::UntilExpiry;
    issued.client = None;
    issued.asked = Asked { scope: scope(), ttl_s: None, run: None };
    issued.decision.rules.clear();
    issued.credential.credential_type = CredentialType::X509;
    issued.credential.profile = Profile::X509Svid;
    issued.credential.bound = None;
    issued.credential.holder_key = None;
    issued.credential.supersedes = None;
    issued.approval = None;
    issued.emergency = None;
    issued
}

fn bare_proof() -> Proof {
    Proof { instance: None, claims: BTreeMap::new(), via: None, ..proof() }
}

fn refused() -> CredentialRefused {
    CredentialRefused {
        identity: Some(NameAt { name: p("prod/billing/nightly"), at: 1042 }),
        task: Some("post-invoices".into()),
        target: Some(p("ledger-db")),
        proof: Proof { claims: BTreeMap::new(), ..proof() },
        client: Some(client()),
        asked: Some(asked()),
        reason: "suspended".into(),
        clause: "identity `prod/billing/nightly` is suspended".into(),
        rules: BTreeSet::from(["base/no-prod-from-test".into()]),
        decision: decision(),
        suspension: Some(1188),
        count: 12,
        first_ms: at(-4_000),
    }
}

fn minimal_refused() -> CredentialRefused {
    CredentialRefused {
        identity: None,
        task: None,
        target: None,
        proof: bare_proof(),
        client: None,
        asked: None,
        reason: "no_identity".into(),
        clause: "no identity declares this subject".into(),
        rules: BTreeSet::new(),
        decision: DecisionMade { rules: BTreeSet::new(), ..decision() },
        suspension: None,
        count: 1,
        first_ms: at(-1),
    }
}

fn settled() -> CredentialSettled {
    CredentialSettled {
        released: vec![(1190, digest(b'1'), at(-3)), (1191, digest(b'2'), at(-2))],
        void: vec![(1192, "caller_gone".into())],
        log: Some("example.org/evidence/2026h1".into()),
    }
}

fn revoked() -> CredentialEnded {
    CredentialEnded {
        how: EndedHow::Revoked,
        ended: vec![1190, 1191],
        log: None,
        through_ms: None,
        selector: Some(Selector {
            identity: Some(p("prod/billing/nightly")),
            issued_before_ms: Some(at(0)),
            ..Selector::default()
        }),
        reason: Some("key_compromise".into()),
        comment: Some("token seen in a build log".into()),
        drill: Some("2026-q4".into()),
        ordered: Some(1195),
        reach: BTreeMap::from([("feed".into(), 1), ("none".into(), 1)]),
    }
}

fn expired() -> CredentialEnded {
    CredentialEnded {
        how: EndedHow::Expired,
        ended: vec![1170, 1171],
        log: None,
        through_ms: Some(at(-30_000)),
        selector: None,
        reason: None,
        comment: None,
        drill: None,
        ordered: None,
        reach: BTreeMap::new(),
    }
}
