//! The one place where requests go: over HTTP/1.1, under the roots that are named, and past no redirect.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use daypass_sdk::{Client, Error};
use daypass_verify::ids::Digest;
use http::header::HOST;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Request, Response, StatusCode, Uri, Version};
use hyper::body::Incoming;
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::ClientConfig;
use rustls::client::Resumption;
use tokio::sync::watch;
use url::Url;

use super::Refusal;
use super::stall::Stalling;
use crate::roots;

/// How long a connection may take, and an idle one stays.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

type Pool = legacy::Client<HttpsConnector<HttpConnector>, Stalling>;

/// Where requests go.
pub(super) struct Upstream {
    scheme: Scheme,
    authority: Authority,
    host: HeaderValue,
    pool: Pool,
    presenting: Option<Presenting>,
}

/// Connections that show the agent's own certificate, for tokens that are bound to it.
struct Presenting {
    clients: watch::Receiver<Client>,
    ca: PathBuf,
    /// The newest, and the certificate that it shows.
    made: Mutex<Option<(Digest, Pool)>>,
}

impl Upstream {
    /// `ca` are its roots, PEM; none: those of the machine.
    ///
    /// # Errors
    /// When they cannot be read.
    pub(super) fn new(url: &Url, ca: Option<&Path>, clients: watch::Receiver<Client>) -> Result<Self, Error> {
        let shown = url.as_str().trim_end_matches('/');
        let wrong = || Error::Config(format!("`{shown}`: expected `https://HOST:PORT`"));
        let uri: Uri = shown.parse().map_err(|_| wrong())?;
        let (scheme, authority) = uri.scheme().cloned().zip(uri.authority().cloned()).ok_or_else(wrong)?;
        let host = HeaderValue::from_str(authority.as_str()).map_err(|_| wrong())?;
        let pool = pool(tls(ca)?, scheme == Scheme::HTTP);
        let presenting = ca.map(|ca| Presenting { clients, ca: ca.to_owned(), made: Mutex::default() });
        Ok(Self { scheme, authority, host, pool, presenting })
    }

    /// The request with its path and query as they came, for this upstream.
    pub(super) fn addressed(&self, mut request: Request<Stalling>) -> Result<Request<Stalling>, Refusal> {
        let path = request.uri().path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
        let uri = Uri::builder().scheme(self.scheme.clone()).authority(self.authority.clone());
        *request.uri_mut() = uri.path_and_query(path).build().map_err(|_| {
            Refusal::new(StatusCode::BAD_REQUEST, "invalid_request", "expected a path in the request line")
        })?;
        request.headers_mut().insert(HOST, self.host.clone());
        *request.version_mut() = Version::HTTP_11;
        Ok(request)
    }

    /// The head of the answer; its body comes as it comes. `bound` is the certificate to be shown, where the token on the
    /// request is bound to one.
    ///
    /// # Errors
    /// What happened, in words.
    pub(super) async fn send(
        &self,
        request: Request<Stalling>,
        bound: Option<Digest>,
    ) -> Result<Response<Incoming>, String> {
        let pool = match (bound, &self.presenting) {
            (None, _) => self.pool.clone(),
            (Some(certificate), Some(presenting)) => presenting.pool(certificate)?,
            (Some(_), None) => return Err("the token is bound to a certificate: expected `ca`".to_owned()),
        };
        pool.request(request).await.map_err(|error| {
            let mut cause: &dyn std::error::Error = &error;
            while let Some(next) = cause.source() {
                cause = next;
            }
            format!("the upstream could not be asked: {cause}")
        })
    }
}

impl Presenting {
    /// Connections that show `certificate`: none is used for another.
    ///
    /// # Errors
    /// When the agent shows another one now, or the roots of the upstream cannot be read.
    fn pool(&self, certificate: Digest) -> Result<Pool, String> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((shown, pool)) = made.as_ref()
            && *shown == certificate
        {
            return Ok(pool.clone());
        }
        let client = self.clients.borrow().clone();
        if client.holder().digest() != certificate {
            return Err(
                "the token is bound to the agent's certificate before: another one is on its way".into()
            );
        }
        let ca = std::fs::read(&self.ca).map_err(|error| format!("`{}`: {error}", self.ca.display()))?;
        let mut tls = client.tls_to(&ca, &[]).map_err(|error| error.to_string())?;
        // A resumed session would still speak for the certificate before.
        tls.resumption = Resumption::disabled();
        let pool = pool(tls, false);
        *made = Some((certificate, pool.clone()));
        Ok(pool)
    }
}

fn pool(tls: ClientConfig, in_the_clear: bool) -> Pool {
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_connect_timeout(Some(CONNECT_TIMEOUT));
    http.set_nodelay(true);
    let connector = HttpsConnectorBuilder::new().with_tls_config(tls);
    let connector = if in_the_clear { connector.https_or_http() } else { connector.https_only() };
    legacy::Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_TIMEOUT)
        .set_host(false)
        .build(connector.enable_http1().wrap_connector(http))
}

fn tls(ca: Option<&Path>) -> Result<ClientConfig, Error> {
    let wrong = |what: String| Error::Config(format!("the upstream's `ca`: {what}"));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(error.to_string()))?;
    let Some(path) = ca else {
        let builder = builder.with_native_roots().map_err(|error| wrong(error.to_string()))?;
        return Ok(builder.with_no_client_auth());
    };
    let roots = roots::read(path).map_err(wrong)?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}
