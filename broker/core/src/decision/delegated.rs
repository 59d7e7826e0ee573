//! A workload that its machine's agent speaks for: who it is by what was attested, and never more than its machine.

use daypass_evidence::entry::{Body, ProofKind, Selector, SuspensionSet};

use super::*;
use crate::bundle::sample;
use crate::draft::Draft;
use crate::fixture::{self, NOW, OURS};
use crate::proof::{Attested, NodeProof, proven_node};

const NODE: &str = "prod/node/db1";
const BACKUP: &str = "prod/ledger/backup";
const UNIT: &str = "ledger-backup.service";

fn attested(unit: Option<&str>, uid: u32) -> Attested {
    Attested { unit: unit.map(ToOwned::to_owned), uid, instance: Some("night-7".into()) }
}

/// The sample with one thing changed in one of its files.
fn with(path: &str, from: &str, to: &str) -> std::sync::Arc<Bundle> {
    let files = sample::spoiled(path, from, to);
    std::sync::Arc::new(crate::bundle::compile(&files).unwrap_or_else(|it| panic!("{}", sample::lines(&it))))
}

fn unchanged() -> std::sync::Arc<Bundle> {
    std::sync::Arc::new(sample::bundle())
}

fn node(bundle: &Bundle) -> Principal {
    proven_node(NODE, NodeProof::Certificate(fixture::id()), bundle)
}

fn backup(bundle: &Bundle) -> Principal {
    node(bundle).speaking_for(attested(Some(UNIT), 1001), bundle).unwrap()
}

fn decided(bundle: &std::sync::Arc<Bundle>, task: &str) -> Result<Grant, Box<Denial>> {
    let request = fixture::certificate_request(task);
    decide(&backup(bundle), &request, &fixture::state(bundle), fixture::id(), NOW).map_err(Box::new)
}

#[test]
fn a_workload_gets_its_own_task_by_what_its_machine_attests_and_the_entry_says_so() {
    let bundle = unchanged();
    let grant = decided(&bundle, "back-up-ledger").unwrap();
    assert_eq!(grant.identity().name.as_str(), BACKUP);
    let proof = &grant.record.proof;
    assert_eq!(
        (proof.kind, proof.subject.as_str()),
        (ProofKind::Delegated, "spiffe://example.org/prod/node/db1")
    );
    let via = proof.via.as_ref().unwrap();
    assert_eq!((via.node.as_str(), via.unit.as_deref(), via.uid), (NODE, Some(UNIT), Some(1001)));
    assert_eq!(proof.instance.as_deref(), Some("night-7"));
    assert!(via.at.is_some_and(|at| at != grant.identity().at), "the entry that declared the machine");
    let request = Request {
        ttl_s: Some(daypass_verify::time::Seconds::new(7200)),
        ..fixture::certificate_request("back-up-ledger")
    };
    let grant = decide(&backup(&bundle), &request, &fixture::state(&bundle), fixture::id(), NOW).unwrap();
    let ends = node(&bundle).expires_at().floor_second();
    assert_eq!(grant.expires_at(), ends, "no longer than the certificate of its machine");
}

#[test]
fn a_token_says_who_asked_for_its_holder() {
    let bundle = unchanged();
    let form =
        crate::request::Form::Token { profile: Some(Profile::JwtSvid), bind: crate::request::Bind::Auto };
    let request = Request { form, ..fixture::request("mesh-identity") };
    let claims = |principal: &Principal| {
        let grant = decide(principal, &request, &fixture::state(&bundle), fixture::id(), NOW).unwrap();
        let key = crate::draft::SigningKey::token(fixture::WORLD.svid_key.id.clone(), "ES256");
        let draft = Draft::new(grant, &key, OURS).unwrap();
        let input = String::from_utf8(draft.tbs().to_vec()).unwrap();
        let part = base64::Engine::decode(
            &base64::engine::general_purpose::URL_SAFE_NO_PAD,
            input.split('.').nth(1).unwrap(),
        );
        serde_json::from_slice::<serde_json::Value>(&part.unwrap()).unwrap()
    };
    let spoken_for = claims(&backup(&bundle));
    assert_eq!(spoken_for["sub"], "spiffe://example.org/prod/ledger/backup");
    assert_eq!(spoken_for["act"]["sub"], "spiffe://example.org/prod/node/db1");
    assert!(claims(&node(&bundle)).get("act").is_none(), "a machine acts for itself");
}

#[test]
fn whoever_is_not_exactly_what_was_declared_is_nobody() {
    let bundle = unchanged();
    for (unit, uid) in [
        (Some(UNIT), 1002),
        (Some("ledger-backup"), 1001),
        (Some("other.service"), 1001),
        (None, 1001),
        (None, 0),
    ] {
        let principal = node(&bundle).speaking_for(attested(unit, uid), &bundle).unwrap();
        assert!(principal.identities().is_empty() && principal.operators().is_empty(), "{unit:?} {uid}");
    }
}

#[test]
fn nobody_speaks_for_others_but_a_node_by_its_certificate() {
    let bundle = unchanged();
    let spoken_for = backup(&bundle);
    let by_code = proven_node(NODE, NodeProof::Code(7), &bundle);
    let gone = proven_node("prod/node/db2", NodeProof::Certificate(fixture::id()), &bundle);
    for principal in [&spoken_for, &by_code, &gone, &fixture::bound_principal("project:42:ref:main", &bundle)]
    {
        assert!(
            principal.speaking_for(attested(Some(UNIT), 1001), &bundle).is_none(),
            "{:?}",
            principal.kind()
        );
    }
}

#[test]
fn what_bounds_the_machine_bounds_whom_it_speaks_for() {
    let backup_alone = "tasks = [\"node\", \"mesh-identity\", \"back-up-ledger\"]";
    for (file, from, to, inner) in [
        ("identities/nodes.toml", backup_alone, "tasks = [\"node\", \"mesh-identity\"]", "TASK_NOT_ALLOWED"),
        ("identities/ledger.toml", "tasks = [\"back-up-ledger\", ", "tasks = [", "TASK_NOT_ALLOWED"),
        ("identities/nodes.toml", "expires = 2027-11-30", "expires = 2026-11-01", "IDENTITY_EXPIRED"),
        (
            "identities/nodes.toml",
            "expires = 2027-11-30",
            "expires = 2027-11-30\ndisabled = true",
            "IDENTITY_DISABLED",
        ),
        (
            "identities/nodes.toml",
            "review_every = \"90d\"",
            "review_every = \"90d\"\nsupplier = \"acme\"",
            "AUDIENCE_NOT_ALLOWED",
        ),
    ] {
        let bundle = with(file, from, to);
        let task = if inner == "AUDIENCE_NOT_ALLOWED" { "mesh-identity" } else { "back-up-ledger" };
        assert_eq!(decided(&bundle, task).unwrap_err().inner, inner, "{to}");
    }
}

#[test]
fn a_suspended_machine_speaks_for_nobody() {
    let bundle = unchanged();
    for identity in [NODE, BACKUP] {
        let mut state = fixture::state(&bundle);
        let selector = Selector { identity: Some(identity.parse().unwrap()), ..Selector::default() };
        let (reason, until_ms, drill) = ("test".into(), None, None);
        let set = SuspensionSet { selector, reason, until_ms, revoked: 0, live: 0, drill, revokes: false };
        state.apply(state.at() + 1, NOW, &Body::from(set), &|_| None).unwrap();
        let request = fixture::certificate_request("back-up-ledger");
        let denial = decide(&backup(&bundle), &request, &state, fixture::id(), NOW).unwrap_err();
        assert_eq!(denial.outward, Outward::Suspended, "{identity}");
    }
}

#[test]
fn a_workload_never_gets_the_certificate_of_its_machine() {
    assert_eq!(decided(&unchanged(), "node").unwrap_err().inner, "TASK_NOT_ALLOWED");
    let bundle = with("identities/ledger.toml", "tasks = [\"back-up-ledger\", ", "tasks = [\"node\", ");
    assert_eq!(decided(&bundle, "node").unwrap_err().inner, "NO_NODE");
}

#[test]
fn whoever_asks_for_a_workload_and_is_no_node_is_refused_as_itself() {
    let bundle = unchanged();
    let request = Request { for_workload: true, ..fixture::certificate_request("mesh-identity") };
    let denial = decide(&node(&bundle), &request, &fixture::state(&bundle), fixture::id(), NOW).unwrap_err();
    assert_eq!((denial.inner, denial.identity.unwrap().name.as_str()), ("NO_NODE", NODE));
}
