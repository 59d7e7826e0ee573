//! A caller whose proof held.

use std::collections::BTreeMap;

use daypass_evidence::entry::{Actor, ProofKind, ProofUse, Via};
use daypass_verify::certificate::{Holder, VerifiedLeaf};
use daypass_verify::ids::{Digest, IdentityName, Name};
use daypass_verify::time::{Seconds, UnixMs};

use super::matching::Facts;
use super::{NodeProof, ProofError};

/// How long after its end a spent proof is remembered: the leeway, and then some for clocks that differ.
const MARK_SLACK: Seconds = Seconds::new(60);

/// The certificate of the connection, whose key the caller holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Binding {
    /// SHA-256 of the DER certificate: `x5t#S256` (RFC 8705, section 3.1).
    pub certificate: Digest,
    /// SHA-256 of its SPKI.
    pub key: Digest,
    /// `notAfter`.
    pub expires_at: UnixMs,
}

impl From<&Holder> for Binding {
    fn from(holder: &Holder) -> Self {
        Self { certificate: holder.der_digest, key: holder.spki_digest, expires_at: holder.not_after }
    }
}

impl From<&VerifiedLeaf> for Binding {
    fn from(leaf: &VerifiedLeaf) -> Self {
        Self { certificate: leaf.der_digest(), key: leaf.spki_digest(), expires_at: leaf.not_after() }
    }
}

/// What the store remembers of a proof that buys one credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpentMark {
    /// SHA-256 of what its issuer signed.
    pub key: Digest,
    /// When it may be forgotten.
    pub expires: UnixMs,
}

/// A caller whose proof held. Made by `UnverifiedProof::verify` alone.
#[derive(Debug)]
pub struct Principal {
    pub(super) facts: Facts,
    pub(super) issuer_id: String,
    pub(super) issuer_disabled: bool,
    pub(super) instance: Option<String>,
    pub(super) digest: Digest,
    pub(super) signed: Digest,
    pub(super) issued_at: UnixMs,
    pub(super) expires_at: UnixMs,
    pub(super) caps: bool,
    pub(super) usage: ProofUse,
    pub(super) actor: Actor,
    pub(super) binding: Option<Binding>,
    pub(super) identities: Vec<(IdentityName, u32)>,
    pub(super) operators: Vec<(Name, u32)>,
    pub(super) bundle: Digest,
    pub(super) node: Option<NodeProof>,
}

impl Principal {
    /// The declared issuer whose proof it showed.
    #[must_use]
    pub fn issuer(&self) -> &Name {
        &self.facts.issuer
    }

    /// The issuer's own name: `iss`, or the declared name of a client CA.
    #[must_use]
    pub fn issuer_id(&self) -> &str {
        &self.issuer_id
    }

    /// Whether the issuer is switched off: the proof holds, and every request is denied.
    #[must_use]
    pub fn issuer_is_disabled(&self) -> bool {
        self.issuer_disabled
    }

    /// Token or certificate.
    #[must_use]
    pub fn kind(&self) -> ProofKind {
        self.facts.kind
    }

    /// `sub`, or the SPIFFE ID or DNS name of the certificate.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.facts.subject
    }

    /// Which running instance showed it, where the issuer says so.
    #[must_use]
    pub fn instance(&self) -> Option<&str> {
        self.instance.as_deref()
    }

    /// SHA-256 of the whole token or DER certificate.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The identities that it fits, each with the index of the clause that it matches.
    #[must_use]
    pub fn identities(&self) -> &[(IdentityName, u32)] {
        &self.identities
    }

    /// The operators that it fits, each with the index of the clause that it matches.
    #[must_use]
    pub fn operators(&self) -> &[(Name, u32)] {
        &self.operators
    }

    /// How often the proof may be shown.
    #[must_use]
    pub fn usage(&self) -> ProofUse {
        self.usage
    }

    /// Who is behind it, as its issuer declares.
    #[must_use]
    pub fn actor(&self) -> Actor {
        self.actor
    }

    /// When the proof was made.
    #[must_use]
    pub fn issued_at(&self) -> UnixMs {
        self.issued_at
    }

    /// When the proof ends, without leeway.
    #[must_use]
    pub fn expires_at(&self) -> UnixMs {
        self.expires_at
    }

    /// The claims that are text, whole numbers or booleans, as text.
    #[must_use]
    pub fn claims(&self) -> &BTreeMap<String, String> {
        &self.facts.claims
    }

    /// The certificate of the connection: tokens are bound to it.
    #[must_use]
    pub fn bound_certificate(&self) -> Option<&Binding> {
        self.binding.as_ref()
    }

    /// The mark that spends the proof; none where it may be shown again.
    #[must_use]
    pub fn spent_mark(&self) -> Option<SpentMark> {
        (self.usage == ProofUse::Once)
            .then(|| SpentMark { key: self.signed, expires: self.expires_at.plus(MARK_SLACK) })
    }

    /// Whether it was verified under the bundle with this digest and no certificate in it has ended at `now`:
    /// what a connection may keep between calls.
    #[must_use]
    pub fn holds_under(&self, bundle: Digest, now: UnixMs) -> bool {
        let certificate_holds = self.binding.is_none_or(|it| now < it.expires_at);
        self.bundle == bundle && now < self.expires_at && certificate_holds
    }

    /// Until when the proof lets what it buys live: the end of its certificate, and of a token where its issuer
    /// is declared so.
    pub(crate) fn cap(&self) -> Option<UnixMs> {
        let of_token = (self.caps || self.kind() != ProofKind::IdToken).then_some(self.expires_at);
        [of_token, self.binding.map(|it| it.expires_at)].into_iter().flatten().min()
    }

    /// How it has proven itself as a node, where it is one.
    #[must_use]
    pub fn node(&self) -> Option<NodeProof> {
        self.node
    }

    /// What a node attests of it, where it does not speak for itself.
    #[must_use]
    pub fn via(&self) -> Option<&Via> {
        self.facts.via.as_ref()
    }

    pub(crate) fn facts(&self) -> &Facts {
        &self.facts
    }

    pub(super) fn bound_to(mut self, binding: Binding) -> Self {
        self.binding = Some(binding);
        self
    }

    /// The principal of a token and a certificate that both hold: whoever both of them are.
    pub(super) fn joined_with(mut self, of_certificate: &Self) -> Result<Self, ProofError> {
        self.identities.retain(|(name, _)| of_certificate.identities.iter().any(|(it, _)| it == name));
        self.operators.retain(|(name, _)| of_certificate.operators.iter().any(|(it, _)| it == name));
        if self.identities.is_empty() && self.operators.is_empty() {
            return Err(ProofError::refused(
                "PROOFS_DISAGREE",
                "the token and the certificate lead to no identity that is the same: send one of them",
            ));
        }
        self.issuer_disabled |= of_certificate.issuer_disabled;
        self.binding = of_certificate.binding;
        Ok(self)
    }
}
