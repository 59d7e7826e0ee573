//! How the server is reached: at a Unix socket, or over TCP with a certificate that is itself a credential.

use std::path::PathBuf;
use std::sync::Arc;

use daypass_sdk::SourceCertificate;
use daypass_verify::ids::CredentialId;
use rustls::ClientConfig;
use tokio::task::JoinHandle;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::{Client, Config, NoTls, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;
use tracing::debug;

use super::database::{Failed, failed};
use crate::keep::{Changes, Kept};
use crate::roots;

/// Where it is, and as whom it is asked.
pub(super) struct Server {
    at: Config,
    tls: Option<Shown>,
}

/// What is shown to the server, and under which roots (PEM) it is believed.
struct Shown {
    ca: PathBuf,
    kept: Kept,
}

/// A session, and what drives it.
pub(super) struct Connected {
    pub(super) client: Client,
    pub(super) driving: JoinHandle<()>,
    /// The credential that was shown, or one before it.
    pub(super) shown: Option<CredentialId>,
}

impl Server {
    /// Over TCP where there is something to show: under these roots, with this certificate.
    pub(super) fn new(at: Config, tls: Option<(PathBuf, Kept)>) -> Self {
        Self { at, tls: tls.map(|(ca, kept)| Shown { ca, kept }) }
    }

    pub(super) fn is_remote(&self) -> bool {
        self.tls.is_some()
    }

    /// The certificate that is shown, as it changes; none at a Unix socket.
    pub(super) fn changes(&self) -> Option<Changes> {
        self.tls.as_ref().map(|shown| shown.kept.changes.clone())
    }

    /// A session.
    pub(super) async fn connect(&self) -> Result<Connected, Failed> {
        match &self.tls {
            None => connect(&self.at, NoTls, None).await,
            Some(shown) => {
                let (tls, id) = shown.config().await?;
                connect(&self.at, MakeRustlsConnect::new(tls), Some(id)).await
            }
        }
    }
}

impl Shown {
    /// With the roots and the certificate of this moment; rustls looks at the server's name by itself.
    async fn config(&self) -> Result<(ClientConfig, CredentialId), Failed> {
        let none = |why| format!("there is no certificate `{}` to show: {why}", self.kept.name);
        let id = self.kept.credential().await.map_err(none)?.id;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let shown = SourceCertificate::new(self.kept.source());
        let roots = roots::read(&self.ca).map_err(|why| format!("`ca`: {why}"))?;
        Ok((builder.with_root_certificates(roots).with_client_cert_resolver(shown), id))
    }
}

async fn connect<T>(at: &Config, tls: T, shown: Option<CredentialId>) -> Result<Connected, Failed>
where
    T: MakeTlsConnect<Socket>,
    T::TlsConnect: Send,
    T::Stream: Send + 'static,
    <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
{
    let (client, connection) = at.connect(tls).await.map_err(|error| failed(&error))?;
    let driving = tokio::spawn(async move {
        if let Err(error) = connection.await {
            debug!("the session with the database ended: {error}");
        }
    });
    Ok(Connected { client, driving, shown })
}
