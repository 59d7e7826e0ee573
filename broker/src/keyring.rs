//! This broker's keys: sealed in the store under the key-encryption key, open in this process only. It follows the
//! log: what another broker made is opened here too, and what is destroyed is let go.

mod import;
mod kek;
mod make;
mod pair;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arc_swap::ArcSwap;
use daypass_core::draft::SigningKey;
use daypass_core::state::{State, UPSTREAM};
use daypass_evidence::entry::{KeyChanged, KeyState, KeyUse};
use daypass_verify::ids::{Digest, KeyId};
use ring::rand::SystemRandom;
use ring::signature::Ed25519KeyPair;
use rustls_pki_types::CertificateDer;
use serde_json::Value;

use crate::signer::{Keys, SignError};
use crate::store::SealedKey;
use pair::Pair;

pub use import::{Brought, ImportError};
pub use kek::{Kek, KekError};
pub use make::{Made, make_evidence_key, make_key, make_root_key};

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

/// One open key. Its secret lives as long as somebody signs with it.
struct Open {
    pair: Pair,
    described: Arc<SigningKey>,
    certificate: Option<CertificateDer<'static>>,
    /// The certificates above it and below the root, where that is somebody else's.
    above: Vec<CertificateDer<'static>>,
}

/// The open keys.
pub struct Keyring {
    keys: ArcSwap<HashMap<KeyId, Arc<Open>>>,
    random: SystemRandom,
}

impl Keyring {
    /// No keys yet.
    #[must_use]
    pub fn empty() -> Self {
        Self { keys: ArcSwap::default(), random: SystemRandom::new() }
    }

    /// Opens the keys that the log's state names, but for the evidence key.
    ///
    /// # Errors
    /// When one is missing, sealed otherwise, or damaged.
    pub fn open(sealed: &[SealedKey], state: &State, kek: &Kek) -> Result<Self, KeyringError> {
        let ring = Self::empty();
        ring.follow(sealed, state, kek)?;
        Ok(ring)
    }

    /// Whether it holds other keys than those that `state` names.
    #[must_use]
    pub fn differs_from(&self, state: &State) -> bool {
        let keys = self.keys.load();
        let held = |changed: &&KeyChanged| keys.get(&changed.key).is_some_and(|open| open.is(changed));
        let named = state.keys().values().filter(|changed| is_open(changed));
        named.clone().count() != keys.len() || !named.clone().all(|changed| held(&changed))
    }

    /// Opens what `state` names and is not open, and lets go of all else. One key that cannot be opened takes no other
    /// with it.
    ///
    /// # Errors
    /// The first of those: missing, sealed otherwise, or damaged.
    pub fn follow(&self, sealed: &[SealedKey], state: &State, kek: &Kek) -> Result<(), KeyringError> {
        let before = self.keys.load_full();
        let (mut keys, mut fault) = (HashMap::new(), Ok(()));
        for changed in state.keys().values().filter(|changed| is_open(changed)) {
            let opened = match before.get(&changed.key).filter(|open| open.is(changed)) {
                Some(open) => Ok(Arc::clone(open)),
                None => self.unseal(sealed, changed, kek).map(Arc::new),
            };
            match opened {
                Ok(open) => drop(keys.insert(changed.key.clone(), open)),
                Err(error) => fault = fault.and(Err(error)),
            }
        }
        self.keys.store(Arc::new(keys));
        fault
    }

    fn unseal(&self, sealed: &[SealedKey], changed: &KeyChanged, kek: &Kek) -> Result<Open, KeyringError> {
        let blob = find(sealed, &changed.key)?;
        if is_elsewhere(changed) {
            return elsewhere(changed, blob.certificate.as_deref());
        }
        self.read(changed, &kek.unseal(&blob.sealed, changed)?, blob.certificate.as_deref())
    }

    /// Adds one key.
    ///
    /// # Errors
    /// When `pkcs8` is no key of its algorithm, or `certificate` is not the one that the log names.
    pub fn add(
        &self,
        changed: &KeyChanged,
        pkcs8: &[u8],
        certificate: Option<&[u8]>,
    ) -> Result<(), KeyringError> {
        self.put(changed, self.read(changed, pkcs8, certificate)?);
        Ok(())
    }

    fn read(
        &self,
        changed: &KeyChanged,
        pkcs8: &[u8],
        certificate: Option<&[u8]>,
    ) -> Result<Open, KeyringError> {
        let damaged = |detail: String| KeyringError::Damaged(changed.key.clone(), detail);
        let (certificate, above) = certificates(changed, certificate)?;
        let pair = Pair::read(changed, pkcs8, &self.random).map_err(damaged)?;
        let described = match certificate.as_deref() {
            Some(der) => {
                SigningKey::authority(changed.key.clone(), der).map_err(|error| damaged(error.to_string()))?
            }
            None => SigningKey::token(changed.key.clone(), changed.alg.clone()),
        };
        Ok(Open { pair, described: Arc::new(described), certificate, above })
    }

    /// Adds the root that is somebody else's.
    ///
    /// # Errors
    /// When `certificate` is not the one that the log names.
    pub fn add_root(&self, changed: &KeyChanged, certificate: &[u8]) -> Result<(), KeyringError> {
        self.put(changed, elsewhere(changed, Some(certificate))?);
        Ok(())
    }

    fn put(&self, changed: &KeyChanged, open: Open) {
        let open = Arc::new(open);
        self.keys.rcu(|keys| {
            let mut keys = HashMap::clone(keys);
            keys.insert(changed.key.clone(), Arc::clone(&open));
            keys
        });
    }

    fn held(&self, key: &KeyId) -> Option<Arc<Open>> {
        self.keys.load().get(key).cloned()
    }

    /// What a draft must know of a key.
    ///
    /// # Errors
    /// When the key is not here.
    pub fn describe(&self, key: &KeyId) -> Result<Arc<SigningKey>, SignError> {
        let held = self.held(key).ok_or_else(|| SignError::UnknownKey(key.clone()))?;
        Ok(Arc::clone(&held.described))
    }

    /// The certificate of a CA key.
    #[must_use]
    pub fn certificate(&self, key: &KeyId) -> Option<CertificateDer<'static>> {
        self.held(key)?.certificate.clone()
    }

    /// The certificate of a CA key, and those above it that verifiers may lack: not the root's.
    #[must_use]
    pub fn chain(&self, key: &KeyId) -> Vec<CertificateDer<'static>> {
        let Some(held) = self.held(key) else { return Vec::new() };
        held.certificate.iter().chain(&held.above).cloned().collect()
    }

    /// The public part (SPKI DER) of a key on P-256.
    #[must_use]
    pub fn spki(&self, key: &KeyId) -> Option<Vec<u8>> {
        self.held(key)?.pair.point().map(|point| make::p256_spki(&point))
    }

    /// The public JWK of a key; `usage` is its `use` (RFC 7517, section 4.2).
    #[must_use]
    pub fn jwk(&self, key: &KeyId, usage: &str) -> Option<Value> {
        self.held(key)?.pair.jwk(usage)
    }

    /// What is held, by the algorithm of each.
    #[must_use]
    pub fn held_keys(&self) -> BTreeMap<KeyId, String> {
        let alg = |open: &Open| open.described.alg().to_owned();
        self.keys.load().iter().map(|(key, open)| (key.clone(), alg(open))).collect()
    }
}

impl Open {
    /// Whether this is still what the log says of the key: times may differ, a certificate may not.
    fn is(&self, changed: &KeyChanged) -> bool {
        self.certificate.as_deref().map(Digest::of) == changed.certificate
    }
}

/// Whether a key is a root that is somebody else's: published here, and never signing.
fn is_elsewhere(changed: &KeyChanged) -> bool {
    changed.usage == KeyUse::Root && changed.origin == UPSTREAM
}

fn elsewhere(changed: &KeyChanged, certificate: Option<&[u8]>) -> Result<Open, KeyringError> {
    let (certificate, above) = certificates(changed, certificate)?;
    let der = certificate.as_deref().unwrap_or_default().to_vec();
    let described = Arc::new(SigningKey::token(changed.key.clone(), changed.alg.clone()));
    Ok(Open { pair: Pair::Elsewhere(der), described, certificate, above })
}

type Certificates = (Option<CertificateDer<'static>>, Vec<CertificateDer<'static>>);

/// The certificates of a key, one behind the other in the store, each as the log names it.
fn certificates(changed: &KeyChanged, stored: Option<&[u8]>) -> Result<Certificates, KeyringError> {
    let found = split(stored.unwrap_or_default());
    let named = changed.certificate.iter().chain(&changed.chain).copied();
    if !found.iter().map(|der| Digest::of(der)).eq(named) {
        let detail = "its certificate in the store is not the one that the log names: restore it";
        return Err(KeyringError::Damaged(changed.key.clone(), detail.into()));
    }
    let mut found = found.into_iter().map(|der| CertificateDer::from(der.to_vec()));
    Ok((found.next(), found.collect()))
}

/// DER values one behind the other; what is none is one value for itself.
fn split(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut values = Vec::new();
    while !bytes.is_empty() {
        let len = match bytes {
            [_, len, ..] if *len < 0x80 => 2 + usize::from(*len),
            [_, 0x81, len, ..] => 3 + usize::from(*len),
            [_, 0x82, high, low, ..] => 4 + usize::from(u16::from_be_bytes([*high, *low])),
            _ => bytes.len(),
        };
        let (value, rest) = bytes.split_at(len.min(bytes.len()));
        values.push(value);
        bytes = rest;
    }
    values
}

/// Whether a key has a secret that this broker needs.
fn is_open(changed: &KeyChanged) -> bool {
    changed.usage != KeyUse::Evidence && !matches!(changed.state, KeyState::Destroyed | KeyState::Compromised)
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
        let held = self.held(key).ok_or_else(|| SignError::UnknownKey(key.clone()))?;
        let signed = held.pair.sign(message, &self.random);
        signed.ok_or_else(|| SignError::Failed(key.clone(), "the random source failed".into()))
    }

    fn verifies(&self, key: &KeyId, message: &[u8], signature: &[u8]) -> bool {
        self.held(key).is_some_and(|held| held.pair.verifies(message, signature))
    }

    fn verify_always(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use daypass_core::rotation::{Lifetimes, Times};
    use daypass_evidence::entry::Body;
    use daypass_verify::time::UnixMs;

    use super::*;

    const NOW: UnixMs = UnixMs::new(1_000);

    fn made(usage: KeyUse) -> Made {
        make_key(usage, Times::of_next(usage, NOW, NOW, &Lifetimes::default())).unwrap()
    }

    #[test]
    fn a_certificate_in_the_place_of_another_is_never_published() {
        let mut made = made(KeyUse::Ca);
        made.changed.certificate = Some(Digest::of(b"the certificate"));
        for other in [None, Some(b"another certificate".as_slice())] {
            let error = Keyring::empty().add(&made.changed, &made.pkcs8, other).unwrap_err();
            assert!(error.to_string().contains("not the one that the log names"), "{error}");
        }
    }

    #[test]
    fn what_another_broker_made_is_opened_and_what_is_destroyed_is_let_go() {
        let folder = tempfile::tempdir().unwrap();
        let kek = Kek::create(&folder.path().join("kek")).unwrap();
        let (one, other) = (made(KeyUse::Token), made(KeyUse::Svid));
        let seal = |made: &Made| SealedKey {
            key: made.changed.key.clone(),
            sealed: kek.seal(&made.pkcs8, &made.changed).unwrap(),
            certificate: None,
        };
        let sealed = [seal(&one), seal(&other)];
        let mut state = State::empty();
        let apply = |state: &mut State, index, changed: KeyChanged| {
            state.apply(index, NOW, &Body::from(changed), &|_| None).unwrap();
        };
        apply(&mut state, 1, one.changed.clone());
        let ring = Keyring::open(&sealed, &state, &kek).unwrap();
        assert!(!ring.differs_from(&state));

        apply(&mut state, 2, other.changed.clone());
        assert!(ring.differs_from(&state));
        ring.follow(&sealed, &state, &kek).unwrap();
        assert!(ring.sign(&other.changed.key, b"x").is_ok());

        for (index, gone) in [(3, KeyState::Destroyed), (4, KeyState::Compromised)] {
            let key = if index == 3 { &one.changed } else { &other.changed };
            apply(&mut state, index, KeyChanged { state: gone, ..key.clone() });
            assert!(ring.differs_from(&state));
            // The blob is gone too, and nobody misses it.
            ring.follow(&[], &state, &kek).unwrap();
            assert_eq!(ring.sign(&key.key, b"x"), Err(SignError::UnknownKey(key.key.clone())));
        }
        assert!(!ring.differs_from(&state));
    }
}
