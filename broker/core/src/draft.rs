//! Grant to the exact bytes that will be signed, and the entry that must be durable before they are.

mod certificate;
mod key;
mod lint;
#[cfg(test)]
mod tests;
mod token;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use daypass_evidence::canonical::CanonicalError;
use daypass_evidence::entry::{Body, CredentialType, Index, NewEntry};
use daypass_verify::ids::{CredentialId, Digest, KeyId};
use daypass_verify::time::{Seconds, UnixMs};

pub use certificate::assemble as assemble_certificate;
pub use key::SigningKey;

use crate::decision::Grant;
use crate::proof::{Principal, SpentMark};

/// How long a caller's request id is remembered at least; ids lie in buckets of this length, two of which count.
const REQUEST_BUCKET_MS: i64 = 600_000;
/// How long after its end a renewed node certificate is remembered, for clocks that differ.
const NODE_SLACK: Seconds = Seconds::new(60);
/// An ES256 signature in a JWS: r and s, 32 bytes each (RFC 7518, section 3.4).
const P1363_LEN: usize = 64;
/// How long an RS256 signature is: as long as the modulus, of 2048 to 4096 bits.
const RSA_LEN: std::ops::RangeInclusive<usize> = 256..=512;

/// A credential that is not signed yet. It cannot be copied: one draft, one record, one signature.
#[derive(Debug)]
pub struct Draft {
    grant: Grant,
    tbs: Vec<u8>,
    entry: NewEntry,
    marks: Vec<Mark>,
}

/// Why no draft can be made of a grant: a fault of the broker or of its keys, never of the caller.
#[derive(Debug, thiserror::Error)]
pub enum DraftError {
    /// The key is not the one that the decision named.
    #[error("the key at hand is not `{expected}`, under which the request was decided")]
    OtherKey {
        /// The key that the decision named.
        expected: KeyId,
    },
    /// The key does not fit the kind of credential.
    #[error("the key cannot sign this kind of credential: expected {0}")]
    WrongKey(&'static str),
    /// The CA's own certificate cannot be used.
    #[error("the certificate of the issuing CA cannot be used: {0}")]
    Authority(String),
    /// A value that has no place in a credential.
    #[error("a value cannot be written into a credential: {0}")]
    Value(String),
    /// The finished bytes break one of our own rules for certificates.
    #[error("the certificate would not be as it must be: expected {0}")]
    Lint(&'static str),
    /// The signature has not the form that the credential needs.
    #[error("expected a signature of {0}")]
    Signature(&'static str),
}

impl DraftError {
    /// The stable code for logs and alarms.
    #[must_use]
    pub fn inner_reason(&self) -> &'static str {
        match self {
            Self::Lint(_) => "LINT_FAILED",
            Self::OtherKey { .. } | Self::WrongKey(_) | Self::Authority(_) => "KEY_UNUSABLE",
            Self::Value(_) => "VALUE_REFUSED",
            Self::Signature(_) => "SIGNATURE_REFUSED",
        }
    }
}

impl From<CanonicalError> for DraftError {
    fn from(error: CanonicalError) -> Self {
        Self::Value(error.to_string())
    }
}

/// What a mark keeps from happening twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MarkKind {
    /// A proof that buys one credential.
    Proof,
    /// A request id of a caller.
    Request,
    /// A node certificate that was renewed: the next renewal must show the newer one.
    Superseded,
    /// The same with the key that it was renewed for: who never had the answer may ask again.
    Renewal,
}

/// Something that is spent in the transaction that records the draft: a second draft with the same mark fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mark {
    /// When it may be forgotten: also the bucket that it lies in.
    pub expires: UnixMs,
    /// The bucket before, in which the same mark may lie.
    pub earlier: Option<UnixMs>,
    /// What.
    pub key: [u8; 32],
    /// Of which kind.
    pub kind: MarkKind,
}

impl Mark {
    /// What an act spends of the proof that it is done with: nothing where the proof may be shown again.
    #[must_use]
    pub fn of_proof(principal: &Principal) -> Option<Self> {
        principal.spent_mark().map(Self::from)
    }
}

impl From<SpentMark> for Mark {
    fn from(mark: SpentMark) -> Self {
        Self { kind: MarkKind::Proof, key: *mark.key.as_bytes(), expires: mark.expires, earlier: None }
    }
}

/// A whole credential.
#[derive(Clone, PartialEq, Eq)]
pub enum Assembled {
    /// A compact JWS.
    Token(String),
    /// A DER certificate.
    Certificate(Vec<u8>),
}

impl Assembled {
    /// The bytes whose digest the log keeps once the credential is released.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Token(token) => token.as_bytes(),
            Self::Certificate(der) => der,
        }
    }
}

impl std::fmt::Debug for Assembled {
    /// Shows no byte of it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Token(_) => "Token(..)",
            Self::Certificate(_) => "Certificate(..)",
        })
    }
}

impl Draft {
    /// The bytes to sign for `grant` under `key`, and its entry. `our_issuer` is the broker's issuer id.
    ///
    /// # Errors
    /// When the key is not the one that was decided on, or the bytes break a rule of ours.
    pub fn new(grant: Grant, key: &SigningKey, our_issuer: &str) -> Result<Self, DraftError> {
        if key.id() != grant.key() {
            return Err(DraftError::OtherKey { expected: grant.key().clone() });
        }
        let tbs = match grant.profile().credential_type() {
            CredentialType::Jwt => token::signing_input(&grant, key, our_issuer)?,
            CredentialType::X509 => certificate::to_be_signed(&grant, key)?,
        };
        let entry = entry(&grant, &tbs);
        let marks = marks(&grant);
        Ok(Self { grant, tbs, entry, marks })
    }

    /// The credential's id.
    #[must_use]
    pub fn id(&self) -> CredentialId {
        self.grant.id()
    }

    /// The exact bytes to sign.
    #[must_use]
    pub fn tbs(&self) -> &[u8] {
        &self.tbs
    }

    /// The key that must sign them.
    #[must_use]
    pub fn key(&self) -> &KeyId {
        self.grant.key()
    }

    /// The newest state entry that it was decided under: older than the head's means decide again.
    #[must_use]
    pub fn state(&self) -> Index {
        self.grant.decision().state
    }

    /// The entry to record.
    #[must_use]
    pub fn entry(&self) -> &NewEntry {
        &self.entry
    }

    /// What recording it spends.
    #[must_use]
    pub fn marks(&self) -> &[Mark] {
        &self.marks
    }

    /// When the credential ends.
    #[must_use]
    pub fn exp(&self) -> UnixMs {
        self.grant.expires_at()
    }

    /// What was granted.
    #[must_use]
    pub fn grant(&self) -> &Grant {
        &self.grant
    }

    /// Puts the signature to the bytes, and gives back what was granted. A token takes the fixed form of ES256 (RFC 7518, section 3.4), a
    /// certificate the DER form of ecdsa-with-SHA256 (RFC 5758, section 3.2). Whether the signature fits is not
    /// checked here.
    ///
    /// # Errors
    /// When the signature has another form.
    pub fn assemble(self, signature: &[u8]) -> Result<(Grant, Assembled), DraftError> {
        let assembled = match self.grant.profile().credential_type() {
            CredentialType::Jwt => {
                token::assemble(self.tbs, &self.grant.record.credential.alg, signature).map(Assembled::Token)
            }
            CredentialType::X509 => certificate::assemble(&self.tbs, signature).map(Assembled::Certificate),
        }?;
        Ok((self.grant, assembled))
    }
}

fn entry(grant: &Grant, tbs: &[u8]) -> NewEntry {
    let mut issued = grant.record.clone();
    issued.credential.tbs = Digest::of(tbs);
    NewEntry { id: grant.id, request: Some(grant.request), by: Some(grant.by()), body: Body::from(issued) }
}

fn marks(grant: &Grant) -> Vec<Mark> {
    let proof = grant.spent.map(Mark::from);
    // An id that the broker drew itself cannot come again.
    let request = grant.id_is_callers.then(|| request_mark(grant));
    [proof, request].into_iter().flatten().chain(node_marks(grant)).collect()
}

/// What the renewal of a node certificate spends.
fn node_marks(grant: &Grant) -> Vec<Mark> {
    let (Some(renewed), Some(key)) = (&grant.renewed_node, &grant.csr_key) else { return Vec::new() };
    let mark = |kind, more: &[u8]| {
        let bytes = [b"node\0".as_slice(), renewed.digest.as_bytes(), more].concat();
        Mark {
            kind,
            key: *Digest::of(&bytes).as_bytes(),
            expires: renewed.expires.plus(NODE_SLACK),
            earlier: None,
        }
    };
    let holder = key.spki_digest();
    vec![mark(MarkKind::Superseded, &[]), mark(MarkKind::Renewal, holder.as_bytes())]
}

/// The mark of a caller's request id. The identity is part of it: nobody uses up the ids of another.
fn request_mark(grant: &Grant) -> Mark {
    let mut bytes = grant.identity().name.as_str().as_bytes().to_vec();
    bytes.push(0);
    bytes.extend_from_slice(grant.request.as_bytes());
    let bucket = grant.issued_at().get().div_euclid(REQUEST_BUCKET_MS);
    let ends = |bucket: i64| UnixMs::new((bucket + 2) * REQUEST_BUCKET_MS);
    Mark {
        kind: MarkKind::Request,
        key: *Digest::of(&bytes).as_bytes(),
        expires: ends(bucket),
        earlier: Some(ends(bucket - 1)),
    }
}

fn base64url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}
