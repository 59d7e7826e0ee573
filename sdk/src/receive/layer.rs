//! The layer in front of a service: verified callers pass, and are named to it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use daypass_verify::certificate::CertificateError;
use daypass_verify::credential::{CredentialError, Presenter};
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, Request, Response};
use tower::{Layer, Service};

use super::Receiver;
use super::caller::Caller;
use super::peer::Peer;
use super::refused::Refused;

/// Lets verified callers pass, over HTTP and gRPC, with an [`Arc`] of their [`Caller`] among the extensions of the
/// request. A token in `authorization` counts first; without one, a certificate that the broker has issued. The header
/// goes no further. Everybody else is answered as RFC 6750 says, or with the status of gRPC.
///
/// A token that is bound to a certificate passes only where [`Peer`] is among the extensions of the request and has
/// shown that certificate.
#[derive(Debug, Clone)]
pub struct ReceiverLayer {
    receiver: Receiver,
}

impl ReceiverLayer {
    pub(super) fn new(receiver: Receiver) -> Self {
        Self { receiver }
    }
}

impl<S> Layer<S> for ReceiverLayer {
    type Service = Receive<S>;

    fn layer(&self, inner: S) -> Receive<S> {
        Receive { inner, receiver: self.receiver.clone() }
    }
}

/// What [`ReceiverLayer`] makes of a service.
#[derive(Debug, Clone)]
pub struct Receive<S> {
    inner: S,
    receiver: Receiver,
}

impl<S, B, R> Service<Request<B>> for Receive<S>
where
    S: Service<Request<B>, Response = Response<R>, Future: Send> + Clone + Send + 'static,
    B: Send + 'static,
    R: Default,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<R>, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let next = self.inner.clone();
        // The one that was polled ready answers; its clone waits for the next request.
        let mut inner = std::mem::replace(&mut self.inner, next);
        let receiver = self.receiver.clone();
        Box::pin(async move {
            match receiver.caller(&mut request).await {
                Ok(caller) => {
                    request.extensions_mut().insert(Arc::new(caller));
                    inner.call(request).await
                }
                Err(refused) if is_grpc(request.headers()) => Ok(refused.to_grpc().into_http()),
                Err(refused) => Ok(refused.to_http()),
            }
        })
    }
}

impl Receiver {
    /// Who sends `request`; takes the credential off it. Where the receiver tells of use, this is one.
    ///
    /// # Errors
    /// When it shows none that is good here, now.
    pub async fn caller<B>(&self, request: &mut Request<B>) -> Result<Caller, Refused> {
        let peer = request.extensions().get::<Peer>().cloned();
        let presenter = peer.as_ref().map_or(Presenter::Bearer, Peer::presenter);
        let token = bearer(request.headers())?.map(str::to_owned);
        request.headers_mut().remove(AUTHORIZATION);
        let caller = match (token, peer) {
            (Some(token), _) => self.token(&zeroize::Zeroizing::new(token), presenter).await,
            (None, Some(peer)) => match self.certificate(&peer) {
                // It shows what its tokens are bound to, and no token.
                Err(Refused::Invalid(CredentialError::Certificate(CertificateError::UnknownIssuer))) => {
                    Err(Refused::NoCredential)
                }
                answered => answered,
            },
            (None, None) => Err(Refused::NoCredential),
        };
        caller.inspect(|caller| self.used(caller))
    }
}

/// The token (RFC 6750, section 2.1).
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Refused> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => {
            let text = value.to_str().map_err(|_| Refused::Malformed)?;
            let (scheme, token) = text.split_once(' ').ok_or(Refused::Malformed)?;
            let fits = scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() && !token.contains(' ');
            if fits { Ok(Some(token)) } else { Err(Refused::Malformed) }
        }
        (Some(_), Some(_)) => Err(Refused::Malformed),
    }
}

fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_from_one_header_in_one_form() {
        let read = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(AUTHORIZATION, value.parse().unwrap());
            }
            bearer(&headers).map(|token| token.map(str::to_owned))
        };
        assert_eq!(read(&[]), Ok(None));
        for good in ["Bearer a.b.c", "bearer a.b.c", "BEARER a.b.c"] {
            assert_eq!(read(&[good]), Ok(Some("a.b.c".to_owned())), "{good}");
        }
        for bad in ["", "Bearer", "Bearer ", "a.b.c", "Basic a", "Bearer  a", "Bearer a b"] {
            assert_eq!(read(&[bad]), Err(Refused::Malformed), "{bad}");
        }
        assert_eq!(read(&["Bearer a.b.c", "Bearer a.b.c"]), Err(Refused::Malformed));
    }

    #[test]
    fn a_refusal_says_no_more_than_the_status_needs() {
        let invalid = Refused::Invalid(CredentialError::Task);
        let id = "0199f2c1-6d5e-7a3b-9c41-2f8e5d7a9b10".parse().unwrap();
        let revoked = Refused::Revoked(daypass_verify::revocations::By::Identity, id);
        assert_eq!(invalid.challenge(), revoked.challenge());
        assert_eq!(invalid.to_grpc().message(), revoked.to_grpc().message());
        for refused in [Refused::NoCredential, Refused::Malformed, invalid, revoked, Refused::NotAllowed] {
            let answer = refused.to_http::<String>();
            assert!(
                answer.body().is_empty() && answer.headers().contains_key("www-authenticate"),
                "{refused}"
            );
        }
        let unavailable = Refused::Unavailable("keys").to_http::<String>();
        assert_eq!(
            (unavailable.status().as_u16(), unavailable.headers()["retry-after"].as_bytes()),
            (503, &b"5"[..])
        );
    }
}
