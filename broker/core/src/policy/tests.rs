//! What the rules of the sample organisation let through, and what no rule can change about them.

use std::collections::{BTreeMap, BTreeSet};

use daypass_evidence::entry::{Actor, Profile, ProofKind};
use daypass_verify::ids::{IdentityName, Name};
use daypass_verify::scope::Scope;
use daypass_verify::time::Seconds;

use super::{Question, Verdict};
use crate::bundle::{Bundle, SourceFile, compile, sample};

/// A question in owned parts, so that one part can be spoiled at a time.
#[derive(Debug, Clone)]
struct Asked {
    identity: IdentityName,
    task: Name,
    target: Name,
    issuer: Name,
    claims: BTreeMap<String, String>,
    ttl_s: Seconds,
    actor: Actor,
    bound: bool,
    approved: bool,
}

fn evaluate(bundle: &Bundle, it: &Asked) -> Verdict {
    let nothing = Scope::default();
    bundle.rules().evaluate(&Question {
        identity_name: &it.identity,
        task_name: &it.task,
        target_name: &it.target,
        issuer_name: &it.issuer,
        proof_kind: ProofKind::IdToken,
        actor: it.actor,
        claims: &it.claims,
        granted: bundle.declared().tasks.get(&it.task).map_or(&nothing, |task| &task.scope),
        ttl_s: it.ttl_s,
        profile: Profile::AccessToken,
        bound: it.bound,
        emergency: false,
        approved: it.approved,
    })
}

fn billing() -> Asked {
    Asked {
        identity: "prod/billing/nightly".parse().unwrap(),
        task: "post-invoices".parse().unwrap(),
        target: "ledger".parse().unwrap(),
        issuer: "ci".parse().unwrap(),
        claims: BTreeMap::new(),
        ttl_s: Seconds::new(900),
        actor: Actor::Workload,
        bound: true,
        approved: false,
    }
}

fn migration() -> Asked {
    Asked {
        identity: "prod/deploy/web".parse().unwrap(),
        task: "migrate-web-db".parse().unwrap(),
        target: "web-db".parse().unwrap(),
        claims: [("event".to_owned(), "workflow_dispatch".to_owned())].into(),
        approved: true,
        ..billing()
    }
}

fn with_rule(text: &str) -> Bundle {
    let mut files = sample::files();
    files.push(SourceFile { path: "rules/more.cedar".into(), text: text.to_owned() });
    compile(&files).unwrap_or_else(|findings| panic!("{}", sample::lines(&findings)))
}

fn ids(of: &[&str]) -> BTreeSet<String> {
    of.iter().map(|id| (*id).to_owned()).collect()
}

#[test]
fn a_permit_names_the_rules_that_made_it() {
    let bundle = sample::bundle();
    assert_eq!(evaluate(&bundle, &billing()), Verdict::Permit { rules: ids(&["billing/nightly"]) });
    assert_eq!(evaluate(&bundle, &migration()), Verdict::Permit { rules: ids(&["web/migrate"]) });
}

#[test]
fn without_a_permit_there_is_nothing() {
    let bundle = sample::bundle();
    let other_task =
        Asked { task: "deploy-web".parse().unwrap(), target: "deployer".parse().unwrap(), ..billing() };
    assert_eq!(evaluate(&bundle, &other_task), Verdict::Forbid { rules: ids(&[]) });
    let other_event = Asked { claims: [("event".into(), "push".into())].into(), ..migration() };
    assert_eq!(evaluate(&bundle, &other_event), Verdict::Forbid { rules: ids(&[]) });
}

#[test]
fn no_permit_lifts_a_base_forbid() {
    let bundle = with_rule("@id(\"more/all\") permit (principal, action, resource);");
    let test_target = "ledger-test".parse::<Name>().unwrap();
    let privileged = "migrate-web-db".parse::<Name>().unwrap();
    let supplier = "prod/acme/connector".parse::<IdentityName>().unwrap();
    let table = [
        (Asked { target: test_target, ..billing() }, "base/own-environment"),
        (Asked { issuer: "cluster-test".parse().unwrap(), ..billing() }, "base/issuer-of-own-environment"),
        (Asked { actor: Actor::Person, ..billing() }, "base/no-person"),
        (Asked { bound: false, ..migration() }, "base/privileged-is-bound"),
        (Asked { identity: supplier, task: privileged, ..migration() }, "base/supplier-never-privileged"),
        (Asked { bound: false, ttl_s: Seconds::new(901), ..billing() }, "base/unbound-is-brief"),
        (Asked { approved: false, ..migration() }, "base/approved"),
    ];
    for (spoiled, rule) in table {
        assert_eq!(evaluate(&bundle, &spoiled), Verdict::Forbid { rules: ids(&[rule]) }, "{spoiled:?}");
    }
    assert_eq!(
        evaluate(&bundle, &billing()),
        Verdict::Permit { rules: ids(&["billing/nightly", "more/all"]) }
    );
}

#[test]
fn a_rule_that_cannot_be_evaluated_denies_whatever_the_others_say() {
    let overflow = "context.ttl_s * 9223372036854775807 > 0";
    for effect in ["permit", "forbid"] {
        let rule = format!("@id(\"more/odd\") {effect} (principal, action, resource) when {{ {overflow} }};");
        let verdict = evaluate(&with_rule(&rule), &billing());
        assert!(matches!(&verdict, Verdict::Error { detail } if detail.contains("more/odd")), "{verdict:?}");
    }
}

#[test]
fn what_is_not_declared_is_an_error_and_so_a_denial() {
    let bundle = with_rule("@id(\"more/all\") permit (principal, action, resource);");
    for undeclared in [
        Asked { identity: "prod/nobody".parse().unwrap(), ..billing() },
        Asked { task: "nothing".parse().unwrap(), ..billing() },
        Asked { target: "nowhere".parse().unwrap(), ..billing() },
        Asked { issuer: "noone".parse().unwrap(), ..billing() },
    ] {
        assert!(matches!(evaluate(&bundle, &undeclared), Verdict::Error { .. }), "{undeclared:?}");
    }
}

#[test]
fn a_claim_cannot_be_joined_out_of_two() {
    let bundle = sample::bundle();
    for (name, value) in [
        ("event=workflow_dispatch", "x"),
        ("event", "workflow_dispatch,push"),
        ("Event", "workflow_dispatch"),
    ] {
        let spoiled = Asked { claims: [(name.to_owned(), value.to_owned())].into(), ..migration() };
        assert_eq!(evaluate(&bundle, &spoiled), Verdict::Forbid { rules: ids(&[]) }, "{name}={value}");
    }
}

#[test]
fn the_claims_that_rules_look_at_are_known_so_that_entries_hold_them() {
    assert_eq!(*sample::bundle().rules().claims(), ids(&["event"]));
    let rule = "@id(\"more/ref\") forbid (principal, action, resource)
        unless { context.claims.containsAny([{ name: \"ref\", value: \"main\" }, { name: \"event\", value: \"push\" }]) };";
    assert_eq!(*with_rule(rule).rules().claims(), ids(&["event", "ref"]));
}
