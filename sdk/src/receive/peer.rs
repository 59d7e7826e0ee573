//! Who is at the other end of a connection.

use std::sync::{Arc, Mutex, PoisonError};

use daypass_verify::credential::{CredentialError, Presenter, VerifiedCertificate};
use daypass_verify::ids::Digest;
use rustls_pki_types::CertificateDer;

/// The certificates that a peer has shown in its handshake, leaf first; none are fine. Its key signed the handshake:
/// nothing else of them is believed before it was verified. Whoever accepts connections puts it into the extensions of
/// each request: [`super::serve`] does.
#[derive(Debug, Clone)]
pub struct Peer(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    chain: Vec<CertificateDer<'static>>,
    presenter: Presenter,
    verified: Mutex<Option<(u64, Verified)>>,
}

pub(super) type Verified = Result<Arc<VerifiedCertificate>, CredentialError>;

impl Peer {
    /// What rustls says of a connection (`peer_certificates`).
    #[must_use]
    pub fn new(chain: Option<&[CertificateDer<'_>]>) -> Self {
        let chain: Vec<_> = chain.unwrap_or_default().iter().map(|der| der.clone().into_owned()).collect();
        let presenter = match chain.first() {
            Some(leaf) => Presenter::Certificate(Digest::of(leaf)),
            None => Presenter::Bearer,
        };
        Self(Arc::new(Inner { chain, presenter, verified: Mutex::new(None) }))
    }

    /// Who shows a token on this connection (RFC 8705).
    #[must_use]
    pub fn presenter(&self) -> Presenter {
        self.0.presenter
    }

    /// The certificates, leaf first.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.0.chain
    }

    /// What `verify` says, asked once for each `epoch` of the roots.
    pub(super) fn verified(&self, epoch: u64, verify: impl FnOnce() -> Verified) -> Verified {
        let mut verified = self.0.verified.lock().unwrap_or_else(PoisonError::into_inner);
        match verified.as_ref() {
            Some((at, known)) if *at == epoch => known.clone(),
            _ => {
                let found = verify();
                *verified = Some((epoch, found.clone()));
                found
            }
        }
    }
}
