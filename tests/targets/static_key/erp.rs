//! A small service over HTTP/1.1 that knows one key.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt as _;

/// The one key: a word that is found wherever it is written.
pub(super) const KEY: &str = "k-canary-7f3a9c41d2e8";

/// What arrived.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) method: String,
    pub(super) target: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

impl Seen {
    /// Every value of a header.
    pub(super) fn all(&self, name: &str) -> Vec<String> {
        self.headers.get_all(name).iter().map(|value| value.to_str().unwrap().to_owned()).collect()
    }
}

type All = Arc<Mutex<Vec<Seen>>>;

/// The service, while this lives.
pub(super) struct Erp {
    pub(super) address: SocketAddr,
    seen: All,
    serving: tokio::task::JoinHandle<()>,
}

impl Drop for Erp {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Erp {
    pub(super) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = All::default();
        let router = axum::Router::new().fallback(answer).with_state(Arc::clone(&seen));
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, seen, serving }
    }

    /// What arrived so far.
    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

async fn answer(State(all): State<All>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let path = head.uri.path().to_owned();
    all.lock().unwrap().push(Seen {
        method: head.method.to_string(),
        target: head.uri.to_string(),
        headers: head.headers.clone(),
        body: body.iter().take(64).copied().collect(),
    });
    if let Some(slow) = head.headers.get("x-slow") {
        tokio::time::sleep(Duration::from_secs(slow.to_str().unwrap().parse().unwrap())).await;
    }
    let known = [format!("Key {KEY}"), KEY.to_owned()];
    if !head.headers.get("authorization").is_some_and(|it| known.iter().any(|known| it == known.as_str())) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    match path.as_str() {
        "/echo" => Body::from_stream(pieces()).into_response(),
        "/moved" => (StatusCode::FOUND, [("location", "http://elsewhere.example/")]).into_response(),
        _ if head.method == http::Method::PUT => body.len().to_string().into_response(),
        _ => "done".into_response(),
    }
}

/// 64 MiB, a piece at a time.
fn pieces() -> impl futures::Stream<Item = Result<Bytes, std::convert::Infallible>> {
    futures::stream::iter((0..1024).map(|_| Ok(Bytes::from_static(&[b'x'; 65_536]))))
}
