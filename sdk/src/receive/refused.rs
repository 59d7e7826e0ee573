//! Why a caller does not pass, and what it is told: no more than it needs to do better (RFC 6750, section 3).

use daypass_verify::credential::CredentialError;
use daypass_verify::ids::CredentialId;
use daypass_verify::revocations::By;
use http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};

/// Why a caller does not pass. The text is for the receiver's own log: callers are told the status alone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It showed neither a token nor a certificate of the broker.
    #[error("no credential was shown")]
    NoCredential,
    /// `authorization` is there twice, or has another form than `Bearer TOKEN`.
    #[error("expected one `authorization: Bearer TOKEN`")]
    Malformed,
    /// The credential is not good here, now.
    #[error(transparent)]
    Invalid(#[from] CredentialError),
    /// It is for somebody else.
    #[error("the certificate is for another audience")]
    Audience,
    /// It was revoked: itself, or all of its kind. All else of it is good.
    #[error("the credential {1} is revoked ({0:?})")]
    Revoked(By, CredentialId),
    /// It is good, and does not reach so far.
    #[error("the credential does not reach so far")]
    NotAllowed,
    /// Nobody can say: what is needed to verify is missing, or too old.
    #[error("{0}")]
    Unavailable(&'static str),
}

impl Refused {
    /// The stable code for logs and counts.
    #[must_use]
    pub fn inner_reason(&self) -> &'static str {
        match self {
            Self::NoCredential => "NO_CREDENTIAL",
            Self::Malformed => "MALFORMED",
            Self::Invalid(error) => error.inner_reason(),
            Self::Audience => "BAD_AUDIENCE",
            Self::Revoked(..) => "REVOKED",
            Self::NotAllowed => "NOT_ALLOWED",
            Self::Unavailable(_) => "UNAVAILABLE",
        }
    }

    /// The status for HTTP (RFC 6750, section 3.1).
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::NoCredential | Self::Invalid(_) | Self::Audience | Self::Revoked(..) => {
                StatusCode::UNAUTHORIZED
            }
            Self::Malformed => StatusCode::BAD_REQUEST,
            Self::NotAllowed => StatusCode::FORBIDDEN,
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The challenge for HTTP (RFC 6750, section 3): whoever showed nothing is told nothing but how.
    #[must_use]
    pub fn challenge(&self) -> Option<&'static str> {
        match self {
            Self::NoCredential => Some("Bearer"),
            Self::Malformed => Some(r#"Bearer error="invalid_request""#),
            Self::Invalid(_) | Self::Audience | Self::Revoked(..) => Some(r#"Bearer error="invalid_token""#),
            Self::NotAllowed => Some(r#"Bearer error="insufficient_scope""#),
            Self::Unavailable(_) => None,
        }
    }

    /// The answer over HTTP, without a body.
    #[must_use]
    pub fn to_http<B: Default>(&self) -> Response<B> {
        let mut response = Response::new(B::default());
        *response.status_mut() = self.status();
        match self.challenge() {
            Some(challenge) => {
                response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
            }
            None => {
                response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5"));
            }
        }
        response
    }

    /// The answer over gRPC.
    #[must_use]
    pub fn to_grpc(&self) -> tonic::Status {
        match self {
            Self::NoCredential => tonic::Status::unauthenticated("expected a credential"),
            Self::Malformed | Self::Invalid(_) | Self::Audience | Self::Revoked(..) => {
                tonic::Status::unauthenticated("the credential is not accepted: get another")
            }
            Self::NotAllowed => tonic::Status::permission_denied("the credential does not reach so far"),
            Self::Unavailable(_) => {
                tonic::Status::unavailable("no credential can be verified now: ask again")
            }
        }
    }
}
