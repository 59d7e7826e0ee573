//! Proof to principal: what a caller shows is checked against the one issuer that it names, and against nothing
//! else. A [`Principal`] exists only where that succeeded.

mod certificate;
mod id_token;
mod matching;
mod node;
#[cfg(test)]
pub(crate) mod platforms;
mod principal;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use daypass_verify::certificate::{CertificateError, Crls, Holder, TrustAnchors, self_signed_holder};
use daypass_verify::ids::{Digest, Name, TrustDomain};
use daypass_verify::jose::{JoseError, UnverifiedToken};
use daypass_verify::jwks::KeySet;
use daypass_verify::time::{Seconds, UnixMs};
use rustls_pki_types::CertificateDer;

pub(crate) use matching::Clauses;
#[cfg(test)]
pub(crate) use node::proven_node;
pub use node::{Attested, Enrolment, NodeProof};
pub use principal::{Binding, Principal, SpentMark};

use crate::bundle::Bundle;

/// How far the clock of an issuer of tokens may be off.
pub const LEEWAY: Seconds = Seconds::new(30);

/// What a caller shows, before anything in it is believed.
#[derive(Debug)]
pub enum UnverifiedProof {
    /// An ID token, with the certificate that it is to be bound to, if the connection has one.
    IdToken {
        /// The token.
        token: UnverifiedToken,
        /// The certificate whose key the connection has proven possession of.
        holder: Option<Holder>,
    },
    /// A client certificate.
    Certificate {
        /// The chain of the connection, leaf first.
        chain: Vec<CertificateDer<'static>>,
    },
    /// The one-time code of a node, and what the log says of the one that it names.
    Code {
        /// SHA-256 of what was shown.
        shown: Digest,
        /// What the log says.
        enrolment: Box<Enrolment>,
        /// Our own trust domain.
        trust_domain: TrustDomain,
    },
    /// A certificate that says it is a node's.
    Node {
        /// The chain of the connection, leaf first.
        chain: Vec<CertificateDer<'static>>,
        /// The broker's own issuing CAs.
        anchors: TrustAnchors,
        /// Our own trust domain.
        trust_domain: TrustDomain,
    },
    /// A token on a connection with a client certificate. Where a declared issuer claims the certificate, both
    /// must lead to one identity; a certificate that none claims proves possession only, and binds.
    Both {
        /// The token.
        token: UnverifiedToken,
        /// The chain of the connection, leaf first.
        chain: Vec<CertificateDer<'static>>,
    },
}

/// The keys of one declared issuer, as the broker has them at this moment.
#[derive(Debug, Clone)]
pub enum IssuerKeys {
    /// The key set of an OIDC issuer.
    Jwks(Arc<KeySet>),
    /// The roots of a client CA.
    Ca {
        /// Its roots.
        anchors: Arc<TrustAnchors>,
        /// Its revocation lists, where it is declared with some.
        crls: Option<Arc<Crls>>,
    },
    /// Not to be had, or too old to be used.
    Unavailable,
}

/// The keys of all declared issuers: a snapshot, made by the broker.
#[derive(Debug, Clone, Default)]
pub struct KnownKeys(HashMap<Name, IssuerKeys>);

impl KnownKeys {
    /// A snapshot of these keys.
    #[must_use]
    pub fn new(keys: HashMap<Name, IssuerKeys>) -> Self {
        Self(keys)
    }

    /// The keys of `issuer`; an issuer that the snapshot does not name has none available.
    #[must_use]
    pub fn keys(&self, issuer: &Name) -> IssuerKeys {
        self.0.get(issuer).cloned().unwrap_or(IssuerKeys::Unavailable)
    }
}

/// Why a proof leads to no principal. Strangers are told no more than `PROOF_REFUSED`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// It is no good.
    #[error("the proof is refused ({inner}): {detail}")]
    Refused {
        /// The inner reason, for counts and logs.
        inner: &'static str,
        /// What was wrong.
        detail: String,
    },
    /// The token names a key that is not in the issuer's set as it is known here: one refresh may bring it.
    #[error("no key of issuer `{issuer}` has the token's `kid`")]
    UnknownKey {
        /// The issuer.
        issuer: Name,
    },
    /// The signature does not fit the known key: one refresh may show that the key was replaced.
    #[error("the signature does not fit the key of issuer `{issuer}` that the token names")]
    ReplacedKey {
        /// The issuer.
        issuer: Name,
    },
    /// The issuer's keys, or its revocation lists, are not to be had.
    #[error("the keys of issuer `{issuer}` are not available: try again later")]
    KeysUnavailable {
        /// The issuer.
        issuer: Name,
    },
}

impl ProofError {
    pub(crate) fn refused(inner: &'static str, detail: impl Into<String>) -> Self {
        Self::Refused { inner, detail: detail.into() }
    }

    /// The inner reason, for counts and logs.
    #[must_use]
    pub fn inner_reason(&self) -> &'static str {
        match self {
            Self::Refused { inner, .. } => inner,
            Self::UnknownKey { .. } => "UNKNOWN_KEY",
            Self::ReplacedKey { .. } => "BAD_SIGNATURE",
            Self::KeysUnavailable { .. } => "ISSUER_KEYS_UNAVAILABLE",
        }
    }
}

impl From<JoseError> for ProofError {
    fn from(error: JoseError) -> Self {
        Self::refused(error.inner_reason(), error.to_string())
    }
}

impl From<CertificateError> for ProofError {
    fn from(error: CertificateError) -> Self {
        Self::refused(error.inner_reason(), error.to_string())
    }
}

/// What the certificate of a connection shows where it names itself as its issuer: possession of its key, and no more.
/// None where another issued it. It is the same for every call on the connection.
///
/// # Errors
/// When there is no certificate, or it cannot be read, or its key is not accepted.
pub fn possession(chain: &[CertificateDer<'static>]) -> Result<Option<Holder>, ProofError> {
    if !certificate::is_self_issued(chain)? {
        return Ok(None);
    }
    let leaf = chain.first().ok_or(CertificateError::Empty)?;
    Ok(Some(self_signed_holder(leaf)?))
}

impl UnverifiedProof {
    /// Checks the proof at `now` and names its principal. `our_issuer` is the broker's own issuer id: the only
    /// audience that a token may have, and the one issuer that is never believed.
    ///
    /// # Errors
    /// When the proof is no good, or the keys to check it with are missing.
    pub fn verify(
        self,
        bundle: &Bundle,
        known: &KnownKeys,
        our_issuer: &str,
        now: UnixMs,
    ) -> Result<Principal, ProofError> {
        match self {
            Self::IdToken { token, holder } => {
                let principal = id_token::verify(token, bundle, known, our_issuer, now)?;
                Ok(match holder {
                    Some(holder) => principal.bound_to(Binding::from(&holder)),
                    None => principal,
                })
            }
            Self::Certificate { chain } => certificate::verify(&chain, bundle, known, now)?
                .ok_or_else(|| CertificateError::UnknownIssuer.into()),
            Self::Code { shown, enrolment, trust_domain } => {
                node::by_code(shown, &enrolment, &trust_domain, bundle, now)
            }
            Self::Node { chain, anchors, trust_domain } => {
                node::by_certificate(&chain, &anchors, &trust_domain, bundle, now)
            }
            Self::Both { token, chain } => {
                let principal = id_token::verify(token, bundle, known, our_issuer, now)?;
                if let Some(holder) = possession(&chain)? {
                    return Ok(principal.bound_to(Binding::from(&holder)));
                }
                match certificate::verify(&chain, bundle, known, now)? {
                    Some(of_certificate) => principal.joined_with(&of_certificate),
                    None => Ok(principal.bound_to(certificate::holder(&chain)?)),
                }
            }
        }
    }
}
