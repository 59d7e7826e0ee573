//! Refusals as gRPC statuses, with every detail that clients read.

use std::collections::HashMap;

use daypass_core::decision::Outward;
use daypass_verify::ids::RequestId;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt as _};

pub(super) use crate::api::outgoing::{Outgoing, of_record, of_refusal, of_store};

impl Outgoing {
    /// The status, with every detail that clients read.
    pub(super) fn into_status(self, request: &RequestId) -> Status {
        let mut details = ErrorDetails::new();
        details.set_error_info(self.reason.as_str(), "daypass", HashMap::new());
        details.set_request_info(request.to_string(), "");
        if !self.fields.is_empty() {
            let named = self.fields.into_iter();
            details.set_bad_request(
                named.map(|(field, detail)| FieldViolation::new(field, detail)).collect::<Vec<_>>(),
            );
        }
        if let Some(after) = self.retry_after {
            details.set_retry_info(Some(after));
        }
        let mut status = Status::with_error_details(code(self.reason), self.message, details);
        if let Ok(value) = request.to_string().parse() {
            status.metadata_mut().insert(super::authenticate::REQUEST_ID, value);
        }
        status
    }
}

const fn code(reason: Outward) -> Code {
    match reason {
        Outward::ProofRefused | Outward::ProofReplayed => Code::Unauthenticated,
        Outward::NotAllowed
        | Outward::TaskNotAllowed
        | Outward::AudienceNotAllowed
        | Outward::ActionNotAllowed
        | Outward::ResourceNotAllowed
        | Outward::Suspended
        | Outward::SelfApproval
        | Outward::ReviewOverdue
        | Outward::IdentityExpired
        | Outward::ContractEnded => Code::PermissionDenied,
        Outward::ApprovalRequired => Code::FailedPrecondition,
        Outward::Malformed | Outward::KeyRefused | Outward::CsrRefused => Code::InvalidArgument,
        Outward::AlreadyIssued => Code::AlreadyExists,
        Outward::RateLimited => Code::ResourceExhausted,
        Outward::EvidenceUnavailable
        | Outward::IssuerUnavailable
        | Outward::Clock
        | Outward::Rollback
        | Outward::Halted => Code::Unavailable,
        Outward::NotFound => Code::NotFound,
        Outward::Unimplemented => Code::Unimplemented,
        Outward::Internal => Code::Internal,
    }
}
