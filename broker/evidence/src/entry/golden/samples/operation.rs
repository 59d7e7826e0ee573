//! The log, its brokers, its keys, and what is declared and suspended.

use std::collections::BTreeMap;

use crate::entry::*;
use serde_json::json;

use super::{at, digest, key, p};

pub(super) fn full() -> Vec<Body> {
    vec![
        opened().into(),
        LogClosed { successor: "example.org/evidence/2027h1".into(), live: 17 }.into(),
        anchored().into(),
        started().into(),
        heartbeat().into(),
        BrokerStopped { reason: "its machine is gone".into(), of: Some(p("b2")) }.into(),
        alarm().into(),
        activated().into(),
        changed().into(),
        key_changed().into(),
        statement().into(),
        suspension().into(),
        ApprovalRequested {
            subject: "issuance".into(),
            identity: Some(NameAt { name: p("prod/node/db1"), at: 1044 }),
            task: Some(NameAt { name: p("node"), at: 1045 }),
            needs: ApprovalNeeds { n: 0, roles: [p("enrol")].into() },
            until_ms: at(900_000),
            code: Some(digest(b'o')),
        }
        .into(),
        AccessObserved {
            target: p("ledger"),
            what: Observed::AcceptedAfterEnd,
            credential: Some(1170),
            exception: Some(p("erp-password")),
            at_ms: UnixMs::new(1_795_310_000_000),
            method: "enforcer".into(),
            count: 2,
            actions: [p("invoice:write")].into(),
            resources: [p("eu/de")].into(),
            detail: Some("the pool kept it open".into()),
        }
        .into(),
        SuspensionLifted { suspension: 1188, reason: "cause removed".into(), approval: Some(1199) }.into(),
    ]
}

pub(super) fn minimal() -> Vec<Body> {
    let opened = LogOpened {
        reason: OpenReason::First,
        predecessor: None,
        gap: None,
        earlier: Vec::new(),
        ..opened()
    };
    let activated = BundleActivated {
        digest: digest(b'b'),
        previous: None,
        proposed: None,
        decided: vec![],
        bootstrap: false,
    };
    let removed = RegistryChanged {
        change: Change::Removed,
        declared: None,
        since_ms: None,
        next_due_ms: None,
        ..changed()
    };
    let started = BrokerStarted {
        build: None,
        config: None,
        mode: Mode::Dev,
        boot: None,
        clock: ClockStatus::default(),
        previous: None,
        ..started()
    };
    let heartbeat = BrokerHeartbeat {
        counts: Counts::default(),
        latency_ms: None,
        clock: ClockStatus::default(),
        boot: None,
        ..heartbeat()
    };
    let stopped = BrokerStopped { reason: "asked to".into(), of: None };
    vec![opened.into(), activated.into(), removed.into(), started.into(), heartbeat.into(), stopped.into()]
}

fn opened() -> LogOpened {
    LogOpened {
        origin: "example.org/evidence/2026-2".into(),
        key: "example.org/evidence/2026-2+00000000+AQEB".into(),
        reason: OpenReason::Recovered,
        predecessor: Some(Predecessor {
            origin: "example.org/evidence/2026-1".into(),
            size: 70_000,
            root: digest(b'r'),
        }),
        gap: Some(Gap { from: 70_000, note: "restored from the backup of the night".into() }),
        earlier: vec!["example.org/evidence/2025-2".into()],
    }
}

fn anchored() -> CheckpointAnchored {
    CheckpointAnchored {
        size: 1188,
        root: digest(b'r'),
        kept: "witness:w1".into(),
        evidence: Some(digest(b'e')),
        time_ms: Some(at(-50)),
    }
}

fn clock() -> ClockStatus {
    ClockStatus {
        synchronised: true,
        max_error_ms: Some(3),
        offset_ms: Some(-1),
        boot_ms: Some(86_400_000),
        alarm: Some(1187),
    }
}

fn started() -> BrokerStarted {
    BrokerStarted {
        version: "0.1.0".into(),
        build: Some(digest(b'v')),
        config: Some(digest(b'c')),
        mode: Mode::Production,
        store: "sqlite".into(),
        durability: "fsync".into(),
        schema: 1,
        boot: Some("6f1d2a3e-0000-4000-8000-000000000002".into()),
        clock: clock(),
        previous: Some(PreviousRun { index: 1187, clean: true }),
        reads: BTreeMap::from([("credential.issued".into(), 1), ("log.opened".into(), 1)]),
    }
}

fn heartbeat() -> BrokerHeartbeat {
    BrokerHeartbeat {
        since_ms: at(-60_000),
        counts: Counts {
            issued: 12,
            refused: 2,
            proof_failed: BTreeMap::from([("expired".into(), 3), ("unknown_issuer".into(), 1)]),
            unavailable: 1,
        },
        latency_ms: Some(Latency { p50: 2, p99: 9 }),
        clock: clock(),
        boot: Some("6f1d2a3e-0000-4000-8000-000000000002".into()),
        up_ms: 3_600_000,
    }
}

fn alarm() -> Alarm {
    Alarm {
        code: "CLOCK".into(),
        state: AlarmState::Cleared,
        raised: Some(1180),
        detail: Some("2,412 ms behind".into()),
    }
}

fn activated() -> BundleActivated {
    BundleActivated {
        digest: digest(b'b'),
        previous: Some(digest(b'a')),
        proposed: Some(1030),
        decided: vec![1031, 1032],
        bootstrap: true,
    }
}

fn changed() -> RegistryChanged {
    let declared = json!({
        "class": "service", "privilege": "normal", "purpose": "posts invoices", "business_owner": "finance",
        "technical_owner": "billing", "environment": "prod", "expires_ms": 1_826_846_000_000_i64,
        "review_days": 90, "tasks": ["post-invoices"],
        "proofs": [{"issuer": "ci", "subject": "project:42:ref:main"}],
    });
    RegistryChanged {
        object: ObjectType::Identity,
        name: p("prod/billing/nightly"),
        change: Change::Changed,
        was: Some(900),
        bundle: digest(b'b'),
        declared: declared.as_object().cloned(),
        since_ms: Some(at(-86_400_000)),
        next_due_ms: Some(at(7_776_000_000)),
    }
}

fn key_changed() -> KeyChanged {
    KeyChanged {
        key: key(),
        usage: KeyUse::Ca,
        alg: "ES256".into(),
        public: digest(b'k'),
        state: KeyState::Active,
        publish_from_ms: at(-3_600_000),
        sign_from_ms: at(0),
        sign_until_ms: at(86_400_000),
        publish_until_ms: at(172_800_000),
        certificate: Some(digest(b'c')),
        chain: Vec::new(),
        origin: "generated".into(),
        reason: Some("rotation".into()),
    }
}

fn statement() -> StatementSigned {
    StatementSigned {
        statement: "crl".into(),
        key: key(),
        digest: digest(b'l'),
        from_ms: at(0),
        until_ms: at(3_600_000),
        number: Some(7),
    }
}

fn suspension() -> SuspensionSet {
    SuspensionSet {
        selector: Selector { everything: true, ..Selector::default() },
        reason: "exercise".into(),
        until_ms: Some(at(600_000)),
        revoked: 3,
        live: 4,
        drill: Some("2026-q4".into()),
        revokes: true,
    }
}
