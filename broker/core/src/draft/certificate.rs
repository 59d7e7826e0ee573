//! Certificates: X.509-SVIDs (SPIFFE) and common-name client certificates, up to their to-be-signed bytes. Only
//! the key comes from the caller; every name comes from what is declared.

use daypass_evidence::entry::{Profile, Reach};
use daypass_verify::certificate::NODE_USAGE_OID;
use daypass_verify::task::{TASK_EXTENSION_OID, TaskDetail};
use daypass_verify::time::UnixMs;
use rcgen::string::Ia5String;
use rcgen::{
    CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyUsagePurpose, SanType, SerialNumber, SubjectPublicKeyInfo,
};
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{DraftError, SigningKey, lint};
use crate::decision::Grant;

/// `id-ce-noRevAvail` (RFC 9608, section 3).
pub(super) const NO_REV_AVAIL_OID: &[u64] = &[2, 5, 29, 56];
const DER_NULL: [u8; 2] = [0x05, 0x00];
/// `ecdsa-with-SHA256` (RFC 5758, section 3.2).
const ECDSA_WITH_SHA256: &[u64] = &[1, 2, 840, 10045, 4, 3, 2];

impl From<rcgen::Error> for DraftError {
    fn from(error: rcgen::Error) -> Self {
        Self::Value(error.to_string())
    }
}

/// The `TBSCertificate`, checked by our own lints.
pub(super) fn to_be_signed(grant: &Grant, key: &SigningKey) -> Result<Vec<u8>, DraftError> {
    let authority = key.as_authority().ok_or(DraftError::WrongKey("the key of an issuing CA"))?;
    let holder = grant.csr_key.as_ref().ok_or(DraftError::WrongKey("a request with a holder's key"))?;
    let task = TaskDetail::new(grant.task().name.clone(), grant.scope())
        .to_json()
        .map_err(|error| DraftError::Value(error.to_string()))?;
    let public = SubjectPublicKeyInfo::from_der(holder.spki_der())?;
    let unsigned = params(grant, &task)?.signed_by(&public, &authority.issuer)?;
    let (_, parsed) = X509Certificate::from_der(unsigned.der())
        .map_err(|_| DraftError::Lint("expected a certificate that can be parsed"))?;
    lint::check(&parsed, grant, authority, holder, &task)?;
    Ok(parsed.tbs_certificate.as_ref().to_vec())
}

pub(super) fn params(grant: &Grant, task: &str) -> Result<CertificateParams, DraftError> {
    let mut params = CertificateParams::default();
    params.not_before = moment(grant.not_before())?;
    params.not_after = moment(grant.expires_at())?;
    params.serial_number = Some(SerialNumber::from_slice(grant.id.as_bytes()));
    params.distinguished_name = subject(grant);
    params.subject_alt_names = alternative_names(grant)?;
    // The one form in which rcgen writes the subject key identifier of a leaf.
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = extended_key_usages(grant.profile());
    params.use_authority_key_identifier_extension = true;
    let task = CustomExtension::from_oid_content(TASK_EXTENSION_OID, task.as_bytes().to_vec());
    params.custom_extensions = vec![task];
    if grant.reach() != Reach::Crl {
        let none = CustomExtension::from_oid_content(NO_REV_AVAIL_OID, DER_NULL.to_vec());
        params.custom_extensions.push(none);
    }
    Ok(params)
}

fn extended_key_usages(profile: Profile) -> Vec<ExtendedKeyUsagePurpose> {
    match profile {
        Profile::CommonName => vec![ExtendedKeyUsagePurpose::ClientAuth],
        Profile::Node => vec![ExtendedKeyUsagePurpose::Other(NODE_USAGE_OID.to_vec())],
        _ => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
    }
}

fn subject(grant: &Grant) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    if let (Profile::CommonName, Some(common_name)) = (grant.profile(), &grant.common_name) {
        name.push(DnType::CommonName, common_name.as_str());
    }
    name
}

fn alternative_names(grant: &Grant) -> Result<Vec<SanType>, DraftError> {
    let mut names = vec![SanType::URI(Ia5String::try_from(grant.subject.as_str())?)];
    for name in &grant.dns_names {
        names.push(SanType::DnsName(Ia5String::try_from(name.as_str())?));
    }
    Ok(names)
}

fn moment(at: UnixMs) -> Result<OffsetDateTime, DraftError> {
    OffsetDateTime::from_unix_timestamp(at.seconds()).map_err(|error| DraftError::Value(error.to_string()))
}

/// The certificate: the bytes, the algorithm and the signature in one sequence (RFC 5280, section 4.1).
///
/// # Errors
/// When the signature is not one of ECDSA in DER.
pub fn assemble(tbs: &[u8], signature: &[u8]) -> Result<Vec<u8>, DraftError> {
    if !(8..=72).contains(&signature.len()) || signature.first() != Some(&0x30) {
        return Err(DraftError::Signature("ECDSA in DER (RFC 3279, section 2.2.3)"));
    }
    Ok(yasna::construct_der(|writer| {
        writer.write_sequence(|writer| {
            writer.next().write_der(tbs);
            writer.next().write_sequence(|writer| {
                writer.next().write_oid(&yasna::models::ObjectIdentifier::from_slice(ECDSA_WITH_SHA256));
            });
            writer.next().write_bitvec_bytes(signature, signature.len() * 8);
        });
    }))
}
