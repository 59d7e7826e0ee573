//! Compact JWS (RFC 7515) for JWTs (RFC 7519), as strict as RFC 8725 advises: the algorithm belongs to the
//! key, and nothing in a token's own header chooses what it is checked with.

use std::fmt;
use std::sync::Once;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use crate::header::{Header, refuse_case_twins};
use crate::ids::{CredentialId, Digest};
use crate::json::{self, JsonError, Limits};
use crate::key::VerifyingKey;
use crate::provider;

pub use crate::alg::Alg;

/// The longest token: 16 KiB.
pub const TOKEN_LEN_MAX: usize = 16 * 1024;
/// The longest header, before decoding: 2 KiB.
pub const HEADER_LEN_MAX: usize = 2 * 1024;

/// Why a token is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JoseError {
    /// Over [`TOKEN_LEN_MAX`] or [`HEADER_LEN_MAX`].
    #[error("expected a token of at most 16 KiB with a header of at most 2 KiB")]
    TooLarge,
    /// Not a well-formed token; says which part.
    #[error("expected {0}")]
    Malformed(&'static str),
    /// A part that is no strict JSON.
    #[error("a part of the token is not strict JSON: {0}")]
    Json(#[from] JsonError),
    /// `none`, an algorithm with a shared secret, or one that is not known.
    #[error("`{}` is not an accepted algorithm: expected one of ES256, ES384, RS256, RS384, RS512, PS256, PS384, PS512, EdDSA", .0.escape_debug())]
    AlgNotAllowed(String),
    /// `crit` or `b64` (RFC 7797) in the header.
    #[error("expected a header without `crit` and `b64`")]
    CritUnsupported,
    /// `jwk` or `x5c` in the header: the token would bring its own key.
    #[error("expected a header that names its key by `kid`, without `jwk` and `x5c`")]
    EmbeddedKey,
    /// No key of the issuer has the token's `kid`.
    #[error("expected a `kid` that is in the issuer's key set")]
    UnknownKey,
    /// The key is declared for another algorithm.
    #[error("expected the algorithm that the key is declared for")]
    KeyAlgMismatch,
    /// The signature does not fit.
    #[error("the signature does not fit the token and the key")]
    BadSignature,
    /// `typ` is not one that is accepted here.
    #[error("expected another kind of token (`typ`)")]
    Typ,
    /// `iss` is missing, no string, or another issuer.
    #[error("expected an `iss` that is the issuer's name, byte for byte")]
    BadIssuer,
    /// `sub` is missing, empty, over 1,024 bytes or has control characters.
    #[error("expected a `sub` of 1 to 1024 bytes without control characters")]
    BadSubject,
    /// `aud` is missing, names more than one, or somebody else.
    #[error("expected an `aud` that names this receiver and nobody else")]
    BadAudience,
    /// `exp` has passed.
    #[error("the token has expired; ask for a new one")]
    Expired,
    /// `nbf` or `iat` lies in the future, or `iat` before `nbf`.
    #[error("the token is not yet valid; compare the clocks")]
    NotYetValid,
    /// `exp` lies further from `iat` than is accepted.
    #[error("the token lives longer than is accepted here; ask its issuer for a shorter one")]
    ProofTooLong,
    /// `cnf` names another certificate than the presenter's, or one where it showed none.
    #[error("the token is bound to a key that its presenter did not show")]
    NotBound,
}

impl JoseError {
    /// The stable code for logs and counts; never part of an answer to a stranger.
    #[must_use]
    pub fn inner_reason(&self) -> &'static str {
        match self {
            Self::TooLarge => "TOO_LARGE",
            Self::Malformed(_) | Self::Json(_) => "MALFORMED",
            Self::AlgNotAllowed(_) => "ALG_NOT_ALLOWED",
            Self::CritUnsupported => "CRIT_UNSUPPORTED",
            Self::EmbeddedKey => "EMBEDDED_KEY",
            Self::UnknownKey => "UNKNOWN_KEY",
            Self::KeyAlgMismatch => "KEY_ALG_MISMATCH",
            Self::BadSignature => "BAD_SIGNATURE",
            Self::Typ => "TYP",
            Self::BadIssuer => "BAD_ISSUER",
            Self::BadSubject => "BAD_SUBJECT",
            Self::BadAudience => "BAD_AUDIENCE",
            Self::Expired => "EXPIRED",
            Self::NotYetValid => "NOT_YET_VALID",
            Self::ProofTooLong => "PROOF_TOO_LONG",
            Self::NotBound => "NOT_BOUND",
        }
    }
}

/// A well-formed token whose signature nobody has checked yet.
pub struct UnverifiedToken {
    compact: Box<str>,
    /// Where the second dot is: the signing input lies before it, the signature behind it.
    signing_len: usize,
    header: Header,
    claims: Map<String, Value>,
}

impl UnverifiedToken {
    /// Parses a compact JWS. Sizes and dots are checked before anything is decoded.
    ///
    /// # Errors
    /// When it is too long, malformed in any part, or its header asks for what is not accepted.
    pub fn parse(compact: &str) -> Result<Self, JoseError> {
        Self::parse_within(compact, TOKEN_LEN_MAX, &Limits::TOKEN)
    }

    /// The same with bounds of its own for what is no token of a workload.
    pub(crate) fn parse_within(
        compact: &str,
        len_max: usize,
        claims_max: &Limits,
    ) -> Result<Self, JoseError> {
        if compact.len() > len_max {
            return Err(JoseError::TooLarge);
        }
        let mut parts = compact.split('.');
        let (Some(header), Some(claims), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(JoseError::Malformed("three parts of base64url with two dots between them"));
        };
        if header.len() > HEADER_LEN_MAX {
            return Err(JoseError::TooLarge);
        }
        let header = Header::read(&json::parse_object(&decode(header)?)?)?;
        decode(signature)?;
        let claims = json::parse_limited(&decode(claims)?, claims_max)?;
        refuse_case_twins(&claims, &REGISTERED_CLAIMS)?;
        let signing_len = compact.len() - signature.len() - 1;
        Ok(Self { compact: compact.into(), signing_len, header, claims })
    }

    /// The algorithm that the header names; the key decides whether it counts.
    #[must_use]
    pub fn alg(&self) -> Alg {
        self.header.alg
    }

    /// The key id, 1 to 128 printable ASCII characters.
    #[must_use]
    pub fn kid(&self) -> Option<&str> {
        self.header.kid.as_deref()
    }

    /// The header's `typ`, as written.
    #[must_use]
    pub fn typ(&self) -> Option<&str> {
        self.header.typ.as_deref()
    }

    /// Headers that point to keys elsewhere (`jku`, `x5u`). They are never followed; a caller may count or
    /// refuse them.
    #[must_use]
    pub fn foreign_key_headers(&self) -> &[&'static str] {
        &self.header.foreign_keys
    }

    /// Who the token says has issued it: only good for choosing the keys to check it with.
    ///
    /// # Errors
    /// When `iss` is missing or no string.
    pub fn unverified_issuer(&self) -> Result<&str, JoseError> {
        self.claims.get("iss").and_then(Value::as_str).ok_or(JoseError::BadIssuer)
    }

    /// Whom the token says it is of (`sub`): only good for telling one token's holder from another's.
    #[must_use]
    pub fn unverified_subject(&self) -> Option<&str> {
        self.claims.get("sub").and_then(Value::as_str)
    }

    /// The credential id that the token says it has (`jti`): only good for looking the credential up.
    #[must_use]
    pub fn unverified_id(&self) -> Option<CredentialId> {
        self.claims.get("jti").and_then(Value::as_str)?.parse().ok()
    }

    /// The SHA-256 of the whole compact text.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(self.compact.as_bytes())
    }

    /// The SHA-256 of what is signed, without the signature. An ECDSA signature has a second spelling that
    /// fits as well: who remembers tokens that were shown remembers this.
    #[must_use]
    pub fn signed_digest(&self) -> Digest {
        let signed = self.compact.split_at_checked(self.signing_len).unwrap_or_default().0;
        Digest::of(signed.as_bytes())
    }

    /// Checks the signature with `key`.
    ///
    /// # Errors
    /// When the key is declared for another algorithm, or the signature does not fit.
    pub fn verify(self, key: &VerifyingKey) -> Result<SignedToken, JoseError> {
        static PROVIDER: Once = Once::new();
        PROVIDER.call_once(provider::install);
        if self.header.alg != key.alg() {
            return Err(JoseError::KeyAlgMismatch);
        }
        let (message, signature) =
            self.compact.split_at_checked(self.signing_len).ok_or(JoseError::BadSignature)?;
        let signature = signature.get(1..).unwrap_or_default();
        let fits = jsonwebtoken::crypto::verify(
            signature,
            message.as_bytes(),
            key.decoding(),
            self.header.alg.library(),
        );
        match fits {
            Ok(true) => Ok(SignedToken { header: self.header, claims: self.claims }),
            _ => Err(JoseError::BadSignature),
        }
    }
}

impl fmt::Debug for UnverifiedToken {
    /// Shows no claim and no signature: a token that is shown can be used.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnverifiedToken").field("header", &self.header).finish_non_exhaustive()
    }
}

/// A token whose signature fits. Whether its claims suffice is the next question: see `claims`.
pub struct SignedToken {
    header: Header,
    claims: Map<String, Value>,
}

impl SignedToken {
    /// The claims, each name once.
    #[must_use]
    pub fn claims(&self) -> &Map<String, Value> {
        &self.claims
    }

    /// The algorithm of the signature.
    #[must_use]
    pub fn alg(&self) -> Alg {
        self.header.alg
    }

    /// The id of the key that the signature fits, as the header names it.
    #[must_use]
    pub fn kid(&self) -> Option<&str> {
        self.header.kid.as_deref()
    }

    /// The header's `typ`, as written.
    #[must_use]
    pub fn typ(&self) -> Option<&str> {
        self.header.typ.as_deref()
    }
}

impl fmt::Debug for SignedToken {
    /// Shows no claim: they may be personal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignedToken").field("header", &self.header).finish_non_exhaustive()
    }
}

const REGISTERED_CLAIMS: [&str; 10] =
    ["iss", "sub", "aud", "exp", "nbf", "iat", "jti", "cnf", "act", "client_id"];

/// Strict base64url without padding (RFC 7515, section 2): no other alphabet, no bits left over.
fn decode(part: &str) -> Result<Vec<u8>, JoseError> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| JoseError::Malformed("base64url without padding in each part"))
}
