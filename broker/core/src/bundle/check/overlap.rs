//! Whether one proof could fit two: two identities (then the caller names the one it means), or an identity and
//! an operator. It is seldom meant.

use std::collections::{BTreeMap, BTreeSet};

use daypass_verify::ids::Name;

use super::{Check, Subject};
use crate::bundle::object::{ProofClause, Workload};

/// A clause, and whose it is.
type Claimant<'a> = (Subject<'a>, &'a ProofClause);

/// The clauses of one issuer: those that name somebody exactly, by that name, and those that ask for claims alone.
#[derive(Default)]
struct Seen<'a> {
    exact: BTreeMap<&'a str, Vec<Claimant<'a>>>,
    open: Vec<Claimant<'a>>,
}

impl<'a> Seen<'a> {
    /// Who could be met by a proof that fits `clause`.
    fn twin(&self, subject: Subject<'a>, clause: &'a ProofClause) -> Option<Subject<'a>> {
        let same_name: Vec<_> = match exact(clause) {
            Some(name) => self.exact.get(name).into_iter().flatten().collect(),
            None => self.exact.values().flatten().collect(),
        };
        let mut others = same_name.into_iter().chain(&self.open);
        others.find(|(other, theirs)| *other != subject && may_meet(clause, theirs)).map(|(other, _)| *other)
    }

    fn add(&mut self, subject: Subject<'a>, clause: &'a ProofClause) {
        match exact(clause) {
            Some(name) => self.exact.entry(name).or_default().push((subject, clause)),
            None => self.open.push((subject, clause)),
        }
    }
}

pub(super) fn proofs(check: &mut Check<'_>) {
    let declared = check.declared;
    let identities = declared.identities.iter().map(|(name, it)| (("identity", name.as_str()), &it.proofs));
    let operators = declared.operators.iter().map(|(name, it)| (("operator", name.as_str()), &it.proofs));
    let mut seen: BTreeMap<&Name, Seen<'_>> = BTreeMap::new();
    for (subject, clauses) in identities.chain(operators) {
        for (at, clause) in clauses.iter().enumerate() {
            let of_issuer = seen.entry(&clause.issuer).or_default();
            if let Some((kind, name)) = of_issuer.twin(subject, clause) {
                let message = format!(
                    "one proof could fit both it and {kind} `{name}`: tell them apart by a claim, or make them one"
                );
                check.warn("shared-proof", subject, &format!("proofs.{at}"), &message);
            }
            of_issuer.add(subject, clause);
        }
    }
}

/// The one name that a proof must carry to fit.
fn exact(clause: &ProofClause) -> Option<&str> {
    let named = [&clause.subject, &clause.spiffe_id, &clause.dns_name].into_iter().flatten().next();
    named.map(String::as_str).or(clause.workload.as_ref().map(|it| it.node.as_str()))
}

/// Whether some proof fits both: nothing that both name is told apart by its values.
fn may_meet(left: &ProofClause, right: &ProofClause) -> bool {
    let agrees = |(claim, values): (&String, &BTreeSet<String>)| {
        right.claims.get(claim).is_none_or(|theirs| !values.is_disjoint(theirs))
    };
    left.claims.iter().all(agrees) && may_both_run(left.workload.as_ref(), right.workload.as_ref())
}

/// Whether one process may be both.
fn may_both_run(left: Option<&Workload>, right: Option<&Workload>) -> bool {
    let (Some(left), Some(right)) = (left, right) else { return left == right };
    let unit = left.unit.as_ref().zip(right.unit.as_ref()).is_none_or(|(left, right)| left == right);
    let uid = left.uid.zip(right.uid).is_none_or(|(left, right)| left == right);
    left.node == right.node && unit && uid
}
