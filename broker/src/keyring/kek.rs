//! The key-encryption key: the only secret outside the store, in a file of mode 0600.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use daypass_evidence::canonical;
use daypass_evidence::entry::KeyChanged;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::digest::{Context, SHA256};
use ring::rand::{SecureRandom as _, SystemRandom};
use serde::Serialize;
use zeroize::Zeroizing;

use super::KeyringError;

/// Why the key-encryption key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KekError {
    /// The file could not be read or made.
    #[error("the key-encryption key `{0}` could not be used: {1}")]
    File(String, std::io::Error),
    /// Others may read it.
    #[error(
        "the key-encryption key `{path}` has mode {mode:o}: expected 600, so that only its owner reads it; run `chmod 600 {path}`"
    )]
    Mode {
        /// Where.
        path: String,
        /// Its mode.
        mode: u32,
    },
    /// It is not what `init` writes.
    #[error("the key-encryption key `{0}` is not 32 octets in base64: restore the file that `init` made")]
    Form(String),
    /// The random source failed.
    #[error("the random source failed")]
    Random,
}

/// Seals and unseals keys.
pub struct Kek(LessSafeKey);

/// What a sealed key is bound to: changing a time in the store makes it unreadable.
#[derive(Serialize)]
struct Associated<'a> {
    key: &'a str,
    #[serde(rename = "use")]
    usage: &'a str,
    times: [i64; 4],
}

impl Kek {
    /// Makes a new key in a new file of mode 0600.
    ///
    /// # Errors
    /// When the file exists or cannot be written.
    pub fn create(path: &Path) -> Result<Self, KekError> {
        let failed = |error| KekError::File(path.display().to_string(), error);
        let mut bytes = Zeroizing::new([0_u8; 32]);
        SystemRandom::new().fill(bytes.as_mut()).map_err(|_| KekError::Random)?;
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
        let text = Zeroizing::new(format!("{}\n", STANDARD.encode(bytes.as_slice())));
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
        Self::from_bytes(&bytes)
    }

    /// Reads the key that `create` wrote.
    ///
    /// # Errors
    /// When the file is missing, readable by others, or not a key.
    pub fn read(path: &Path) -> Result<Self, KekError> {
        let failed = |error| KekError::File(path.display().to_string(), error);
        let mut file = File::open(path).map_err(failed)?;
        let mode = file.metadata().map_err(failed)?.mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(KekError::Mode { path: path.display().to_string(), mode });
        }
        let mut text = Zeroizing::new(String::new());
        file.read_to_string(&mut text).map_err(failed)?;
        let form = || KekError::Form(path.display().to_string());
        let bytes = Zeroizing::new(STANDARD.decode(text.trim()).map_err(|_| form())?);
        Self::from_bytes(bytes.as_slice().try_into().map_err(|_| form())?)
    }

    fn from_bytes(bytes: &[u8; 32]) -> Result<Self, KekError> {
        UnboundKey::new(&AES_256_GCM, bytes)
            .map(|key| Self(LessSafeKey::new(key)))
            .map_err(|_| KekError::Random)
    }

    /// Seals a PKCS#8 document: nonce, ciphertext, tag.
    ///
    /// # Errors
    /// When the random source fails.
    pub fn seal(&self, pkcs8: &[u8], changed: &KeyChanged) -> Result<Vec<u8>, KekError> {
        let mut drawn = [0; 32];
        SystemRandom::new().fill(&mut drawn).map_err(|_| KekError::Random)?;
        self.seal_drawn(pkcs8, changed, &drawn)
    }

    /// The nonce is of what was drawn and of what is sealed, so that no copy of this machine, which may draw the same for
    /// a moment, seals anything else under it.
    fn seal_drawn(&self, pkcs8: &[u8], changed: &KeyChanged, drawn: &[u8; 32]) -> Result<Vec<u8>, KekError> {
        let associated = associated(changed).ok_or(KekError::Random)?;
        let mut content = Context::new(&SHA256);
        [drawn.as_slice(), &associated, pkcs8].iter().for_each(|part| content.update(part));
        let content = content.finish();
        let nonce: [u8; NONCE_LEN] = *content.as_ref().first_chunk().ok_or(KekError::Random)?;
        let mut sealed = pkcs8.to_vec();
        let aad = Aad::from(associated);
        self.0
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut sealed)
            .map_err(|_| KekError::Random)?;
        Ok([nonce.as_slice(), &sealed].concat())
    }

    /// Unseals what `seal` made for exactly this key, use and times.
    ///
    /// # Errors
    /// When the blob was made otherwise.
    pub fn unseal(&self, blob: &[u8], changed: &KeyChanged) -> Result<Zeroizing<Vec<u8>>, KeyringError> {
        let refuse = || KeyringError::Unseal(changed.key.clone());
        let (nonce, sealed) = blob.split_first_chunk::<NONCE_LEN>().ok_or_else(refuse)?;
        let aad = Aad::from(associated(changed).ok_or_else(refuse)?);
        let mut open = Zeroizing::new(sealed.to_vec());
        let length = self
            .0
            .open_in_place(Nonce::assume_unique_for_key(*nonce), aad, &mut open)
            .map_err(|_| refuse())?
            .len();
        open.truncate(length);
        Ok(open)
    }
}

fn associated(changed: &KeyChanged) -> Option<Vec<u8>> {
    let times =
        [changed.publish_from_ms, changed.sign_from_ms, changed.sign_until_ms, changed.publish_until_ms];
    let associated = Associated {
        key: changed.key.as_str(),
        usage: changed.usage.as_str(),
        times: times.map(daypass_verify::time::UnixMs::get),
    };
    canonical::to_vec_unbounded(&associated).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyring::make_key;
    use daypass_core::rotation::{Lifetimes, Times};
    use daypass_evidence::entry::KeyUse;
    use daypass_verify::time::UnixMs;

    #[test]
    fn a_sealed_key_opens_only_with_its_own_times_and_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kek");
        let kek = Kek::create(&path).unwrap();
        let now = UnixMs::new(1_000);
        let times = Times::of_next(KeyUse::Token, now, now, &Lifetimes::default());
        let made = make_key(KeyUse::Token, times).unwrap();
        let sealed = kek.seal(&made.pkcs8, &made.changed).unwrap();
        let again = Kek::read(&path).unwrap();
        assert_eq!(*again.unseal(&sealed, &made.changed).unwrap(), *made.pkcs8);

        let mut longer = made.changed.clone();
        longer.sign_until_ms = longer.sign_until_ms.plus_millis(1);
        assert!(again.unseal(&sealed, &longer).is_err());
        let other = Kek::create(&dir.path().join("other")).unwrap();
        assert!(other.unseal(&sealed, &made.changed).is_err());
        assert!(again.unseal(&sealed[..5], &made.changed).is_err());
    }

    #[test]
    fn what_is_drawn_twice_seals_two_keys_under_two_nonces() {
        let dir = tempfile::tempdir().unwrap();
        let kek = Kek::create(&dir.path().join("kek")).unwrap();
        let now = UnixMs::new(1_000);
        let times = Times::of_next(KeyUse::Token, now, now, &Lifetimes::default());
        let [one, other] = [(); 2].map(|()| make_key(KeyUse::Token, times).unwrap());
        let [one, other] = [one, other].map(|it| kek.seal_drawn(&it.pkcs8, &it.changed, &[7; 32]).unwrap());
        assert_ne!(one[..NONCE_LEN], other[..NONCE_LEN]);
    }

    #[test]
    fn a_key_file_that_others_may_read_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kek");
        Kek::create(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(Kek::read(&path), Err(KekError::Mode { mode: 0o644, .. })));
        assert!(Kek::create(&path).is_err(), "an existing key is never overwritten");
    }
}
