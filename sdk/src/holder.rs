//! The certificate that a client shows in its handshake. It may be an identity; or it is a fresh self-signed one,
//! which proves that its holder has the key and nothing else, and so binds the tokens it gets (RFC 8705).

use std::path::Path;

use daypass_verify::certificate::self_signed_holder;
use daypass_verify::ids::Digest;
use daypass_verify::time::{Seconds, UnixMs};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use secrecy::{ExposeSecret as _, SecretString};
use time::OffsetDateTime;

use crate::error::Error;
use crate::kept::write_private;

/// How long a fresh certificate lives: a year. Tokens that it binds die in minutes; a client that runs longer has
/// to be made again.
const FRESH_LIFE: Seconds = Seconds::new(365 * 86_400);
/// How far a fresh certificate is backdated, for brokers whose clock is behind.
const SKEW: Seconds = Seconds::new(300);

/// A client certificate with its private key.
pub struct Holder {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    fresh: bool,
}

impl std::fmt::Debug for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Holder")
            .field("digest", &self.digest())
            .field("fresh", &self.fresh)
            .finish_non_exhaustive()
    }
}

impl Holder {
    /// A certificate chain, leaf first, and its key, both PEM.
    ///
    /// # Errors
    /// When there is no certificate or no key in them.
    pub fn from_pem(chain: &[u8], key: &SecretString) -> Result<Self, Error> {
        let chain = read_certificates(chain)
            .map_err(|why| Error::Config(format!("the client certificate: {why}")))?;
        let key = PrivateKeyDer::from_pem_slice(key.expose_secret().as_bytes()).map_err(|_| {
            Error::Config("the client key: expected one PEM block with an unencrypted private key".into())
        })?;
        Ok(Self { chain, key, fresh: false })
    }

    /// A new key and a certificate that it signed itself, valid for a year from `now`.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn fresh(now: UnixMs) -> Result<Self, Error> {
        let failed = |error: rcgen::Error| Error::Config(format!("cannot make a certificate: {error}"));
        let key = KeyPair::generate().map_err(failed)?;
        let certificate = fresh_params(now).self_signed(&key).map_err(failed)?;
        let key = PrivateKeyDer::try_from(key.serialize_der());
        let key = key.map_err(|_| Error::Config("cannot make a key".into()))?;
        Ok(Self { chain: vec![certificate.der().clone()], key, fresh: true })
    }

    /// The fresh certificate that is kept in `directory`, or a new one where there is none that lives for another
    /// day.
    ///
    /// # Errors
    /// When the file is damaged or cannot be written.
    pub fn kept(directory: &Path, now: UnixMs) -> Result<Self, Error> {
        let path = directory.join("holder.pem");
        if let Ok(pem) = std::fs::read_to_string(&path).map(SecretString::from) {
            let kept = Self::from_pem(pem.expose_secret().as_bytes(), &pem)?;
            if kept.not_after()? > now.plus(Seconds::new(86_400)) {
                return Ok(Self { fresh: true, ..kept });
            }
        }
        let made = Self::fresh(now)?;
        write_private(&path, made.to_pem().expose_secret().as_bytes())?;
        Ok(made)
    }

    /// The chain, leaf first.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// The private key.
    #[must_use]
    pub fn key(&self) -> &PrivateKeyDer<'static> {
        &self.key
    }

    /// Whether it was made here and proves possession only.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// Both, ready to sign.
    ///
    /// # Errors
    /// When the key does not fit the certificate, or is of a kind that cannot sign.
    pub(crate) fn certified(&self) -> Result<CertifiedKey, Error> {
        let provider = rustls::crypto::ring::default_provider();
        CertifiedKey::from_der(self.chain.clone(), self.key.clone_key(), &provider)
            .map_err(|error| Error::Config(format!("the client certificate and its key: {error}")))
    }

    /// The SHA-256 of the leaf: what a token that is bound to it carries (RFC 8705, section 3.1).
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(self.chain.first().map_or(&[], |leaf| leaf.as_ref()))
    }

    /// The last second in which the leaf is valid.
    ///
    /// # Errors
    /// When the leaf is no certificate that a broker would accept.
    pub fn not_after(&self) -> Result<UnixMs, Error> {
        let leaf = self.chain.first().map_or(&[] as &[u8], |leaf| leaf.as_ref());
        let holder = self_signed_holder(leaf)
            .map_err(|why| Error::Config(format!("the client certificate: {why}")))?;
        Ok(holder.not_after)
    }

    /// The chain and the key as PEM, for the tools that present them to a target.
    #[must_use]
    pub fn to_pem(&self) -> SecretString {
        let certificates = self.chain.iter().map(|der| pem("CERTIFICATE", der)).collect::<String>();
        let label = match self.key {
            PrivateKeyDer::Pkcs1(_) => "RSA PRIVATE KEY",
            PrivateKeyDer::Sec1(_) => "EC PRIVATE KEY",
            _ => "PRIVATE KEY",
        };
        SecretString::from(certificates + &pem(label, self.key.secret_der()))
    }
}

fn fresh_params(now: UnixMs) -> CertificateParams {
    let at = |moment: UnixMs| {
        OffsetDateTime::from_unix_timestamp(moment.seconds()).unwrap_or(OffsetDateTime::UNIX_EPOCH)
    };
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "holder of a key");
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.not_before = at(now.minus(SKEW));
    params.not_after = at(now.plus(FRESH_LIFE));
    params
}

/// Every certificate of a PEM text.
///
/// # Errors
/// When there is none, or one block is malformed.
pub(crate) fn read_certificates(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, &'static str> {
    let expected = "expected one or more PEM blocks `CERTIFICATE`";
    let all = CertificateDer::pem_slice_iter(text).collect::<Result<Vec<_>, _>>().map_err(|_| expected)?;
    if all.is_empty() { Err(expected) } else { Ok(all) }
}

/// One PEM block (RFC 7468).
#[must_use]
pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    let text = data_encoding::BASE64.encode(der);
    let mut out = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(64) {
        out.push_str(&String::from_utf8_lossy(line));
        out.push('\n');
    }
    out + &format!("-----END {label}-----\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMs = UnixMs::new(1_795_316_400_123);

    #[test]
    fn a_fresh_certificate_is_one_that_a_broker_accepts_as_possession() {
        let fresh = Holder::fresh(NOW).unwrap();
        let seen = self_signed_holder(&fresh.chain()[0]).unwrap();
        assert_eq!(seen.der_digest, fresh.digest());
        assert!(seen.not_before < NOW && seen.not_after <= NOW.plus(FRESH_LIFE));
        assert_ne!(Holder::fresh(NOW).unwrap().digest(), fresh.digest());
    }

    #[test]
    fn a_kept_certificate_stays_the_same_until_it_is_about_to_end() {
        let directory = tempfile::tempdir().unwrap();
        let first = Holder::kept(directory.path(), NOW).unwrap();
        assert!(first.is_fresh());
        assert_eq!(Holder::kept(directory.path(), NOW).unwrap().digest(), first.digest());
        let late = NOW.plus(FRESH_LIFE).minus(Seconds::new(3600));
        assert_ne!(Holder::kept(directory.path(), late).unwrap().digest(), first.digest());
    }

    #[test]
    fn a_key_shows_in_no_debug_text() {
        let fresh = Holder::fresh(NOW).unwrap();
        let key = data_encoding::BASE64.encode(fresh.key().secret_der());
        assert!(!format!("{fresh:?}").contains(&key[..16]));
        assert!(!format!("{:?}", fresh.to_pem()).contains("PRIVATE"));
    }

    #[test]
    fn a_chain_without_a_certificate_is_refused() {
        for text in ["", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "nothing"] {
            let error = Holder::from_pem(text.as_bytes(), &"".into()).unwrap_err().to_string();
            assert!(error.contains("expected one or more PEM blocks"), "{error}");
        }
    }
}
