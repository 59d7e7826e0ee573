//! How a credential is shown to a target: a token on each request, a certificate in each handshake. Only over TLS, and
//! never one that is over.

mod certificate;
mod requests;
mod token;

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use http::header::AUTHORIZATION;
use rustls::ClientConfig;
use rustls::client::Resumption;
use secrecy::ExposeSecret as _;
use tonic::transport::{Channel, Endpoint};
use url::Url;

pub use certificate::SourceCertificate;
pub use requests::HttpClient;
pub use token::{TokenLayer, WithToken};

use crate::client::Client;
use crate::credential::Secret;
use crate::error::Error;
use crate::receive::IssuedServices;
use crate::source::CredentialSource;
use crate::tls::{Connector, client_config, client_config_by};

/// How long a connection to a target may take, with its handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

impl Client {
    /// TLS 1.3 to a target whose own certificate leads to one of the roots `ca` (PEM). It shows this client's
    /// certificate: a token that is bound to it is refused without. `alpn` are the protocols to offer, best first.
    ///
    /// # Errors
    /// When `ca` holds no certificate.
    pub fn tls_to(&self, ca: &[u8], alpn: &[&str]) -> Result<ClientConfig, Error> {
        let lines = self.lines();
        let mut config = client_config(ca, Some(Arc::new(lines.clone())), alpn)?;
        if lines.follows {
            // A resumed session would still speak for the certificate before.
            config.resumption = Resumption::disabled();
        }
        Ok(config)
    }

    /// The same to services that show a certificate of the broker and are those that `services` expects.
    ///
    /// # Errors
    /// When the cryptography at hand has no TLS 1.3.
    pub fn tls_to_services(
        &self,
        services: Arc<IssuedServices>,
        alpn: &[&str],
    ) -> Result<ClientConfig, Error> {
        client_config_by(services, Some(Arc::new(self.lines().clone())), alpn)
    }

    /// A gRPC channel to the target `to`, always over TLS: see [`Client::tls_to`]. It connects at the first call.
    ///
    /// # Errors
    /// When `to` is not `https`, or `ca` holds no certificate.
    pub fn grpc_to(&self, to: &Url, ca: &[u8]) -> Result<Channel, Error> {
        self.grpc_over(to, self.tls_to(ca, &["h2"])?)
    }

    /// The same over `tls`, as [`Client::tls_to_services`] makes it.
    ///
    /// # Errors
    /// When `to` is not `https`.
    pub fn grpc_over(&self, to: &Url, tls: ClientConfig) -> Result<Channel, Error> {
        https(to)?;
        let endpoint = Endpoint::from_shared(to.as_str().trim_end_matches('/').to_owned())
            .map_err(|error| Error::Config(format!("`{to}` is no address of a service: {error}")))?;
        let endpoint = endpoint.connect_timeout(CONNECT_TIMEOUT).tcp_nodelay(true);
        let connector = Connector::new(tls).until(self.lines().replaced());
        Ok(endpoint.connect_with_connector_lazy(connector))
    }

    /// HTTP to targets under the roots `ca`: see [`Client::tls_to`]. It speaks `https` alone and follows no redirect: a
    /// token is for one target.
    ///
    /// # Errors
    /// When `ca` holds no certificate.
    pub fn http_to(&self, ca: &[u8]) -> Result<HttpClient, Error> {
        HttpClient::new(self.tls_to(ca, &["h2", "http/1.1"])?, self.lines().clone())
    }
}

impl CredentialSource {
    /// The value of `authorization` for the next request (RFC 6750, section 2.1), marked as sensitive: it shows in
    /// no debug text, and HTTP/2 does not compress it. Waits as [`CredentialSource::credential`] does.
    ///
    /// # Errors
    /// When there is no credential, or it is a certificate.
    pub async fn authorization(&self) -> Result<HeaderValue, Error> {
        let credential = self.credential().await?;
        let Secret::Token { value, .. } = &credential.secret else {
            return Err(Error::Config("the source gives certificates: expected one of tokens".to_owned()));
        };
        let text = zeroize::Zeroizing::new(format!("Bearer {}", value.expose_secret()));
        let value = HeaderValue::from_str(&text);
        let mut value = value.map_err(|_| Error::Config("the token fits in no header".to_owned()))?;
        value.set_sensitive(true);
        Ok(value)
    }

    /// Puts the token on a request for reqwest.
    ///
    /// # Errors
    /// When the request would not go over TLS, or there is no credential.
    pub async fn put_on(&self, request: &mut reqwest::Request) -> Result<(), Error> {
        https(request.url())?;
        let value = self.authorization().await?;
        request.headers_mut().insert(AUTHORIZATION, value);
        Ok(())
    }
}

/// What nobody may see: only for a promise that is broken on purpose.
#[cfg(feature = "sabotage")]
pub(crate) fn shown(credential: &crate::credential::Credential) -> String {
    match &credential.secret {
        Secret::Token { value, .. } => value.expose_secret().to_owned(),
        Secret::Certificate { key, .. } => {
            key.as_ref().map(|key| key.expose_secret().to_owned()).unwrap_or_default()
        }
    }
}

fn https(url: &Url) -> Result<(), Error> {
    let refused = || Error::Config(format!("`{url}` is not `https`: a token is sent over TLS alone"));
    if url.scheme() == "https" { Ok(()) } else { Err(refused()) }
}

#[cfg(test)]
mod tests;
