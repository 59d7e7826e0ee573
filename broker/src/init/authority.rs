//! The deployment's own root and its issuing CA: their certificates are statements, recorded before they are signed.

use daypass_core::draft::assemble_certificate;
use daypass_evidence::entry::StatementSigned;
use daypass_verify::ids::TrustDomain;
use daypass_verify::time::UnixMs;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyIdMethod,
    KeyUsagePurpose, PublicKeyData, SanType, SerialNumber, SignatureAlgorithm,
};
use std::cell::RefCell;

use super::InitError;
use crate::keyring::Made;
use crate::log::Recorded;
use crate::signer::{Signer, Statement};

/// Stands where rcgen wants to sign, and keeps what it wants signed.
struct Capture<'a> {
    spki: &'a [u8],
    tbs: RefCell<Vec<u8>>,
}

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

/// The root's certificate and the issuing CA's, to be recorded and signed by the root's key, in this order.
pub(super) fn statements(
    trust_domain: &TrustDomain,
    root: &Made,
    ca: &Made,
) -> Result<Vec<(Statement, StatementSigned)>, InitError> {
    let failed = |error: rcgen::Error| InitError::Certificate(error.to_string());
    let signing_root = Capture { spki: &root.spki, tbs: RefCell::default() };
    let root_params = params(trust_domain, "Daypass root", root, BasicConstraints::Unconstrained)?;
    root_params.self_signed(&signing_root).map_err(failed)?;
    let root_tbs = signing_root.tbs.take();

    let ca_key = Capture { spki: &ca.spki, tbs: RefCell::default() };
    let ca_params = params(trust_domain, "Daypass issuing CA", ca, BasicConstraints::Constrained(0))?;
    let issuer = Issuer::from_params(&root_params, signing_root);
    ca_params.signed_by(&ca_key, &issuer).map_err(failed)?;
    let ca_tbs = issuer.key().tbs.take();
    Ok(vec![statement(root, root, root_tbs), statement(root, ca, ca_tbs)])
}

/// Signs what was recorded: the two certificates, DER.
pub(super) fn sign(signer: &Signer, recorded: &[Recorded<Statement>]) -> Result<Vec<Vec<u8>>, InitError> {
    recorded
        .iter()
        .map(|statement| {
            let signature = signer.sign_statement(statement)?;
            assemble_certificate(&statement.what().tbs, signature.as_bytes())
                .map_err(|error| InitError::Certificate(error.to_string()))
        })
        .collect()
}

fn statement(signer: &Made, of: &Made, tbs: Vec<u8>) -> (Statement, StatementSigned) {
    let statement = Statement { key: signer.changed.key.clone(), tbs };
    let entry = StatementSigned {
        statement: "ca_certificate".into(),
        key: statement.key.clone(),
        digest: statement.digest(),
        from_ms: of.changed.sign_from_ms,
        until_ms: of.changed.publish_until_ms,
        number: None,
    };
    (statement, entry)
}

fn params(
    trust_domain: &TrustDomain,
    name: &str,
    made: &Made,
    constraints: BasicConstraints,
) -> Result<CertificateParams, InitError> {
    let failed = |error: String| InitError::Certificate(error);
    let moment = |at: UnixMs| {
        time::OffsetDateTime::from_unix_timestamp(at.seconds()).map_err(|error| failed(error.to_string()))
    };
    let mut params = CertificateParams::default();
    params.not_before = moment(made.changed.sign_from_ms)?;
    params.not_after = moment(made.changed.publish_until_ms)?;
    params.serial_number = Some(serial(made));
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, trust_domain.as_str());
    params.distinguished_name.push(DnType::CommonName, name);
    let uri = format!("spiffe://{trust_domain}")
        .as_str()
        .try_into()
        .map_err(|error: rcgen::Error| failed(error.to_string()))?;
    params.subject_alt_names = vec![SanType::URI(uri)];
    params.is_ca = IsCa::Ca(constraints);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.key_identifier_method = KeyIdMethod::Sha256;
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// 16 octets of the key's own digest: positive, and never the same for two keys.
fn serial(made: &Made) -> SerialNumber {
    let mut bytes: Vec<u8> = made.changed.public.as_bytes().iter().copied().take(16).collect();
    if let Some(first) = bytes.first_mut() {
        *first = (*first & 0x7f) | 0x40;
    }
    SerialNumber::from_slice(&bytes)
}
