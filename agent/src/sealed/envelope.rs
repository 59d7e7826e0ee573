//! The file of one sealed credential: AES-256-GCM under the key of the configuration, bound to the version of the format, to
//! what was asked for, and to the name of the credential, so that no file can stand for another.
//!
//! `daypass sealed 1`, 8 octets that tell the key, 32 octets that tell the request, 12 octets of nonce, ciphertext and tag.

use std::io::Read as _;
use std::path::Path;

use daypass_verify::ids::{Digest, Name};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom as _, SystemRandom};
use zeroize::Zeroizing;

use super::Unfit;
use crate::files::private;

const MAGIC: &[u8; 16] = b"daypass sealed 1";
const KEY_LEN: usize = 32;
const MARK_LEN: usize = 8;
/// All that comes before the nonce.
const HEAD_LEN: usize = MAGIC.len() + MARK_LEN + 32;

/// What credentials are sealed with.
pub(super) struct Key {
    bytes: Zeroizing<[u8; KEY_LEN]>,
    mark: [u8; MARK_LEN],
}

impl Key {
    /// The key in a file.
    ///
    /// # Errors
    /// When there is none, others could read it, or it is none.
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let file = private::open(path).map_err(|why| why.to_string())?;
        let unread = |error: std::io::Error| format!("`{}`: {error}", path.display());
        let mut bytes = Zeroizing::new(Vec::with_capacity(KEY_LEN + 1));
        file.take(KEY_LEN as u64 + 1).read_to_end(&mut bytes).map_err(unread)?;
        let bytes = <[u8; KEY_LEN]>::try_from(bytes.as_slice()).map_err(|_| {
            format!(
                "`{}`: expected {KEY_LEN} random bytes and nothing else, as `head -c {KEY_LEN} /dev/urandom` makes them",
                path.display()
            )
        })?;
        Ok(Self::new(bytes))
    }

    pub(super) fn new(bytes: [u8; KEY_LEN]) -> Self {
        let bytes = Zeroizing::new(bytes);
        // Tells one key from another, and nothing of either: it is as random as the key is.
        let digest = Digest::of(&Zeroizing::new([b"daypass sealed key", bytes.as_slice()].concat()));
        let mut mark = [0; MARK_LEN];
        mark.iter_mut().zip(digest.as_bytes()).for_each(|(to, from)| *to = *from);
        Self { bytes, mark }
    }

    /// Seals `content` for the credential called `name` that was asked for by `request`.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub(super) fn seal(&self, name: &Name, request: &Digest, content: &[u8]) -> Result<Vec<u8>, Unfit> {
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).map_err(|_| Unfit::Random)?;
        let head = [MAGIC.as_slice(), &self.mark, request.as_bytes()].concat();
        // Its room from the beginning, so that nothing of it is left behind where it grew.
        let mut sealed = Zeroizing::new(Vec::with_capacity(content.len() + AES_256_GCM.tag_len()));
        sealed.extend_from_slice(content);
        let cipher = self.cipher()?;
        cipher
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                associated(&head, name),
                &mut *sealed,
            )
            .map_err(|_| Unfit::Random)?;
        Ok([head.as_slice(), &nonce, &sealed].concat())
    }

    /// What is sealed in `file`, where it is for this credential and this request.
    ///
    /// # Errors
    /// Why nothing of it can be used.
    pub(super) fn open(
        &self,
        name: &Name,
        request: &Digest,
        file: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, Unfit> {
        let (head, rest) = file.split_at_checked(HEAD_LEN).ok_or(Unfit::Damaged)?;
        let (magic, rest_of_head) = head.split_at_checked(MAGIC.len()).ok_or(Unfit::Damaged)?;
        let (mark, asked) = rest_of_head.split_at_checked(MARK_LEN).ok_or(Unfit::Damaged)?;
        if magic != MAGIC {
            return Err(Unfit::Version);
        }
        if mark != self.mark {
            return Err(Unfit::AnotherKey);
        }
        if asked != request.as_bytes() {
            return Err(Unfit::AnotherRequest);
        }
        let (nonce, sealed) = rest.split_at_checked(NONCE_LEN).ok_or(Unfit::Damaged)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| Unfit::Damaged)?;
        let mut content = Zeroizing::new(sealed.to_vec());
        let opened = self.cipher()?.open_in_place(nonce, associated(head, name), &mut content);
        let len = opened.map_err(|_| Unfit::Damaged)?.len();
        content.truncate(len);
        Ok(content)
    }

    fn cipher(&self) -> Result<LessSafeKey, Unfit> {
        let key = UnboundKey::new(&AES_256_GCM, self.bytes.as_slice()).map_err(|_| Unfit::Random)?;
        Ok(LessSafeKey::new(key))
    }
}

fn associated(head: &[u8], name: &Name) -> Aad<Vec<u8>> {
    Aad::from([head, name.as_str().as_bytes()].concat())
}
