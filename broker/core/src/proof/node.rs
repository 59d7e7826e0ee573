//! Nodes: the one-time code that lets a machine in, and the node certificate by which it asks from then on. Either proves
//! the node itself and nobody else.

use std::collections::BTreeMap;

use daypass_evidence::entry::{Index, ProofKind, ProofUse, Via};
use daypass_verify::certificate::TrustAnchors;
use daypass_verify::credential::{CredentialError, VerifiedCertificate, verify_node_certificate};
use daypass_verify::ids::{CredentialId, Digest, IdentityName, Name, TrustDomain};
use daypass_verify::time::UnixMs;
use rustls_pki_types::CertificateDer;

use super::ProofError;
use super::matching::Facts;
use super::principal::{Binding, Principal};
use crate::bundle::Bundle;
use crate::bundle::object::{Class, Issuer, IssuerKind};

/// What the log says of a code: who may enrol with it, and until when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enrolment {
    /// SHA-256 of the code.
    pub code: Digest,
    /// The node.
    pub identity: IdentityName,
    /// When the code was made.
    pub made: UnixMs,
    /// Until when it may be shown.
    pub until: UnixMs,
    /// The entry that says so.
    pub at: Index,
}

/// How a node has proven itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeProof {
    /// By a code: what it buys names this entry.
    Code(Index),
    /// By its certificate: the credential with this id.
    Certificate(CredentialId),
}

/// What the agent of a node attests about a process of its machine. Numbers that are soon another's (its process) are not
/// kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attested {
    /// The systemd unit.
    pub unit: Option<String>,
    /// The number of its user.
    pub uid: u32,
    /// Which running instance it is, where there are several.
    pub instance: Option<String>,
}

impl Principal {
    /// The workload that this node speaks for: whoever is declared to be what it attests. One that does not prove itself by
    /// its own certificate speaks for nobody, so a workload that was spoken for speaks for none either.
    #[must_use]
    pub fn speaking_for(&self, attested: Attested, bundle: &Bundle) -> Option<Self> {
        let Some(NodeProof::Certificate(_)) = self.node else { return None };
        let (node, _) = self.identities.first()?;
        let Attested { unit, uid, instance } = attested;
        let via = Some(Via { node: node.clone(), at: None, unit, uid: Some(uid) });
        let facts = Facts { kind: ProofKind::Delegated, via, ..self.facts.clone() };
        Some(Self {
            identities: facts.identities(bundle),
            operators: Vec::new(),
            bundle: bundle.digest(),
            issuer_id: self.issuer_id.clone(),
            instance,
            node: None,
            facts,
            ..*self
        })
    }
}

/// The principal of a code of which SHA-256 is `shown`.
pub(super) fn by_code(
    shown: Digest,
    enrolment: &Enrolment,
    trust_domain: &TrustDomain,
    bundle: &Bundle,
    now: UnixMs,
) -> Result<Principal, ProofError> {
    if !is_same(&shown, &enrolment.code) {
        return Err(ProofError::refused("UNKNOWN_CODE", "no such code was given out"));
    }
    if now >= enrolment.until {
        let why = format!("the code was good until {}: ask an operator for another", enrolment.until);
        return Err(ProofError::refused("CODE_TOO_OLD", why));
    }
    let (issuer, declared) = issuer(bundle)?;
    let facts = facts(issuer, ProofKind::Enrolment, &enrolment.identity, trust_domain);
    let principal = Principal {
        digest: shown,
        signed: shown,
        issued_at: enrolment.made,
        expires_at: enrolment.until,
        usage: ProofUse::Once,
        binding: None,
        node: Some(NodeProof::Code(enrolment.at)),
        ..principal(facts, declared, &enrolment.identity, bundle)
    };
    Ok(principal)
}

/// The principal of a node certificate that one of our own CAs, `anchors`, has signed.
pub(super) fn by_certificate(
    chain: &[CertificateDer<'static>],
    anchors: &TrustAnchors,
    trust_domain: &TrustDomain,
    bundle: &Bundle,
    now: UnixMs,
) -> Result<Principal, ProofError> {
    let seen = verify_node_certificate(chain, anchors, trust_domain, now).map_err(refused)?;
    let (issuer, declared) = issuer(bundle)?;
    let VerifiedCertificate { credential_id, subject, leaf, .. } = seen;
    let identity = subject
        .path()
        .parse()
        .map_err(|_| ProofError::refused("BAD_SPIFFE_ID", "the certificate names no identity"))?;
    let facts = facts(issuer, ProofKind::Certificate, &identity, trust_domain);
    let principal = Principal {
        digest: leaf.der_digest(),
        signed: leaf.der_digest(),
        issued_at: leaf.not_before(),
        expires_at: leaf.not_after(),
        usage: ProofUse::UntilExpiry,
        binding: Some(Binding::from(&leaf)),
        node: Some(NodeProof::Certificate(credential_id)),
        ..principal(facts, declared, &identity, bundle)
    };
    Ok(principal)
}

fn refused(error: CredentialError) -> ProofError {
    match error {
        CredentialError::Certificate(error) => error.into(),
        other => ProofError::refused("NO_NODE_CERTIFICATE", other.to_string()),
    }
}

/// The one issuer that stands for nodes.
fn issuer(bundle: &Bundle) -> Result<(&Name, &Issuer), ProofError> {
    let mut issuers = bundle.declared().issuers.iter();
    issuers.find(|(_, issuer)| issuer.kind == IssuerKind::Nodes).ok_or_else(|| {
        ProofError::refused("NO_NODES", "no issuer of kind `nodes` is declared: nodes prove nothing here")
    })
}

fn facts(issuer: &Name, kind: ProofKind, identity: &IdentityName, trust_domain: &TrustDomain) -> Facts {
    let id = identity.spiffe_id(trust_domain).to_string();
    let (claims, dns_names) = (BTreeMap::new(), Vec::new());
    let issuer = issuer.clone();
    Facts { issuer, kind, subject: id.clone(), claims, spiffe_id: Some(id), dns_names, via: None }
}

/// What is the same for both: it fits the node itself, where that is declared as one, and never an operator.
fn principal(facts: Facts, issuer: &Issuer, identity: &IdentityName, bundle: &Bundle) -> Principal {
    let declared = bundle.declared();
    let is_node =
        |name: &IdentityName| declared.identities.get(name).is_some_and(|it| it.class == Class::Node);
    let mut identities = facts.identities(bundle);
    identities.retain(|(name, _)| name == identity && is_node(name));
    Principal {
        identities,
        operators: Vec::new(),
        bundle: bundle.digest(),
        issuer_id: facts.issuer.to_string(),
        issuer_disabled: issuer.disabled,
        instance: None,
        caps: true,
        actor: issuer.actor,
        facts,
        digest: Digest::from_bytes([0; 32]),
        signed: Digest::from_bytes([0; 32]),
        issued_at: UnixMs::default(),
        expires_at: UnixMs::default(),
        usage: ProofUse::Once,
        binding: None,
        node: None,
    }
}

/// Whether two digests are the same, in a time that says nothing of where they differ.
fn is_same(a: &Digest, b: &Digest) -> bool {
    let differing = a.as_bytes().iter().zip(b.as_bytes()).fold(0, |differing, (a, b)| differing | (a ^ b));
    std::hint::black_box(differing) == 0
}

/// A node that has proven itself in this way, for tests of what comes after.
#[cfg(test)]
pub(crate) fn proven_node(identity: &str, proof: NodeProof, bundle: &Bundle) -> Principal {
    let (issuer, declared) = issuer(bundle).unwrap();
    let (identity, now) = (identity.parse().unwrap(), crate::fixture::NOW);
    let facts = facts(issuer, ProofKind::Certificate, &identity, &"example.org".parse().unwrap());
    Principal {
        issued_at: now,
        expires_at: now.plus_millis(3_600_000),
        usage: ProofUse::UntilExpiry,
        node: Some(proof),
        ..principal(facts, declared, &identity, bundle)
    }
}
