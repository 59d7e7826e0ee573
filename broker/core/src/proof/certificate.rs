//! Client certificates: the chain is checked against each declared client CA, and the one that claims it is the
//! issuer.

use std::collections::BTreeMap;

use daypass_evidence::entry::{ProofKind, ProofUse};
use daypass_verify::certificate::{CertificateError, VerifiedLeaf, self_signed_holder, verify_client_chain};
use daypass_verify::ids::Name;
use daypass_verify::ids::TrustDomain;
use daypass_verify::time::UnixMs;
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::matching::Facts;
use super::principal::{Binding, Principal};
use super::{IssuerKeys, KnownKeys, ProofError};
use crate::bundle::Bundle;
use crate::bundle::object::{Issuer, IssuerKind};

/// The principal of a chain; none where no declared client CA claims it.
pub(super) fn verify(
    chain: &[CertificateDer<'static>],
    bundle: &Bundle,
    known: &KnownKeys,
    now: UnixMs,
) -> Result<Option<Principal>, ProofError> {
    let mut failed = None;
    for (name, issuer) in &bundle.declared().issuers {
        let IssuerKind::ClientCa { trust_domain, crl_file, .. } = &issuer.kind else { continue };
        match check_chain(chain, name, crl_file.is_some(), known, now) {
            Ok(Some(leaf)) => {
                return principal(name, issuer, trust_domain.as_ref(), &leaf, bundle).map(Some);
            }
            Ok(None) => {}
            // Another CA may still claim it: two of them may have one name.
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    failed.map_or(Ok(None), Err)
}

fn check_chain(
    chain: &[CertificateDer<'static>],
    issuer: &Name,
    needs_crl: bool,
    known: &KnownKeys,
    now: UnixMs,
) -> Result<Option<VerifiedLeaf>, ProofError> {
    let unavailable = || ProofError::KeysUnavailable { issuer: issuer.clone() };
    let IssuerKeys::Ca { anchors, crls } = known.keys(issuer) else { return Err(unavailable()) };
    let checked = verify_client_chain(chain, &anchors, crls.as_deref(), now);
    match checked {
        // Only a chain of this CA waits for its lists: other callers must not suffer from their absence.
        Ok(_) if needs_crl && crls.is_none() => Err(unavailable()),
        Ok(leaf) => Ok(Some(leaf)),
        Err(CertificateError::UnknownIssuer) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// What a certificate that no issuer claims still shows: possession of its key.
pub(super) fn holder(chain: &[CertificateDer<'static>]) -> Result<Binding, ProofError> {
    let leaf = chain.first().ok_or(CertificateError::Empty)?;
    Ok(Binding::from(&self_signed_holder(leaf)?))
}

/// Whether the leaf names itself as its issuer: made for this connection, and claimed by nobody else.
pub(super) fn is_self_issued(chain: &[CertificateDer<'static>]) -> Result<bool, ProofError> {
    let leaf = chain.first().ok_or(CertificateError::Empty)?;
    let (_, leaf) = X509Certificate::from_der(leaf).map_err(|_| CertificateError::Malformed)?;
    Ok(leaf.subject().as_raw() == leaf.issuer().as_raw())
}

fn principal(
    name: &Name,
    issuer: &Issuer,
    trust_domain: Option<&TrustDomain>,
    leaf: &VerifiedLeaf,
    bundle: &Bundle,
) -> Result<Principal, ProofError> {
    if leaf.task_extension().is_some() {
        let why = "a credential of this broker is no proof: show what your own platform issued";
        return Err(ProofError::refused("OWN_CREDENTIAL", why));
    }
    let facts = facts(name, trust_domain, leaf)?;
    Ok(Principal {
        identities: facts.identities(bundle),
        operators: facts.operators(bundle),
        bundle: bundle.digest(),
        node: None,
        facts,
        issuer_id: name.to_string(),
        issuer_disabled: issuer.disabled,
        instance: None,
        digest: leaf.der_digest(),
        signed: leaf.der_digest(),
        issued_at: leaf.not_before(),
        expires_at: leaf.not_after(),
        caps: true,
        // Each connection proves possession of the key anew: there is nothing that could be replayed.
        usage: ProofUse::UntilExpiry,
        actor: issuer.actor,
        binding: Some(Binding::from(leaf)),
    })
}

fn facts(name: &Name, trust_domain: Option<&TrustDomain>, leaf: &VerifiedLeaf) -> Result<Facts, ProofError> {
    let spiffe_id = if leaf.uri_sans().is_empty() && trust_domain.is_none() {
        None
    } else {
        let id = leaf.spiffe_id()?;
        if trust_domain != Some(&id.trust_domain()) {
            let why = format!("the certificate names `{id}`, which is not in this CA's trust domain");
            return Err(ProofError::refused("FOREIGN_TRUST_DOMAIN", why));
        }
        Some(id.to_string())
    };
    let dns_names = if spiffe_id.is_some() { Vec::new() } else { leaf.dns_sans().to_vec() };
    let Some(subject) = spiffe_id.clone().or_else(|| dns_names.first().cloned()) else {
        return Err(CertificateError::SpiffeId.into());
    };
    let (claims, via) = (BTreeMap::new(), None);
    Ok(Facts {
        issuer: name.clone(),
        kind: ProofKind::Certificate,
        subject,
        claims,
        spiffe_id,
        dns_names,
        via,
    })
}
