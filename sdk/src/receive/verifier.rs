//! Certificates in rustls: who may connect at all, and to whom.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use daypass_verify::certificate::{CHAIN_LEN_MAX, INTERMEDIATES_MAX};
use daypass_verify::ids::SpiffeId;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, ring, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

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

/// Lets a client connect only to services that show a certificate of the broker with one of the SPIFFE IDs that it
/// expects. The name of the host counts for nothing: such a certificate has none. Roots and revocations are those of
/// the receiver at the moment of the handshake, its trust domain is the only one, and its audience is not asked.
///
/// ```no_run
/// # async fn demo() -> Result<(), Box<dyn std::error::Error>> {
/// use daypass_sdk::Client;
/// use daypass_sdk::receive::{IssuedServices, Receiver, ReceiverConfig};
///
/// let receiver = Receiver::new(ReceiverConfig::new(
///     "https://daypass.example.org".parse()?,
///     std::fs::read("ca.crt")?,
///     "example.org".parse()?,
///     "https://orders.example.org".parse()?,
/// ))?;
/// let ledger = IssuedServices::new(receiver, ["spiffe://example.org/prod/ledger/api".parse()?]);
/// let tls = Client::from_env()?.tls_to_services(ledger, &["h2"])?;
/// let http = reqwest::Client::builder().tls_backend_preconfigured(tls).https_only(true).build()?;
/// # Ok(())
/// # }
/// ```
pub struct IssuedServices {
    receiver: Receiver,
    expected: BTreeSet<SpiffeId>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl IssuedServices {
    /// Such a verifier. Connections are ended by whoever opened them: one outlives the certificate that it began with.
    #[must_use]
    pub fn new(receiver: Receiver, expected: impl IntoIterator<Item = SpiffeId>) -> Arc<Self> {
        let algorithms = ring::default_provider().signature_verification_algorithms;
        Arc::new(Self { receiver, expected: expected.into_iter().collect(), algorithms })
    }
}

impl fmt::Debug for IssuedServices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("IssuedServices");
        shown.field("receiver", &self.receiver).field("expected", &self.expected).finish_non_exhaustive()
    }
}

fn refused(why: CertificateError) -> Error {
    Error::InvalidCertificate(why)
}

/// Why a handshake ends, as its other end may know.
fn ended(why: &Refused) -> Error {
    refused(match why {
        Refused::Revoked(..) => CertificateError::Revoked,
        Refused::Unavailable(_) => CertificateError::UnknownRevocationStatus,
        _ => CertificateError::ApplicationVerificationFailure,
    })
}

/// What all have in common: TLS 1.3 alone, and a signature by the certificate's key.
macro_rules! possession {
    () => {
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

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

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

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let chain: Vec<_> = std::iter::once(end_entity).chain(intermediates).cloned().collect();
        self.check(&chain).map(|()| ClientCertVerified::assertion()).map_err(|why| ended(&why))
    }
}

impl ServerCertVerifier for IssuedServices {
    possession!();

    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let chain: Vec<_> = std::iter::once(end_entity).chain(intermediates).cloned().collect();
        let expected = self.receiver.service(&chain).map(|service| self.expected.contains(&service));
        match expected {
            Ok(true) => Ok(ServerCertVerified::assertion()),
            Ok(false) => Err(ended(&Refused::NotAllowed)),
            Err(why) => Err(ended(&why)),
        }
    }
}
