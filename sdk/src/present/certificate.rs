//! The certificate that rustls shows in each handshake: that of a source, as it is at that moment.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use daypass_verify::ids::CredentialId;
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use secrecy::ExposeSecret as _;

use crate::credential::{Credential, Secret};
use crate::source::CredentialSource;

/// Takes the certificate of each handshake from a source, as a client or as a server: `with_client_cert_resolver`
/// and `with_cert_resolver` of rustls. A renewal counts from the next handshake on; what is over is never shown, and a
/// handshake without one shows none.
///
/// Connections outlive certificates: whoever accepts one has to look at its end. The source must make its own keys.
pub struct SourceCertificate {
    source: CredentialSource,
    newest: Mutex<Option<(CredentialId, Arc<CertifiedKey>)>>,
}

impl fmt::Debug for SourceCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SourceCertificate").field("source", &self.source).finish_non_exhaustive()
    }
}

impl SourceCertificate {
    /// What shows the certificates of `source`. Wait for its first [`CredentialSource::credential`] before handshakes
    /// are made.
    #[must_use]
    pub fn new(source: CredentialSource) -> Arc<Self> {
        Arc::new(Self { source, newest: Mutex::new(None) })
    }

    fn certified(&self) -> Option<Arc<CertifiedKey>> {
        let credential = self.source.current()?;
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        match newest.as_ref() {
            Some((id, certified)) if *id == credential.id => Some(Arc::clone(certified)),
            _ => {
                let certified = Arc::new(certified(&credential)?);
                *newest = Some((credential.id, Arc::clone(&certified)));
                Some(certified)
            }
        }
    }
}

/// The chain with its key, ready to sign; none for a token, or where the key was made elsewhere.
fn certified(credential: &Credential) -> Option<CertifiedKey> {
    let Secret::Certificate { chain, key: Some(key), .. } = &credential.secret else { return None };
    let key = PrivateKeyDer::from_pem_slice(key.expose_secret().as_bytes()).ok()?;
    Some(CertifiedKey::new(chain.clone(), any_supported_type(&key).ok()?))
}

impl ResolvesClientCert for SourceCertificate {
    fn resolve(&self, _: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.certified().filter(|it| it.key.choose_scheme(schemes).is_some())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl ResolvesServerCert for SourceCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.certified()
    }
}
