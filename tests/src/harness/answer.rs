//! What comes back, in a form that tests compare.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use daypass_proto::v1 as pb;
use daypass_proto::v1::issue_response::Credential;
use rustls_pki_types::CertificateDer;
use serde_json::Value;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// A credential, or why there is none.
pub type Answer = Result<pb::IssueResponse, Refused>;

/// A refusal as a client reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The gRPC status.
    pub code: Code,
    /// The outward reason; empty where the transport itself refused.
    pub reason: String,
    /// What a person reads.
    pub message: String,
    /// By which an operator can ask.
    pub request_id: String,
    /// The fields that are named.
    pub fields: Vec<String>,
}

impl From<Status> for Refused {
    fn from(status: Status) -> Self {
        let details = status.get_error_details();
        let fields =
            details.bad_request().map(|bad| bad.field_violations.iter().map(|it| it.field.clone()).collect());
        Self {
            code: status.code(),
            reason: details.error_info().map(|info| info.reason.clone()).unwrap_or_default(),
            message: status.message().to_owned(),
            request_id: details.request_info().map(|info| info.request_id.clone()).unwrap_or_default(),
            fields: fields.unwrap_or_default(),
        }
    }
}

/// The token that was issued.
pub fn token_of(answer: &pb::IssueResponse) -> &str {
    match &answer.credential {
        Some(Credential::Token(token)) => &token.value,
        other => panic!("expected a token: {other:?}"),
    }
}

/// The certificate chain that was issued, leaf first.
pub fn certificate_of(answer: &pb::IssueResponse) -> Vec<CertificateDer<'static>> {
    match &answer.credential {
        Some(Credential::Certificate(issued)) => {
            issued.chain.iter().map(|der| CertificateDer::from(der.to_vec())).collect()
        }
        other => panic!("expected a certificate: {other:?}"),
    }
}

/// The header and the claims of a token, not verified.
pub fn claims_of(token: &str) -> (Value, Value) {
    let part = |n| {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(n).unwrap()).unwrap()).unwrap()
    };
    (part(0), part(1))
}
