//! What was issued, after it was verified.

use daypass_evidence::checkpoint::Checkpoint;
use daypass_evidence::tree::Hash;
use daypass_proto::v1;
use daypass_verify::ids::{CredentialId, Digest, Name, SpiffeId};
use daypass_verify::scope::Scope;
use daypass_verify::time::UnixMs;
use rustls_pki_types::CertificateDer;
use secrecy::SecretString;

use crate::holder::pem;

/// A credential, what it is good for, and the evidence of it.
#[derive(Debug)]
pub struct Credential {
    /// The token's `jti`, the certificate's serial number, the id of the entry.
    pub id: CredentialId,
    /// The credential itself.
    pub secret: Secret,
    /// What was granted.
    pub granted: Grant,
    /// Where less was granted than asked: `ttl`, `audiences`, `actions`, `resources`.
    pub narrowed: Vec<String>,
    /// When to renew it; add jitter.
    pub renew_after: UnixMs,
    /// The evidence, already verified.
    pub receipt: Receipt,
    /// The id of the request.
    pub request_id: Option<String>,
}

/// The credential itself.
#[derive(Debug)]
pub enum Secret {
    /// A token.
    Token {
        /// The compact serialisation.
        value: SecretString,
        /// `Bearer`, also where it is bound to a certificate (RFC 8705); `N_A` for what is no access token
        /// (RFC 8693, section 2.2.1).
        kind: String,
        /// The certificate whose key must be shown together with it; none for a bearer token.
        bound: Option<Digest>,
    },
    /// A certificate.
    Certificate {
        /// Leaf first, without the root.
        chain: Vec<CertificateDer<'static>>,
        /// The roots that the broker publishes.
        roots: Vec<CertificateDer<'static>>,
        /// The key as PKCS#8 PEM, where it was made here.
        key: Option<SecretString>,
    },
}

impl Secret {
    /// The chain and the roots of a certificate as PEM; nothing for a token.
    #[must_use]
    pub fn certificate_pem(&self) -> Option<(String, String)> {
        let text = |ders: &[CertificateDer<'_>]| ders.iter().map(|der| pem("CERTIFICATE", der)).collect();
        match self {
            Self::Token { .. } => None,
            Self::Certificate { chain, roots, .. } => Some((text(chain), text(roots))),
        }
    }
}

/// What a credential permits, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The SPIFFE ID.
    pub subject: SpiffeId,
    /// The task.
    pub task: Name,
    /// Audiences, actions, resources.
    pub scope: Scope,
    /// When it was decided.
    pub issued_at: UnixMs,
    /// The first moment at which it is valid.
    pub not_before: UnixMs,
    /// The end of its life.
    pub expires_at: UnixMs,
    /// How a revocation would arrive at the target.
    pub reach: v1::Reach,
}

/// How long before its end a credential is no longer handed out, at most, in ms.
const MARGIN_MS_MAX: i64 = 5_000;

impl Grant {
    /// How long before its end it is no longer handed out, so that it is still good when it arrives: five seconds, or a
    /// tenth of its life where it lives for less than 50.
    pub(crate) fn margin_ms(&self) -> i64 {
        (self.expires_at.millis_since(self.issued_at) / 10).clamp(0, MARGIN_MS_MAX)
    }

    /// From when on it is no longer handed out, though it lives a little longer.
    #[must_use]
    pub fn handed_out_until(&self) -> UnixMs {
        self.expires_at.plus_millis(-self.margin_ms())
    }
}

/// What a request would get; nothing was issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preview {
    /// What would be granted.
    pub granted: Grant,
    /// Where that is less than asked.
    pub narrowed: Vec<String>,
    /// The id of the request.
    pub request_id: Option<String>,
}

/// The evidence of an issuance: its entry stands at `index` in a log with this checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The position of the entry.
    pub index: u64,
    /// The entry's leaf hash (RFC 6962).
    pub leaf: Hash,
    /// The checkpoint.
    pub checkpoint: Checkpoint,
    /// The signed note that carried it.
    pub note: Vec<u8>,
    /// The path from the leaf to the root.
    pub inclusion: Vec<Hash>,
}
