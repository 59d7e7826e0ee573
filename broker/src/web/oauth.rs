//! The OAuth endpoints: the same line as over gRPC, spelt as RFC 6749 and its extensions spell it.

mod fault;
mod form;
mod introspect;
mod revoke;
mod token;

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use daypass_evidence::entry::Client;
use daypass_verify::ids::RequestId;
use http::{HeaderMap, HeaderValue, header};
use serde_json::Value;
use tokio::time::timeout;

use crate::api::{self, Api, Caller, REQUEST_ID, REQUEST_TIME, too_late};
use crate::listen::Connection;

use fault::Fault;
use form::Form;
pub(super) use token::GRANTS;

/// Content of a request. A proof has 16 KiB at most.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// The endpoints, each a path that takes a form and nothing else: under which name metadata has it, where it is, and how
/// clients prove themselves to it. At `/token` the subject token is the proof, or a certificate.
pub(super) const ENDPOINTS: [(&str, &str, &[&str]); 3] = [
    ("token_endpoint", TOKEN, &["none", "tls_client_auth"]),
    ("introspection_endpoint", INTROSPECT, &["tls_client_auth", "Bearer"]),
    ("revocation_endpoint", REVOKE, &["tls_client_auth"]),
];

const TOKEN: &str = "/token";
const INTROSPECT: &str = "/introspect";
const REVOKE: &str = "/revoke";

/// The routes of the endpoints, for [`super::router`].
pub fn routes(api: Arc<Api>) -> Router {
    Router::new()
        .route(TOKEN, post(token::answer))
        .route(INTROSPECT, post(introspect::answer))
        .route(REVOKE, post(revoke::answer))
        .layer(middleware::from_fn_with_state(Arc::clone(&api), named))
        .with_state(api)
}

/// Every answer carries the request's id, comes in time, and is kept by nobody (RFC 6749, section 5.1).
async fn named(State(api): State<Arc<Api>>, mut request: Request, next: Next) -> Response {
    let Ok(id) = api.desk.ids.draw(api.desk.clock.now()) else {
        return http::StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let id = RequestId::from(id);
    request.extensions_mut().insert(id);
    let answer = timeout(REQUEST_TIME, next.run(request)).await;
    let mut response = answer.unwrap_or_else(|_| Fault::from(too_late()).answer(&id));
    let headers = response.headers_mut();
    if !headers.contains_key(REQUEST_ID) {
        name(headers, &id);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    response
}

fn name(headers: &mut HeaderMap, id: &RequestId) {
    if let Ok(value) = HeaderValue::from_str(&id.to_string()) {
        headers.insert(REQUEST_ID, value);
    }
}

/// A request that has the form of one: who asks is the next question.
struct Asked {
    id: RequestId,
    connection: Option<Arc<Connection>>,
    headers: HeaderMap,
    form: Form,
}

impl Asked {
    /// Reads the request `id`. No proof is ever looked for in its URL.
    async fn read(id: RequestId, request: Request) -> Result<Self, Fault> {
        let (parts, body) = request.into_parts();
        check_head(&parts.headers, parts.uri.query())?;
        let form = Form::parse(&content(body).await?).map_err(Fault::malformed)?;
        let connection = parts.extensions.get::<Arc<Connection>>().cloned();
        Ok(Self { id, connection, headers: parts.headers, form })
    }

    fn client(&self) -> Option<Client> {
        api::client(self.connection.as_deref(), &self.headers)
    }

    /// Who calls an endpoint that is not about the caller's own proof: by certificate, or by an ID token as bearer.
    async fn proven(&self, api: &Api) -> Result<Caller, Fault> {
        self.check_secrets()?;
        let of_client = |told| Fault::from(told).of_client();
        let token = api::bearer(&self.headers).map_err(of_client)?;
        let caller = api::caller(api, self.connection.as_ref(), token, self.client(), self.id).await;
        caller.map_err(of_client)
    }

    /// The token that the request is about.
    fn token(&self) -> Result<&str, Fault> {
        self.form.one("token").ok_or_else(|| Fault::malformed("`token` is missing"))
    }

    fn check_secrets(&self) -> Result<(), Fault> {
        for secret in ["client_secret", "client_assertion", "client_assertion_type"] {
            if self.form.one(secret).is_some() {
                let detail =
                    format!("`{secret}` is not accepted: a token or a client certificate is the proof");
                return Err(Fault::malformed(detail).of_client());
            }
        }
        Ok(())
    }

    fn has_certificate(&self) -> bool {
        self.connection.as_ref().is_some_and(|connection| !connection.peer.chain.is_empty())
    }
}

fn check_head(headers: &HeaderMap, query: Option<&str>) -> Result<(), Fault> {
    if query.is_some() {
        return Err(Fault::malformed("expected no query: URLs are written to logs, and proofs are not"));
    }
    // A page in a browser could make its user's certificate speak for it.
    if headers.contains_key(header::ORIGIN) {
        return Err(Fault::malformed("expected a program: pages in browsers are not served"));
    }
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    let first = types.next().and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (kind, parameters) = first.split_once(';').unwrap_or((first, ""));
    let parameters = parameters.trim().to_ascii_lowercase();
    let is_form = kind.trim().eq_ignore_ascii_case("application/x-www-form-urlencoded")
        && matches!(parameters.as_str(), "" | "charset=utf-8" | "charset=\"utf-8\"");
    if !is_form || types.next().is_some() || headers.contains_key(header::CONTENT_ENCODING) {
        return Err(Fault::media_type());
    }
    Ok(())
}

async fn content(body: Body) -> Result<Vec<u8>, Fault> {
    let read = to_bytes(body, BODY_BYTES_MAX).await.map_err(|_| Fault::too_large(BODY_BYTES_MAX))?;
    Ok(read.to_vec())
}

/// An answer in JSON.
fn json(document: &Value) -> Response {
    let mut response = Response::new(Body::from(document.to_string()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
