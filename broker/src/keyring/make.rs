//! Making keys, with the times that say what they may be used for.

use daypass_core::rotation::Times;
use daypass_evidence::entry::{KeyChanged, KeyUse};
use daypass_verify::ids::{Digest, KeyId};
use daypass_verify::jwks::{thumbprint_ed25519, thumbprint_p256};
use daypass_verify::time::{Seconds, UnixMs};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
use zeroize::Zeroizing;

use super::KekError;

/// How long the root and the evidence key sign, and how long what they sign can live after that.
const ROOT_SIGNS: Seconds = Seconds::new(3_650 * 86_400);
const ROOT_OUTLIVED: Seconds = Seconds::new(365 * 86_400);

/// A new key.
pub struct Made {
    /// Its entry.
    pub changed: KeyChanged,
    /// Its secret part.
    pub pkcs8: Zeroizing<Vec<u8>>,
    /// Its public part (SPKI DER).
    pub spki: Vec<u8>,
}

/// Makes an ES256 key with these times.
///
/// # Errors
/// When the random source fails.
pub fn make_key(usage: KeyUse, times: Times) -> Result<Made, KekError> {
    let random = SystemRandom::new();
    let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random)
        .map_err(|_| KekError::Random)?;
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random)
        .map_err(|_| KekError::Random)?;
    let point: [u8; 65] = pair.public_key().as_ref().try_into().map_err(|_| KekError::Random)?;
    let spki = p256_spki(&point);
    let changed = new_key(thumbprint_p256(&point), usage, "ES256", &spki, times);
    Ok(Made { changed, pkcs8: Zeroizing::new(document.as_ref().to_vec()), spki })
}

/// Makes a root that may sign from `now` on.
///
/// # Errors
/// When the random source fails.
pub fn make_root_key(now: UnixMs) -> Result<Made, KekError> {
    make_key(KeyUse::Root, long(now))
}

/// Makes an Ed25519 key for checkpoints.
///
/// # Errors
/// When the random source fails.
pub fn make_evidence_key(now: UnixMs) -> Result<Made, KekError> {
    let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| KekError::Random)?;
    let pair = Ed25519KeyPair::from_pkcs8(document.as_ref()).map_err(|_| KekError::Random)?;
    let public: [u8; 32] = pair.public_key().as_ref().try_into().map_err(|_| KekError::Random)?;
    let spki = [ED25519_SPKI_PREFIX, public.as_slice()].concat();
    let changed = new_key(thumbprint_ed25519(&public), KeyUse::Evidence, "Ed25519", &spki, long(now));
    Ok(Made { changed, pkcs8: Zeroizing::new(document.as_ref().to_vec()), spki })
}

/// The times of what does not change by itself.
fn long(now: UnixMs) -> Times {
    let (now, sign_until) = (now.floor_second(), now.floor_second().plus(ROOT_SIGNS));
    Times { publish_from: now, sign_from: now, sign_until, publish_until: sign_until.plus(ROOT_OUTLIVED) }
}

pub(super) fn new_key(key: KeyId, usage: KeyUse, alg: &str, spki: &[u8], times: Times) -> KeyChanged {
    KeyChanged {
        key,
        usage,
        alg: alg.into(),
        public: Digest::of(spki),
        state: times.state(times.publish_from),
        publish_from_ms: times.publish_from,
        sign_from_ms: times.sign_from,
        sign_until_ms: times.sign_until,
        publish_until_ms: times.publish_until,
        certificate: None,
        chain: Vec::new(),
        origin: "generated".into(),
        reason: None,
    }
}

/// The SPKI of a P-256 key from its uncompressed point.
pub(super) fn p256_spki(point: &[u8; 65]) -> Vec<u8> {
    [P256_SPKI_PREFIX, point.as_slice()].concat()
}

/// SubjectPublicKeyInfo up to the point: id-ecPublicKey, prime256v1 (RFC 5480, section 2.1).
const P256_SPKI_PREFIX: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// SubjectPublicKeyInfo up to the key: id-Ed25519 (RFC 8410, section 4).
const ED25519_SPKI_PREFIX: &[u8] = &[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
