//! The public side of a signing key: what a draft must know of it.

use daypass_verify::ids::KeyId;
use daypass_verify::time::UnixMs;
use rcgen::{Issuer, PublicKeyData, SignatureAlgorithm};
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::DraftError;

/// What a draft must know of the key that will sign it. Made once a key, used for every draft.
pub struct SigningKey {
    id: KeyId,
    alg: String,
    authority: Option<Authority>,
}

/// An issuing CA, parsed once.
pub(super) struct Authority {
    pub(super) issuer: Issuer<'static, Unsigned>,
    pub(super) name_der: Vec<u8>,
    pub(super) key_id: Vec<u8>,
    pub(super) expires_at: UnixMs,
}

/// Stands where rcgen wants to sign: the certificate that it writes has no signature yet.
pub(super) struct Unsigned {
    point: Vec<u8>,
}

impl PublicKeyData for Unsigned {
    fn der_bytes(&self) -> &[u8] {
        &self.point
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl rcgen::SigningKey for Unsigned {
    fn sign(&self, _: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Ok(Vec::new())
    }
}

impl SigningKey {
    /// A key that signs tokens. `alg` is its JWS algorithm.
    #[must_use]
    pub fn token(id: KeyId, alg: impl Into<String>) -> Self {
        Self { id, alg: alg.into(), authority: None }
    }

    /// The key of an issuing CA (P-256), with its certificate.
    ///
    /// # Errors
    /// When the certificate cannot be parsed, is not one of a CA with a P-256 key, or has no subject key
    /// identifier.
    pub fn authority(id: KeyId, certificate_der: &[u8]) -> Result<Self, DraftError> {
        let refuse = |why: &str| DraftError::Authority(why.to_owned());
        let (_, parsed) =
            X509Certificate::from_der(certificate_der).map_err(|_| refuse("expected a DER certificate"))?;
        let key_id = parsed.iter_extensions().find_map(|it| match it.parsed_extension() {
            x509_parser::extensions::ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
            _ => None,
        });
        let key_id = key_id.ok_or_else(|| refuse("expected a subject key identifier"))?;
        if !parsed.is_ca() {
            return Err(refuse("expected the certificate of a CA"));
        }
        let point = parsed.public_key().subject_public_key.data.to_vec();
        if point.len() != 65 {
            return Err(refuse("expected a P-256 key"));
        }
        let name_der = parsed.subject().as_raw().to_vec();
        let issuer = Issuer::from_ca_cert_der(&CertificateDer::from(certificate_der), Unsigned { point })
            .map_err(|error| DraftError::Authority(error.to_string()))?;
        let expires_at = UnixMs::from_seconds(parsed.validity().not_after.timestamp());
        let authority = Authority { issuer, name_der, key_id, expires_at };
        Ok(Self { id, alg: "ES256".into(), authority: Some(authority) })
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &KeyId {
        &self.id
    }

    /// Its algorithm.
    #[must_use]
    pub fn alg(&self) -> &str {
        &self.alg
    }

    /// The subject key identifier of a CA's certificate.
    #[must_use]
    pub fn key_identifier(&self) -> Option<&[u8]> {
        self.authority.as_ref().map(|authority| authority.key_id.as_slice())
    }

    pub(super) fn as_authority(&self) -> Option<&Authority> {
        self.authority.as_ref()
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey").field("id", &self.id).finish_non_exhaustive()
    }
}
