//! What may be granted, computed a second time in another way: every single thing that could be done is asked
//! about on its own, and every end is looked at in milliseconds.

use std::collections::BTreeSet;

use daypass_evidence::entry::{Body, Reach};
use daypass_verify::scope::Scope;
use daypass_verify::time::Seconds;
use proptest::prelude::*;
use proptest::sample::subsequence;
use serde_json::json;

use super::*;
use crate::bundle::object::{Declared, Supplier};
use crate::fixture::{self, NOW, PERMIT_ALL, WORLD};
use crate::proof::UnverifiedProof;

const ACTIONS: [&str; 3] = ["read", "write", "delete"];
const RESOURCES: [&str; 7] = ["eu/*", "eu/de/*", "eu/de/x", "us/*", "us/a", "ap", "ap/*"];
/// Single things, of which each resource above names some.
const THINGS: [&str; 8] = ["eu/fr", "eu/de/x", "eu/de/y", "us/a", "us/b/c", "ap", "ap/x", "europe/x"];

/// One random question. Ends are in milliseconds after [`NOW`].
#[derive(Debug, Clone)]
struct Case {
    asked: (Vec<&'static str>, Vec<&'static str>),
    task: (Vec<&'static str>, Vec<&'static str>),
    supplier: Option<(Vec<&'static str>, Vec<&'static str>)>,
    asked_ttl_s: Option<u32>,
    ttl_max_s: u32,
    target_ttl_s: Option<u32>,
    supplier_ttl_s: Option<u32>,
    unreached: bool,
    identity_end: i64,
    contract_end: i64,
    proof_end_s: i64,
    key_end: i64,
}

/// What must come out: what may be done to what, the end, and what was narrowed; or a denial.
type Outcome = Option<(BTreeSet<&'static str>, BTreeSet<&'static str>, i64, BTreeSet<&'static str>)>;

fn names(pattern: &str, thing: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(stem) => thing.len() > stem.len() && thing.starts_with(stem),
        None => pattern == thing,
    }
}

fn oracle(case: &Case) -> Outcome {
    let or = |asked: &Vec<&'static str>, task: &Vec<&'static str>| {
        if asked.is_empty() { task.clone() } else { asked.clone() }
    };
    let asked = (or(&case.asked.0, &case.task.0), or(&case.asked.1, &case.task.1));
    let supplier = case.supplier.clone();
    let action = |it: &&'static str| {
        asked.0.contains(it) && case.task.0.contains(it) && supplier.as_ref().is_none_or(|s| s.0.contains(it))
    };
    let some = |patterns: &[&str], thing: &str| patterns.iter().any(|pattern| names(pattern, thing));
    let thing = |it: &&'static str| {
        let by_supplier = supplier.as_ref().is_none_or(|s| some(&s.1, it));
        some(&asked.1, it) && some(&case.task.1, it) && by_supplier
    };
    let actions: BTreeSet<_> = ACTIONS.into_iter().filter(action).collect();
    let things: BTreeSet<_> = THINGS.into_iter().filter(thing).collect();
    let wanted_things: BTreeSet<_> = THINGS.into_iter().filter(|it| some(&asked.1, it)).collect();
    if actions.is_empty() || things.is_empty() {
        return None;
    }
    let start = NOW.get() / 1000 * 1000;
    let ttl = i64::from(case.asked_ttl_s.unwrap_or(case.ttl_max_s));
    let mut ends = vec![start + ttl * 1000, start + i64::from(case.ttl_max_s) * 1000];
    ends.push(NOW.get() + case.identity_end);
    ends.push((NOW.get() / 1000 + case.proof_end_s) * 1000);
    // Verifiers give 30 s more, and must know the key until then.
    ends.push(NOW.get() + case.key_end - 30_000);
    ends.extend(case.target_ttl_s.map(|it| start + i64::from(it) * 1000));
    ends.extend(case.unreached.then_some(start + 900_000));
    if supplier.is_some() {
        ends.push(NOW.get() + case.contract_end);
        ends.extend(case.supplier_ttl_s.map(|it| start + i64::from(it) * 1000));
    }
    let end = ends.into_iter().min().unwrap() / 1000 * 1000;
    if end < start + 1000 {
        return None;
    }
    let narrowed = [
        ("actions", actions.len() < asked.0.len()),
        ("resources", things != wanted_things),
        ("ttl", end < start + ttl * 1000),
    ];
    let narrowed = narrowed.into_iter().filter_map(|(name, is)| is.then_some(name)).collect();
    Some((actions, things, end, narrowed))
}

fn declare(case: &Case) -> Declared {
    let mut declared = fixture::declared();
    let scope = |(actions, resources): &(Vec<&str>, Vec<&str>)| -> Scope {
        let audiences = ["https://ledger.example.org"];
        serde_json::from_value(json!({"audiences": audiences, "actions": actions, "resources": resources}))
            .unwrap()
    };
    let task = declared.tasks.get_mut("post").unwrap();
    task.scope = scope(&case.task);
    task.ttl_s = Seconds::new(case.ttl_max_s);
    task.ttl_max_s = Seconds::new(case.ttl_max_s);
    let target = declared.targets.get_mut("ledger").unwrap();
    target.ttl_max_s = case.target_ttl_s.map(Seconds::new);
    if case.unreached {
        target.reach = Reach::None;
    }
    let identity = declared.identities.get_mut("prod/billing/nightly").unwrap();
    identity.expires_ms = NOW.plus_millis(case.identity_end);
    if let Some(ceiling) = &case.supplier {
        identity.supplier = Some("acme".parse().unwrap());
        let supplier = Supplier {
            contract: "C-1".into(),
            ends_ms: NOW.plus_millis(case.contract_end),
            ceiling: scope(ceiling),
            ttl_max_s: case.supplier_ttl_s.map(Seconds::new),
        };
        declared.suppliers.insert("acme".parse().unwrap(), supplier);
    }
    // The other tasks stand on the same target.
    declared.tasks.retain(|name, _| name.as_str() == "post");
    declared.identities.retain(|name, _| name.as_str() == "prod/billing/nightly");
    declared.identities.values_mut().for_each(|it| it.tasks.retain(|task| task.as_str() == "post"));
    declared
}

fn decided(case: &Case) -> Outcome {
    let bundle = fixture::bundle(&declare(case), PERMIT_ALL);
    let mut state = fixture::state(&bundle);
    let mut key = fixture::key_entry(&WORLD.token_key.id, KeyUse::Token);
    key.publish_until_ms = NOW.plus_millis(case.key_end);
    state.apply(state.at() + 1, NOW, &Body::from(key), &|_| None).unwrap();
    let end = time::OffsetDateTime::from_unix_timestamp(NOW.seconds() + case.proof_end_s).unwrap();
    let name = fixture::uri("spiffe://example.org/prod/billing/nightly");
    let chain = vec![WORLD.workloads.leaf(vec![name], |it| it.not_after = end)];
    let principal = fixture::verify(UnverifiedProof::Certificate { chain }, &bundle).unwrap();
    let request = Request {
        actions: case.asked.0.iter().map(|it| it.parse().unwrap()).collect(),
        resources: case.asked.1.iter().map(|it| it.parse().unwrap()).collect(),
        ttl_s: case.asked_ttl_s.map(Seconds::new),
        ..fixture::request("post")
    };
    let grant = decide(&principal, &request, &state, fixture::id(), NOW).ok()?;
    let scope = grant.scope();
    let has = |it: &&'static str| scope.actions.iter().any(|action| action.as_str() == *it);
    let reaches = |it: &&'static str| scope.resources.iter().any(|resource| names(resource.as_str(), it));
    let actions = ACTIONS.into_iter().filter(has).collect();
    let things = THINGS.into_iter().filter(reaches).collect();
    assert!(scope.is_within(&grant.record.asked.scope), "granted lies within asked, as the entry says it");
    Some((actions, things, grant.expires_at().get(), grant.narrowed().iter().copied().collect()))
}

fn scopes(at_least: usize) -> impl Strategy<Value = (Vec<&'static str>, Vec<&'static str>)> {
    (subsequence(ACTIONS.to_vec(), at_least..=3), subsequence(RESOURCES.to_vec(), at_least..=4))
}

/// Mostly far away, sometimes near, sometimes over.
fn end() -> impl Strategy<Value = i64> {
    prop_oneof![5 => Just(100_000_000i64), 3 => 0i64..4_000_000, 1 => -500i64..2000]
}

fn cases() -> impl Strategy<Value = Case> {
    let scope = (scopes(0), scopes(1), proptest::option::of(scopes(1)));
    let asked = proptest::option::of(1u32..4000);
    let ttls = (asked, 1u32..=900, proptest::option::of(1u32..900), proptest::option::of(1u32..900));
    let ends = (any::<bool>(), end(), end(), prop_oneof![Just(1800i64), 1i64..1800], end());
    (scope, ttls, ends).prop_map(|((asked, task, supplier), ttls, ends)| Case {
        asked,
        task,
        supplier,
        asked_ttl_s: ttls.0,
        ttl_max_s: ttls.1,
        target_ttl_s: ttls.2,
        supplier_ttl_s: ttls.3,
        unreached: ends.0,
        identity_end: ends.1,
        contract_end: ends.2,
        proof_end_s: ends.3,
        key_end: ends.4,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn what_is_granted_is_what_every_ceiling_allows_and_ends_with_the_first_of_them(case in cases()) {
        prop_assert_eq!(decided(&case), oracle(&case));
    }
}
