//! From the text of rules to a policy set: each rule parsed, named by its `@id`, and validated.

use std::collections::{BTreeMap, BTreeSet};

use cedar_policy::{Policy, PolicyId, PolicySet, Schema, ValidationMode, Validator};
use miette::Diagnostic;
use serde_json::Value;

use super::SCHEMA;
use crate::bundle::Finding;
use crate::bundle::page::Page;

/// One rule, and where it stands.
struct Placed {
    policy: Policy,
    path: String,
    line: u32,
}

/// Every rule of `files`, validated.
pub(super) fn policies(files: &[(String, String)]) -> Result<PolicySet, Vec<Finding>> {
    let (placed, mut findings) = parse(files);
    let schema = Schema::from_cedarschema_str(SCHEMA)
        .map_err(|error| vec![finding("rule-engine", "schema.cedarschema", 0, error.to_string())])?;
    let validator = Validator::new(schema.0);
    let mut places = BTreeMap::new();
    let mut set = PolicySet::new();
    for mut rule in placed {
        match named(&rule, &mut places) {
            Ok(policy) => rule.policy = policy,
            Err(finding) => findings.push(finding),
        }
        findings.extend(validate(&rule, &validator));
        // What is without a name of its own, or has another's, was noted.
        let _ = set.add(rule.policy);
    }
    if findings.is_empty() { Ok(set) } else { Err(findings) }
}

fn parse(files: &[(String, String)]) -> (Vec<Placed>, Vec<Finding>) {
    let mut placed = Vec::new();
    let mut findings = Vec::new();
    for (path, text) in files {
        let page = Page::new(path, text);
        match text.parse::<PolicySet>() {
            Ok(set) => {
                findings.extend(set.templates().map(|template| {
                    let line = template.as_ref().loc().map_or(0, |loc| page.line(loc.start()));
                    slot(path, line)
                }));
                placed.extend(set.policies().map(|policy| {
                    let line = policy.as_ref().loc().map_or(0, |loc| page.line(loc.start()));
                    Placed { policy: policy.clone(), path: path.clone(), line }
                }));
            }
            Err(errors) => findings.extend(errors.iter().map(|error| {
                let line = offset(error).map_or(0, |offset| page.line(offset));
                finding("rule-syntax", path, line, format!("the rule cannot be read: {error}"))
            })),
        }
    }
    placed.sort_by(|a, b| (&a.path, a.line).cmp(&(&b.path, b.line)));
    (placed, findings)
}

fn slot(path: &str, line: u32) -> Finding {
    let message = "a rule with a slot (`?principal` or `?resource`): write it out, rules are never filled in";
    finding("rule-template", path, line, message.into())
}

/// Where in its file an error of the rule language is.
fn offset(error: &impl Diagnostic) -> Option<usize> {
    error.labels().and_then(|mut labels| labels.next()).map(|label| label.offset())
}

/// The rule under its own `@id`: the name that entries will carry.
fn named(rule: &Placed, taken: &mut BTreeMap<String, (String, u32)>) -> Result<Policy, Finding> {
    let refuse = |message: String| Err(finding("rule-id", &rule.path, rule.line, message));
    let Some(id) = rule.policy.annotation("id").filter(|id| is_rule_id(id)) else {
        return refuse(
            "a rule without an `@id` of a-z, 0-9 and `-`, joined by `/`: give it one, such as `@id(\"billing/post\")`"
                .into(),
        );
    };
    if let Some((path, line)) = taken.get(id) {
        return refuse(format!("rule id `{id}` is taken by {path}:{line}: give each rule its own"));
    }
    taken.insert(id.to_owned(), (rule.path.clone(), rule.line));
    Ok(rule.policy.new_id(PolicyId::new(id)))
}

fn is_rule_id(id: &str) -> bool {
    let segment = |s: &str| !s.is_empty() && s.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'));
    id.len() <= 100 && id.split('/').all(segment)
}

/// What the schema has against one rule. A warning (a rule that can never apply, text that looks like other
/// text) refuses like an error: nobody meant it.
fn validate(rule: &Placed, validator: &Validator) -> Vec<Finding> {
    let alone = match PolicySet::from_policies([rule.policy.clone()]) {
        Ok(alone) => alone,
        Err(error) => return vec![finding("rule-invalid", &rule.path, rule.line, error.to_string())],
    };
    let result = validator.validate(&alone, ValidationMode::Strict);
    let errors = result.validation_errors().map(ToString::to_string);
    let warnings = result.validation_warnings().map(ToString::to_string);
    errors.chain(warnings).map(|message| finding("rule-invalid", &rule.path, rule.line, message)).collect()
}

fn finding(code: &'static str, path: &str, line: u32, message: String) -> Finding {
    Finding { code, path: path.into(), line, message, refuses: true }
}

/// The claims that rules look at: the literal `name` of each record in them.
pub(super) fn claims(set: &PolicySet) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for policy in set.policies() {
        if let Ok(json) = policy.to_json() {
            collect_claims(&json, &mut names);
        }
    }
    names
}

fn collect_claims(json: &Value, names: &mut BTreeSet<String>) {
    match json {
        Value::Object(members) => {
            let literal = |record: &Value| Some(record.get("name")?.get("Value")?.as_str()?.to_owned());
            names.extend(members.get("Record").and_then(literal));
            members.values().for_each(|member| collect_claims(member, names));
        }
        Value::Array(items) => items.iter().for_each(|item| collect_claims(item, names)),
        _ => {}
    }
}
