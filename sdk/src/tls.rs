//! The connections to a broker: TLS 1.3 with ring, the broker's own roots pinned, the client's key proven.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::Uri;

use crate::error::Error;
use crate::holder::{Holder, read_certificates};

/// The client's side of TLS. `alpn` are the protocols to offer, best first.
///
/// # Errors
/// When `ca` holds no certificate, or the holder's key does not fit its certificate.
pub(crate) fn client_config(
    ca: &[u8],
    holder: Option<&Holder>,
    alpn: &[&str],
) -> Result<ClientConfig, Error> {
    let refuse = |what: &'static str| move |error: rustls::Error| Error::Config(format!("{what}: {error}"));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(refuse("TLS 1.3"))?
        .with_root_certificates(roots(ca)?);
    let mut config = match holder {
        Some(holder) => builder
            .with_client_auth_cert(holder.chain().to_vec(), holder.key().clone_key())
            .map_err(refuse("the client certificate and its key"))?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    Ok(config)
}

fn roots(ca: &[u8]) -> Result<RootCertStore, Error> {
    let mut store = RootCertStore::empty();
    for der in read_certificates(ca).map_err(|why| Error::Config(format!("the broker's `ca`: {why}")))? {
        store.add(der).map_err(|error| Error::Config(format!("the broker's `ca`: {error}")))?;
    }
    Ok(store)
}

/// Opens connections for gRPC.
#[derive(Clone)]
pub(crate) struct Connector(TlsConnector);

impl Connector {
    pub(crate) fn new(config: ClientConfig) -> Self {
        Self(TlsConnector::from(Arc::new(config)))
    }
}

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let tls = self.0.clone();
        Box::pin(async move {
            let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
            let port = uri.port_u16().unwrap_or(443);
            let name = ServerName::try_from(host.clone()).map_err(io::Error::other)?;
            let tcp = TcpStream::connect((host, port)).await?;
            tcp.set_nodelay(true)?;
            tls.connect(name, tcp).await.map(TokioIo::new)
        })
    }
}
