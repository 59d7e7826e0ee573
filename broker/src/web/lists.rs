//! What is revoked, as verifiers fetch it: the signed feed, and the revocation lists of our CAs.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};

use super::{Page, Site};

/// The newest lists, each ready to be served. None before this broker has signed one.
#[derive(Debug, Clone, Default)]
pub struct Lists {
    /// The feed: a JWT.
    pub feed: Option<Page>,
    /// The lists of all CAs, PEM, one after the other: as servers take them in one file.
    pub crls: Option<Page>,
    /// The list of each CA by its key, DER (RFC 5280, section 5).
    pub crl_by_key: BTreeMap<String, Page>,
}

pub(super) async fn revocations(State(site): State<Arc<Site>>, headers: HeaderMap) -> Response {
    answer(site.revoked.load().feed.as_ref(), &headers)
}

pub(super) async fn crls(State(site): State<Arc<Site>>, headers: HeaderMap) -> Response {
    answer(site.revoked.load().crls.as_ref(), &headers)
}

pub(super) async fn crl(
    State(site): State<Arc<Site>>,
    Path(key): Path<String>,
    headers: HeaderMap,
) -> Response {
    let key = key.strip_suffix(".crl").unwrap_or(&key);
    match site.revoked.load().crl_by_key.get(key) {
        Some(page) => page.answer(&headers),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// Nothing is said before all that was revoked is known again: a list that lacks some would be believed.
fn answer(page: Option<&Page>, headers: &HeaderMap) -> Response {
    match page {
        Some(page) => page.answer(headers),
        None => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}
