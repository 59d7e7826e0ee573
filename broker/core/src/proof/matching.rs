//! Which identities and operators a verified proof fits.

use std::collections::{BTreeMap, BTreeSet};

use daypass_evidence::entry::ProofKind;
use daypass_verify::ids::{IdentityName, Name};

use crate::bundle::object::{ClaimSource, Declared, IssuerKind, ProofClause};

/// What a verified proof says, and what clauses are compared with.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) issuer: Name,
    pub(crate) kind: ProofKind,
    pub(crate) subject: String,
    pub(crate) claims: BTreeMap<String, String>,
    pub(crate) spiffe_id: Option<String>,
    pub(crate) dns_names: Vec<String>,
}

impl Facts {
    /// The first of `clauses` that the proof fits.
    pub(crate) fn clause_of(&self, clauses: &[ProofClause]) -> Option<u32> {
        clauses.iter().position(|clause| self.fits(clause)).and_then(|at| u32::try_from(at).ok())
    }

    pub(super) fn identities(&self, declared: &Declared) -> Vec<(IdentityName, u32)> {
        let fit = declared.identities.iter();
        fit.filter_map(|(name, it)| Some((name.clone(), self.clause_of(&it.proofs)?))).collect()
    }

    pub(super) fn operators(&self, declared: &Declared) -> Vec<(Name, u32)> {
        let fit = declared.operators.iter();
        fit.filter_map(|(name, it)| Some((name.clone(), self.clause_of(&it.proofs)?))).collect()
    }

    fn fits(&self, clause: &ProofClause) -> bool {
        clause.issuer == self.issuer
            && match self.kind {
                ProofKind::IdToken => self.fits_token(clause),
                ProofKind::Certificate => self.fits_certificate(clause),
                ProofKind::Delegated | ProofKind::Enrolment => false,
            }
    }

    // A clause that asks for nothing fits nothing: it would let in whoever the issuer knows.
    fn fits_token(&self, clause: &ProofClause) -> bool {
        let asks = clause.subject.is_some() || !clause.claims.is_empty();
        let foreign = clause.spiffe_id.is_some() || clause.dns_name.is_some();
        asks && !foreign
            && clause.subject.as_ref().is_none_or(|subject| *subject == self.subject)
            && clause
                .claims
                .iter()
                .all(|(name, allowed)| self.claims.get(name).is_some_and(|value| allowed.contains(value)))
    }

    fn fits_certificate(&self, clause: &ProofClause) -> bool {
        if clause.subject.is_some() || !clause.claims.is_empty() {
            return false;
        }
        match (&clause.spiffe_id, &clause.dns_name) {
            (Some(wanted), None) => self.spiffe_id.as_ref() == Some(wanted),
            (None, Some(wanted)) => self.spiffe_id.is_none() && self.dns_names.contains(wanted),
            _ => false,
        }
    }
}

/// The names of the claims of `issuer` that something declared looks at: a twin of one of these that differs by
/// case spoils the proof.
pub(super) fn used_claims<'a>(declared: &'a Declared, issuer: &Name) -> BTreeSet<&'a str> {
    let clauses = declared.identities.values().flat_map(|it| &it.proofs);
    let clauses = clauses.chain(declared.operators.values().flat_map(|it| &it.proofs));
    let of_clauses = clauses.filter(|it| it.issuer == *issuer).flat_map(|it| it.claims.keys());
    let copied = declared.tasks.values().flat_map(|it| it.claims.values()).filter_map(|it| match it {
        ClaimSource::Proof(name) => Some(name),
        ClaimSource::Constant(_) => None,
    });
    let instance = declared.issuers.get(issuer).and_then(|it| match &it.kind {
        IssuerKind::Oidc { instance_claim, .. } => instance_claim.as_ref(),
        IssuerKind::ClientCa { .. } => None,
    });
    of_clauses.chain(copied).chain(instance).map(String::as_str).collect()
}
