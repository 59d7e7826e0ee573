//! The public HTTP listener: what a verifier needs to know about this issuer, answered from memory alone; where that is
//! wanted, the hashes of the log's tree; and the OAuth endpoints.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header};

mod documents;
mod issuer_url;
mod lists;
pub mod oauth;
mod page;
mod tiles;

pub use documents::{Documents, KeySchedule, PublishedKey, documents};
pub use issuer_url::{Authorities, IssuerUrl, IssuerUrlError};
pub use lists::Lists;
pub use page::Page;
pub use tiles::{LogShown, ReadTile, Tiles};

/// The newest signed checkpoint, with witnesses' signatures where there are any, or none where this broker does not publish it; asked on each request, so it must
/// only look at what is in memory.
pub type NewestCheckpoint = Arc<dyn Fn() -> Option<Arc<[u8]>> + Send + Sync>;

/// All that the listener serves.
pub struct Site {
    /// What is published now; replaced whole when keys change.
    pub documents: ArcSwap<Documents>,
    /// What is revoked; replaced whole when it is signed anew.
    pub revoked: ArcSwap<Lists>,
    /// The source of `/checkpoint`.
    pub checkpoint: NewestCheckpoint,
    /// The tree's hashes as tiles; none where this broker does not publish them.
    pub tiles: Option<Tiles>,
    /// Each log in the store, closed or not, by the last part of its origin.
    pub logs: BTreeMap<String, LogShown>,
    /// The names under which the site may be asked for; others are answered 421.
    pub authorities: Authorities,
}

/// The routes of the listener, for [`crate::listen::serve`], with the OAuth `endpoints`. URLs in what it serves are fixed beforehand: no header
/// of a request has a say in them.
pub fn router(site: Arc<Site>, endpoints: Router) -> Router {
    Router::new()
        .route("/.well-known/openid-configuration", get(discovery))
        .route("/.well-known/oauth-authorization-server", get(discovery))
        .route("/jwks", get(jwks))
        .route("/bundle", get(bundle))
        .route("/revocations", get(lists::revocations))
        .route("/crl", get(lists::crls))
        .route("/crl/{key}", get(lists::crl))
        .route("/checkpoint", get(checkpoint))
        .route("/tile/{*path}", get(tiles::tile))
        .route("/evidence/{*path}", get(tiles::of_log))
        .with_state(Arc::clone(&site))
        .merge(endpoints)
        .layer(middleware::from_fn_with_state(site, strict))
}

async fn discovery(State(site): State<Arc<Site>>, headers: HeaderMap) -> Response {
    site.documents.load().discovery.answer(&headers)
}

async fn jwks(State(site): State<Arc<Site>>, headers: HeaderMap) -> Response {
    site.documents.load().jwks.answer(&headers)
}

async fn bundle(State(site): State<Arc<Site>>, headers: HeaderMap) -> Response {
    site.documents.load().bundle.answer(&headers)
}

/// A C2SP signed note (tlog-checkpoint).
async fn checkpoint(State(site): State<Arc<Site>>, headers: HeaderMap) -> Response {
    tiles::note((site.checkpoint)(), &headers)
}

/// Turns away what a strict origin server should not have been sent, and hardens every answer.
async fn strict(State(site): State<Arc<Site>>, request: Request, next: Next) -> Response {
    let mut response = match fault(&request, &site.authorities) {
        Some(fault) => refuse(fault, request.version()),
        None => next.run(request).await,
    };
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'"));
    // A cache may keep a 404 or 405 that does not say otherwise.
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Why a request is turned away whatever it asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    ForeignHost,
    AmbiguousHost,
    Body,
    Length,
}

/// Over HTTP/1 the connection ends too: what follows may be the content of this request or the next one.
fn refuse(fault: Fault, version: Version) -> Response {
    let (status, says) = match fault {
        Fault::ForeignHost => (StatusCode::MISDIRECTED_REQUEST, "this server does not answer for that host"),
        Fault::AmbiguousHost => (StatusCode::BAD_REQUEST, "expected one host, and a path as request target"),
        Fault::Body => (StatusCode::BAD_REQUEST, "expected a request without content"),
        Fault::Length => (StatusCode::LENGTH_REQUIRED, "expected a content-length, and no transfer-encoding"),
    };
    let says = Json(serde_json::json!({ "error": "invalid_request", "error_description": says }));
    let mut response = (status, says).into_response();
    if version <= Version::HTTP_11 {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn fault(request: &Request, authorities: &Authorities) -> Option<Fault> {
    match authority(request) {
        None => Some(Fault::AmbiguousHost),
        Some(authority) if !authorities.include(authority) => Some(Fault::ForeignHost),
        Some(_) if takes_content(request) => {
            request.headers().contains_key(header::TRANSFER_ENCODING).then_some(Fault::Length)
        }
        Some(_) => has_content(request.headers()).then_some(Fault::Body),
    }
}

fn takes_content(request: &Request) -> bool {
    request.method() == Method::POST
        && oauth::ENDPOINTS.iter().any(|(_, path, _)| *path == request.uri().path())
}

/// The one authority that a request names (RFC 9110, section 7.2; RFC 9113, section 8.3.1); none when it names
/// none or several, or has HTTP/1.1's absolute form, which only proxies have a use for.
fn authority(request: &Request) -> Option<&str> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host = hosts.next().map(HeaderValue::to_str).transpose().ok()?;
    let target = request.uri().authority().map(http::uri::Authority::as_str);
    match (request.version(), target, host, hosts.next()) {
        (Version::HTTP_2, Some(target), None, None) => Some(target),
        (Version::HTTP_2, Some(target), Some(host), None) if target == host => Some(target),
        (Version::HTTP_10 | Version::HTTP_11, None, Some(host), None) => Some(host),
        _ => None,
    }
}

/// No other request that is answered here has content, so its length can be no matter of dispute with a proxy; and
/// where content belongs, one header alone says how long it is.
fn has_content(headers: &HeaderMap) -> bool {
    headers.contains_key(header::TRANSFER_ENCODING)
        || headers.get(header::CONTENT_LENGTH).is_some_and(|length| length.as_bytes() != b"0")
}

#[cfg(test)]
mod tests;
