//! The layer that puts a token on each request to one service.

use std::error::Error as StdError;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::AUTHORIZATION;
use http::{Request, Uri};
use tower::{Layer, Service};
use url::Url;

use super::https;
use crate::error::Error;
use crate::source::CredentialSource;

/// Puts the source's token on each request to one service: around a channel of tonic, or any other HTTP client that
/// is a tower service. A request waits for a token that is fresh; it fails where there is none.
///
/// A request that names another scheme, host or port than the service's is refused. One that names none, as those of
/// tonic, goes where the channel leads: make it with [`crate::Client::grpc_to`], which is always TLS.
#[derive(Debug, Clone)]
pub struct TokenLayer {
    source: CredentialSource,
    service: Arc<Url>,
}

impl TokenLayer {
    /// For requests to `service`: `https://HOST:PORT`.
    ///
    /// # Errors
    /// When it is not `https`.
    pub fn to(source: CredentialSource, service: &Url) -> Result<Self, Error> {
        https(service)?;
        Ok(Self { source, service: Arc::new(service.clone()) })
    }

    fn check(&self, uri: &Uri) -> Result<(), Error> {
        let ours = match (uri.scheme_str(), uri.host()) {
            (None, None) => true,
            (Some("https"), host) => {
                host == self.service.host_str()
                    && uri.port_u16().or(Some(443)) == self.service.port_or_known_default()
            }
            _ => false,
        };
        if ours { Ok(()) } else { Err(self.elsewhere(uri)) }
    }

    fn elsewhere(&self, uri: &Uri) -> Error {
        let to = format!("{}://{}", uri.scheme_str().unwrap_or_default(), uri.host().unwrap_or_default());
        Error::Config(format!(
            "a request to `{to}`: expected one to `{}`, for which the token is",
            self.service
        ))
    }
}

impl<S> Layer<S> for TokenLayer {
    type Service = WithToken<S>;

    fn layer(&self, inner: S) -> WithToken<S> {
        WithToken { inner, token: self.clone() }
    }
}

/// What [`TokenLayer`] makes of a service.
#[derive(Debug, Clone)]
pub struct WithToken<S> {
    inner: S,
    token: TokenLayer,
}

impl<S, B> Service<Request<B>> for WithToken<S>
where
    S: Service<Request<B>, Error: Into<Box<dyn StdError + Send + Sync>>, Future: Send>
        + Clone
        + Send
        + 'static,
    B: Send + 'static,
{
    type Response = S::Response;
    type Error = Box<dyn StdError + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let next = self.inner.clone();
        // The one that was polled ready answers; its clone waits for the next request.
        let mut inner = std::mem::replace(&mut self.inner, next);
        let token = self.token.clone();
        Box::pin(async move {
            token.check(request.uri())?;
            let value = token.source.authorization().await?;
            request.headers_mut().insert(AUTHORIZATION, value);
            inner.call(request).await.map_err(Into::into)
        })
    }
}
