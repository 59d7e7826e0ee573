//! Public keys and the rules for them: RSA of 2048 to 4096 bits with exponent 65537, P-256, P-384, Ed25519.
//! The same rules hold for key sets, certificates and certificate requests.

use std::fmt;

use jsonwebtoken::DecodingKey;
use x509_parser::asn1_rs::Oid;
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_PKCS1_RSAENCRYPTION, OID_SIG_ED25519,
};
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::jose::Alg;

/// The kinds of public key that Daypass accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyKind {
    /// RSA, 2048 to 4096 bits, exponent 65537.
    Rsa,
    /// Elliptic curve P-256.
    P256,
    /// Elliptic curve P-384.
    P384,
    /// Ed25519 (RFC 8032).
    Ed25519,
}

impl KeyKind {
    /// The one algorithm for a key of this kind that declares none.
    #[must_use]
    pub fn default_alg(self) -> Alg {
        match self {
            Self::Rsa => Alg::Rs256,
            Self::P256 => Alg::Es256,
            Self::P384 => Alg::Es384,
            Self::Ed25519 => Alg::EdDsa,
        }
    }

    /// Whether a key of this kind can check signatures of `alg`.
    #[must_use]
    pub fn fits(self, alg: Alg) -> bool {
        self == alg.key_kind()
    }
}

/// Why a public key is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not a well-formed public key.
    #[error("expected a well-formed public key")]
    Malformed,
    /// Another algorithm, another curve, or a curve given by its parameters.
    #[error("expected an RSA, P-256, P-384 or Ed25519 key; make one of these")]
    Kind,
    /// An RSA modulus outside 2048 to 4096 bits.
    #[error("expected an RSA modulus of 2048 to 4096 bits; make a longer key, or a P-256 one")]
    RsaSize,
    /// An RSA exponent other than 65537.
    #[error("expected the RSA exponent 65537")]
    RsaExponent,
    /// An Ed25519 point of small order, or one written in a form that is not canonical.
    #[error("expected an Ed25519 point of full order")]
    WeakPoint,
    /// The key's kind cannot check signatures of the algorithm it is declared for.
    #[error("expected a key that fits its algorithm")]
    AlgMismatch,
}

/// The parts of a public key, each of its exact length. An RSA modulus has no leading zeros.
#[derive(Debug, Clone, Copy)]
pub(crate) enum RawKey<'a> {
    Rsa { n: &'a [u8], e: &'a [u8] },
    P256(&'a [u8]),
    P384(&'a [u8]),
    Ed25519(&'a [u8]),
}

impl<'a> RawKey<'a> {
    pub(crate) fn rsa(modulus: &'a [u8], exponent: &'a [u8]) -> Result<Self, KeyError> {
        let (n, e) = (without_leading_zeros(modulus), without_leading_zeros(exponent));
        let first = n.first().ok_or(KeyError::Malformed)?;
        let bits = n.len().saturating_mul(8).saturating_sub(first.leading_zeros().try_into().unwrap_or(8));
        if !(2048..=4096).contains(&bits) {
            return Err(KeyError::RsaSize);
        }
        if e != [1, 0, 1] {
            return Err(KeyError::RsaExponent);
        }
        Ok(Self::Rsa { n, e })
    }

    /// An uncompressed point: `04 || x || y` (SEC 1, section 2.3.3).
    pub(crate) fn ec(kind: KeyKind, point: &'a [u8]) -> Result<Self, KeyError> {
        match (kind, point.first(), point.len()) {
            (KeyKind::P256, Some(4), 65) => Ok(Self::P256(point)),
            (KeyKind::P384, Some(4), 97) => Ok(Self::P384(point)),
            _ => Err(KeyError::Malformed),
        }
    }

    pub(crate) fn ed25519(point: &'a [u8]) -> Result<Self, KeyError> {
        let bytes: &[u8; 32] = point.try_into().map_err(|_| KeyError::Malformed)?;
        if is_weak_ed25519(bytes) { Err(KeyError::WeakPoint) } else { Ok(Self::Ed25519(point)) }
    }

    pub(crate) fn from_spki(spki: &'a SubjectPublicKeyInfo<'_>) -> Result<Self, KeyError> {
        let algorithm = &spki.algorithm.algorithm;
        let bits = spki.subject_public_key.data.as_ref();
        if spki.subject_public_key.unused_bits != 0 {
            return Err(KeyError::Malformed);
        }
        if *algorithm == OID_PKCS1_RSAENCRYPTION {
            return rsa_from_pkcs1(bits);
        }
        if *algorithm == OID_SIG_ED25519 {
            return Self::ed25519(bits);
        }
        if *algorithm != OID_KEY_TYPE_EC_PUBLIC_KEY {
            return Err(KeyError::Kind);
        }
        // A curve given by parameters instead of its name could be one whose private keys are known.
        let curve = spki.algorithm.parameters.as_ref().and_then(|it| Oid::try_from(it).ok());
        match curve.ok_or(KeyError::Kind)? {
            it if it == OID_EC_P256 => Self::ec(KeyKind::P256, bits),
            it if it == OID_NIST_EC_P384 => Self::ec(KeyKind::P384, bits),
            _ => Err(KeyError::Kind),
        }
    }

    pub(crate) fn kind(&self) -> KeyKind {
        match self {
            Self::Rsa { .. } => KeyKind::Rsa,
            Self::P256(_) => KeyKind::P256,
            Self::P384(_) => KeyKind::P384,
            Self::Ed25519(_) => KeyKind::Ed25519,
        }
    }

    fn decoding(&self) -> DecodingKey {
        match self {
            Self::Rsa { n, e } => DecodingKey::from_rsa_raw_components(n, e),
            Self::P256(point) | Self::P384(point) => DecodingKey::from_ec_der(point),
            Self::Ed25519(point) => DecodingKey::from_ed_der(point),
        }
    }
}

fn without_leading_zeros(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    bytes.get(zeros..).unwrap_or_default()
}

/// `RSAPublicKey` of RFC 8017, appendix A.1.1; what follows its two integers makes it no such key.
fn rsa_from_pkcs1(der: &[u8]) -> Result<RawKey<'_>, KeyError> {
    let (rest, key) =
        x509_parser::public_key::RSAPublicKey::from_der(der).map_err(|_| KeyError::Malformed)?;
    if !rest.is_empty() {
        return Err(KeyError::Malformed);
    }
    RawKey::rsa(key.modulus, key.exponent)
}

/// Whether the point has an order of 8 or less, or its y is not below p = 2^255 - 19. The sign of x, the
/// highest bit, tells two points apart whose orders are equal; it is left out of the comparison.
fn is_weak_ed25519(point: &[u8; 32]) -> bool {
    const ORDER_8: [[u8; 32]; 2] = [
        [
            0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f,
            0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
        ],
        [
            0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0,
            0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
        ],
    ];
    let mut y = *point;
    let [low, middle @ .., high] = &mut y;
    *high &= 0x7f;
    let zero_middle = middle.iter().all(|byte| *byte == 0) && *high == 0;
    let full_middle = middle.iter().all(|byte| *byte == 0xff) && *high == 0x7f;
    // 0 has order 4, 1 is the neutral element; p - 1 (0xec) has order 2, and from p (0xed) on y is not reduced.
    (zero_middle && *low <= 1) || (full_middle && *low >= 0xec) || ORDER_8.contains(&y)
}

/// A public key for one algorithm, known by its key id.
#[derive(Clone)]
pub struct VerifyingKey {
    kid: Box<str>,
    alg: Alg,
    key: DecodingKey,
}

impl VerifyingKey {
    pub(crate) fn new(kid: &str, alg: Alg, raw: &RawKey<'_>) -> Result<Self, KeyError> {
        if raw.kind().fits(alg) {
            Ok(Self { kid: kid.into(), alg, key: raw.decoding() })
        } else {
            Err(KeyError::AlgMismatch)
        }
    }

    /// The key in a DER `SubjectPublicKeyInfo` (RFC 5280, section 4.1.2.7).
    ///
    /// # Errors
    /// When it is malformed, of a kind or size that is not accepted, or does not fit `alg`.
    pub fn from_spki_der(kid: &str, alg: Alg, der: &[u8]) -> Result<Self, KeyError> {
        let (rest, spki) = SubjectPublicKeyInfo::from_der(der).map_err(|_| KeyError::Malformed)?;
        if !rest.is_empty() {
            return Err(KeyError::Malformed);
        }
        Self::new(kid, alg, &RawKey::from_spki(&spki)?)
    }

    /// The ES256 key with this uncompressed point (`04 || x || y`).
    #[must_use]
    pub fn from_p256_point(kid: &str, point: &[u8; 65]) -> Self {
        Self { kid: kid.into(), alg: Alg::Es256, key: DecodingKey::from_ec_der(point) }
    }

    /// The key id, as its set names it.
    #[must_use]
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The only algorithm that this key checks.
    #[must_use]
    pub fn alg(&self) -> Alg {
        self.alg
    }

    pub(crate) fn decoding(&self) -> &DecodingKey {
        &self.key
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifyingKey").field("kid", &self.kid).field("alg", &self.alg).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ed25519_point_of_small_order_is_refused() {
        let hex = |text: &str| -> Vec<u8> {
            (0..32).map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap()).collect()
        };
        let ends = |low: &str, fill: &str, high: &str| format!("{low}{}{high}", fill.repeat(30));
        let weak = [
            ends("00", "00", "00"),
            ends("00", "00", "80"),
            ends("01", "00", "00"),
            ends("01", "00", "80"),
            ends("ec", "ff", "7f"),
            ends("ec", "ff", "ff"),
            ends("ed", "ff", "7f"),
            ends("ee", "ff", "7f"),
            ends("ff", "ff", "ff"),
            "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a".to_owned(),
            "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa".to_owned(),
            "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05".to_owned(),
            "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85".to_owned(),
        ];
        for point in &weak {
            assert_eq!(RawKey::ed25519(&hex(point)).unwrap_err(), KeyError::WeakPoint, "{point}");
        }
        let base_point = ends("58", "66", "66");
        assert!(RawKey::ed25519(&hex(&base_point)).is_ok());
    }

    #[test]
    fn an_rsa_key_has_2048_to_4096_bits_and_the_usual_exponent() {
        let modulus = |bytes: usize, first: u8| [vec![first], vec![0xff; bytes - 1]].concat();
        let check = |n: &[u8], e: &[u8]| RawKey::rsa(n, e).map(|_| ());
        assert_eq!(check(&modulus(256, 0x80), &[1, 0, 1]), Ok(()));
        assert_eq!(check(&[vec![0], modulus(512, 0xff)].concat(), &[0, 1, 0, 1]), Ok(()));
        for short_or_long in [modulus(256, 0x7f), modulus(128, 0xff), modulus(64, 0xff), modulus(513, 1)] {
            assert_eq!(check(&short_or_long, &[1, 0, 1]), Err(KeyError::RsaSize));
        }
        for exponent in [&[3][..], &[1], &[1, 0, 0, 1], &[]] {
            assert_eq!(check(&modulus(256, 0x80), exponent), Err(KeyError::RsaExponent));
        }
        assert_eq!(check(&[], &[1, 0, 1]), Err(KeyError::Malformed));
    }
}
