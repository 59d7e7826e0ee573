//! What went wrong, sorted by what a caller can do about it.

use std::error::Error as _;
use std::fmt;
use std::io;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::verify::VerifyError;

/// How long to wait where the broker does not say.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Why there is no answer that can be used.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The broker cannot answer now: ask again, with a new proof where proofs count once.
    #[error("{refusal}; ask again in {} s", .after.as_secs().max(1))]
    Retry {
        /// How long to wait.
        after: Duration,
        /// What the broker said.
        refusal: Refusal,
    },
    /// The request is malformed, or names what is not there: change it.
    #[error("{refusal}{}", list(.violations, .refusal))]
    FixRequest {
        /// Which fields, and what each should be.
        violations: Vec<FieldViolation>,
        /// What the broker said.
        refusal: Refusal,
    },
    /// The request is well-formed and not allowed: somebody would have to allow it.
    #[error("{0}")]
    AskForPermission(Refusal),
    /// The proof is not accepted: bring another one.
    #[error("{0}")]
    ProofRefused(Refusal),
    /// No broker answered.
    #[error("no answer from `{broker}`: {detail}")]
    Unreachable {
        /// The address.
        broker: String,
        /// What happened.
        detail: String,
    },
    /// What came back does not hold; it was thrown away.
    #[error("the broker's answer was refused: {0}")]
    Unverified(#[from] VerifyError),
    /// The client is set up in a way that cannot work.
    #[error("{0}")]
    Config(String),
}

/// What a broker says when it refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The outward reason, `TASK_NOT_ALLOWED` for instance; the gRPC code where the broker gave none.
    pub reason: String,
    /// In words.
    pub message: String,
    /// The request's id: what an operator needs to explain it.
    pub request_id: Option<String>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.message)
    }
}

/// One field of a request that has to change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldViolation {
    /// The field's name in the message.
    pub field: String,
    /// What was expected.
    pub description: String,
}

/// What each field should be, unless the message has said so.
fn list(violations: &[FieldViolation], refusal: &Refusal) -> String {
    let unsaid = violations.iter().filter(|it| !refusal.message.contains(&it.description));
    unsaid.map(|it| format!("; `{}`: {}", it.field, it.description)).collect()
}

impl Error {
    /// What the broker said, where it did.
    #[must_use]
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Retry { refusal, .. }
            | Self::FixRequest { refusal, .. }
            | Self::AskForPermission(refusal)
            | Self::ProofRefused(refusal) => Some(refusal),
            Self::Unreachable { .. } | Self::Unverified(_) | Self::Config(_) => None,
        }
    }

    /// Whether the same request may succeed later although nobody changes anything.
    #[must_use]
    pub fn heals_itself(&self) -> bool {
        matches!(self, Self::Retry { .. } | Self::Unreachable { .. })
    }

    /// Sorts the status of a call to `broker`.
    pub(crate) fn from_status(status: &Status, broker: &str) -> Self {
        let details = status.get_error_details();
        let reason = details.error_info().filter(|it| it.domain == "daypass").map(|it| it.reason.clone());
        if reason.is_none() && is_transport(status) {
            return Self::Unreachable { broker: broker.to_owned(), detail: deepest(status) };
        }
        let in_metadata = status.metadata().get("daypass-request-id").and_then(|id| id.to_str().ok());
        let request_id = details.request_info().map(|it| it.request_id.as_str()).or(in_metadata);
        let refusal = Refusal {
            reason: reason.unwrap_or_else(|| code_name(status.code())),
            message: status.message().to_owned(),
            request_id: request_id.map(str::to_owned),
        };
        let after = details.retry_info().and_then(|it| it.retry_delay).unwrap_or(RETRY_AFTER);
        let violations = details.bad_request().map(|it| it.field_violations.as_slice()).unwrap_or_default();
        let violations = violations
            .iter()
            .map(|it| FieldViolation { field: it.field.clone(), description: it.description.clone() })
            .collect();
        match remedy(&refusal.reason, status.code()) {
            Remedy::Retry => Self::Retry { after, refusal },
            Remedy::Fix => Self::FixRequest { violations, refusal },
            Remedy::Ask => Self::AskForPermission(refusal),
            Remedy::Prove => Self::ProofRefused(refusal),
        }
    }
}

enum Remedy {
    Retry,
    Fix,
    Ask,
    Prove,
}

/// What helps, by the reason; by the code for a reason that this version does not know.
fn remedy(reason: &str, code: Code) -> Remedy {
    match reason {
        "PROOF_REFUSED" | "PROOF_REPLAYED" => Remedy::Prove,
        "NOT_ALLOWED"
        | "TASK_NOT_ALLOWED"
        | "AUDIENCE_NOT_ALLOWED"
        | "ACTION_NOT_ALLOWED"
        | "RESOURCE_NOT_ALLOWED"
        | "SUSPENDED"
        | "SELF_APPROVAL"
        | "APPROVAL_REQUIRED"
        | "REVIEW_OVERDUE"
        | "IDENTITY_EXPIRED"
        | "CONTRACT_ENDED" => Remedy::Ask,
        "MALFORMED" | "KEY_REFUSED" | "CSR_REFUSED" | "ALREADY_ISSUED" | "NOT_FOUND" | "UNIMPLEMENTED" => {
            Remedy::Fix
        }
        "RATE_LIMITED"
        | "EVIDENCE_UNAVAILABLE"
        | "ISSUER_UNAVAILABLE"
        | "CLOCK"
        | "ROLLBACK"
        | "HALTED"
        | "INTERNAL" => Remedy::Retry,
        _ => match code {
            Code::Unauthenticated => Remedy::Prove,
            Code::PermissionDenied | Code::FailedPrecondition => Remedy::Ask,
            Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::OutOfRange
            | Code::Unimplemented => Remedy::Fix,
            _ => Remedy::Retry,
        },
    }
}

/// Whether no broker spoke: the connection failed, or the time ran out on this side.
fn is_transport(status: &Status) -> bool {
    let ours = status.source().is_some();
    matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled)
        || (ours && matches!(status.code(), Code::Unknown | Code::Internal))
}

/// The innermost cause: `connection refused` rather than `transport error`.
fn deepest(status: &Status) -> String {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = status.source();
    let mut text = status.message().to_owned();
    while let Some(error) = cause {
        if error.downcast_ref::<io::Error>().is_some_and(|it| it.kind() == io::ErrorKind::UnexpectedEof) {
            return "the connection was cut".to_owned();
        }
        text = error.to_string();
        cause = error.source();
    }
    text
}

fn code_name(code: Code) -> String {
    let words = format!("{code:?}");
    let mut name = String::new();
    for letter in words.chars() {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use tonic_types::ErrorDetails;

    use super::*;

    fn status(code: Code, reason: &str) -> Status {
        let mut details = ErrorDetails::new();
        details.set_error_info(reason, "daypass", std::collections::HashMap::new());
        details.set_request_info("0199f2c1-0000-7000-8000-000000000000", "");
        details.set_retry_info(Some(Duration::from_secs(7)));
        details.add_bad_request_violation("ttl", "at most `1h`");
        Status::with_error_details(code, "no", details)
    }

    #[test]
    fn each_refusal_says_what_can_be_done() {
        let sort = |code, reason| match Error::from_status(&status(code, reason), "https://b") {
            Error::Retry { after, .. } => format!("retry {}", after.as_secs()),
            Error::FixRequest { violations, .. } => format!("fix {}", violations[0].field),
            Error::AskForPermission(_) => "ask".into(),
            Error::ProofRefused(_) => "prove".into(),
            other => format!("{other}"),
        };
        for (code, reason, expected) in [
            (Code::Unauthenticated, "PROOF_REPLAYED", "prove"),
            (Code::PermissionDenied, "TASK_NOT_ALLOWED", "ask"),
            (Code::FailedPrecondition, "REVIEW_OVERDUE", "ask"),
            (Code::InvalidArgument, "MALFORMED", "fix ttl"),
            (Code::AlreadyExists, "ALREADY_ISSUED", "fix ttl"),
            (Code::Unavailable, "EVIDENCE_UNAVAILABLE", "retry 7"),
            (Code::ResourceExhausted, "RATE_LIMITED", "retry 7"),
            (Code::PermissionDenied, "A_LATER_REASON", "ask"),
            (Code::Unauthenticated, "A_LATER_REASON", "prove"),
        ] {
            assert_eq!(sort(code, reason), expected, "{reason}");
        }
    }

    #[test]
    fn a_refusal_carries_its_request_id() {
        let error = Error::from_status(&status(Code::PermissionDenied, "SUSPENDED"), "https://b");
        let refusal = error.refusal().unwrap();
        assert_eq!(refusal.request_id.as_deref(), Some("0199f2c1-0000-7000-8000-000000000000"));
        assert_eq!(refusal.to_string(), "SUSPENDED: no");
        let mut bare = Status::permission_denied("no");
        bare.metadata_mut().insert("daypass-request-id", "r-1".parse().unwrap());
        let error = Error::from_status(&bare, "https://b");
        assert_eq!(error.refusal().unwrap().request_id.as_deref(), Some("r-1"));
        assert_eq!(error.to_string(), "PERMISSION_DENIED: no");
    }

    #[test]
    fn an_unreachable_broker_is_told_by_the_innermost_cause() {
        let detail =
            |error: io::Error| match Error::from_status(&Status::from_error(error.into()), "https://b") {
                Error::Unreachable { detail, .. } => detail,
                other => panic!("{other}"),
            };
        let refused = io::Error::new(io::ErrorKind::ConnectionRefused, "nobody listens");
        assert_eq!(detail(refused), "nobody listens");
        assert_eq!(
            detail(io::Error::new(io::ErrorKind::UnexpectedEof, "see the manual")),
            "the connection was cut"
        );
    }

    #[test]
    fn a_silent_broker_is_unreachable_and_not_a_refusal() {
        for status in [Status::unavailable("tcp connect error"), Status::deadline_exceeded("late")] {
            let error = Error::from_status(&status, "https://b");
            assert!(matches!(error, Error::Unreachable { .. }), "{error}");
        }
    }
}
