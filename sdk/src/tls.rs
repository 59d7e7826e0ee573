//! The connections to a broker: TLS 1.3 with ring, the broker's own roots pinned, the client's key proven.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::client::danger::ServerCertVerifier;
use rustls::client::{ResolvesClientCert, Resumption, WantsClientCert};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, WantsVerifier};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::Uri;

use crate::error::Error;
use crate::holder::read_certificates;

/// The client's side of TLS, with the certificate that is `shown`, to services under the roots `ca`. `alpn` are the
/// protocols to offer, best first.
///
/// # Errors
/// When `ca` holds no certificate.
pub(crate) fn client_config(
    ca: &[u8],
    shown: Option<Arc<dyn ResolvesClientCert>>,
    alpn: &[&str],
) -> Result<ClientConfig, Error> {
    Ok(showing(builder()?.with_root_certificates(roots(ca)?), shown, alpn))
}

/// The same to services that `verifier` lets pass, at each handshake: no session is resumed without it.
///
/// # Errors
/// When the cryptography at hand has no TLS 1.3.
pub(crate) fn client_config_by(
    verifier: Arc<dyn ServerCertVerifier>,
    shown: Option<Arc<dyn ResolvesClientCert>>,
    alpn: &[&str],
) -> Result<ClientConfig, Error> {
    let builder = builder()?.dangerous().with_custom_certificate_verifier(verifier);
    let mut config = showing(builder, shown, alpn);
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn builder() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| Error::Config(format!("TLS 1.3: {error}")))
}

fn showing(
    builder: ConfigBuilder<ClientConfig, WantsClientCert>,
    shown: Option<Arc<dyn ResolvesClientCert>>,
    alpn: &[&str],
) -> ClientConfig {
    let mut config = match shown {
        Some(shown) => builder.with_client_cert_resolver(shown),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    config
}

fn roots(ca: &[u8]) -> Result<RootCertStore, Error> {
    let mut store = RootCertStore::empty();
    for der in read_certificates(ca).map_err(|why| Error::Config(format!("the broker's `ca`: {why}")))? {
        store.add(der).map_err(|error| Error::Config(format!("the broker's `ca`: {error}")))?;
    }
    Ok(store)
}

/// Changes when the certificate that connections were made with is replaced.
pub(crate) type Replaced = watch::Receiver<()>;

/// Opens connections for gRPC.
#[derive(Clone)]
pub(crate) struct Connector {
    tls: TlsConnector,
    replaced: Option<Replaced>,
}

impl Connector {
    pub(crate) fn new(config: ClientConfig) -> Self {
        Self { tls: TlsConnector::from(Arc::new(config)), replaced: None }
    }

    /// Each of its connections ends soon after what it shows was replaced.
    pub(crate) fn until(self, replaced: Replaced) -> Self {
        Self { replaced: Some(replaced), ..self }
    }
}

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<Leased>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let Self { tls, replaced } = self.clone();
        Box::pin(async move {
            let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
            let port = uri.port_u16().unwrap_or(443);
            let name = ServerName::try_from(host.clone()).map_err(io::Error::other)?;
            let over = replaced.map(Leased::until);
            let tcp = TcpStream::connect((host, port)).await?;
            tcp.set_nodelay(true)?;
            Ok(TokioIo::new(Leased { stream: tls.connect(name, tcp).await?, over, ended: false }))
        })
    }
}

/// How long calls that are under way may still take once their connection is over: as long as any.
const LAST_CALLS: Duration = Duration::from_secs(5);

/// A connection that is read to its end early, once it is over.
pub(crate) struct Leased {
    stream: TlsStream<TcpStream>,
    over: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    ended: bool,
}

impl Leased {
    fn until(mut replaced: Replaced) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        replaced.mark_unchanged();
        Box::pin(async move {
            // Without anybody who could replace it, it is never over.
            if replaced.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            sleep(LAST_CALLS).await;
        })
    }
}

impl AsyncRead for Leased {
    fn poll_read(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.over.as_mut().is_some_and(|over| over.as_mut().poll(task).is_ready()) {
            (self.over, self.ended) = (None, true);
        }
        if self.ended { Poll::Ready(Ok(())) } else { Pin::new(&mut self.stream).poll_read(task, into) }
    }
}

impl AsyncWrite for Leased {
    fn poll_write(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(task, octets)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(task, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(task)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(task)
    }
}
