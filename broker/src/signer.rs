//! The only place where a key signs: a recorded draft, or a recorded statement, and nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashSet;
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
    /// The key signs no more.
    #[error("key `{0}` signs no more: its time is over, or it is compromised")]
    OutOfTime(KeyId),
    /// The key would not sign.
    #[error("key `{0}` did not sign: {1}")]
    Failed(KeyId, String),
    /// The signature does not verify.
    #[error("key `{0}` made a signature that does not verify: it is stopped")]
    BadSignature(KeyId),
}

/// The seam for keys that live elsewhere (PKCS#11, a KMS).
pub trait Keys: Send + Sync + 'static {
    /// Signs `message` with `key`: ES256 as 64 octets r and s for keys of tokens, as DER for keys of CAs; RS256.
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

/// Signs what the log holds. A key that once made a signature that does not verify signs no more in this process:
/// most signatures of a key are not verified, and each that it made would have to be.
#[derive(Clone)]
pub struct Signer {
    keys: Arc<dyn Keys>,
    signed: Arc<AtomicU64>,
    stopped: Arc<DashSet<KeyId>>,
}

impl Signer {
    /// A signer with these keys.
    #[must_use]
    pub fn new(keys: Arc<dyn Keys>) -> Self {
        Self { keys, signed: Arc::default(), stopped: Arc::default() }
    }

    /// Signs a recorded draft.
    ///
    /// # Errors
    /// When the key is not here, fails, or has ever made a signature that does not verify.
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
        if self.stopped.contains(key) {
            return Err(SignError::BadSignature(key.clone()));
        }
        let bytes = self.keys.sign(key, tbs)?;
        if (verify || self.keys.verify_always()) && !self.keys.verifies(key, tbs, &bytes) {
            self.stopped.insert(key.clone());
            return Err(SignError::BadSignature(key.clone()));
        }
        Ok(Signature { bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Signs with the message itself, but for its first signature with the key that lies.
    struct LiesOnce {
        liar: KeyId,
        asked: AtomicU64,
    }

    impl Keys for LiesOnce {
        fn sign(&self, key: &KeyId, message: &[u8]) -> Result<Vec<u8>, SignError> {
            let lies = *key == self.liar && self.asked.fetch_add(1, Ordering::Relaxed) == 0;
            Ok(if lies { b"lie".to_vec() } else { message.to_vec() })
        }

        fn verifies(&self, _: &KeyId, message: &[u8], signature: &[u8]) -> bool {
            message == signature
        }

        fn verify_always(&self) -> bool {
            false
        }
    }

    #[test]
    fn a_key_that_made_one_bad_signature_is_never_asked_again() {
        let [liar, honest] = [1, 2].map(|byte| KeyId::from_thumbprint([byte; 32]));
        let keys = Arc::new(LiesOnce { liar: liar.clone(), asked: AtomicU64::default() });
        let signer = Signer::new(Arc::clone(&keys) as Arc<_>);
        let refused = Some(SignError::BadSignature(liar.clone()));
        for (signer, verify) in [(&signer, true), (&signer, false), (&signer.clone(), true)] {
            assert_eq!(signer.make(&liar, b"tbs", verify).err(), refused);
        }
        assert_eq!(keys.asked.load(Ordering::Relaxed), 1);
        assert_eq!(signer.make(&honest, b"tbs", true).unwrap().as_bytes(), b"tbs");
    }
}
