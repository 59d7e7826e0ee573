//! `POST /revoke` (RFC 7009): a token is given up by its holder, or taken back by an operator.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use daypass_core::decision::Outward;
use daypass_verify::ids::RequestId;
use http::StatusCode;

use super::{Asked, Fault};
use crate::api::Api;
use crate::api::revoke::Revoking;
use crate::revocation::What;

/// The request names no reason, and whoever gives a token up needs it no longer (RFC 5280, section 5.3.1).
const REASON: &str = "cessationOfOperation";

pub(super) async fn answer(
    State(api): State<Arc<Api>>,
    Extension(id): Extension<RequestId>,
    request: Request,
) -> Response {
    match given_up(&api, id, request).await {
        Ok(()) => StatusCode::OK.into_response(),
        Err(fault) => fault.answer(&id),
    }
}

async fn given_up(api: &Api, id: RequestId, request: Request) -> Result<(), Fault> {
    let asked = Asked::read(id, request).await?;
    let caller = asked.proven(api).await?;
    let revoking = Revoking {
        what: What::Token(asked.token()?.to_owned()),
        issued_before: None,
        reason: REASON,
        comment: String::new(),
        drill: String::new(),
        validate_only: false,
    };
    match api.revoke(&caller, revoking).await {
        // What is not there, or is not the caller's to know of, needs nothing to be done to it (section 2.2).
        Err(told) if told.reason == Outward::NotFound => Ok(()),
        Err(told) => Err(told.into()),
        Ok(_) => Ok(()),
    }
}
