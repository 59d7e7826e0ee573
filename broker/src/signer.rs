//! The only place where a key signs: a recorded draft, or a recorded statement, and nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use daypass_core::draft::Draft;
use daypass_verify::ids::{Digest, KeyId};

use crate::log::Recorded;

/// One of how many credentials of an in-process key has its signature verified before it leaves: each would cost
/// as much as three signatures.
const VERIFY_ONE_IN: u64 = 64;

/// Why nothing was signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// The key is not here.
    #[error("key `{0}` is not in this broker's keyring")]
    UnknownKey(KeyId),
    /// The key would not sign.
    #[error("key `{0}` did not sign: {1}")]
    Failed(KeyId, String),
    /// The signature does not verify.
    #[error("key `{0}` made a signature that does not verify: it is stopped")]
    BadSignature(KeyId),
}

/// The seam for keys that live elsewhere (PKCS#11, a KMS).
pub trait Keys: Send + Sync + 'static {
    /// Signs `message` with `key`: ES256 as 64 octets r and s for keys of tokens, as DER for keys of CAs.
    ///
    /// # Errors
    /// When the key is unknown or fails.
    fn sign(&self, key: &KeyId, message: &[u8]) -> Result<Vec<u8>, SignError>;

    /// Whether `signature` is one of `key` over `message`.
    fn verifies(&self, key: &KeyId, message: &[u8], signature: &[u8]) -> bool;

    /// Whether each signature must be verified: true for keys outside this process.
    fn verify_always(&self) -> bool;
}

/// A signature over a recorded draft.
#[derive(Debug)]
pub struct Signature {
    bytes: Vec<u8>,
}

impl Signature {
    /// The signature's octets.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Something other than a credential that a key signs, by the exact bytes: a CA certificate, a CRL, a feed.
#[derive(Debug)]
pub struct Statement {
    /// The key that signs it.
    pub key: KeyId,
    /// The bytes that are signed.
    pub tbs: Vec<u8>,
}

impl Statement {
    /// The digest under which its entry names it.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(&self.tbs)
    }
}

/// Signs what the log holds.
#[derive(Clone)]
pub struct Signer {
    keys: Arc<dyn Keys>,
    signed: Arc<AtomicU64>,
}

impl Signer {
    /// A signer with these keys.
    #[must_use]
    pub fn new(keys: Arc<dyn Keys>) -> Self {
        Self { keys, signed: Arc::default() }
    }

    /// Signs a recorded draft.
    ///
    /// # Errors
    /// When the key is not here, fails, or makes a signature that does not verify.
    pub fn sign(&self, recorded: &Recorded<Draft>) -> Result<Signature, SignError> {
        let verify = self.signed.fetch_add(1, Ordering::Relaxed).is_multiple_of(VERIFY_ONE_IN);
        self.make(recorded.what().key(), recorded.what().tbs(), verify)
    }

    /// Signs a recorded statement; its signature is always verified.
    ///
    /// # Errors
    /// As for [`Signer::sign`].
    pub fn sign_statement(&self, recorded: &Recorded<Statement>) -> Result<Signature, SignError> {
        self.make(&recorded.what().key, &recorded.what().tbs, true)
    }

    fn make(&self, key: &KeyId, tbs: &[u8], verify: bool) -> Result<Signature, SignError> {
        let bytes = self.keys.sign(key, tbs)?;
        if (verify || self.keys.verify_always()) && !self.keys.verifies(key, tbs, &bytes) {
            return Err(SignError::BadSignature(key.clone()));
        }
        Ok(Signature { bytes })
    }
}
