//! Identities and operators: who answers for them, and what their proofs must say.

use daypass_evidence::entry::{ProofUse, Reach};
use daypass_verify::ids::{IdentityName, Name, SpiffeId};

use super::task::{is_host, is_proof_claim};
use super::{Check, Subject, condition, node};
use crate::bundle::finding::did_you_mean;
use crate::bundle::object::{Class, Identity, Issuer, IssuerKind, Operator, ProofClause};

/// What an operator may be allowed to do.
const ROLES: [&str; 7] = ["read_evidence", "propose", "decide", "contain", "review", "rotate", "enrol"];

pub(super) fn identity(check: &mut Check<'_>, name: &IdentityName, it: &Identity) {
    let subject = ("identity", name.as_str());
    check.environment(subject, it.environment.as_str());
    owners(check, subject, it);
    for task in &it.tasks {
        check.refer(subject, &format!("tasks.{task}"), "task", task.as_str());
    }
    match (&it.supplier, it.class) {
        (Some(supplier), _) => check.refer(subject, "supplier", "supplier", supplier.as_str()),
        (None, Class::Supplier) => check.refuse(
            "no-supplier",
            subject,
            "class",
            "class `supplier` without `supplier`: name whose contract bounds it",
        ),
        (None, _) => {}
    }
    if it.review_days == 0 {
        check.refuse(
            "review",
            subject,
            "review_every",
            "`review_every` is no time at all: expected such as `90d`",
        );
    }
    proofs(check, subject, &it.proofs);
    for (at, clause) in it.proofs.iter().enumerate() {
        immutable_id(check, subject, at, it, clause);
        reusable(check, subject, at, it, clause);
    }
}

fn owners(check: &mut Check<'_>, subject: Subject<'_>, it: &Identity) {
    for (key, owner) in [("business_owner", &it.business_owner), ("technical_owner", &it.technical_owner)] {
        check.owner(subject, key, owner);
    }
    if it.business_owner == it.technical_owner {
        check.warn(
            "one-owner",
            subject,
            "technical_owner",
            "its two owners are one: name a second who would notice",
        );
    }
}

pub(super) fn operator(check: &mut Check<'_>, name: &Name, it: &Operator) {
    let subject = ("operator", name.as_str());
    it.roles.iter().for_each(|it| role(check, subject, "roles", it));
    if let Some(owner) = &it.owner {
        check.owner(subject, "owner", owner);
    }
    proofs(check, subject, &it.proofs);
}

/// Refuses a role that no operator can have.
pub(super) fn role(check: &mut Check<'_>, subject: Subject<'_>, key: &str, role: &str) {
    if !ROLES.contains(&role) {
        let near = did_you_mean(role, ROLES, &format!("expected one of `{}`", ROLES.join("`, `")));
        let message = format!("unknown role `{}`{near}", role.escape_debug());
        check.refuse("unknown-reference", subject, &format!("{key}.{role}"), &message);
    }
}

fn proofs(check: &mut Check<'_>, subject: Subject<'_>, clauses: &[ProofClause]) {
    if clauses.is_empty() {
        check.refuse(
            "no-proof",
            subject,
            "proofs",
            "`proofs` is empty: say how it proves itself, or remove it",
        );
    }
    for (at, clause) in clauses.iter().enumerate() {
        let key = format!("proofs.{at}");
        check.refer(subject, &format!("{key}.issuer"), "issuer", clause.issuer.as_str());
        if let Some(issuer) = check.declared.issuers.get(&clause.issuer) {
            form(check, subject, &key, clause, issuer);
            condition::conditions(check, subject, &key, clause, issuer);
        }
        exact(check, subject, &key, clause);
    }
}

/// What a clause says must fit what its issuer makes.
fn form(check: &mut Check<'_>, subject: Subject<'_>, key: &str, clause: &ProofClause, issuer: &Issuer) {
    let of_token = clause.subject.is_some() || !clause.claims.is_empty();
    let names = usize::from(clause.spiffe_id.is_some()) + usize::from(clause.dns_name.is_some());
    let what = match &issuer.kind {
        IssuerKind::Nodes => return node::form(check, subject, key, clause),
        _ if clause.workload.is_some() => {
            "`workload` is what the agent of a node attests: expected the issuer of kind `nodes`"
        }
        IssuerKind::Oidc { .. } if names > 0 => {
            "its issuer makes ID tokens, which have neither `spiffe_id` nor `dns_name`: use `subject` and `claims`"
        }
        IssuerKind::Oidc { .. } if !of_token => {
            "a proof by ID token without `subject` or `claims`: everyone that the issuer knows would fit"
        }
        IssuerKind::ClientCa { .. } if of_token => {
            "its issuer makes certificates, which have neither `subject` nor `claims`: use `spiffe_id` or `dns_name`"
        }
        IssuerKind::ClientCa { .. } if names != 1 => {
            "a proof by certificate: expected exactly one of `spiffe_id` and `dns_name`"
        }
        IssuerKind::ClientCa { trust_domain, .. } => {
            return spiffe(check, subject, key, clause, trust_domain.as_ref());
        }
        IssuerKind::Oidc { .. } => return,
    };
    check.refuse("proof-form", subject, key, what);
}

fn spiffe(
    check: &mut Check<'_>,
    subject: Subject<'_>,
    key: &str,
    clause: &ProofClause,
    trust_domain: Option<&daypass_verify::ids::TrustDomain>,
) {
    let Some(text) = &clause.spiffe_id else { return };
    let domain = text.parse::<SpiffeId>().ok().map(|id| id.trust_domain());
    if domain.is_none() || domain.as_ref() != trust_domain {
        let message = format!(
            "`{}` is not in the trust domain of issuer `{}`: expected `spiffe://` + its `trust_domain` + path",
            text.escape_debug(),
            clause.issuer
        );
        check.refuse("proof-form", subject, &format!("{key}.spiffe_id"), &message);
    }
}

/// Conditions are exact strings; a pattern would match what nobody thought of.
fn exact(check: &mut Check<'_>, subject: Subject<'_>, key: &str, clause: &ProofClause) {
    let in_subject = clause.subject.iter().map(|text| ("subject".to_owned(), text));
    let in_claims = clause
        .claims
        .iter()
        .flat_map(|(claim, values)| values.iter().map(move |value| (format!("claims.{claim}"), value)));
    let unit = clause.workload.iter().flat_map(|it| &it.unit).map(|text| ("workload.unit".to_owned(), text));
    for (part, text) in in_subject.chain(in_claims).chain(unit) {
        if text.contains(['*', '?']) || text.chars().any(char::is_control) {
            let message = format!(
                "`{}` has a wildcard or a control character: a condition is an exact string, list the values one by one",
                text.escape_debug()
            );
            check.refuse("wildcard", subject, &format!("{key}.{part}"), &message);
        }
    }
    for (claim, values) in &clause.claims {
        if values.is_empty() || !is_proof_claim(claim) {
            let message =
                format!("claim `{}` needs a plain name and at least one value", claim.escape_debug());
            check.refuse("claim-name", subject, &format!("{key}.claims"), &message);
        }
    }
    if clause.dns_name.as_ref().is_some_and(|host| !is_host(host)) {
        check.refuse(
            "dns-name",
            subject,
            &format!("{key}.dns_name"),
            "`dns_name` is no DNS name in lower case, without wildcard",
        );
    }
}

/// A repository can be renamed, and its old name taken by somebody else; its number cannot.
fn immutable_id(check: &mut Check<'_>, subject: Subject<'_>, at: usize, it: &Identity, clause: &ProofClause) {
    let by_token = check
        .declared
        .issuers
        .get(&clause.issuer)
        .is_some_and(|issuer| matches!(issuer.kind, IssuerKind::Oidc { .. }));
    let names_number = clause.claims.keys().any(|claim| claim.ends_with("_id"));
    if it.class == Class::Ci && by_token && !names_number {
        check.warn("renamable", subject, &format!("proofs.{at}"), "a CI job known by names alone: whoever takes a freed name gets in; add the claim that holds the immutable id, such as `repository_id`");
    }
}

/// A proof that can be shown again must not buy what can be neither bound nor revoked.
fn reusable(check: &mut Check<'_>, subject: Subject<'_>, at: usize, it: &Identity, clause: &ProofClause) {
    let declared = check.declared;
    let shown_again = declared.issuers.get(&clause.issuer).is_some_and(|issuer| {
        matches!(issuer.kind, IssuerKind::Oidc { .. }) && issuer.replay == ProofUse::UntilExpiry
    });
    let unreached =
        |name: &Name| declared.targets.get(name).is_some_and(|target| target.reach == Reach::None);
    let loose = |name: &&Name| {
        declared.tasks.get(*name).is_some_and(|task| task.bearer && task.targets.iter().any(unreached))
    };
    if shown_again && let Some(task) = it.tasks.iter().find(loose) {
        let message = format!(
            "issuer `{}` lets a proof be shown again, and task `{task}` gives unbound tokens that no revocation reaches: remove `bearer` from the task, or give its target a reach",
            clause.issuer
        );
        check.refuse("reusable-proof", subject, &format!("proofs.{at}.issuer"), &message);
    }
}
