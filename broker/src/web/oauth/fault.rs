//! Refusals as OAuth spells them (RFC 6749, section 5.2; RFC 8693, section 2.2.2; RFC 8707, section 2; RFC 9396,
//! section 5), with the reason that gRPC callers are told beside them.

use axum::response::Response;
use daypass_core::decision::Outward;
use daypass_verify::ids::RequestId;
use http::{HeaderValue, StatusCode, header};
use serde_json::json;

use super::json;
use crate::api::Outgoing;

/// A refusal on its way out.
pub(super) struct Fault {
    pub(super) error: &'static str,
    status: StatusCode,
    pub(super) told: Outgoing,
}

impl From<Outgoing> for Fault {
    fn from(told: Outgoing) -> Self {
        let (error, status) = code(told.reason);
        match told.fields.as_slice() {
            [(field, detail)] if field == "audiences" => {
                let message = format!("`resource` or `audience` is refused: {detail}");
                Self { error: "invalid_target", status, told: Outgoing { message, ..told } }
            }
            [(field, detail)] if field == "identity" => {
                let message = format!("`client_id` is refused: {detail}");
                Self { error, status, told: Outgoing { message, ..told } }
            }
            _ => Self { error, status, told },
        }
    }
}

impl Fault {
    /// A request that has not the form of one.
    pub(super) fn malformed(detail: impl Into<String>) -> Self {
        Outgoing::new(Outward::Malformed, detail).into()
    }

    /// The same under another name of OAuth's.
    pub(super) fn called(error: &'static str, detail: impl Into<String>) -> Self {
        Self { error, ..Self::malformed(detail) }
    }

    /// Content of another type, or encoded.
    pub(super) fn media_type() -> Self {
        let detail = "expected content of type application/x-www-form-urlencoded, not encoded further";
        Self { status: StatusCode::UNSUPPORTED_MEDIA_TYPE, ..Self::malformed(detail) }
    }

    /// More content than is read.
    pub(super) fn too_large(most: usize) -> Self {
        let detail = format!("expected {most} bytes of content at most");
        Self { status: StatusCode::PAYLOAD_TOO_LARGE, ..Self::malformed(detail) }
    }

    /// A client that failed to prove itself to the endpoint, or tried in a way that is not offered.
    pub(super) fn of_client(self) -> Self {
        match self.told.reason {
            Outward::ProofRefused | Outward::ProofReplayed | Outward::Malformed => {
                Self { error: "invalid_client", status: StatusCode::UNAUTHORIZED, ..self }
            }
            _ => self,
        }
    }

    /// The answer to the request `id`.
    pub(super) fn answer(self, id: &RequestId) -> Response {
        let mut response = json(&json!({
            "error": self.error,
            "error_description": plain(&self.told.message),
            "reason": self.told.reason.as_str(),
            "request_id": id.to_string(),
        }));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"daypass\""));
        }
        if let Some(after) = self.told.retry_after {
            let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

/// The characters that a description may have.
fn plain(text: &str) -> String {
    let allowed = |c: char| matches!(c, ' ' | '!' | '#'..='[' | ']'..='~');
    text.chars().map(|c| if allowed(c) { c } else { '\'' }).collect()
}

const fn code(reason: Outward) -> (&'static str, StatusCode) {
    match reason {
        Outward::ProofRefused
        | Outward::ProofReplayed
        | Outward::Malformed
        | Outward::KeyRefused
        | Outward::CsrRefused
        | Outward::AlreadyIssued
        | Outward::NotFound
        | Outward::Unimplemented => ("invalid_request", StatusCode::BAD_REQUEST),
        Outward::NotAllowed
        | Outward::Suspended
        | Outward::SelfApproval
        | Outward::ApprovalRequired
        | Outward::ReviewOverdue
        | Outward::IdentityExpired
        | Outward::ContractEnded => ("access_denied", StatusCode::BAD_REQUEST),
        Outward::TaskNotAllowed | Outward::ActionNotAllowed | Outward::ResourceNotAllowed => {
            ("invalid_scope", StatusCode::BAD_REQUEST)
        }
        Outward::AudienceNotAllowed => ("invalid_target", StatusCode::BAD_REQUEST),
        Outward::RateLimited => ("temporarily_unavailable", StatusCode::TOO_MANY_REQUESTS),
        Outward::EvidenceUnavailable
        | Outward::IssuerUnavailable
        | Outward::Clock
        | Outward::Rollback
        | Outward::Halted => ("temporarily_unavailable", StatusCode::SERVICE_UNAVAILABLE),
        Outward::Internal => ("server_error", StatusCode::INTERNAL_SERVER_ERROR),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_has_only_the_characters_that_oauth_allows() {
        assert_eq!(plain("`a` \"b\" \\ \u{7} ü\n~"), "`a` 'b' ' ' ''~");
    }

    #[test]
    fn whatever_may_pass_by_itself_says_when_to_come_back_and_is_no_fault_of_the_request() {
        for reason in Outward::ALL {
            let (error, status) = code(*reason);
            let passes = error == "temporarily_unavailable";
            assert_eq!(passes, matches!(status.as_u16(), 429 | 503), "{reason:?}");
        }
    }
}
