//! One layer for every method: the call's own authentication is the proof.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use daypass_core::bundle::Bundle;
use daypass_core::decision::Outward;
use daypass_core::proof::{KnownKeys, Principal, ProofError, UnverifiedProof, possession};
use daypass_evidence::entry::{Client, ProofUse};
use daypass_verify::certificate::Holder;
use daypass_verify::ids::RequestId;
use daypass_verify::jose::UnverifiedToken;
use daypass_verify::time::UnixMs;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use tokio::time::timeout;
use tonic::body::Body;
use tower::Service;

use super::Api;
use super::status::{self, Outgoing};
use crate::listen::Connection;

/// The metadata that carries the request id of every answer.
pub(super) const REQUEST_ID: &str = "daypass-request-id";

/// Services that are open to all: they say nothing that is not public.
const OPEN: [&str; 2] = ["/grpc.health.v1.Health/", "/grpc.reflection.v1.ServerReflection/"];

/// How long a request may take until its answer begins, who calls included; streams may go on after that.
const REQUEST_TIME: Duration = Duration::from_secs(5);

/// How long a connection's principal is believed before its certificate is checked again, revocation included.
const KEPT_MS: i64 = 30_000;

/// How many bytes of a caller's `user-agent` are kept.
const AGENT_BYTES_MAX: usize = 128;

/// Who calls: an extension of every request that gets past this layer.
#[derive(Clone)]
pub(super) struct Caller {
    pub(super) principal: Arc<Principal>,
    pub(super) request: RequestId,
    pub(super) client: Option<Client>,
}

/// A principal that a connection keeps, with the keys it was verified under and when.
struct Kept {
    principal: Arc<Principal>,
    known: Arc<KnownKeys>,
    at: UnixMs,
}

/// Lets through who is proven.
#[derive(Clone)]
pub struct Authenticate<S> {
    inner: S,
    api: Arc<Api>,
}

impl<S> Authenticate<S> {
    pub(super) fn new(inner: S, api: Arc<Api>) -> Self {
        Self { inner, api }
    }
}

impl<S, B> Service<Request<B>> for Authenticate<S>
where
    S: Service<Request<B>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let clone = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, clone);
        let api = Arc::clone(&self.api);
        Box::pin(async move {
            if !is_grpc(&request) {
                let mut response = Response::new(Body::default());
                *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
                return Ok(response);
            }
            let Ok(id) = api.desk.ids.draw(api.desk.clock.now()) else {
                return Ok(tonic::Status::internal("the random source failed").into_http());
            };
            let id = RequestId::from(id);
            let patience =
                asked_timeout(request.headers()).map_or(REQUEST_TIME, |asked| asked.min(REQUEST_TIME));
            let answer = timeout(patience, answered(inner, &api, request, id)).await;
            answer.unwrap_or_else(|_| Ok(too_late().into_status(&id).into_http()))
        })
    }
}

/// The answer of the service within, once it is known who calls.
async fn answered<S, B>(
    mut inner: S,
    api: &Api,
    request: Request<B>,
    id: RequestId,
) -> Result<Response<Body>, Infallible>
where
    S: Service<Request<B>, Response = Response<Body>, Error = Infallible>,
{
    if OPEN.iter().any(|open| request.uri().path().starts_with(open)) {
        return inner.call(request).await;
    }
    let (mut parts, body) = request.into_parts();
    match caller(api, &parts, id).await {
        Ok(caller) => {
            parts.extensions.insert(caller);
            Ok(told(inner.call(Request::from_parts(parts, body)).await?, &id))
        }
        Err(outgoing) => Ok(outgoing.into_status(&id).into_http()),
    }
}

/// Whether a request says that it is gRPC. A page in a browser can send others with its user's certificate, and never
/// this content type without being asked first.
fn is_grpc<B>(request: &Request<B>) -> bool {
    let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let rest = content_type.and_then(|value| value.strip_prefix("application/grpc"));
    request.method() == Method::POST
        && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['+', ';']))
}

/// How long the caller waits, by `grpc-timeout`: at most eight digits and a unit.
fn asked_timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let count: u64 = digits.parse().ok().filter(|_| digits.len() <= 8)?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

/// An address whose proofs keep failing is not looked at for a moment; connections that proved themselves are.
fn look_at(api: &Api, connection: Option<&Connection>) -> Result<(), Outgoing> {
    let Some(connection) = connection.filter(|it| it.remembered::<Kept>().is_none()) else { return Ok(()) };
    api.limits.look_at_proof(connection.peer.addr.ip()).map_err(|wait| {
        let message = "too many proofs from this address failed: come back";
        Outgoing::new(Outward::RateLimited, message).retry(wait)
    })
}

async fn caller(api: &Api, parts: &Parts, id: RequestId) -> Result<Caller, Outgoing> {
    let connection = parts.extensions.get::<Arc<Connection>>().cloned();
    let bearer = bearer(&parts.headers);
    let client = client(connection.as_deref(), &parts.headers);
    look_at(api, connection.as_deref())?;
    let state = api.desk.log.state();
    let bundle = state.bundle().ok_or_else(|| Outgoing::new(Outward::Halted, "no bundle is in force"))?;
    let principal = match (bearer, &connection) {
        (None, Some(connection)) => remembered(api, bundle, connection),
        (Some(token), connection) => with_token(api, bundle, token?, connection.as_deref()).await,
        (None, None) => Err(missing()),
    };
    let principal = principal.and_then(|principal| not_lost(principal, state.proofs_from()));
    let principal = principal.map_err(|error| {
        if let Some(connection) = &connection {
            api.limits.proof_failed(connection.peer.addr.ip());
        }
        api.refusals.proof_failed(id, error.inner_reason(), &error.to_string());
        tracing::debug!(request = %id, reason = error.inner_reason(), %error, "a proof was refused");
        status::of_proof(&error)
    })?;
    Ok(Caller { principal, request: id, client })
}

/// What was recorded by then is void: its caller is gone.
fn too_late() -> Outgoing {
    Outgoing::new(
        Outward::EvidenceUnavailable,
        "the request took longer than 5 s, and was given up: try again",
    )
}

/// After a recovery nobody knows which proofs were spent in the part of the log that is lost: all that were made by
/// then count as spent.
fn not_lost(principal: Arc<Principal>, from: Option<UnixMs>) -> Result<Arc<Principal>, ProofError> {
    let early = from.is_some_and(|from| principal.issued_at() < from);
    if early && principal.usage() == ProofUse::Once {
        let detail = "it was made before the log was recovered: ask its issuer for a fresh one".into();
        return Err(ProofError::Refused { inner: "BEFORE_RECOVERY", detail });
    }
    Ok(principal)
}

fn missing() -> ProofError {
    ProofError::Refused {
        inner: "NO_PROOF",
        detail: "the call carried neither a client certificate nor an ID token".into(),
    }
}

/// The principal of a connection's certificate: worked out twice a minute, and checked on each request that it
/// still holds.
fn remembered(api: &Api, bundle: &Bundle, connection: &Connection) -> Result<Arc<Principal>, ProofError> {
    if connection.peer.chain.is_empty() {
        return Err(missing());
    }
    let (known, now) = (api.trust.known(), api.desk.clock.now());
    if let Some(kept) = connection.remembered::<Kept>()
        && Arc::ptr_eq(&kept.known, &known)
        && (0..KEPT_MS).contains(&now.millis_since(kept.at))
        && kept.principal.holds_under(bundle.digest(), now)
    {
        return Ok(Arc::clone(&kept.principal));
    }
    let proof = UnverifiedProof::Certificate { chain: connection.peer.chain.to_vec() };
    let principal = Arc::new(proof.verify(bundle, &known, &api.desk.issuer, now)?);
    connection.remember(Arc::new(Kept { principal: Arc::clone(&principal), known, at: now }));
    Ok(principal)
}

/// The principal of an ID token. A key that is not known, or that was replaced under its id, is asked for once.
async fn with_token(
    api: &Api,
    bundle: &Bundle,
    token: &str,
    connection: Option<&Connection>,
) -> Result<Arc<Principal>, ProofError> {
    let verify = || {
        let token = UnverifiedToken::parse(token)?;
        let connection = connection.filter(|connection| !connection.peer.chain.is_empty());
        let holder = connection.map(held).transpose()?.and_then(|held| held.0);
        let proof = match connection {
            Some(connection) if holder.is_none() => {
                UnverifiedProof::Both { token, chain: connection.peer.chain.to_vec() }
            }
            _ => UnverifiedProof::IdToken { token, holder },
        };
        proof.verify(bundle, &api.trust.known(), &api.desk.issuer, api.desk.clock.now())
    };
    let principal = match verify() {
        Err(ProofError::UnknownKey { issuer } | ProofError::ReplacedKey { issuer })
            if api.trust.refresh(&issuer).await =>
        {
            verify()
        }
        other => other,
    };
    principal.map(Arc::new)
}

/// What a connection's own certificate shows, where it was made to show possession only.
struct Held(Option<Holder>);

/// Worked out once a connection: it is the same for every token that comes over it.
fn held(connection: &Connection) -> Result<Arc<Held>, ProofError> {
    if let Some(held) = connection.remembered::<Held>() {
        return Ok(held);
    }
    let held = Arc::new(Held(possession(&connection.peer.chain)?));
    connection.remember(Arc::clone(&held));
    Ok(held)
}

/// The token of `authorization: Bearer`; none where there is no such header.
fn bearer(headers: &HeaderMap) -> Option<Result<&str, Outgoing>> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next()?;
    let refuse = || {
        Outgoing::new(
            Outward::ProofRefused,
            "the `authorization` header is refused: expected one, `Bearer` and an ID token",
        )
    };
    let token = value.to_str().ok().and_then(|text| text.split_once(' '));
    Some(match (token, values.next()) {
        (Some((scheme, token)), None) if scheme.eq_ignore_ascii_case("bearer") => Ok(token),
        _ => Err(refuse()),
    })
}

fn client(connection: Option<&Connection>, headers: &HeaderMap) -> Option<Client> {
    let addr = connection.map(|connection| connection.peer.addr.ip().to_string());
    let agent = headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok());
    let agent = agent
        .map(|agent| agent.chars().take(AGENT_BYTES_MAX).collect::<String>())
        .filter(|agent| !agent.is_empty());
    (addr.is_some() || agent.is_some()).then_some(Client { addr, agent })
}

/// Every answer carries the request id; and what the transport refused is told in our own terms.
fn told(mut response: Response<Body>, id: &RequestId) -> Response<Body> {
    if let Some(outgoing) = refused_by_transport(response.headers()) {
        return outgoing.into_status(id).into_http();
    }
    if !response.headers().contains_key(REQUEST_ID)
        && let Ok(value) = HeaderValue::from_str(&id.to_string())
    {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

/// tonic answers a message that does not decode with INTERNAL, and one that is too large with OUT_OF_RANGE.
fn refused_by_transport(headers: &HeaderMap) -> Option<Outgoing> {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let message = text("grpc-message").unwrap_or_default();
    match text("grpc-status")? {
        "13" if message.contains("decode") => Some(Outgoing::new(
            Outward::Malformed,
            "the message is not valid protobuf: expected the message of this method in daypass.v1",
        )),
        "11" => Some(Outgoing::new(
            Outward::RateLimited,
            "the message is too large: a request may have 64 KiB at most",
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_callers_deadline_is_read_as_grpc_writes_it() {
        for (text, expected) in [
            ("250m", Some(Duration::from_millis(250))),
            ("2S", Some(Duration::from_secs(2))),
            ("99999999H", Some(Duration::from_secs(99_999_999 * 3600))),
            ("1u", Some(Duration::from_micros(1))),
            ("100000000n", None),
            ("5", None),
            ("S", None),
            ("5s", None),
            ("-5S", None),
            ("", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", text.parse().unwrap());
            assert_eq!(asked_timeout(&headers), expected, "{text}");
        }
        assert_eq!(asked_timeout(&HeaderMap::new()), None);
    }
}
