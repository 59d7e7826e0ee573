//! One layer for every method: the call's own authentication is the proof.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use daypass_core::decision::Outward;
use daypass_verify::ids::RequestId;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use tokio::time::timeout;
use tonic::body::Body;
use tower::Service;

use super::Api;
use super::status::Outgoing;
pub(super) use crate::api::{Caller, REQUEST_ID};
use crate::api::{REQUEST_TIME, bearer, caller, client, too_late};
use crate::listen::Connection;

/// Services that are open to all: they say nothing that is not public.
const OPEN: [&str; 2] = ["/grpc.health.v1.Health/", "/grpc.reflection.v1.ServerReflection/"];

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
    match shown(api, &parts, id).await {
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

/// Who calls, by what the connection and the call's own header show.
async fn shown(api: &Api, parts: &Parts, id: RequestId) -> Result<Caller, Outgoing> {
    let connection = parts.extensions.get::<Arc<Connection>>();
    let client = client(connection.map(Arc::as_ref), &parts.headers);
    caller(api, connection, bearer(&parts.headers)?, client, id).await
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
