//! The cryptography behind `jsonwebtoken`: ring. The crate has no such backend of its own, and panics where
//! none is installed.

use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error, ErrorKind, Result};
use jsonwebtoken::jwk::ThumbprintHash;
use jsonwebtoken::signature::{Error as SignatureError, Signer, Verifier};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind, EncodingKey};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED,
    ECDSA_P384_SHA384_FIXED_SIGNING, ED25519, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PKCS1_SHA256,
    RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384,
    RSA_PSS_2048_8192_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaEncoding, RsaKeyPair,
    RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm,
};

/// Makes ring the process's provider for `jsonwebtoken`. May be called any number of times; a provider that
/// another part of the program installed first stays.
pub fn install() {
    static RING: CryptoProvider = CryptoProvider {
        signer_factory: signer,
        verifier_factory: verifier,
        key_utils: KeyUtils {
            rsa_pub_components_from_private_key: |_| unsupported(),
            rsa_pub_components_from_public_key: |_| unsupported(),
            ec_pub_components_from_private_key: |_, _| unsupported(),
            ed_pub_components_from_private_key: |_, _| unsupported(),
            compute_digest,
        },
    };
    // An error says that a provider is there already, which is all that is wanted.
    let _ = RING.install_default();
}

fn unsupported<T>() -> Result<T> {
    Err(ErrorKind::UnsupportedAlgorithm.into())
}

fn compute_digest(bytes: &[u8], hash: ThumbprintHash) -> Result<Vec<u8>> {
    let algorithm = match hash {
        ThumbprintHash::SHA256 => &ring::digest::SHA256,
        ThumbprintHash::SHA384 => &ring::digest::SHA384,
        ThumbprintHash::SHA512 => &ring::digest::SHA512,
        _ => return unsupported(),
    };
    Ok(ring::digest::digest(algorithm, bytes).as_ref().to_vec())
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>> {
    let check = match algorithm {
        Algorithm::ES256 => Check::Plain(&ECDSA_P256_SHA256_FIXED),
        Algorithm::ES384 => Check::Plain(&ECDSA_P384_SHA384_FIXED),
        Algorithm::EdDSA => Check::Plain(&ED25519),
        Algorithm::RS256 => Check::Rsa(&RSA_PKCS1_2048_8192_SHA256),
        Algorithm::RS384 => Check::Rsa(&RSA_PKCS1_2048_8192_SHA384),
        Algorithm::RS512 => Check::Rsa(&RSA_PKCS1_2048_8192_SHA512),
        Algorithm::PS256 => Check::Rsa(&RSA_PSS_2048_8192_SHA256),
        Algorithm::PS384 => Check::Rsa(&RSA_PSS_2048_8192_SHA384),
        Algorithm::PS512 => Check::Rsa(&RSA_PSS_2048_8192_SHA512),
        _ => return unsupported(),
    };
    check_family(*algorithm, key.family())?;
    Ok(Box::new(RingVerifier { algorithm: *algorithm, check, key: key.clone() }))
}

fn check_family(algorithm: Algorithm, family: AlgorithmFamily) -> Result<()> {
    if algorithm.family() == family { Ok(()) } else { Err(ErrorKind::InvalidKeyFormat.into()) }
}

enum Check {
    Plain(&'static dyn VerificationAlgorithm),
    Rsa(&'static RsaParameters),
}

struct RingVerifier {
    algorithm: Algorithm,
    check: Check,
    key: DecodingKey,
}

impl Verifier<Vec<u8>> for RingVerifier {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> std::result::Result<(), SignatureError> {
        let checked = match (&self.check, self.key.kind()) {
            (Check::Plain(algorithm), DecodingKeyKind::SecretOrDer(key)) => {
                UnparsedPublicKey::new(*algorithm, key).verify(message, signature)
            }
            (Check::Rsa(parameters), DecodingKeyKind::SecretOrDer(key)) => {
                UnparsedPublicKey::new(*parameters, key).verify(message, signature)
            }
            (Check::Rsa(parameters), DecodingKeyKind::RsaModulusExponent { n, e }) => {
                RsaPublicKeyComponents { n, e }.verify(parameters, message, signature)
            }
            (Check::Plain(_), DecodingKeyKind::RsaModulusExponent { .. }) => Err(ring::error::Unspecified),
        };
        checked.map_err(|_| SignatureError::new())
    }
}

impl JwtVerifier for RingVerifier {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

fn signer(algorithm: &Algorithm, key: &EncodingKey) -> Result<Box<dyn JwtSigner>> {
    check_family(*algorithm, key.family())?;
    let key = match algorithm {
        Algorithm::ES256 => ecdsa_key(&ECDSA_P256_SHA256_FIXED_SIGNING, key)?,
        Algorithm::ES384 => ecdsa_key(&ECDSA_P384_SHA384_FIXED_SIGNING, key)?,
        Algorithm::EdDSA => SigningKey::Ed25519(
            Ed25519KeyPair::from_pkcs8_maybe_unchecked(key.as_bytes()).map_err(|_| bad_key())?,
        ),
        Algorithm::RS256 => rsa_key(&RSA_PKCS1_SHA256, key)?,
        Algorithm::RS384 => rsa_key(&RSA_PKCS1_SHA384, key)?,
        Algorithm::RS512 => rsa_key(&RSA_PKCS1_SHA512, key)?,
        Algorithm::PS256 => rsa_key(&RSA_PSS_SHA256, key)?,
        Algorithm::PS384 => rsa_key(&RSA_PSS_SHA384, key)?,
        Algorithm::PS512 => rsa_key(&RSA_PSS_SHA512, key)?,
        _ => return unsupported(),
    };
    Ok(Box::new(RingSigner { algorithm: *algorithm, key }))
}

fn bad_key() -> Error {
    ErrorKind::InvalidKeyFormat.into()
}

fn ecdsa_key(algorithm: &'static EcdsaSigningAlgorithm, key: &EncodingKey) -> Result<SigningKey> {
    EcdsaKeyPair::from_pkcs8(algorithm, key.as_bytes(), &SystemRandom::new())
        .map(SigningKey::Ecdsa)
        .map_err(|_| bad_key())
}

/// A PEM file is handed on as PKCS#1 and a DER file as it is, so that both forms arrive here.
fn rsa_key(encoding: &'static dyn RsaEncoding, key: &EncodingKey) -> Result<SigningKey> {
    RsaKeyPair::from_pkcs8(key.as_bytes())
        .or_else(|_| RsaKeyPair::from_der(key.as_bytes()))
        .map(|pair| SigningKey::Rsa(pair, encoding))
        .map_err(|_| bad_key())
}

enum SigningKey {
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
    Rsa(RsaKeyPair, &'static dyn RsaEncoding),
}

struct RingSigner {
    algorithm: Algorithm,
    key: SigningKey,
}

impl Signer<Vec<u8>> for RingSigner {
    fn try_sign(&self, message: &[u8]) -> std::result::Result<Vec<u8>, SignatureError> {
        let random = SystemRandom::new();
        let signed = match &self.key {
            SigningKey::Ecdsa(pair) => pair.sign(&random, message).map(|it| it.as_ref().to_vec()),
            SigningKey::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_vec()),
            SigningKey::Rsa(pair, encoding) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(*encoding, &random, message, &mut signature).map(|()| signature)
            }
        };
        signed.map_err(|_| SignatureError::new())
    }
}

impl JwtSigner for RingSigner {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}
