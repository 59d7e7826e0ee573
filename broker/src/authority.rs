//! The deployment's own root and its issuing CAs: their certificates are statements, recorded before they are signed.

mod crl;

use daypass_core::draft::assemble_certificate;
use daypass_evidence::entry::{KeyChanged, StatementSigned};
use daypass_verify::ids::{Digest, KeyId, TrustDomain};
use daypass_verify::time::{Seconds, UnixMs};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyIdMethod,
    KeyUsagePurpose, PublicKeyData, SanType, SerialNumber, SignatureAlgorithm,
};
use rustls_pki_types::CertificateDer;
use std::cell::RefCell;

pub use crl::{CRL_LIFE, RevokedCertificate, crl_statement, serial_of_ca};

use crate::keyring::Made;
use crate::log::Recorded;
use crate::signer::{SignError, Signer, Statement};

/// Stands where rcgen wants to sign, and keeps what it wants signed.
struct Capture<'a> {
    spki: &'a [u8],
    tbs: RefCell<Vec<u8>>,
}

/// How far a CA's certificate begins before it is made.
const SKEW: Seconds = Seconds::new(10);

/// Where the point begins in the SPKI of a P-256 key.
const POINT_AT: usize = 26;

impl PublicKeyData for Capture<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.spki.get(POINT_AT..).unwrap_or_default()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl rcgen::SigningKey for Capture<'_> {
    fn sign(&self, tbs: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        *self.tbs.borrow_mut() = tbs.to_vec();
        Ok(Vec::new())
    }
}

/// Why a certificate of a CA could not be made.
#[derive(Debug, thiserror::Error)]
#[error("a certificate could not be made: {0}")]
pub struct AuthorityError(String);

/// How much of its key's id a CA's name has, in bytes.
const NAMED_BY: usize = 8;

/// What is recorded of a certificate before it is signed.
pub type Unsigned = (Statement, StatementSigned);

/// The certificates of a root and of the issuing CA below it, to be recorded and signed by the root's key, in this
/// order.
///
/// # Errors
/// When a value has no place in a certificate.
pub fn first_statements(
    trust_domain: &TrustDomain,
    root: &Made,
    ca: &Made,
) -> Result<[Unsigned; 2], AuthorityError> {
    let signing_root = Capture { spki: &root.spki, tbs: RefCell::default() };
    let root_params = params(trust_domain, "root", root, BasicConstraints::Unconstrained)?;
    root_params.self_signed(&signing_root).map_err(failed)?;
    let root_tbs = signing_root.tbs.take();
    let issuer = Issuer::from_params(&root_params, signing_root);
    let ca_tbs = to_be_signed(trust_domain, ca, &issuer)?;
    let root_key = &root.changed.key;
    Ok([statement(root_key, root, root_tbs), statement(root_key, ca, ca_tbs)])
}

/// The certificate of an issuing CA below a root that has its own, to be recorded and signed by the root's key.
///
/// # Errors
/// When the root's certificate cannot be read, or a value has no place in a certificate.
pub fn issuing_statement(
    trust_domain: &TrustDomain,
    root_key: &KeyId,
    root: &CertificateDer<'_>,
    ca: &Made,
) -> Result<Unsigned, AuthorityError> {
    let capture = Capture { spki: &[], tbs: RefCell::default() };
    let issuer = Issuer::from_ca_cert_der(root, capture).map_err(failed)?;
    let tbs = to_be_signed(trust_domain, ca, &issuer)?;
    Ok(statement(root_key, ca, tbs))
}

/// A request for the certificate of an issuing CA (RFC 2986), to be recorded and signed by its own key.
///
/// # Errors
/// When a value has no place in a request.
pub fn request_statement(
    trust_domain: &TrustDomain,
    key: &KeyChanged,
    spki: &[u8],
) -> Result<Unsigned, AuthorityError> {
    let capture = Capture { spki, tbs: RefCell::default() };
    let mut params = CertificateParams::default();
    name(&mut params, trust_domain, "issuing CA", &key.key)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.serialize_request(&capture).map_err(failed)?;
    let statement = Statement { key: key.key.clone(), tbs: capture.tbs.take() };
    let entry = StatementSigned {
        statement: "ca_request".into(),
        key: key.key.clone(),
        digest: statement.digest(),
        from_ms: key.publish_from_ms,
        until_ms: key.publish_until_ms,
        number: None,
    };
    Ok((statement, entry))
}

/// Signs what was recorded: the certificate, the request for one, or the revocation list, DER.
///
/// # Errors
/// When the key does not sign, or not as a certificate needs it.
pub fn sign(signer: &Signer, recorded: &Recorded<Statement>) -> Result<Vec<u8>, SignError> {
    let Statement { key, tbs } = recorded.what();
    let signature = signer.sign_statement(recorded)?;
    assemble_certificate(tbs, signature.as_bytes())
        .map_err(|error| SignError::Failed(key.clone(), error.to_string()))
}

fn to_be_signed(
    trust_domain: &TrustDomain,
    ca: &Made,
    issuer: &Issuer<'_, Capture<'_>>,
) -> Result<Vec<u8>, AuthorityError> {
    let ca_key = Capture { spki: &ca.spki, tbs: RefCell::default() };
    let ca_params = params(trust_domain, "issuing CA", ca, BasicConstraints::Constrained(0))?;
    ca_params.signed_by(&ca_key, issuer).map_err(failed)?;
    Ok(issuer.key().tbs.take())
}

fn failed(error: impl std::fmt::Display) -> AuthorityError {
    AuthorityError(error.to_string())
}

fn statement(signer: &KeyId, of: &Made, tbs: Vec<u8>) -> Unsigned {
    let statement = Statement { key: signer.clone(), tbs };
    let entry = StatementSigned {
        statement: "ca_certificate".into(),
        key: statement.key.clone(),
        digest: statement.digest(),
        from_ms: not_before(of),
        until_ms: of.changed.publish_until_ms,
        number: None,
    };
    (statement, entry)
}

/// Clocks differ: a leaf begins a little before it is issued, and its CA no later.
fn not_before(made: &Made) -> UnixMs {
    made.changed.publish_from_ms.minus(SKEW)
}

fn params(
    trust_domain: &TrustDomain,
    what: &str,
    made: &Made,
    constraints: BasicConstraints,
) -> Result<CertificateParams, AuthorityError> {
    let moment = |at: UnixMs| time::OffsetDateTime::from_unix_timestamp(at.seconds()).map_err(failed);
    let mut params = CertificateParams::default();
    params.not_before = moment(not_before(made))?;
    params.not_after = moment(made.changed.publish_until_ms)?;
    params.serial_number = Some(serial(made));
    name(&mut params, trust_domain, what, &made.changed.key)?;
    params.is_ca = IsCa::Ca(constraints);
    params.key_identifier_method = KeyIdMethod::Sha256;
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// What a CA is called, and what it may do. No two have one name: there are verifiers that choose a CA's revocation list by
/// its name alone.
fn name(
    params: &mut CertificateParams,
    trust_domain: &TrustDomain,
    what: &str,
    key: &KeyId,
) -> Result<(), AuthorityError> {
    let name = format!("Daypass {what} {}", key.as_str().get(..NAMED_BY).unwrap_or_default());
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, trust_domain.as_str());
    params.distinguished_name.push(DnType::CommonName, name);
    let uri = format!("spiffe://{trust_domain}")
        .as_str()
        .try_into()
        .map_err(|error: rcgen::Error| failed(error))?;
    params.subject_alt_names = vec![SanType::URI(uri)];
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(())
}

/// 16 octets of the key's own digest: positive, and never the same for two keys.
fn serial(made: &Made) -> SerialNumber {
    SerialNumber::from_slice(&first_octets(&made.changed.public))
}

fn first_octets(public: &Digest) -> Vec<u8> {
    let mut bytes: Vec<u8> = public.as_bytes().iter().copied().take(16).collect();
    if let Some(first) = bytes.first_mut() {
        *first = (*first & 0x7f) | 0x40;
    }
    bytes
}
