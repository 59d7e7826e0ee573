//! Making keys, with the times that say what they may be used for.

use daypass_evidence::entry::{KeyChanged, KeyState, KeyUse};
use daypass_verify::ids::Digest;
use daypass_verify::jwks::{thumbprint_ed25519, thumbprint_p256};
use daypass_verify::time::{Seconds, UnixMs};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
use zeroize::Zeroizing;

use super::KekError;

const DAY_S: u32 = 86_400;

/// A new key.
pub struct Made {
    /// Its entry.
    pub changed: KeyChanged,
    /// Its secret part.
    pub pkcs8: Zeroizing<Vec<u8>>,
    /// Its public part (SPKI DER).
    pub spki: Vec<u8>,
}

/// How long keys of a use sign, and how long what they sign can live after that.
fn lifetimes(usage: KeyUse) -> (Seconds, Seconds) {
    let days = |days: u32| Seconds::new(days * DAY_S);
    match usage {
        KeyUse::Token | KeyUse::Svid => (days(365), days(1)),
        KeyUse::Ca | KeyUse::Node | KeyUse::Ssh => (days(365), days(7)),
        KeyUse::Root | KeyUse::Evidence => (days(3650), days(365)),
    }
}

/// Makes an ES256 key that may sign from `now` on.
///
/// # Errors
/// When the random source fails.
pub fn make_key(usage: KeyUse, now: UnixMs) -> Result<Made, KekError> {
    let random = SystemRandom::new();
    let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random)
        .map_err(|_| KekError::Random)?;
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random)
        .map_err(|_| KekError::Random)?;
    let point: [u8; 65] = pair.public_key().as_ref().try_into().map_err(|_| KekError::Random)?;
    let spki = [P256_SPKI_PREFIX, point.as_slice()].concat();
    let changed = new_key(thumbprint_p256(&point), usage, "ES256", &spki, now);
    Ok(Made { changed, pkcs8: Zeroizing::new(document.as_ref().to_vec()), spki })
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
    let changed = new_key(thumbprint_ed25519(&public), KeyUse::Evidence, "Ed25519", &spki, now);
    Ok(Made { changed, pkcs8: Zeroizing::new(document.as_ref().to_vec()), spki })
}

fn new_key(
    key: daypass_verify::ids::KeyId,
    usage: KeyUse,
    alg: &str,
    spki: &[u8],
    now: UnixMs,
) -> KeyChanged {
    let now = now.floor_second();
    let (signs, outlives) = lifetimes(usage);
    KeyChanged {
        key,
        usage,
        alg: alg.into(),
        public: Digest::of(spki),
        state: KeyState::Active,
        publish_from_ms: now,
        sign_from_ms: now,
        sign_until_ms: now.plus(signs),
        publish_until_ms: now.plus(signs).plus(outlives),
        certificate: None,
        origin: "generated".into(),
        reason: None,
    }
}

/// SubjectPublicKeyInfo up to the point: id-ecPublicKey, prime256v1 (RFC 5480, section 2.1).
const P256_SPKI_PREFIX: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// SubjectPublicKeyInfo up to the key: id-Ed25519 (RFC 8410, section 4).
const ED25519_SPKI_PREFIX: &[u8] = &[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
