//! One place where refusals are worded. Outside, the list of reasons is closed; what it was inside goes to the log and
//! to operators. Each face spells them in its own way.

use std::time::Duration;

use daypass_core::decision::{Denial, Outward};
use daypass_core::proof::ProofError;
use daypass_verify::ids::RequestId;

use super::Api;
use crate::issue::Refusal;
use crate::log::RecordError;
use crate::refusals::Refusals;
use crate::revocation::OrderError;
use crate::store::StoreError;

/// A refusal on its way out.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) reason: Outward,
    pub(crate) message: String,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) retry_after: Option<Duration>,
}

impl Outgoing {
    pub(crate) fn new(reason: Outward, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), fields: Vec::new(), retry_after: None }
    }

    /// A request whose field `field` is not well formed.
    pub(crate) fn malformed(field: &str, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        let message = format!("field `{field}` is refused: {detail}");
        Self { fields: vec![(field.to_owned(), detail)], ..Self::new(Outward::Malformed, message) }
    }

    pub(crate) fn retry(self, after: Duration) -> Self {
        Self { retry_after: Some(after), ..self }
    }
}

/// What was recorded by then is void: its caller is gone.
pub(crate) fn too_late() -> Outgoing {
    Outgoing::new(
        Outward::EvidenceUnavailable,
        "the request took longer than 5 s, and was given up: try again",
    )
}

/// What is answered where an order was not carried out.
pub(crate) fn of_order(error: OrderError) -> Outgoing {
    match error {
        OrderError::Record(error) => of_record(&error),
        OrderError::Store(error) => of_store(&error),
        OrderError::NoId(error) => {
            tracing::error!(%error, "an order was not carried out");
            Outgoing::new(Outward::Internal, "the broker could not draw an id: its log says why")
        }
    }
}

/// What a caller is told whose proof led nowhere: one reason, whatever it was inside.
pub(crate) fn of_proof(error: &ProofError) -> Outgoing {
    match error {
        ProofError::KeysUnavailable { .. } => Outgoing::new(
            Outward::IssuerUnavailable,
            "the keys of the proof's issuer are not to be had: try again later",
        )
        .retry(Duration::from_secs(5)),
        _ => Outgoing::new(
            Outward::ProofRefused,
            "the proof is refused: show a valid client certificate or ID token of a declared issuer, with this broker's issuer URL as its only audience",
        ),
    }
}

/// The inner reasons of a bare `NOT_ALLOWED` that speak of nothing but the caller's own ceiling.
const OWN_CEILING: &[&str] = &["NARROWED", "BEARER_NOT_ALLOWED"];

/// What a caller is told whose request was denied: which of its own wishes went beyond its own ceiling, and never
/// what anybody else may do.
pub(crate) fn of_denial(denial: &Denial) -> Outgoing {
    let message = match denial.outward {
        Outward::NotAllowed if !OWN_CEILING.contains(&denial.inner) => {
            "the request is not allowed: an operator can explain it by its request id".to_owned()
        }
        _ => denial.clause.clone(),
    };
    match denial.field {
        Some(field) => Outgoing::malformed(field, denial.clause.clone()),
        None => Outgoing::new(denial.outward, message),
    }
}

/// Counts a refusal to issue, and says what the caller is told.
pub(crate) fn of_refusal(refusal: Refusal, request: RequestId, api: &Api) -> Outgoing {
    let refusals = &*api.refusals;
    match refusal {
        Refusal::Denied(denial) => {
            let outgoing = of_denial(&denial);
            let state = api.desk.log.state();
            let declared =
                state.bundle().is_some_and(|it| it.declared().tasks.contains_key(denial.task.as_str()));
            refusals.denied(request, *denial, declared);
            outgoing
        }
        Refusal::NotRecorded(error) => {
            refusals.unavailable(request, "NOT_RECORDED", &error.to_string());
            of_record(&error)
        }
        Refusal::NotDrafted(error) => internal(request, refusals, "LINT_FAILED", &error),
        Refusal::NotSigned(error) => internal(request, refusals, "NOT_SIGNED", &error),
        Refusal::NoId(error) => internal(request, refusals, "NO_ID", &error),
    }
}

fn internal(
    request: RequestId,
    refusals: &Refusals,
    reason: &str,
    error: &dyn std::fmt::Display,
) -> Outgoing {
    tracing::error!(%request, reason, %error, "a credential could not be made");
    refusals.unavailable(request, reason, &error.to_string());
    Outgoing::new(
        Outward::Internal,
        "the broker could not make the credential: tell its operators the request id",
    )
}

/// What a caller is told that renews what was revoked.
pub(crate) const REVOKED: &str =
    "the credential that `supersedes` names was revoked, and is not renewed: ask for a new one without it";

/// What a caller is told whose act was not recorded.
pub(crate) fn of_record(error: &RecordError) -> Outgoing {
    let retry =
        |reason, message: &str, seconds| Outgoing::new(reason, message).retry(Duration::from_secs(seconds));
    match error {
        RecordError::Replayed => Outgoing::new(
            Outward::ProofReplayed,
            "the proof was spent already, on a credential or an order: ask its issuer for a fresh one",
        ),
        RecordError::AlreadyIssued => Outgoing::new(
            Outward::AlreadyIssued,
            "a credential was issued for this request id within the last ten minutes: use it, or ask under a new id",
        ),
        RecordError::Revoked => Outgoing::new(Outward::NotAllowed, REVOKED),
        RecordError::Superseded => Outgoing::new(
            Outward::Suspended,
            "the node certificate was renewed before: the node is suspended, as somebody may have a copy of its key",
        ),
        RecordError::Unavailable(_) => retry(
            Outward::EvidenceUnavailable,
            "the evidence log cannot be written: nothing is issued without a record",
            2,
        ),
        RecordError::Full => retry(
            Outward::EvidenceUnavailable,
            "the evidence log has no room: nothing is issued without a record",
            5,
        ),
        RecordError::Clock(_) => {
            retry(Outward::Clock, "the broker's clock cannot be trusted: nothing is issued", 10)
        }
        RecordError::Rollback(_) => Outgoing::new(
            Outward::Rollback,
            "the broker's log went back: nothing is issued until its operators recover it",
        ),
        RecordError::StateMoved => {
            retry(Outward::EvidenceUnavailable, "the state moved while this was decided: ask again", 1)
        }
        RecordError::SplitView(_) => Outgoing::new(
            Outward::Rollback,
            "the broker's log was forked: nothing is issued until its operators recover it",
        ),
        RecordError::Turned => retry(Outward::Halted, "the broker begins a new log: come back", 1),
        RecordError::Overloaded => retry(Outward::RateLimited, "too many requests are waiting: come back", 1),
        RecordError::Halted(_) => retry(Outward::Halted, "the broker issues nothing at the moment", 5),
    }
}

/// What a reader is told when the store fails.
pub(crate) fn of_store(error: &StoreError) -> Outgoing {
    tracing::error!(%error, "the store could not be read");
    Outgoing::new(Outward::EvidenceUnavailable, "the evidence log cannot be read: try again later")
        .retry(Duration::from_secs(2))
}
