//! One refresh of an issuer's keys: discovery, key set, and every bound on both.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use daypass_core::bundle::object::KeySource;
use daypass_verify::jwks::{DroppedKey, JwksError, KeySet};
use reqwest::header::AUTHORIZATION;
use reqwest::{Client, RequestBuilder, Response, StatusCode, redirect};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use url::Url;

use super::address::Resolver;
use super::cluster::Cluster;
use super::discovery::Provider;
use super::limits::FetchLimits;

const DETAIL_LEN_MAX: usize = 300;

/// Fetches one issuer's keys.
pub(super) struct Fetcher {
    provider: Provider,
    from: From,
    limits: FetchLimits,
}

/// Where the key set is.
enum From {
    Discovery(Client),
    Url(Client, String),
    Cluster(Cluster),
}

/// A key set that passed.
pub(super) struct Fetched {
    pub(super) keys: KeySet,
    pub(super) dropped: Vec<DroppedKey>,
    pub(super) fresh: Duration,
}

/// Why there is none.
#[derive(Debug)]
pub(super) enum FetchError {
    /// No answer, or one that says to come again.
    Unreachable(String),
    /// An answer that is not believed.
    Refused {
        detail: String,
        /// What was wrong with its keys, if that was it.
        dropped: Vec<DroppedKey>,
    },
}

impl FetchError {
    fn refused(detail: impl Into<String>) -> Self {
        Self::Refused { detail: detail.into(), dropped: Vec::new() }
    }
}

impl Fetcher {
    /// A fetcher for the OIDC issuer `url`.
    pub(super) fn new(
        url: &str,
        keys: &KeySource,
        roots: Arc<RootCertStore>,
        internal: bool,
        limits: FetchLimits,
    ) -> Result<Self, String> {
        let client = client(roots, internal, limits)?;
        let from = match keys {
            KeySource::Discovery => From::Discovery(client),
            KeySource::JwksUrl(url) => From::Url(client, url.clone()),
            KeySource::Jwks(_) | KeySource::Cluster => {
                return Err("expected keys that are published".to_owned());
            }
        };
        Ok(Self { provider: Provider::new(url, internal), from, limits })
    }

    /// A fetcher for the issuer `url` of the cluster that the broker runs in.
    pub(super) fn in_cluster(url: &str, cluster: Cluster, limits: FetchLimits) -> Self {
        Self { provider: Provider::new(url, true), from: From::Cluster(cluster), limits }
    }

    pub(super) async fn fetch(&self) -> Result<Fetched, FetchError> {
        let within = tokio::time::timeout(self.limits.total, self.documents()).await;
        within.unwrap_or_else(|_| {
            Err(FetchError::Unreachable(format!("no whole answer within {:?}", self.limits.total)))
        })
    }

    async fn documents(&self) -> Result<Fetched, FetchError> {
        let response = match &self.from {
            From::Url(client, url) => get(client.get(self.fetchable(url)?)).await?,
            From::Discovery(client) => {
                let url = self.provider.discovery_url().map_err(FetchError::refused)?;
                let document = body(get(client.get(url)).await?, self.limits.discovery_len_max).await?;
                let url = self.provider.jwks_url(&document).map_err(FetchError::refused)?;
                get(client.get(url)).await?
            }
            From::Cluster(cluster) => self.of_cluster(cluster).await?,
        };
        let fresh = self.limits.fresh(response.headers());
        let document = body(response, self.limits.jwks_len_max).await?;
        match KeySet::parse(&document) {
            Ok((keys, dropped)) => Ok(Fetched { keys, dropped, fresh }),
            Err(JwksError::NoUsableKey(dropped)) => {
                let detail = JwksError::NoUsableKey(dropped.clone()).to_string();
                Err(FetchError::Refused { detail, dropped })
            }
            Err(error) => Err(FetchError::refused(error.to_string())),
        }
    }

    /// CA and token are read anew each time: the cluster replaces them while the broker runs.
    async fn of_cluster(&self, cluster: &Cluster) -> Result<Response, FetchError> {
        let client = client(cluster.roots().map_err(FetchError::Unreachable)?, true, self.limits)
            .map_err(FetchError::Unreachable)?;
        let authorization = cluster.authorization().map_err(FetchError::Unreachable)?;
        get(client.get(self.fetchable(&cluster.keys_url)?).header(AUTHORIZATION, authorization)).await
    }

    fn fetchable(&self, url: &str) -> Result<Url, FetchError> {
        self.provider.fetchable(url).map_err(FetchError::refused)
    }
}

async fn get(request: RequestBuilder) -> Result<Response, FetchError> {
    let response = request.send().await.map_err(unreachable)?;
    let path = response.url().path().to_owned();
    match response.status() {
        StatusCode::OK => Ok(response),
        StatusCode::TOO_MANY_REQUESTS => {
            Err(FetchError::Unreachable(cut(&format!("`{path}` was answered with status 429"))))
        }
        status if status.is_server_error() => {
            Err(FetchError::Unreachable(cut(&format!("`{path}` was answered with status {status}"))))
        }
        // A redirect is among these: where it leads to was not declared.
        status => Err(FetchError::refused(cut(&format!(
            "expected `{path}` to be answered with status 200, not {status}"
        )))),
    }
}

/// The roots that `tls_ca` pins (base64 of DER), or else the system's.
pub(super) fn roots(
    tls_ca: &[String],
    system: impl FnOnce() -> Arc<RootCertStore>,
) -> Result<Arc<RootCertStore>, String> {
    if tls_ca.is_empty() {
        return Ok(system());
    }
    let mut roots = RootCertStore::empty();
    for text in tls_ca {
        let der = STANDARD.decode(text).map_err(|_| "expected base64 of DER in `tls_ca`")?;
        roots.add(CertificateDer::from(der)).map_err(|_| "expected a CA certificate in `tls_ca`")?;
    }
    Ok(Arc::new(roots))
}

/// The roots that the machine trusts. One that does not parse is left out; with none left no issuer is reached.
pub(super) fn system_roots() -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    Arc::new(roots)
}

fn client(roots: Arc<RootCertStore>, internal: bool, limits: FetchLimits) -> Result<Client, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(|error| format!("cannot set up TLS: {error}"))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Client::builder()
        .tls_backend_preconfigured(tls)
        .dns_resolver(Resolver { internal })
        .https_only(true)
        .http1_only()
        .redirect(redirect::Policy::none())
        .no_proxy()
        .connect_timeout(limits.connect)
        .timeout(limits.total)
        // Fetches are minutes apart, and each shall meet the address and certificate of its own time.
        .pool_max_idle_per_host(0)
        .user_agent("daypass")
        .build()
        .map_err(|error| format!("cannot set up fetching: {error}"))
}

/// The whole body, if it is no longer than `len_max`; whatever length is announced.
async fn body(mut response: Response, len_max: usize) -> Result<Vec<u8>, FetchError> {
    let mut whole = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
        if whole.len().saturating_add(chunk.len()) > len_max {
            return Err(FetchError::refused(format!(
                "expected a document of at most {} KiB",
                len_max / 1024
            )));
        }
        whole.extend_from_slice(&chunk);
    }
    Ok(whole)
}

fn unreachable(error: reqwest::Error) -> FetchError {
    let mut detail = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        detail = format!("{detail}: {inner}");
        source = inner.source();
    }
    FetchError::Unreachable(cut(&detail))
}

/// Text that a stranger had a part in, for a log line.
fn cut(text: &str) -> String {
    text.escape_debug().take(DETAIL_LEN_MAX).collect()
}
