//! RSA keys that somebody brings: ring can sign with one and cannot make one.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use daypass_core::rotation::Times;
use daypass_core::state::{IMPORTED, RS256};
use daypass_evidence::entry::KeyUse;
use daypass_verify::jwks::thumbprint_rsa;
use ring::rsa::PublicKeyComponents;
use ring::signature::{KeyPair as _, RsaKeyPair};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use zeroize::Zeroizing;

use super::Made;
use super::make::new_key;

/// Why a key is not taken.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file cannot be read.
    #[error("the key `{0}` could not be read: {1}")]
    File(String, std::io::Error),
    /// Others may read it.
    #[error(
        "the key `{0}` has mode {1:o}: expected 600, so that only its owner reads it; run `chmod 600 {0}`"
    )]
    Mode(String, u32),
    /// It is not in the form that is taken.
    #[error("the key `{0}` is {1}: expected an RSA key as PKCS#8 in PEM (`BEGIN PRIVATE KEY`){2}")]
    Form(String, &'static str, &'static str),
    /// It is too weak, or otherwise than receivers take.
    #[error(
        "the key `{0}` is refused: expected an RSA key of 2048 to 4096 bits with the exponent 65537, {1}"
    )]
    Weak(String, String),
}

/// A key that was read from a file, and is not in the log yet.
pub struct Brought {
    /// Its secret part.
    pkcs8: Zeroizing<Vec<u8>>,
    pair: RsaKeyPair,
}

const CONVERT: &str = "; make one by `openssl pkcs8 -topk8 -nocrypt -in KEY -out KEY.pkcs8`";

impl Brought {
    /// Reads a PKCS#8 document in PEM.
    ///
    /// # Errors
    /// When others may read the file, or it holds anything but an RSA key of 2048 to 4096 bits.
    pub fn read(path: &Path) -> Result<Self, ImportError> {
        let name = || path.display().to_string();
        let failed = |error| ImportError::File(name(), error);
        let mode = fs::metadata(path).map_err(failed)?.mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(ImportError::Mode(name(), mode));
        }
        let text = Zeroizing::new(fs::read(path).map_err(failed)?);
        let form = |what, advice| ImportError::Form(name(), what, advice);
        let pkcs8 = match PrivateKeyDer::from_pem_slice(&text) {
            Ok(PrivateKeyDer::Pkcs8(pkcs8)) => Zeroizing::new(pkcs8.secret_pkcs8_der().to_vec()),
            Ok(PrivateKeyDer::Pkcs1(_)) => return Err(form("a PKCS#1 document", CONVERT)),
            Ok(PrivateKeyDer::Sec1(_)) => return Err(form("a key on an elliptic curve", "")),
            _ if memchr::memmem::find(&text, b"ENCRYPTED PRIVATE KEY").is_some() => {
                return Err(form("encrypted", CONVERT));
            }
            _ => return Err(form("no private key in PEM", "")),
        };
        if memchr::memmem::find(&pkcs8, RSA_ENCRYPTION).is_none() {
            return Err(form("no RSA key", ""));
        }
        let pair = RsaKeyPair::from_pkcs8(&pkcs8)
            .map_err(|error| ImportError::Weak(name(), format!("found none ({error})")))?;
        let public = PublicKeyComponents::<Vec<u8>>::from(pair.public());
        if public.e != [1, 0, 1] {
            return Err(ImportError::Weak(name(), "found another exponent".into()));
        }
        Ok(Self { pkcs8, pair })
    }

    /// The key with what its entry will say of it.
    #[must_use]
    pub fn with(self, usage: KeyUse, times: Times) -> Made {
        let public = PublicKeyComponents::<Vec<u8>>::from(self.pair.public());
        let spki = spki(self.pair.public_key().as_ref());
        let mut changed = new_key(thumbprint_rsa(&public.n, &public.e), usage, RS256, &spki, times);
        changed.origin = IMPORTED.into();
        Made { changed, pkcs8: self.pkcs8, spki }
    }
}

/// The object identifier of rsaEncryption (RFC 8017, appendix A.1), DER.
const RSA_ENCRYPTION: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];

/// SubjectPublicKeyInfo around an RSAPublicKey (RFC 3279, section 2.3.1).
fn spki(public: &[u8]) -> Vec<u8> {
    let algorithm = der(0x30, &[RSA_ENCRYPTION, &[0x05, 0x00]].concat());
    let bits = der(0x03, &[&[0], public].concat());
    der(0x30, &[algorithm, bits].concat())
}

/// One DER value of less than 64 KiB.
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let [.., high, low] = content.len().to_be_bytes();
    let length = match (high, low) {
        (0, low) if low < 0x80 => vec![low],
        (0, low) => vec![0x81, low],
        (high, low) => vec![0x82, high, low],
    };
    [&[tag], length.as_slice(), content].concat()
}
