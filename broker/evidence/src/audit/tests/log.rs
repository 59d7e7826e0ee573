//! The valid log: every entry a JSON object under a name, so that a test can spoil one member of it.

use std::ops::Range;

use daypass_verify::ids::{CredentialId, Digest};
use daypass_verify::time::UnixMs;
use serde_json::{Value, json};

use crate::canonical::to_vec;

pub(super) const ORIGIN: &str = "example.org/evidence/2026-2";

/// A moment `ms` after the log's first entry.
pub(super) fn at(ms: i64) -> UnixMs {
    UnixMs::new(1_795_310_000_000 + ms)
}

pub(super) fn digest(text: &str) -> Digest {
    Digest::of(text.as_bytes())
}

/// Named entries, in order.
pub(super) struct Log(Vec<(String, Value)>);

impl Log {
    /// Five credentials: `a` expires, `b` is revoked, `c` is void, `d` and `e` live.
    pub(super) fn valid() -> Self {
        let mut log = Self(Vec::new());
        log.genesis();
        log.first_issuances();
        log.beats(60_000..=240_000);
        log.containment();
        log.second_bundle();
        log.beats(300_000..=600_000);
        let a = log.index("a");
        log.push("expired", 640_000, json!({"kind": "credential.ended", "how": "expired", "ended": [a], "through_ms": at(610_000).get()}));
        log.beats(660_000..=900_000);
        let e = log.issuance(600, log.index("activated"), 910_000);
        log.push("e", 910_000, e);
        log.set("e", "/decision/bundle", json!(digest("b2")));
        log.push("end", 920_000, json!({"kind": "alarm", "code": "BUNDLE_REFUSED", "state": "raised"}));
        log
    }

    fn genesis(&mut self) {
        self.push(
            "opened",
            0,
            json!({"kind": "log.opened", "origin": ORIGIN, "key": "k", "reason": "first"}),
        );
        self.push("key", 0, json!({
            "kind": "key.changed", "key": "K".repeat(43), "use": "token", "alg": "ES256", "public": digest("k"),
            "state": "active", "publish_from_ms": at(0), "sign_from_ms": at(0), "sign_until_ms": at(86_400_000),
            "publish_until_ms": at(90_000_000), "origin": "generated",
        }));
        self.push("crl", 0, json!({
            "kind": "statement.signed", "type": "revocations", "key": "K".repeat(43), "digest": digest("f"),
            "from_ms": at(0), "until_ms": at(86_400_000),
        }));
        for operator in ["alice", "bob"] {
            self.declare(
                operator,
                "operator",
                operator,
                0,
                json!({"roles": ["propose", "decide"], "proofs": [], "expires_ms": at(90_000_000)}),
            );
        }
        self.declare(
            "supplier",
            "supplier",
            "acme",
            0,
            json!({
                "contract": "C-1", "ends_ms": at(90_000_000), "ttl_max_s": 900, "audiences": ["ledger", "orders"],
                "actions": ["invoice:read", "invoice:write"], "resources": ["eu/*"],
            }),
        );
        self.declare(
            "target",
            "target",
            "ledger",
            0,
            json!({"audiences": ["ledger"], "ttl_max_s": 900, "reach": "feed"}),
        );
        self.declare("identity", "identity", "prod/billing", 0, json!({
            "class": "service", "purpose": "posts", "tasks": ["post"], "supplier": "acme", "expires_ms": at(90_000_000),
        }));
        self.declare(
            "task",
            "task",
            "post",
            0,
            json!({
                "targets": ["ledger"], "audiences": ["ledger"], "actions": ["invoice:read", "invoice:write"],
                "resources": ["eu/*"], "ttl_s": 600, "ttl_max_s": 900,
            }),
        );
        self.push("first", 0, json!({"kind": "bundle.activated", "digest": digest("b1"), "bootstrap": true}));
        self.push("started", 0, json!({
            "kind": "broker.started", "version": "0.1.0", "mode": "production", "store": "sqlite",
            "durability": "fsync", "schema": 1, "clock": {"synchronised": true}, "reads": {"log.opened": 1},
        }));
    }

    fn first_issuances(&mut self) {
        let state = self.index("first");
        for (name, ms) in [("a", 1_000), ("b", 1_001), ("c", 1_002)] {
            let issued = self.issuance(600, state, ms);
            self.push(name, ms, issued);
        }
        let [a, b, c] = ["a", "b", "c"].map(|name| self.index(name));
        let released = json!([[a, digest("a"), at(1_005)], [b, digest("b"), at(1_006)]]);
        self.push(
            "settled",
            2_000,
            json!({"kind": "credential.settled", "released": released, "void": [[c, "caller_gone"]]}),
        );
        self.push(
            "observed",
            3_000,
            json!({"kind": "access.observed", "target": "ledger", "what": "unseen", "credential": c,
                "at_ms": at(3_000), "method": "probe", "count": 1}),
        );
    }

    fn containment(&mut self) {
        let by = json!({"operator": "alice", "proof": digest("p")});
        let b = self.index("b");
        self.push("suspended", 241_000, json!({
            "kind": "suspension.set", "selector": {"target": "other"}, "reason": "drill", "revoked": 1, "live": 1, "by": by,
        }));
        self.push(
            "revoked",
            241_000,
            json!({"kind": "credential.ended", "how": "revoked", "ended": [b], "by": by}),
        );
        let state = self.index("suspended");
        let issued = self.issuance(900, state, 242_000);
        self.push("d", 242_000, issued);
    }

    fn second_bundle(&mut self) {
        let by = |name: &str| json!({"operator": name, "proof": digest("p")});
        self.push(
            "proposed",
            243_000,
            json!({"kind": "bundle.proposed", "digest": digest("b2"), "by": by("alice")}),
        );
        self.push(
            "decided",
            244_000,
            json!({"kind": "approval.decided", "request": self.index("proposed"), "decision": "approved", "by": by("bob")}),
        );
        self.declare("changed", "owner", "finance", 245_000, json!({"kind": "team", "status": "active"}));
        self.set("changed", "/by", by("bob"));
        self.set("changed", "/bundle", json!(digest("b2")));
        let (proposed, decided) = (self.index("proposed"), self.index("decided"));
        self.push("activated", 245_000, json!({
            "kind": "bundle.activated", "digest": digest("b2"), "proposed": proposed, "decided": [decided], "by": by("bob"),
        }));
    }

    fn declare(&mut self, entry: &str, object: &str, name: &str, ms: i64, declared: Value) {
        self.push(entry, ms, json!({
            "kind": "registry.changed", "type": object, "name": name, "change": "added", "bundle": digest("b1"), "declared": declared,
        }));
    }

    /// A heartbeat each minute; the first stands for the issuances before it.
    fn beats(&mut self, minutes: std::ops::RangeInclusive<i64>) {
        for ms in minutes.step_by(60_000) {
            let name = if ms == 60_000 { "beat".into() } else { format!("beat {ms}") };
            self.push(&name, ms, json!({
                "kind": "broker.heartbeat", "since_ms": at(ms - 60_000), "up_ms": ms, "clock": {"synchronised": true},
                "counts": {"issued": 0, "refused": 0, "unavailable": 0},
            }));
        }
    }

    fn issuance(&self, ttl_s: i64, state: u64, ms: i64) -> Value {
        let scope = json!({"audiences": ["ledger"], "actions": ["invoice:read", "invoice:write"], "resources": ["eu/de/books", "eu/fr/*"], "ttl_s": ttl_s});
        let exp = at(ms + ttl_s * 1000);
        json!({
            "kind": "credential.issued", "identity": {"name": "prod/billing", "at": self.index("identity")},
            "task": {"name": "post", "at": self.index("task")}, "target": {"name": "ledger", "at": self.index("target")},
            "proof": {"kind": "certificate", "issuer": "ca", "at": 1, "clause": 0, "subject": "s", "digest": digest("p"),
                      "issued_ms": at(0), "exp_ms": at(90_000_000), "use": "until_expiry", "actor": "workload"},
            "asked": scope, "granted": scope, "decision": {"bundle": digest("b1"), "state": state},
            "credential": {"type": "jwt", "profile": "at+jwt", "key": "K".repeat(43), "alg": "ES256",
                           "subject": "spiffe://example.org/prod/billing", "iat_ms": at(ms), "nbf_ms": at(ms - 10_000),
                           "exp_ms": exp, "until_ms": exp, "tbs": digest("t"), "reach": "feed"},
        })
    }

    pub(super) fn push(&mut self, name: &str, ms: i64, mut value: Value) {
        let mut random = [0; 10];
        random[..8].copy_from_slice(&self.len_index().to_be_bytes());
        value["v"] = json!(1);
        value["id"] = json!(CredentialId::new(at(ms), random));
        value["time"] = json!(at(ms));
        value["td"] = json!("example.org");
        value["broker"] = json!("b1");
        self.0.push((name.to_owned(), value));
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn len_index(&self) -> u64 {
        u64::try_from(self.0.len()).unwrap()
    }

    /// Where the entry of this name stands.
    pub(super) fn index(&self, name: &str) -> u64 {
        let at = self.0.iter().position(|(entry, _)| entry == name);
        u64::try_from(at.unwrap_or_else(|| panic!("no entry `{name}`"))).unwrap()
    }

    pub(super) fn value(&self, name: &str) -> Value {
        self.0[usize::try_from(self.index(name)).unwrap()].1.clone()
    }

    /// Sets the member at `pointer` (RFC 6901) of the entry `name`.
    pub(super) fn set(&mut self, name: &str, pointer: &str, value: Value) {
        let at = usize::try_from(self.index(name)).unwrap();
        let (parent, member) = pointer.rsplit_once('/').unwrap();
        let parent = self.0[at].1.pointer_mut(parent).unwrap();
        match parent {
            Value::Array(items) => items[member.parse::<usize>().unwrap()] = value,
            other => other[member] = value,
        }
    }

    /// Takes heartbeats out, by when they were made.
    pub(super) fn remove_beats(&mut self, range_ms: Range<i64>) {
        let range = at(range_ms.start).get()..at(range_ms.end).get();
        let within = |value: &Value| range.contains(&value["time"].as_i64().unwrap());
        let beat = |value: &Value| value["kind"] == "broker.heartbeat" && within(value);
        for (_, value) in self.0.iter_mut().filter(|(_, value)| beat(value)) {
            // Another kind in its place keeps every index that other entries refer to.
            value["kind"] = json!("future.kind");
        }
    }

    pub(super) fn first_beat_after(&self, ms: i64) -> String {
        let later = |value: &Value| {
            value["kind"] == "broker.heartbeat" && value["time"].as_i64() > Some(at(ms).get())
        };
        self.0.iter().find(|(_, value)| later(value)).unwrap().0.clone()
    }

    pub(super) fn last_time(&self) -> Option<UnixMs> {
        self.0.last().and_then(|(_, value)| value["time"].as_i64()).map(UnixMs::new)
    }

    pub(super) fn bytes(&self) -> Vec<Vec<u8>> {
        self.0.iter().map(|(_, value)| to_vec(value).unwrap()).collect()
    }
}
