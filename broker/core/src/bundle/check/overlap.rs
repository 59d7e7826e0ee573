//! Whether one proof could fit two identities. It is allowed (the caller then names the one it means), but
//! seldom meant.

use std::collections::BTreeMap;

use daypass_verify::ids::{IdentityName, Name};

use super::Check;
use crate::bundle::object::ProofClause;

/// What a proof shows first: the issuer, and the subject, SPIFFE ID or DNS name. Clauses that differ here never
/// fit one proof.
type Shown<'a> = (&'a Name, Option<&'a str>, Option<&'a str>, Option<&'a str>);

pub(super) fn identities(check: &mut Check<'_>) {
    let declared = check.declared;
    let mut seen: BTreeMap<Shown<'_>, Vec<(&IdentityName, &ProofClause)>> = BTreeMap::new();
    for (name, identity) in &declared.identities {
        for (at, clause) in identity.proofs.iter().enumerate() {
            let others = seen.entry(shown(clause)).or_default();
            let twin = others.iter().find(|(other, theirs)| *other != name && may_meet(clause, theirs));
            if let Some((other, _)) = twin {
                let message = format!(
                    "one proof could fit both it and `{other}`: tell them apart by a claim, or make them one"
                );
                check.warn("shared-proof", ("identity", name.as_str()), &format!("proofs.{at}"), &message);
            }
            others.push((name, clause));
        }
    }
}

fn shown(clause: &ProofClause) -> Shown<'_> {
    (&clause.issuer, clause.subject.as_deref(), clause.spiffe_id.as_deref(), clause.dns_name.as_deref())
}

/// Whether some proof has claims that fit both: no claim that both name is told apart by its values.
fn may_meet(left: &ProofClause, right: &ProofClause) -> bool {
    let agrees = |(claim, values): (&String, &std::collections::BTreeSet<String>)| {
        right.claims.get(claim).is_none_or(|theirs| !values.is_disjoint(theirs))
    };
    left.claims.iter().all(agrees)
}
