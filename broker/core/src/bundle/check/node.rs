//! Whom the certificate of a node proves: itself, and the workloads of its machine that its agent attests.

use daypass_verify::ids::SpiffeId;

use super::{Check, Subject};
use crate::bundle::object::{Class, Identity, ProofClause, Workload};

/// A clause of the issuer that stands for nodes.
pub(super) fn form(check: &mut Check<'_>, subject: Subject<'_>, key: &str, clause: &ProofClause) {
    match &clause.workload {
        Some(workload) => attested(check, subject, key, clause, workload),
        None => itself(check, subject, key, clause),
    }
}

/// A node proves itself by its own name, and no other.
fn itself(check: &mut Check<'_>, subject: Subject<'_>, key: &str, clause: &ProofClause) {
    let own = |text: &String| text.parse::<SpiffeId>().is_ok_and(|id| id.path() == subject.1);
    let names_others = clause.subject.is_some() || !clause.claims.is_empty() || clause.dns_name.is_some();
    let is_own = clause.spiffe_id.as_ref().is_some_and(own) && !names_others;
    if !declared(check, subject).is_some_and(is_node) || !is_own {
        let expected = "its issuer stands for nodes, which prove themselves alone, or a `workload` that they attest: expected an identity of class `node`, and its own `spiffe_id`";
        check.refuse("proof-form", subject, key, expected);
    }
}

/// What it attests must name a machine, and tell the workload from others there. The machine bounds it.
fn attested(
    check: &mut Check<'_>,
    subject: Subject<'_>,
    key: &str,
    clause: &ProofClause,
    workload: &Workload,
) {
    let names_more = clause.subject.is_some()
        || !clause.claims.is_empty()
        || clause.spiffe_id.is_some()
        || clause.dns_name.is_some();
    let node_key = format!("{key}.workload.node");
    check.refer(subject, &node_key, "identity", workload.node.as_str());
    let node = check.declared.identities.get(&workload.node);
    let expected = match (declared(check, subject), node) {
        (None, _) => {
            "a machine attests its workloads, and nobody who administers: expected it at an identity"
        }
        (Some(it), _) if is_node(it) => "a node is attested by no other: expected its own `spiffe_id`",
        _ if names_more => "expected `workload` alone beside `issuer`",
        _ if workload.unit.is_none() && workload.uid.is_none() => {
            "whoever runs on the machine would fit: expected `unit`, `uid` or both in `workload`"
        }
        (_, Some(node)) if !is_node(node) => "expected an identity of class `node` as `workload.node`",
        (Some(it), Some(node)) => return bounded(check, subject, &node_key, it, node),
        (Some(_), None) => return,
    };
    check.refuse("proof-form", subject, key, expected);
}

/// A task that the node itself does not have is refused when its agent asks for it.
fn bounded(check: &mut Check<'_>, subject: Subject<'_>, key: &str, it: &Identity, node: &Identity) {
    if let Some(task) = it.tasks.difference(&node.tasks).next() {
        let message = format!(
            "task `{task}` is not among those of the node, which bounds whom it speaks for: add it there, or it is refused on this proof"
        );
        check.warn("beyond-node", subject, key, &message);
    }
}

fn is_node(it: &Identity) -> bool {
    it.class == Class::Node
}

/// The identity that the clause belongs to; none where it is an operator's.
fn declared<'a>(check: &Check<'a>, (kind, name): Subject<'_>) -> Option<&'a Identity> {
    check.declared.identities.get(name).filter(|_| kind == "identity")
}
