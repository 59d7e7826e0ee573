//! `GET /token?task=TASK` on a Unix socket: HTTP/1.1 for programs that can fetch a token and no more.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use daypass_sdk::{Credential, Error, Secret};
use http::header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use secrecy::ExposeSecret as _;
use serde_json::json;
use url::form_urlencoded;

use crate::clock::now;
use crate::keep::Kept;
use crate::socket::{Bound, Buckets, Peer, Visitor};

/// How long a request may take to arrive, and a connection may be idle.
const PATIENCE: Duration = Duration::from_secs(10);

type Answer = Response<Full<Bytes>>;

/// What one socket gives.
struct Served {
    credentials: Vec<Kept>,
    buckets: Mutex<Buckets>,
}

/// Serves `credentials` on a socket, for ever.
pub(crate) async fn serve(bound: Bound, credentials: Vec<Kept>) {
    let served = Arc::new(Served { credentials, buckets: Mutex::default() });
    loop {
        let visitor = bound.next().await;
        tokio::spawn(attend(visitor, Arc::clone(&served)));
    }
}

async fn attend(visitor: Visitor, served: Arc<Served>) {
    let Visitor { stream, peer, room } = visitor;
    let answer = |request: Request<hyper::body::Incoming>| {
        let (served, peer) = (Arc::clone(&served), peer.clone());
        async move { Ok::<_, Infallible>(served.answer(&request, &peer).await) }
    };
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
    // A visitor who breaks off needs no answer.
    http.serve_connection(TokioIo::new(stream), service_fn(answer)).await.ok();
    drop(room);
}

impl Served {
    async fn answer<B>(&self, request: &Request<B>, peer: &Result<Peer, String>) -> Answer {
        let peer = match peer {
            Ok(peer) => peer,
            Err(why) => return refusal(StatusCode::FORBIDDEN, "access_denied", why),
        };
        if let Err(wait) = self.take(peer) {
            let mut answer =
                refusal(StatusCode::TOO_MANY_REQUESTS, "slow_down", "too many calls by this process");
            set_retry_after(&mut answer, wait);
            return answer;
        }
        let path = request.uri().path();
        if !matches!(path, "/token" | "/holder") {
            return refusal(
                StatusCode::NOT_FOUND,
                "not_found",
                "expected `/token?task=TASK` or `/holder?task=TASK`",
            );
        }
        if request.method() != Method::GET {
            let mut answer = refusal(StatusCode::METHOD_NOT_ALLOWED, "invalid_request", "expected GET");
            answer.headers_mut().insert(ALLOW, http::HeaderValue::from_static("GET"));
            return answer;
        }
        match self.wanted(request.uri().query().unwrap_or_default()) {
            Ok(kept) if path == "/token" => token(kept, wants_text(request)).await,
            Ok(kept) => holder(kept),
            Err((status, error, why)) => refusal(status, error, &why),
        }
    }

    fn take(&self, peer: &Peer) -> Result<(), Duration> {
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner).take(peer.pid, Instant::now())
    }

    /// The credential that a query names.
    fn wanted(&self, query: &str) -> Result<&Kept, (StatusCode, &'static str, String)> {
        let mut pairs = form_urlencoded::parse(query.as_bytes());
        let task = match (pairs.next(), pairs.next()) {
            (Some((key, task)), None) if key == "task" => task,
            _ => {
                let expected = "expected `task=TASK`, once, and nothing else";
                return Err((StatusCode::BAD_REQUEST, "invalid_request", expected.to_owned()));
            }
        };
        let found = self.credentials.iter().find(|kept| kept.name.as_str() == task);
        found.ok_or_else(|| {
            let known: Vec<_> = self.credentials.iter().map(|kept| format!("`{}`", kept.name)).collect();
            let why = format!("there is no such token here: expected one of {}", known.join(", "));
            (StatusCode::NOT_FOUND, "invalid_target", why)
        })
    }
}

fn wants_text<B>(request: &Request<B>) -> bool {
    let accept = request.headers().get(ACCEPT).and_then(|it| it.to_str().ok()).unwrap_or_default();
    accept.split(',').any(|it| it.trim().starts_with("text/plain"))
}

async fn token(kept: &Kept, as_text: bool) -> Answer {
    let credential = match kept.credential().await {
        Ok(credential) => credential,
        Err(error) => return unavailable(&error),
    };
    let Credential { secret: Secret::Token { value, kind, .. }, granted, .. } = &*credential else {
        return refusal(StatusCode::NOT_FOUND, "invalid_target", "it is no token");
    };
    if as_text {
        return answer(StatusCode::OK, "text/plain", value.expose_secret().to_owned());
    }
    let left_s = granted.expires_at.millis_since(now()).div_euclid(1000);
    // Named as in RFC 6749, section 5.1.
    let body = json!({
        "access_token": value.expose_secret(),
        "token_type": kind,
        "expires_in": left_s.max(0),
        "expires_at": granted.expires_at.to_string(),
    });
    answer(StatusCode::OK, "application/json", body.to_string())
}

/// The certificate and key to which the token is bound.
fn holder(kept: &Kept) -> Answer {
    let fresh = kept.changes.borrow().clone();
    match fresh.as_ref().and_then(|fresh| fresh.holder.as_ref()) {
        Some(pem) => answer(StatusCode::OK, "application/x-pem-file", pem.expose_secret().to_owned()),
        None => {
            let why = "there is no token now, it is a bearer token, or it is bound to the agent's own proof";
            refusal(StatusCode::NOT_FOUND, "invalid_target", why)
        }
    }
}

fn unavailable(error: &Error) -> Answer {
    let why = error.to_string();
    match error {
        Error::AskForPermission(_) => refusal(StatusCode::FORBIDDEN, "access_denied", &why),
        Error::FixRequest { .. } => refusal(StatusCode::BAD_GATEWAY, "invalid_request", &why),
        Error::Retry { after, .. } => {
            let mut answer = refusal(StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable", &why);
            set_retry_after(&mut answer, *after);
            answer
        }
        _ => {
            let mut answer = refusal(StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable", &why);
            set_retry_after(&mut answer, Duration::from_secs(1));
            answer
        }
    }
}

fn refusal(status: StatusCode, error: &str, why: &str) -> Answer {
    answer(status, "application/json", json!({ "error": error, "error_description": why }).to_string())
}

fn answer(status: StatusCode, kind: &'static str, body: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static(kind));
    answer.headers_mut().insert(CACHE_CONTROL, http::HeaderValue::from_static("no-store"));
    answer
}

fn set_retry_after(answer: &mut Answer, wait: Duration) {
    answer.headers_mut().insert(RETRY_AFTER, http::HeaderValue::from(wait.as_secs().max(1)));
}
