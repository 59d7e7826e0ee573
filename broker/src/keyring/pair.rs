//! Key pairs, and the form of signature that each makes.

use daypass_core::state::RS256;
use daypass_evidence::entry::{KeyChanged, KeyUse};
use daypass_verify::jwks::{p256_jwk, rsa_jwk};
use daypass_verify::upstream::certificate_jwk;
use ring::rand::SystemRandom;
use ring::rsa::PublicKeyComponents;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED,
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_SHA256, RsaKeyPair, UnparsedPublicKey,
};
use serde_json::Value;

/// A key pair and what it is for.
pub(super) enum Pair {
    /// Signs certificates: DER signatures.
    Ca(EcdsaKeyPair),
    /// Signs tokens: 64 octets (RFC 7518, section 3.4).
    Token(EcdsaKeyPair),
    /// Signs tokens: as many octets as its modulus (RFC 7518, section 3.3).
    Rsa(RsaKeyPair),
    /// Signs nothing here: a root whose secret is somebody else's. Its certificate.
    Elsewhere(Vec<u8>),
}

impl Pair {
    /// Reads a PKCS#8 document; the error says what it is not.
    pub(super) fn read(changed: &KeyChanged, pkcs8: &[u8], random: &SystemRandom) -> Result<Self, String> {
        if changed.alg == RS256 {
            return RsaKeyPair::from_pkcs8(pkcs8).map(Self::Rsa).map_err(|error| error.to_string());
        }
        let ca = matches!(changed.usage, KeyUse::Ca | KeyUse::Root | KeyUse::Node);
        let algorithm = if ca { &ECDSA_P256_SHA256_ASN1_SIGNING } else { &ECDSA_P256_SHA256_FIXED_SIGNING };
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8, random).map_err(|error| error.to_string())?;
        Ok(if ca { Self::Ca(pair) } else { Self::Token(pair) })
    }

    /// None where the random source fails.
    pub(super) fn sign(&self, message: &[u8], random: &SystemRandom) -> Option<Vec<u8>> {
        match self {
            Self::Elsewhere(_) => None,
            Self::Ca(pair) | Self::Token(pair) => {
                pair.sign(random, message).ok().map(|signature| signature.as_ref().to_vec())
            }
            Self::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, random, message, &mut signature).ok().map(|()| signature)
            }
        }
    }

    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let (algorithm, public): (&'static dyn ring::signature::VerificationAlgorithm, &[u8]) = match self {
            Self::Ca(pair) => (&ECDSA_P256_SHA256_ASN1, pair.public_key().as_ref()),
            Self::Token(pair) => (&ECDSA_P256_SHA256_FIXED, pair.public_key().as_ref()),
            Self::Rsa(pair) => (&RSA_PKCS1_2048_8192_SHA256, pair.public_key().as_ref()),
            Self::Elsewhere(_) => return false,
        };
        UnparsedPublicKey::new(algorithm, public).verify(message, signature).is_ok()
    }

    /// Its public part, where it is on P-256: the uncompressed point.
    pub(super) fn point(&self) -> Option<[u8; 65]> {
        match self {
            Self::Ca(pair) | Self::Token(pair) => pair.public_key().as_ref().try_into().ok(),
            Self::Rsa(_) | Self::Elsewhere(_) => None,
        }
    }

    pub(super) fn jwk(&self, usage: &str) -> Option<Value> {
        match self {
            Self::Ca(_) | Self::Token(_) => Some(p256_jwk(&self.point()?, usage).1),
            Self::Rsa(pair) => {
                let public = PublicKeyComponents::<Vec<u8>>::from(pair.public());
                Some(rsa_jwk(&public.n, &public.e, usage).1)
            }
            Self::Elsewhere(certificate) => certificate_jwk(certificate, usage),
        }
    }
}
