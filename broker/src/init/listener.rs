//! A first certificate for the listeners: its CA is made for it alone, and its key is dropped, so that nothing else
//! can ever be signed with it.

use std::fs::File;
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use daypass_verify::time::UnixMs;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};

use super::InitError;

/// Browsers and many clients take no longer one.
const LIFE_DAYS: i64 = 397;

/// Where the certificate, its key and its CA were written.
#[derive(Debug, Clone)]
pub struct ListenerFiles {
    /// The chain: PEM.
    pub certificate: PathBuf,
    /// The key: PEM, mode 0600.
    pub key: PathBuf,
    /// The CA that clients are given: PEM.
    pub ca: PathBuf,
}

/// Makes a certificate for `hosts` (names and addresses) in `folder`.
///
/// # Errors
/// When a key cannot be made or a file cannot be written; an existing key is never overwritten.
pub fn write_listener_certificate(
    folder: &Path,
    hosts: &[String],
    now: UnixMs,
) -> Result<ListenerFiles, InitError> {
    let failed = |error: rcgen::Error| InitError::Certificate(error.to_string());
    let (ca_key, key) = (KeyPair::generate().map_err(failed)?, KeyPair::generate().map_err(failed)?);
    let mut ca_params = params("Daypass listener CA", now)?;
    ca_params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca_params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let ca = ca_params.self_signed(&ca_key).map_err(failed)?;
    let mut leaf = params("Daypass listener", now)?;
    leaf.is_ca = IsCa::ExplicitNoCa;
    leaf.use_authority_key_identifier_extension = true;
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    leaf.subject_alt_names =
        hosts.iter().map(|host| alternative_name(host)).collect::<Result<_, _>>().map_err(failed)?;
    let issuer = Issuer::from_params(&ca_params, &ca_key);
    let certificate = leaf.signed_by(&key, &issuer).map_err(failed)?;
    let files = ListenerFiles {
        certificate: folder.join("server.pem"),
        key: folder.join("server.key"),
        ca: folder.join("server-ca.pem"),
    };
    write(&files.key, &key.serialize_pem(), 0o600)?;
    write(&files.certificate, &certificate.pem(), 0o644)?;
    write(&files.ca, &ca.pem(), 0o644)?;
    Ok(files)
}

fn alternative_name(host: &str) -> Result<SanType, rcgen::Error> {
    match host.parse::<IpAddr>() {
        Ok(address) => Ok(SanType::IpAddress(address)),
        Err(_) => Ok(SanType::DnsName(host.try_into()?)),
    }
}

fn params(name: &str, now: UnixMs) -> Result<CertificateParams, InitError> {
    let from = time::OffsetDateTime::from_unix_timestamp(now.seconds())
        .map_err(|error| InitError::Certificate(error.to_string()))?;
    let mut params = CertificateParams::default();
    params.not_before = from - time::Duration::minutes(5);
    params.not_after = from + time::Duration::days(LIFE_DAYS);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    Ok(params)
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), InitError> {
    let failed = |error| InitError::File(path.display().to_string(), error);
    let mut file = File::options().write(true).create_new(true).mode(mode).open(path).map_err(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)
}
