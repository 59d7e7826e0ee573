//! This broker's keys: sealed in the store under the key-encryption key, open in this process only.

mod kek;
mod make;

use std::collections::HashMap;
use std::sync::Arc;

use daypass_core::draft::SigningKey;
use daypass_core::state::State;
use daypass_evidence::entry::{KeyChanged, KeyUse};
use daypass_verify::ids::{Digest, KeyId};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED,
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey,
};
use rustls_pki_types::CertificateDer;

use crate::signer::{Keys, SignError};
use crate::store::SealedKey;

pub use kek::{Kek, KekError};
pub use make::{Made, make_evidence_key, make_key};

/// Why the keys could not be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyringError {
    /// The blob was sealed under another key-encryption key, or changed, or its times are not those of the log.
    #[error("key `{0}` cannot be unsealed: is this the key-encryption key that `init` made for this store?")]
    Unseal(KeyId),
    /// What was unsealed is no key.
    #[error("key `{0}` is damaged: {1}")]
    Damaged(KeyId, String),
    /// The log names a key that the store does not hold.
    #[error("key `{0}` of the log is not in the store: restore it, or rotate")]
    Missing(KeyId),
}

enum Pair {
    /// Signs certificates: DER signatures.
    Ca(EcdsaKeyPair),
    /// Signs tokens: 64 octets.
    Token(EcdsaKeyPair),
}

impl Pair {
    fn inner(&self) -> &EcdsaKeyPair {
        match self {
            Self::Ca(pair) | Self::Token(pair) => pair,
        }
    }
}

/// The open keys.
pub struct Keyring {
    pairs: HashMap<KeyId, Pair>,
    described: HashMap<KeyId, Arc<SigningKey>>,
    certificates: HashMap<KeyId, CertificateDer<'static>>,
    random: SystemRandom,
}

impl Keyring {
    /// No keys yet.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            pairs: HashMap::new(),
            described: HashMap::new(),
            certificates: HashMap::new(),
            random: SystemRandom::new(),
        }
    }

    /// Opens the keys that the log's state names, but for the evidence key.
    ///
    /// # Errors
    /// When one is missing, sealed otherwise, or damaged.
    pub fn open(sealed: &[SealedKey], state: &State, kek: &Kek) -> Result<Self, KeyringError> {
        let mut ring = Self::empty();
        for changed in state.keys().values().filter(|changed| changed.usage != KeyUse::Evidence) {
            let blob = find(sealed, &changed.key)?;
            ring.add(changed, &kek.unseal(&blob.sealed, changed)?, blob.certificate.as_deref())?;
        }
        Ok(ring)
    }

    /// Adds one key.
    ///
    /// # Errors
    /// When `pkcs8` is no P-256 key, or `certificate` is not the one that the log names.
    pub fn add(
        &mut self,
        changed: &KeyChanged,
        pkcs8: &[u8],
        certificate: Option<&[u8]>,
    ) -> Result<(), KeyringError> {
        if changed.certificate != certificate.map(Digest::of) {
            let detail = "its certificate in the store is not the one that the log names: restore it";
            return Err(KeyringError::Damaged(changed.key.clone(), detail.into()));
        }
        let ca = matches!(changed.usage, KeyUse::Ca | KeyUse::Root | KeyUse::Node);
        let algorithm = if ca { &ECDSA_P256_SHA256_ASN1_SIGNING } else { &ECDSA_P256_SHA256_FIXED_SIGNING };
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8, &self.random)
            .map_err(|error| KeyringError::Damaged(changed.key.clone(), error.to_string()))?;
        let described = match certificate {
            Some(der) => SigningKey::authority(changed.key.clone(), der)
                .map_err(|error| KeyringError::Damaged(changed.key.clone(), error.to_string()))?,
            None => SigningKey::token(changed.key.clone(), changed.alg.clone()),
        };
        self.described.insert(changed.key.clone(), Arc::new(described));
        self.pairs.insert(changed.key.clone(), if ca { Pair::Ca(pair) } else { Pair::Token(pair) });
        if let Some(der) = certificate {
            self.certificates.insert(changed.key.clone(), CertificateDer::from(der.to_vec()));
        }
        Ok(())
    }

    /// What a draft must know of a key.
    ///
    /// # Errors
    /// When the key is not here.
    pub fn describe(&self, key: &KeyId) -> Result<Arc<SigningKey>, SignError> {
        self.described.get(key).cloned().ok_or_else(|| SignError::UnknownKey(key.clone()))
    }

    /// The certificate of a CA key.
    #[must_use]
    pub fn certificate(&self, key: &KeyId) -> Option<&CertificateDer<'static>> {
        self.certificates.get(key)
    }

    /// The public point of a key: 65 octets, uncompressed.
    #[must_use]
    pub fn public_point(&self, key: &KeyId) -> Option<[u8; 65]> {
        self.pairs.get(key)?.inner().public_key().as_ref().try_into().ok()
    }
}

/// Opens the evidence key that `changed` names.
///
/// # Errors
/// When it is missing, sealed otherwise, or damaged.
pub fn open_evidence_key(
    sealed: &[SealedKey],
    changed: &KeyChanged,
    kek: &Kek,
) -> Result<Ed25519KeyPair, KeyringError> {
    let pkcs8 = kek.unseal(&find(sealed, &changed.key)?.sealed, changed)?;
    Ed25519KeyPair::from_pkcs8(&pkcs8)
        .map_err(|error| KeyringError::Damaged(changed.key.clone(), error.to_string()))
}

fn find<'a>(sealed: &'a [SealedKey], key: &KeyId) -> Result<&'a SealedKey, KeyringError> {
    sealed.iter().find(|blob| &blob.key == key).ok_or_else(|| KeyringError::Missing(key.clone()))
}

impl Keys for Keyring {
    fn sign(&self, key: &KeyId, message: &[u8]) -> Result<Vec<u8>, SignError> {
        let pair = self.pairs.get(key).ok_or_else(|| SignError::UnknownKey(key.clone()))?;
        let signed = pair.inner().sign(&self.random, message);
        signed
            .map(|signature| signature.as_ref().to_vec())
            .map_err(|_| SignError::Failed(key.clone(), "the random source failed".into()))
    }

    fn verifies(&self, key: &KeyId, message: &[u8], signature: &[u8]) -> bool {
        let Some(pair) = self.pairs.get(key) else { return false };
        let algorithm = match pair {
            Pair::Ca(_) => &ECDSA_P256_SHA256_ASN1,
            Pair::Token(_) => &ECDSA_P256_SHA256_FIXED,
        };
        UnparsedPublicKey::new(algorithm, pair.inner().public_key()).verify(message, signature).is_ok()
    }

    fn verify_always(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use daypass_verify::time::UnixMs;

    use super::*;

    #[test]
    fn a_certificate_in_the_place_of_another_is_never_published() {
        let mut made = make_key(KeyUse::Ca, UnixMs::new(1_000)).unwrap();
        made.changed.certificate = Some(Digest::of(b"the certificate"));
        for other in [None, Some(b"another certificate".as_slice())] {
            let error = Keyring::empty().add(&made.changed, &made.pkcs8, other).unwrap_err();
            assert!(error.to_string().contains("not the one that the log names"), "{error}");
        }
    }
}
