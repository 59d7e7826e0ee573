//! TLS of the public listeners: version 1.3 only, nothing resumed, client certificates asked for and never judged.

use std::sync::Arc;

use daypass_verify::certificate::{CHAIN_LEN_MAX, INTERMEDIATES_MAX};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ResolvesServerCert, ServerConfig};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, UnixTime};

mod reloadable;

pub use reloadable::{CertificateFileError, ReloadableCertificate};

/// What a listener speaks over TLS, offered by ALPN (RFC 7301).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    /// HTTP/2 alone: the `api` listener.
    Http2,
    /// HTTP/1.1 and HTTP/2: the `web` listener.
    Http1And2,
}

impl Speaks {
    fn alpn(self) -> Vec<Vec<u8>> {
        match self {
            Self::Http2 => vec![b"h2".to_vec()],
            Self::Http1And2 => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        }
    }
}

/// The TLS configuration of a listener that shows `certificate`.
///
/// The handshake proves that the caller holds the key of the certificate it showed, if any, and nothing else: who
/// issued it, and whether it is still valid, is decided on each request by the core. So no session is ever
/// resumed: a resumed one would carry a chain that nobody proved possession of again.
///
/// # Errors
/// When the cryptography at hand has no TLS 1.3.
pub fn server_config(
    certificate: Arc<dyn ResolvesServerCert>,
    speaks: Speaks,
) -> Result<Arc<ServerConfig>, Error> {
    let provider = Arc::new(ring::default_provider());
    let possession = Arc::new(Possession::new(&provider));
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(possession)
        .with_cert_resolver(certificate);
    config.alpn_protocols = speaks.alpn();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}

/// Accepts any client certificate, or none, whose key signed the handshake.
#[derive(Debug)]
struct Possession {
    algorithms: WebPkiSupportedAlgorithms,
}

impl Possession {
    fn new(provider: &CryptoProvider) -> Self {
        Self { algorithms: provider.signature_verification_algorithms }
    }
}

impl ClientCertVerifier for Possession {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let chain_len = intermediates.iter().fold(end_entity.len(), |sum, der| sum.saturating_add(der.len()));
        if chain_len > CHAIN_LEN_MAX || intermediates.len() > INTERMEDIATES_MAX {
            return Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure));
        }
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
