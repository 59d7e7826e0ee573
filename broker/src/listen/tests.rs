//! Real TLS clients against the real accept loop.

use std::convert::Infallible;
use std::path::PathBuf;

use bytes::Bytes;
use http::StatusCode;
use http_body_util::{Empty, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::client::Resumption;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, HandshakeKind, RootCertStore, SupportedProtocolVersion};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;
use crate::tls::{ReloadableCertificate, Speaks, server_config};

mod certificate;
mod requests;

mod tls;

/// A listener on a port of its own, and what its clients need.
pub(crate) struct Bench {
    addr: SocketAddr,
    roots: RootCertStore,
    certificate: Arc<ReloadableCertificate>,
    dir: tempfile::TempDir,
    shutdown: CancellationToken,
    served: tokio::task::JoinHandle<()>,
}

struct Pair {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    pem: (String, String),
}

fn pair(name: &str, extra_len: usize) -> Pair {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
    let blob = rcgen::CustomExtension::from_oid_content(&[2, 25, 1], vec![4; extra_len]);
    params.custom_extensions = if extra_len == 0 { vec![] } else { vec![blob] };
    let certificate = params.self_signed(&key).unwrap();
    Pair {
        chain: vec![certificate.der().clone()],
        key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        pem: (certificate.pem(), key.serialize_pem()),
    }
}

impl Bench {
    async fn open(speaks: Speaks, limits: Limits) -> Self {
        Self::serving(speaks, limits, tower::service_fn(describe)).await
    }

    pub(crate) async fn serving(speaks: Speaks, limits: Limits, service: impl Answers + Sync) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let shown = pair("localhost", 0);
        write_pair(&dir, &shown);
        let certificate =
            Arc::new(ReloadableCertificate::open(&dir.path().join("c"), &dir.path().join("k")).unwrap());
        let tls = server_config(Arc::clone(&certificate) as _, speaks).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let served = tokio::spawn(serve(listener, tls, limits, service, shutdown.clone()));
        let mut bench = Self { addr, roots: RootCertStore::empty(), certificate, dir, shutdown, served };
        bench.trust(&shown);
        bench
    }

    fn trust(&mut self, pair: &Pair) {
        self.roots = RootCertStore::empty();
        self.roots.add(pair.chain[0].clone()).unwrap();
    }

    fn client(&self, version: &'static SupportedProtocolVersion, shown: Option<Pair>) -> ClientConfig {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(self.roots.clone());
        match shown {
            Some(pair) => builder.with_client_auth_cert(pair.chain, pair.key).unwrap(),
            None => builder.with_no_client_auth(),
        }
    }

    async fn connect(&self, config: ClientConfig) -> io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.addr).await?;
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    async fn http2(&self, shown: Option<Pair>) -> hyper::client::conn::http2::SendRequest<Empty<Bytes>> {
        let mut config = self.client(&TLS13, shown);
        config.alpn_protocols = vec![b"h2".to_vec()];
        let io = TokioIo::new(self.connect(config).await.unwrap());
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        sender
    }

    /// What comes back for these octets over TLS without ALPN, until the server ends the connection.
    pub(crate) async fn plain_bytes(&self, request: &[u8]) -> String {
        let mut stream = self.connect(self.client(&TLS13, None)).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }
}

fn write_pair(dir: &tempfile::TempDir, pair: &Pair) {
    write(&dir.path().join("c"), &pair.pem.0);
    write(&dir.path().join("k"), &pair.pem.1);
}

fn write(path: &PathBuf, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// Says how many certificates the caller showed, and how many requests its connection has carried. `/slow` takes
/// its time.
async fn describe(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let connection = request.extensions().get::<Arc<Connection>>().unwrap();
    let seen = connection.remembered::<u32>().map_or(1, |seen| *seen + 1);
    connection.remember(Arc::new(seen));
    if request.uri().path() == "/slow" {
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let text = format!("{} {} {seen}", connection.peer.addr.ip(), connection.peer.chain.len());
    Ok(Response::new(Full::from(text)))
}

fn get(path: &str) -> Request<Empty<Bytes>> {
    Request::get(format!("https://localhost{path}")).body(Empty::new()).unwrap()
}

async fn text(response: Response<Incoming>) -> String {
    use http_body_util::BodyExt;
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

/// Whether the server ended the connection; a TLS 1.3 client learns of a refused certificate only by reading.
async fn is_cut(stream: &mut TlsStream<TcpStream>) -> bool {
    let read = tokio::time::timeout(Duration::from_secs(5), stream.read(&mut [0; 64])).await;
    matches!(read, Ok(Err(_) | Ok(0)))
}
