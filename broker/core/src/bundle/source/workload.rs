//! Reading those who prove themselves: identities and operators.

use std::collections::{BTreeMap, BTreeSet};

use daypass_verify::ids::SpiffeId;

use crate::bundle::object::{Identity, Operator, ProofClause, Workload};
use crate::bundle::section::Section;
use crate::bundle::value::Days;

pub(super) fn identity(section: &mut Section<'_>) -> Option<Identity> {
    let class = section.required("class");
    let privilege = section.required("privilege");
    let purpose = section.required("purpose");
    let business_owner = section.required("business_owner");
    let technical_owner = section.required("technical_owner");
    let environment = section.required("environment");
    let expires_ms = section.required("expires");
    let review = section.required::<Days>("review_every");
    let proofs = proofs(section);
    let supplier = section.optional("supplier");
    let tasks = section.set("tasks");
    let disabled = section.flag("disabled");
    Some(Identity {
        class: class?,
        privilege: privilege?,
        purpose: purpose?,
        business_owner: business_owner?,
        technical_owner: technical_owner?,
        environment: environment?,
        expires_ms: expires_ms?,
        review_days: review?.0,
        proofs: proofs?,
        supplier,
        tasks,
        disabled,
    })
}

pub(super) fn operator(section: &mut Section<'_>) -> Option<Operator> {
    let proofs = proofs(section);
    let roles = section.required_set("roles");
    let owner = section.optional("owner");
    let expires_ms = section.required("expires");
    Some(Operator { proofs: proofs?, roles, owner, expires_ms: expires_ms? })
}

/// How it proves itself; none when one way could not be read.
fn proofs(section: &mut Section<'_>) -> Option<Vec<ProofClause>> {
    let read = |mut part: Section<'_>| {
        let clause = clause(&mut part);
        part.finish();
        clause
    };
    section.required_sections("proofs")?.into_iter().map(read).collect()
}

fn clause(section: &mut Section<'_>) -> Option<ProofClause> {
    let issuer = section.required("issuer");
    let subject = section.optional("subject");
    let spiffe_id: Option<SpiffeId> = section.optional("spiffe_id");
    let dns_name = section.optional("dns_name");
    let claims = section.section("claims").map(|claims| conditions(&claims)).unwrap_or_default();
    let workload = section.section("workload").map(workload);
    Some(ProofClause {
        issuer: issuer?,
        subject,
        claims,
        spiffe_id: spiffe_id.map(|id| id.as_str().to_owned()),
        dns_name,
        workload: match workload {
            Some(read) => Some(read?),
            None => None,
        },
    })
}

fn workload(mut section: Section<'_>) -> Option<Workload> {
    let (node, unit) = (section.required("node"), section.optional("unit"));
    let uid = section.optional("uid");
    section.finish();
    Some(Workload { node: node?, unit, uid })
}

/// Claims, each with the value or values of which it must be one.
fn conditions(section: &Section<'_>) -> BTreeMap<String, BTreeSet<String>> {
    let condition = |(claim, value)| (String::from(claim), section.elements(claim, value));
    section.entries().map(condition).collect()
}
