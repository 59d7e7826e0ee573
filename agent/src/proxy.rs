//! A reverse proxy to one upstream: what the caller may do goes on, with a credential that the caller never sees.

mod gate;
mod headers;
mod inject;
mod stall;
mod upstream;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use daypass_sdk::{Client, Error};
use daypass_verify::ids::CredentialId;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::warn;

use crate::config;
use crate::door::{Caller, Door};
use crate::keep::Kept;
use crate::standing::Standing;
use crate::tally::{Reporter, Seen, Tally};

use gate::Gate;
use inject::Injector;
use stall::Stalling;
use upstream::Upstream;

type Answer = Response<Either<Full<Bytes>, Stalling>>;

/// One proxy.
pub(crate) struct Proxy {
    gate: Gate,
    injector: Injector,
    upstream: Upstream,
    timeout: Duration,
    tally: Tally,
}

/// Why a request does not go on.
struct Refusal {
    status: StatusCode,
    word: &'static str,
    why: String,
    /// Under which credential, where one is known.
    credential: Option<CredentialId>,
}

impl Proxy {
    /// Makes one, and what reports its use where that is wanted. To be called within a tokio runtime.
    ///
    /// # Errors
    /// When the upstream's roots cannot be read.
    pub(crate) fn new(
        proxy: &config::Proxy,
        kept: Kept,
        standing: Option<Standing>,
        clients: watch::Receiver<Client>,
    ) -> Result<(Arc<Self>, Option<Reporter>), Error> {
        let tally = Tally::default();
        let reporter =
            standing.clone().map(|standing| Reporter::new(tally.clone(), standing, clients.clone()));
        let injector = Injector::new(&proxy.inject, kept, standing);
        let timeout = Duration::from_secs(proxy.timeout.get().into());
        let gate = Gate::new(proxy.allow.clone(), &proxy.listen);
        let upstream = Upstream::new(&proxy.upstream, proxy.ca.as_deref(), clients)?;
        Ok((Arc::new(Self { gate, injector, upstream, timeout, tally }), reporter))
    }

    /// Serves whoever comes in, for ever.
    pub(crate) async fn serve(self: Arc<Self>, door: Door) {
        loop {
            let (guest, proxy) = (door.next().await, Arc::clone(&self));
            tokio::spawn(guest.attend(move |request, caller| {
                let proxy = Arc::clone(&proxy);
                async move { proxy.answer(request, &caller).await }
            }));
        }
    }

    async fn answer(&self, request: Request<Incoming>, caller: &Caller) -> Answer {
        match self.pass_on(request, caller).await {
            Ok(answer) => answer,
            Err(refusal) => {
                if refusal.is_ours() {
                    self.tally.add(self.seen(refusal.credential, Some(refusal.word)));
                }
                refusal.into_answer()
            }
        }
    }

    async fn pass_on(&self, request: Request<Incoming>, caller: &Caller) -> Result<Answer, Refusal> {
        caller.as_ref().map_err(|why| Refusal::new(StatusCode::FORBIDDEN, "access_denied", why))?;
        self.gate.check(&request)?;
        let injected = self.injector.take().await?;
        let (credential, bound) = (injected.credential, injected.bound);
        let (mut head, body) = request.into_parts();
        headers::clean_request(&mut head.headers);
        head.headers.insert(injected.header, injected.value);
        let request =
            self.upstream.addressed(Request::from_parts(head, Stalling::new(body, self.timeout)))?;
        // Counted before it goes out: what went out was counted, whatever becomes of the answer.
        self.tally.add(self.seen(Some(credential), None));
        let answered = timeout(self.timeout, self.upstream.send(request, bound)).await;
        let failed = |status, word, why: String| Refusal::new(status, word, &why);
        let mut answer = match answered {
            Ok(Ok(answer)) => answer,
            Ok(Err(why)) => return Err(failed(StatusCode::BAD_GATEWAY, "upstream_failed", why)),
            Err(_) => {
                let why = format!("the upstream did not answer within {:?}", self.timeout);
                return Err(failed(StatusCode::GATEWAY_TIMEOUT, "upstream_timeout", why));
            }
        };
        headers::clean_answer(answer.headers_mut());
        Ok(answer.map(|body| Either::Right(Stalling::new(body, self.timeout))))
    }

    fn seen(&self, credential: Option<CredentialId>, refused: Option<&'static str>) -> Seen {
        Seen { credential, exception: self.injector.exception().cloned(), action: None, refused }
    }
}

impl Refusal {
    fn new(status: StatusCode, word: &'static str, why: &str) -> Self {
        Self { status, word, why: why.to_owned(), credential: None }
    }

    /// Whether it was this proxy that refused, and not the upstream that failed.
    fn is_ours(&self) -> bool {
        !self.word.starts_with("upstream_")
    }

    fn into_answer(self) -> Answer {
        if self.status.is_server_error() {
            warn!("a request did not go on: {}: {}", self.word, self.why);
        }
        let body = json!({ "error": self.word, "error_description": self.why }).to_string();
        let mut answer = Response::new(Either::Left(Full::new(Bytes::from(body))));
        *answer.status_mut() = self.status;
        let headers = answer.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("5"));
        }
        answer
    }
}
