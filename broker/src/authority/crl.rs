//! Revocation lists of our CAs (RFC 5280, section 5): recorded before they are signed, like all that they sign.

use std::cell::RefCell;

use daypass_core::draft::SigningKey;
use daypass_evidence::entry::StatementSigned;
use daypass_verify::time::{Seconds, UnixMs};
use rcgen::{
    CertificateRevocationListParams, Issuer, KeyIdMethod, RevocationReason, RevokedCertParams, SerialNumber,
};
use rustls_pki_types::CertificateDer;

use super::{AuthorityError, Capture, Unsigned, failed, first_octets};
use crate::signer::Statement;

/// How long a list holds: whoever reads it has a newer one long before.
pub const CRL_LIFE: Seconds = Seconds::new(3_600);

/// How far a list begins before it is made: clocks differ.
const SKEW: Seconds = Seconds::new(10);

/// A certificate that is revoked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevokedCertificate {
    /// Its serial number.
    pub serial: Vec<u8>,
    /// Since when.
    pub at: UnixMs,
    /// Why (RFC 5280, section 5.3.1), as entries spell it.
    pub reason: String,
}

/// The list of the CA with this key and certificate, to be recorded and signed by it. `number` grows with each.
///
/// # Errors
/// When its certificate cannot be read, or a time has no place in a list.
pub fn crl_statement(
    ca: &SigningKey,
    certificate: &CertificateDer<'_>,
    revoked: &[RevokedCertificate],
    number: u64,
    now: UnixMs,
) -> Result<Unsigned, AuthorityError> {
    // Several of our CAs may share a name: a list says by this whose it is.
    let key_id = ca.key_identifier().ok_or_else(|| failed("it is not the key of a CA"))?;
    let capture = Capture { spki: &[], tbs: RefCell::default() };
    let issuer = Issuer::from_ca_cert_der(certificate, capture).map_err(failed)?;
    let (from, until) = (now.minus(SKEW), now.plus(CRL_LIFE));
    let params = CertificateRevocationListParams {
        this_update: moment(from)?,
        next_update: moment(until)?,
        crl_number: SerialNumber::from(number),
        issuing_distribution_point: None,
        revoked_certs: revoked.iter().map(listed).collect::<Result<_, _>>()?,
        key_identifier_method: KeyIdMethod::PreSpecified(key_id.to_vec()),
    };
    params.signed_by(&issuer).map_err(failed)?;
    let statement = Statement { key: ca.id().clone(), tbs: issuer.key().tbs.take() };
    let entry = StatementSigned {
        statement: "crl".into(),
        key: ca.id().clone(),
        digest: statement.digest(),
        from_ms: from,
        until_ms: until,
        number: Some(number),
    };
    Ok((statement, entry))
}

/// The serial number that a CA of ours has, by the digest of its public key.
#[must_use]
pub fn serial_of_ca(public: &daypass_verify::ids::Digest) -> Vec<u8> {
    first_octets(public)
}

fn listed(revoked: &RevokedCertificate) -> Result<RevokedCertParams, AuthorityError> {
    Ok(RevokedCertParams {
        serial_number: SerialNumber::from_slice(&revoked.serial),
        revocation_time: moment(revoked.at)?,
        reason_code: reason(&revoked.reason),
        invalidity_date: None,
    })
}

fn reason(text: &str) -> Option<RevocationReason> {
    Some(match text {
        "keyCompromise" => RevocationReason::KeyCompromise,
        "cACompromise" => RevocationReason::CaCompromise,
        "affiliationChanged" => RevocationReason::AffiliationChanged,
        "superseded" => RevocationReason::Superseded,
        "cessationOfOperation" => RevocationReason::CessationOfOperation,
        "privilegeWithdrawn" => RevocationReason::PrivilegeWithdrawn,
        // What has no reason has no extension for it.
        _ => return None,
    })
}

fn moment(at: UnixMs) -> Result<time::OffsetDateTime, AuthorityError> {
    time::OffsetDateTime::from_unix_timestamp(at.seconds()).map_err(failed)
}
