//! Which identities and operators a verified proof fits.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use daypass_evidence::entry::{ProofKind, Via};
use daypass_verify::ids::{IdentityName, Name};

use crate::bundle::Bundle;
use crate::bundle::object::{ClaimSource, Declared, Issuer, IssuerKind, ProofClause};

/// What a verified proof says, and what clauses are compared with.
#[derive(Clone)]
pub(crate) struct Facts {
    pub(crate) issuer: Name,
    pub(crate) kind: ProofKind,
    pub(crate) subject: String,
    pub(crate) claims: BTreeMap<String, String>,
    pub(crate) spiffe_id: Option<String>,
    pub(crate) dns_names: Vec<String>,
    /// What a node attests of the workload that it speaks for.
    pub(crate) via: Option<Via>,
}

impl fmt::Debug for Facts {
    /// Shows no claim: they may be personal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Facts").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

impl Facts {
    /// The first of `clauses` that the proof fits.
    pub(crate) fn clause_of(&self, clauses: &[ProofClause]) -> Option<u32> {
        clauses.iter().position(|clause| self.fits(clause)).and_then(|at| u32::try_from(at).ok())
    }

    pub(super) fn identities(&self, bundle: &Bundle) -> Vec<(IdentityName, u32)> {
        let declared = &bundle.declared().identities;
        let near = bundle.clauses().near(self).filter_map(|who| match who {
            Who::Identity(name) => Some(name),
            Who::Operator(_) => None,
        });
        let near: BTreeSet<_> = near.collect();
        let fit = near.into_iter().filter_map(|name| Some((name, declared.get(name)?)));
        fit.filter_map(|(name, it)| Some((name.clone(), self.clause_of(&it.proofs)?))).collect()
    }

    pub(super) fn operators(&self, bundle: &Bundle) -> Vec<(Name, u32)> {
        let declared = &bundle.declared().operators;
        let near = bundle.clauses().near(self).filter_map(|who| match who {
            Who::Operator(name) => Some(name),
            Who::Identity(_) => None,
        });
        let near: BTreeSet<_> = near.collect();
        let fit = near.into_iter().filter_map(|name| Some((name, declared.get(name)?)));
        fit.filter_map(|(name, it)| Some((name.clone(), self.clause_of(&it.proofs)?))).collect()
    }

    /// What an exact clause for this proof would name.
    fn named(&self) -> &str {
        match &self.via {
            Some(via) => via.node.as_str(),
            None => self.spiffe_id.as_deref().unwrap_or(&self.subject),
        }
    }

    fn fits(&self, clause: &ProofClause) -> bool {
        clause.issuer == self.issuer
            && match self.kind {
                ProofKind::IdToken => self.fits_token(clause),
                ProofKind::Certificate | ProofKind::Enrolment => self.fits_certificate(clause),
                ProofKind::Delegated => self.fits_workload(clause),
            }
    }

    fn fits_workload(&self, clause: &ProofClause) -> bool {
        let (Some(wanted), Some(via)) = (&clause.workload, &self.via) else { return false };
        let says_who = wanted.unit.is_some() || wanted.uid.is_some();
        says_who
            && wanted.node == via.node
            && (wanted.unit.is_none() || wanted.unit == via.unit)
            && (wanted.uid.is_none() || wanted.uid == via.uid)
    }

    // A clause that asks for nothing fits nothing: it would let in whoever the issuer knows.
    fn fits_token(&self, clause: &ProofClause) -> bool {
        let asks = clause.subject.is_some() || !clause.claims.is_empty();
        let foreign = clause.spiffe_id.is_some() || clause.dns_name.is_some() || clause.workload.is_some();
        asks && !foreign
            && clause.subject.as_ref().is_none_or(|subject| *subject == self.subject)
            && clause
                .claims
                .iter()
                .all(|(name, allowed)| self.claims.get(name).is_some_and(|value| allowed.contains(value)))
    }

    fn fits_certificate(&self, clause: &ProofClause) -> bool {
        if clause.subject.is_some() || !clause.claims.is_empty() || clause.workload.is_some() {
            return false;
        }
        match (&clause.spiffe_id, &clause.dns_name) {
            (Some(wanted), None) => self.spiffe_id.as_ref() == Some(wanted),
            (None, Some(wanted)) => self.spiffe_id.is_none() && self.dns_names.contains(wanted),
            _ => false,
        }
    }
}

#[derive(Debug, Clone)]
enum Who {
    Identity(IdentityName),
    Operator(Name),
}

/// Where to look for those whom a proof may fit, so that a caller is not compared with everybody. Made once a
/// bundle.
#[derive(Debug, Clone, Default)]
pub(crate) struct Clauses {
    issuers: BTreeMap<Name, OfIssuer>,
}

#[derive(Debug, Clone, Default)]
struct OfIssuer {
    by_exact_name: HashMap<String, Vec<Who>>,
    by_other_facts: Vec<Who>,
    used_claims: BTreeSet<String>,
}

impl Clauses {
    pub(crate) fn of(declared: &Declared) -> Self {
        let mut clauses = Self::default();
        for (name, issuer) in &declared.issuers {
            clauses.issuers.entry(name.clone()).or_default().used_claims = claims_of(declared, issuer);
        }
        for (name, it) in &declared.identities {
            it.proofs.iter().for_each(|clause| clauses.add(clause, Who::Identity(name.clone())));
        }
        for (name, it) in &declared.operators {
            it.proofs.iter().for_each(|clause| clauses.add(clause, Who::Operator(name.clone())));
        }
        clauses
    }

    fn add(&mut self, clause: &ProofClause, who: Who) {
        let of_issuer = self.issuers.entry(clause.issuer.clone()).or_default();
        of_issuer.used_claims.extend(clause.claims.keys().cloned());
        let name = clause.subject.as_deref().or(clause.spiffe_id.as_deref());
        match name.or(clause.workload.as_ref().map(|it| it.node.as_str())) {
            Some(exact) => of_issuer.by_exact_name.entry(exact.to_owned()).or_default().push(who),
            None => of_issuer.by_other_facts.push(who),
        }
    }

    fn near(&self, facts: &Facts) -> impl Iterator<Item = &Who> {
        let of_issuer = self.issuers.get(&facts.issuer).into_iter();
        of_issuer.flat_map(|it| {
            it.by_exact_name.get(facts.named()).into_iter().flatten().chain(&it.by_other_facts)
        })
    }

    /// The names of the claims of `issuer` that something declared looks at: a twin of one of these that differs
    /// by case spoils the proof.
    pub(super) fn used_claims(&self, issuer: &Name) -> Vec<&str> {
        let used = self.issuers.get(issuer).into_iter().flat_map(|it| &it.used_claims);
        used.map(String::as_str).collect()
    }
}

/// The claims that tasks copy, and the one that names the instance.
fn claims_of(declared: &Declared, issuer: &Issuer) -> BTreeSet<String> {
    let copied = declared.tasks.values().flat_map(|it| it.claims.values()).filter_map(|it| match it {
        ClaimSource::Proof(name) => Some(name),
        ClaimSource::Constant(_) => None,
    });
    let instance = match &issuer.kind {
        IssuerKind::Oidc { instance_claim, .. } => instance_claim.as_ref(),
        IssuerKind::ClientCa { .. } | IssuerKind::Nodes => None,
    };
    copied.chain(instance).cloned().collect()
}
