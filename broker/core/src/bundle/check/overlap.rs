//! Whether one proof could fit two: two identities (then the caller names the one it means), or an identity and
//! an operator. It is seldom meant.

use std::collections::{BTreeMap, BTreeSet};

use daypass_verify::ids::Name;

use super::{Check, Subject};
use crate::bundle::object::ProofClause;

/// What a proof shows first: the issuer, and the subject, SPIFFE ID or DNS name. Clauses that differ here never
/// fit one proof.
type Shown<'a> = (&'a Name, Option<&'a str>, Option<&'a str>, Option<&'a str>);

pub(super) fn proofs(check: &mut Check<'_>) {
    let declared = check.declared;
    let identities = declared.identities.iter().map(|(name, it)| (("identity", name.as_str()), &it.proofs));
    let operators = declared.operators.iter().map(|(name, it)| (("operator", name.as_str()), &it.proofs));
    let mut seen: BTreeMap<Shown<'_>, Vec<(Subject<'_>, &ProofClause)>> = BTreeMap::new();
    for (subject, clauses) in identities.chain(operators) {
        for (at, clause) in clauses.iter().enumerate() {
            let others = seen.entry(shown(clause)).or_default();
            let twin = others.iter().find(|(other, theirs)| *other != subject && may_meet(clause, theirs));
            if let Some(((kind, name), _)) = twin {
                let message = format!(
                    "one proof could fit both it and {kind} `{name}`: tell them apart by a claim, or make them one"
                );
                check.warn("shared-proof", subject, &format!("proofs.{at}"), &message);
            }
            others.push((subject, clause));
        }
    }
}

fn shown(clause: &ProofClause) -> Shown<'_> {
    (&clause.issuer, clause.subject.as_deref(), clause.spiffe_id.as_deref(), clause.dns_name.as_deref())
}

/// Whether some proof has claims that fit both: no claim that both name is told apart by its values.
fn may_meet(left: &ProofClause, right: &ProofClause) -> bool {
    let agrees = |(claim, values): (&String, &BTreeSet<String>)| {
        right.claims.get(claim).is_none_or(|theirs| !values.is_disjoint(theirs))
    };
    left.claims.iter().all(agrees)
}
