//! A caller, as any program outside would be one: TLS to the broker, a certificate or a token, a generated client.

use std::io;
use std::path::Path;
use std::sync::Arc;

use daypass_proto::v1::credential_service_client::CredentialServiceClient;
use daypass_proto::v1::evidence_service_client::EvidenceServiceClient;
use daypass_proto::v1::governance_service_client::GovernanceServiceClient;
use daypass_proto::v1::trust_service_client::TrustServiceClient;
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Request, Status};
use tower::service_fn;

use super::DevError;
use super::workload_ca::WorkloadCertificate;

/// A connection to the broker.
#[derive(Clone)]
pub struct Caller {
    channel: Channel,
    token: Option<String>,
}

impl Caller {
    /// Connects to the broker on `port`, whose listener's CA lies at `ca`; with a client certificate, or with none.
    ///
    /// # Errors
    /// When nobody answers there, or not under that CA.
    pub async fn connect(
        port: u16,
        ca: &Path,
        certificate: Option<&WorkloadCertificate>,
    ) -> Result<Self, DevError> {
        let tls = TlsConnector::from(Arc::new(client_config(ca, certificate)?));
        let connect = service_fn(move |_: Uri| {
            let tls = tls.clone();
            async move {
                let stream = TcpStream::connect(("127.0.0.1", port)).await?;
                let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
                Ok::<_, io::Error>(TokioIo::new(tls.connect(name, stream).await?))
            }
        });
        let endpoint = Endpoint::from_static("https://localhost");
        let channel = endpoint.connect_with_connector(connect).await;
        Ok(Self { channel: channel.map_err(|error| DevError::Story(error.to_string()))?, token: None })
    }

    /// The same connection, showing this ID token with each call.
    #[must_use]
    pub fn with_token(self, token: String) -> Self {
        Self { token: Some(token), ..self }
    }

    /// A client of the credential service.
    #[must_use]
    pub fn credentials(&self) -> CredentialServiceClient<Channel> {
        CredentialServiceClient::new(self.channel.clone())
    }

    /// A client of the evidence service.
    #[must_use]
    pub fn evidence(&self) -> EvidenceServiceClient<Channel> {
        EvidenceServiceClient::new(self.channel.clone())
    }

    /// A client of the governance service.
    #[must_use]
    pub fn governance(&self) -> GovernanceServiceClient<Channel> {
        GovernanceServiceClient::new(self.channel.clone())
    }

    /// A client of the trust service.
    #[must_use]
    pub fn trust(&self) -> TrustServiceClient<Channel> {
        TrustServiceClient::new(self.channel.clone())
    }

    /// The connection itself.
    #[must_use]
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// A request with this caller's proof.
    ///
    /// # Errors
    /// When the token cannot be a header.
    pub fn request<T>(&self, message: T) -> Result<Request<T>, Status> {
        let mut request = Request::new(message);
        if let Some(token) = &self.token {
            let value = MetadataValue::try_from(format!("Bearer {token}"));
            request
                .metadata_mut()
                .insert("authorization", value.map_err(|_| Status::internal("not a header"))?);
        }
        Ok(request)
    }
}

/// A fresh self-signed certificate: it proves possession of a key, and so binds the token.
///
/// # Errors
/// When no key could be made.
pub fn possession() -> Result<WorkloadCertificate, DevError> {
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new(Vec::<String>::new())?.self_signed(&key)?;
    let key = PrivatePkcs8KeyDer::from(key.serialize_der());
    Ok(WorkloadCertificate { chain: vec![certificate.der().clone()], key })
}

/// What a caller's side of TLS is set up with.
///
/// # Errors
/// When the CA cannot be read, or the certificate and its key do not fit.
pub fn client_config(ca: &Path, certificate: Option<&WorkloadCertificate>) -> Result<ClientConfig, DevError> {
    let unusable = |source: io::Error| DevError::File { path: ca.to_owned(), source };
    let mut roots = RootCertStore::empty();
    for der in CertificateDer::pem_file_iter(ca).map_err(|error| unusable(io::Error::other(error)))? {
        roots.add(der.map_err(|error| unusable(io::Error::other(error)))?)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots);
    let mut config = match certificate {
        Some(certificate) => builder.with_client_auth_cert(
            certificate.chain.clone(),
            PrivateKeyDer::Pkcs8(certificate.key.clone_key()),
        )?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}
