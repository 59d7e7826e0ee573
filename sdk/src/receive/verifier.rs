//! Client certificates in rustls: who may connect at all.

use std::fmt;
use std::sync::Arc;

use daypass_verify::certificate::{CHAIN_LEN_MAX, INTERMEDIATES_MAX};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, ring, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, UnixTime};

use super::caller::Caller;
use super::peer::Peer;
use super::{Receiver, Refused};

/// Takes any client certificate, or none: its key signed the handshake, and nothing else of it is believed. That is
/// what tokens are bound to (RFC 8705, section 2.2); who is calling is decided on each request, by
/// [`super::ReceiverLayer`].
#[derive(Debug)]
pub struct PossessingPeers {
    algorithms: WebPkiSupportedAlgorithms,
}

impl PossessingPeers {
    /// Such a verifier.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self { algorithms: ring::default_provider().signature_verification_algorithms })
    }
}

/// Lets only those connect who show a certificate of the broker, and whom `allows` lets in: by SPIFFE ID, by task. The
/// roots are those that the broker publishes at the moment of the handshake.
pub struct IssuedPeers {
    receiver: Receiver,
    allows: Box<dyn Fn(&Caller) -> bool + Send + Sync>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl IssuedPeers {
    /// Such a verifier. Requests on the connection are checked besides where [`super::ReceiverLayer`] stands before
    /// the service: a connection outlives its certificate.
    #[must_use]
    pub fn new(receiver: Receiver, allows: impl Fn(&Caller) -> bool + Send + Sync + 'static) -> Arc<Self> {
        let algorithms = ring::default_provider().signature_verification_algorithms;
        Arc::new(Self { receiver, allows: Box::new(allows), algorithms })
    }

    fn check(&self, chain: &[CertificateDer<'_>]) -> Result<(), Refused> {
        let caller = self.receiver.certificate(&Peer::new(Some(chain)))?;
        if (self.allows)(&caller) { Ok(()) } else { Err(Refused::NotAllowed) }
    }
}

impl fmt::Debug for IssuedPeers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IssuedPeers").field("receiver", &self.receiver).finish_non_exhaustive()
    }
}

fn refused(why: CertificateError) -> Error {
    Error::InvalidCertificate(why)
}

/// What both have in common: TLS 1.3 alone, and a signature by the certificate's key.
macro_rules! possession {
    () => {
        fn root_hint_subjects(&self) -> &[DistinguishedName] {
            &[]
        }

        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
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
    };
}

impl ClientCertVerifier for PossessingPeers {
    possession!();

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let len = intermediates.iter().fold(end_entity.len(), |sum, der| sum.saturating_add(der.len()));
        if len > CHAIN_LEN_MAX || intermediates.len() > INTERMEDIATES_MAX {
            return Err(refused(CertificateError::ApplicationVerificationFailure));
        }
        Ok(ClientCertVerified::assertion())
    }
}

impl ClientCertVerifier for IssuedPeers {
    possession!();

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let chain: Vec<_> = std::iter::once(end_entity).chain(intermediates).cloned().collect();
        match self.check(&chain) {
            Ok(()) => Ok(ClientCertVerified::assertion()),
            Err(Refused::Revoked(..)) => Err(refused(CertificateError::Revoked)),
            Err(Refused::Unavailable(_)) => Err(refused(CertificateError::UnknownRevocationStatus)),
            Err(_) => Err(refused(CertificateError::ApplicationVerificationFailure)),
        }
    }
}
