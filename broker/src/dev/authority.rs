//! A certificate authority of one root: what the development issuer's listener and the workload CA share.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use daypass_verify::time::UnixMs;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType, SerialNumber,
};
use ring::rand::{SecureRandom as _, SystemRandom};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::{DevError, files};

const ROOT_LIFE_DAYS: i64 = 3650;

/// A root and its key.
pub(super) struct Authority {
    root: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

/// What of an authority is kept between two starts, base64 of DER.
#[derive(Serialize, Deserialize)]
struct Saved {
    root: String,
    key: String,
}

impl Authority {
    pub(super) fn new(common_name: &str, uri: Option<&str>, now: UnixMs) -> Result<Self, DevError> {
        let key = KeyPair::generate()?;
        let params = root_params(common_name, uri, now)?;
        let root = params.self_signed(&key)?.der().clone();
        Self::from_parts(root, key)
    }

    /// The authority that an earlier start left in `path`, or a new one that is written there.
    pub(super) fn load_or_new(
        path: &Path,
        common_name: &str,
        uri: Option<&str>,
        now: UnixMs,
    ) -> Result<Self, DevError> {
        if let Some(bytes) = files::read_if_there(path)? {
            return Self::from_saved(&bytes).ok_or_else(|| DevError::Damaged(PathBuf::from(path)));
        }
        let new = Self::new(common_name, uri, now)?;
        files::write_private(path, &new.saved()?)?;
        Ok(new)
    }

    pub(super) fn root(&self) -> &CertificateDer<'static> {
        &self.root
    }

    /// Signs what `params` say over a new P-256 key.
    pub(super) fn issue(&self, params: &CertificateParams) -> Result<Issued, DevError> {
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?.der().clone();
        Ok(Issued { certificate, key: PrivatePkcs8KeyDer::from(key.serialize_der()) })
    }

    fn from_parts(root: CertificateDer<'static>, key: KeyPair) -> Result<Self, DevError> {
        let issuer = Issuer::from_ca_cert_der(&root, key)?;
        Ok(Self { root, issuer })
    }

    fn saved(&self) -> Result<Vec<u8>, DevError> {
        let saved = Saved {
            root: STANDARD.encode(&self.root),
            key: STANDARD.encode(self.issuer.key().serialized_der()),
        };
        serde_json::to_vec(&saved).map_err(|_| DevError::Key("a root that can be written"))
    }

    fn from_saved(bytes: &[u8]) -> Option<Self> {
        let saved: Saved = serde_json::from_slice(bytes).ok()?;
        let root = CertificateDer::from(STANDARD.decode(saved.root).ok()?);
        let key = PrivatePkcs8KeyDer::from(STANDARD.decode(saved.key).ok()?);
        let key = KeyPair::from_pkcs8_der_and_sign_algo(&key, &rcgen::PKCS_ECDSA_P256_SHA256).ok()?;
        Self::from_parts(root, key).ok()
    }
}

/// A certificate and its key.
pub(super) struct Issued {
    pub(super) certificate: CertificateDer<'static>,
    pub(super) key: PrivatePkcs8KeyDer<'static>,
}

impl Issued {
    pub(super) fn into_key(self) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        (self.certificate, PrivateKeyDer::Pkcs8(self.key))
    }
}

/// Parameters of a leaf: a serial number of its own, a validity and a key usage; the caller adds names and
/// extended usages.
pub(super) fn leaf_params(not_before: UnixMs, not_after: UnixMs) -> Result<CertificateParams, DevError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.serial_number = Some(serial()?);
    params.not_before = at(not_before);
    params.not_after = at(not_after);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

pub(super) fn days(n: i64) -> i64 {
    n.saturating_mul(86_400_000)
}

fn root_params(common_name: &str, uri: Option<&str>, now: UnixMs) -> Result<CertificateParams, DevError> {
    let mut params = leaf_params(now.plus_millis(-days(1)), now.plus_millis(days(ROOT_LIFE_DAYS)))?;
    params.distinguished_name.push(DnType::CommonName, common_name);
    if let Some(uri) = uri {
        params.subject_alt_names = vec![SanType::URI(uri.try_into()?)];
    }
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = false;
    Ok(params)
}

/// Sixteen random octets that read as a positive number.
fn serial() -> Result<SerialNumber, DevError> {
    let mut octets = [0; 16];
    SystemRandom::new().fill(&mut octets).map_err(|_| DevError::Random)?;
    let [first, ..] = &mut octets;
    *first = (*first & 0x7f) | 0x40;
    Ok(SerialNumber::from_slice(&octets))
}

fn at(moment: UnixMs) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(moment.seconds()).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}
