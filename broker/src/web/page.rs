//! One page served from memory, with the validators that let a cache ask cheaply (RFC 9110, section 13).

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use daypass_verify::ids::Digest;
use daypass_verify::time::Seconds;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::Value;

/// A page, made once and served many times.
#[derive(Debug, Clone)]
pub struct Page {
    content: Bytes,
    content_type: HeaderValue,
    cache_control: HeaderValue,
    etag: HeaderValue,
}

impl Page {
    /// A JSON document that caches may keep for `max_age_s`.
    #[must_use]
    pub fn json(document: &Value, max_age_s: Seconds) -> Self {
        let cache_control = format!("public, max-age={}", max_age_s.get());
        // Digits in a fixed text are a header value; the fallback is there for the types alone.
        let cache_control =
            HeaderValue::try_from(cache_control).unwrap_or(HeaderValue::from_static("no-cache"));
        Self::new(document.to_string().into(), HeaderValue::from_static("application/json"), cache_control)
    }

    /// A signed note, which caches must ask for anew each time.
    #[must_use]
    pub fn note(text: Arc<[u8]>) -> Self {
        let content_type = HeaderValue::from_static("text/plain; charset=utf-8");
        Self::new(Bytes::from_owner(text), content_type, HeaderValue::from_static("no-cache"))
    }

    /// Something signed that changes whenever it has to: caches must ask for it anew each time.
    #[must_use]
    pub fn signed(content: Vec<u8>, content_type: &'static str) -> Self {
        let content_type = HeaderValue::from_static(content_type);
        Self::new(content.into(), content_type, HeaderValue::from_static("no-cache"))
    }

    /// Hashes of the log's tree, which never change (C2SP tlog-tiles, "Merkle Tree").
    #[must_use]
    pub fn tile(hashes: Vec<u8>) -> Self {
        let content_type = HeaderValue::from_static("application/octet-stream");
        let cache_control = HeaderValue::from_static("public, max-age=31536000, immutable");
        Self::new(hashes.into(), content_type, cache_control)
    }

    fn new(content: Bytes, content_type: HeaderValue, cache_control: HeaderValue) -> Self {
        let etag = format!("\"{}\"", Digest::of(&content));
        let etag = HeaderValue::try_from(etag).unwrap_or(HeaderValue::from_static("\"\""));
        Self { content, content_type, cache_control, etag }
    }

    /// The page itself.
    #[must_use]
    pub fn content(&self) -> &[u8] {
        &self.content
    }

    /// 200 with the page, or 304 to a caller that has it already.
    pub(super) fn answer(&self, headers: &HeaderMap) -> Response {
        let known = self.is_known(headers);
        let body = if known { Body::empty() } else { Body::from(self.content.clone()) };
        let mut response = Response::new(body);
        *response.status_mut() = if known { StatusCode::NOT_MODIFIED } else { StatusCode::OK };
        let headers = response.headers_mut();
        headers.insert(header::ETAG, self.etag.clone());
        headers.insert(header::CACHE_CONTROL, self.cache_control.clone());
        if !known {
            headers.insert(header::CONTENT_TYPE, self.content_type.clone());
        }
        response
    }

    /// The weak comparison of `If-None-Match` (RFC 9110, section 13.1.2). What is malformed matches nothing.
    fn is_known(&self, headers: &HeaderMap) -> bool {
        let fields = headers.get_all(header::IF_NONE_MATCH);
        fields.iter().flat_map(|field| field.as_bytes().split(|&octet| octet == b',')).any(|tag| {
            let tag = tag.trim_ascii();
            tag == b"*" || tag.strip_prefix(b"W/").unwrap_or(tag) == self.etag.as_bytes()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_caller_that_has_the_page_is_told_so() {
        let page = Page::json(&serde_json::json!({ "keys": [] }), Seconds::new(60));
        let etag = page.etag.to_str().unwrap();
        let known = [etag.to_owned(), format!("W/{etag}"), format!("\"other\", {etag}"), "*".to_owned()];
        let unknown = ["\"other\"", "", ",", "W/", "\"", etag.trim_matches('"')];
        let answer = |tag: &str| {
            let headers = HeaderMap::from_iter([(header::IF_NONE_MATCH, tag.parse().unwrap())]);
            page.answer(&headers).status()
        };
        for tag in &known {
            assert_eq!(answer(tag), StatusCode::NOT_MODIFIED, "{tag}");
        }
        for tag in unknown {
            assert_eq!(answer(tag), StatusCode::OK, "{tag}");
        }
    }
}
