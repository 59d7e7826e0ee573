//! `POST /introspect` (RFC 7662): whether a token lives, for those who receive it.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::response::Response;
use daypass_verify::ids::RequestId;
use serde_json::{Map, Value, json};

use super::{Asked, Fault};
use crate::api::Api;

pub(super) async fn answer(
    State(api): State<Arc<Api>>,
    Extension(id): Extension<RequestId>,
    request: Request,
) -> Response {
    match looked_at(&api, id, request).await {
        Ok(Some(claims)) => super::json(&told(claims)),
        Ok(None) => super::json(&json!({ "active": false })),
        Err(fault) => fault.answer(&id),
    }
}

async fn looked_at(api: &Api, id: RequestId, request: Request) -> Result<Option<Map<String, Value>>, Fault> {
    let asked = Asked::read(id, request).await?;
    let caller = asked.proven(api).await?;
    Ok(api.introspect(&caller, asked.token()?).await?)
}

/// The claims of the token, and what RFC 7662 calls otherwise: only an access token's `typ` says `at+jwt`, and only an
/// access token has a `client_id`.
fn told(mut claims: Map<String, Value>) -> Value {
    let kind = if claims.contains_key("client_id") { "Bearer" } else { "N_A" };
    claims.insert("active".into(), true.into());
    claims.insert("token_type".into(), kind.into());
    claims.into()
}
