//! Reading tasks, and the targets where they are done.

use std::collections::BTreeMap;

use daypass_verify::scope::Scope;
use daypass_verify::time::Seconds;

use crate::bundle::object::{ApprovalNeed, ClaimSource, Target, Task};
use crate::bundle::section::Section;
use crate::bundle::value::Value as _;

/// How long a credential lives where neither its task nor its caller says.
const TTL_DEFAULT: Seconds = Seconds::new(900);

pub(super) fn task(section: &mut Section<'_>) -> Option<Task> {
    let targets = section.required_set("targets");
    let scope = scope(section);
    let kinds = section.required_set("kinds");
    let profile = section.optional("profile").or_else(|| kinds.first().copied());
    let alg = section.optional("alg").unwrap_or_else(|| "ES256".to_owned());
    let ttl_max_s = section.required::<Seconds>("ttl_max");
    let ttl_s = section.optional("ttl").or(ttl_max_s.map(|longest| longest.min(TTL_DEFAULT)));
    let claims = section.section("claims").map(|claims| claim_sources(&claims)).unwrap_or_default();
    let dns_names = section.set("dns_names");
    let common_name = section.optional("common_name");
    let approval = approval(section);
    Some(Task {
        targets,
        scope,
        kinds,
        profile: profile?,
        alg,
        ttl_s: ttl_s?,
        ttl_max_s: ttl_max_s?,
        claims,
        dns_names,
        common_name,
        approval: approval?,
        privileged: section.flag("privileged"),
        continuous: section.flag("continuous"),
        revoke_on_renew: section.flag("revoke_on_renew"),
        bearer: section.flag("bearer"),
    })
}

pub(super) fn scope(section: &mut Section<'_>) -> Scope {
    Scope {
        audiences: section.set("audiences"),
        actions: section.set("actions"),
        resources: section.set("resources"),
    }
}

/// `tenant = "acme"` is a constant, `run = { proof = "run_id" }` a copied claim.
fn claim_sources(section: &Section<'_>) -> BTreeMap<String, ClaimSource> {
    let mut claims = BTreeMap::new();
    for (name, value) in section.entries() {
        let copied = value.get_ref().as_table().filter(|table| table.len() == 1);
        let source = match copied.and_then(|table| table.get("proof")) {
            Some(claim) => String::read(claim.get_ref()).map(ClaimSource::Proof),
            None => String::read(value.get_ref()).map(ClaimSource::Constant),
        };
        match source {
            Ok(source) => drop(claims.insert(name.to_owned(), source)),
            Err(what) => {
                let expected = "a constant in quotes, or `{ proof = \"CLAIM\" }`";
                section.wrong(name, value.span().start, format!("{what}; a claim is {expected}"));
            }
        }
    }
    claims
}

/// None: the need could not be read; none inside: nobody has to approve.
#[expect(clippy::option_option, reason = "whether it was readable, and whether there is any")]
fn approval(section: &mut Section<'_>) -> Option<Option<ApprovalNeed>> {
    if section.raw("approval").is_none() {
        return Some(None);
    }
    let mut part = section.section("approval")?;
    let n = part.required("n");
    let roles = part.required_set("roles");
    part.finish();
    Some(Some(ApprovalNeed { n: n?, roles }))
}

pub(super) fn target(section: &mut Section<'_>) -> Option<Target> {
    let kind = section.required("kind");
    let environment = section.required("environment");
    let audiences = section.set("audiences");
    let reach = section.required("reach");
    let enforcement = section.required("enforcement");
    Some(Target {
        kind: kind?,
        environment: environment?,
        audiences,
        reach: reach?,
        enforcement: enforcement?,
        ttl_max_s: section.optional("ttl_max"),
        downstream_ttl_s: section.optional("downstream_ttl"),
        probe: section.optional("probe"),
        served_by: section.set("served_by"),
    })
}
