//! Checkpoints: what a log claims to be at one size, signed (C2SP tlog-checkpoint).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::signature::Ed25519KeyPair;

use crate::note::{self, NoteError, VerifierKey};
use crate::tree::Hash;

/// A log's name, its size, and the root of its tree at that size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The log: `<td>/evidence/<shard>`; also the name of the key that signs.
    pub origin: String,
    /// How many entries it has.
    pub size: u64,
    /// The root of the tree over them.
    pub root: Hash,
}

/// Why a checkpoint is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// The note that carries it is refused.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// The text is no checkpoint.
    #[error("not a checkpoint: expected the lines origin, size and root")]
    Malformed,
    /// The checkpoint is of another log than its signer's.
    #[error("a checkpoint of `{found}`: expected `{expected}`")]
    Origin {
        /// The log that it names.
        found: String,
        /// The log that the key signs for.
        expected: String,
    },
}

/// Whether a log follows `other` among those of one trust domain, by their names: its half-year, and its numbers within.
#[must_use]
pub fn is_later(origin: &str, other: &str) -> bool {
    period(origin) > period(other)
}

fn period(origin: &str) -> (&str, Vec<u64>) {
    let name = origin.rsplit('/').next().unwrap_or_default();
    let mut parts = name.split('-');
    let half_year = parts.next().unwrap_or_default();
    (half_year, parts.filter_map(|part| part.trim_start_matches('r').parse().ok()).collect())
}

impl Checkpoint {
    /// The text that is signed: origin, size and root, a line each.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, STANDARD.encode(self.root))
    }

    /// The signed note.
    ///
    /// # Errors
    /// When the origin is no name of a key.
    pub fn sign(&self, key: &Ed25519KeyPair) -> Result<String, CheckpointError> {
        Ok(note::sign(&self.text(), &self.origin, key)?)
    }

    /// Reads a signed checkpoint of the log that `key` signs for, or of one that goes on for it under the same key: of
    /// another shard.
    ///
    /// # Errors
    /// As for [`Self::open`].
    pub fn open_shard(note: &[u8], key: &VerifierKey) -> Result<Self, CheckpointError> {
        let origin = note.split(|byte| *byte == b'\n').next().and_then(|line| std::str::from_utf8(line).ok());
        let shard = origin.and_then(|origin| key.of_shard(origin));
        Self::open(note, shard.as_ref().unwrap_or(key))
    }

    /// Reads a signed checkpoint of the log that `key` signs for. Lines after the root are passed over.
    ///
    /// # Errors
    /// When the signature is missing or wrong, the text no checkpoint, or the log another one.
    pub fn open(note: &[u8], key: &VerifierKey) -> Result<Self, CheckpointError> {
        let text = note::verify(note, std::slice::from_ref(key))?;
        let checkpoint = Self::parse(text).ok_or(CheckpointError::Malformed)?;
        if checkpoint.origin == key.name() {
            return Ok(checkpoint);
        }
        Err(CheckpointError::Origin { found: checkpoint.origin, expected: key.name().to_owned() })
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.strip_suffix('\n')?.split('\n');
        let origin = lines.next().filter(|origin| !origin.is_empty())?.to_owned();
        let digits = lines.next()?;
        let size: u64 = digits.parse().ok()?;
        let root: Hash = STANDARD.decode(lines.next()?).ok()?.try_into().ok()?;
        let one_spelling = size.to_string() == digits && lines.all(|line| !line.is_empty());
        one_spelling.then_some(Self { origin, size, root })
    }
}

#[cfg(test)]
mod tests {
    use ring::rand::SystemRandom;

    use super::*;

    const ORIGIN: &str = "example.org/evidence/2026-2";

    fn key() -> Ed25519KeyPair {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap()
    }

    fn sample() -> Checkpoint {
        Checkpoint { origin: ORIGIN.into(), size: 1188, root: [7; 32] }
    }

    #[test]
    fn a_signed_checkpoint_opens_with_its_own_key_only() {
        let (own, other) = (key(), key());
        let note = sample().sign(&own).unwrap();
        assert_eq!(Checkpoint::open(note.as_bytes(), &VerifierKey::of(ORIGIN, &own).unwrap()), Ok(sample()));
        assert!(Checkpoint::open(note.as_bytes(), &VerifierKey::of(ORIGIN, &other).unwrap()).is_err());
    }

    #[test]
    fn another_implementation_reads_our_checkpoints() {
        let theirs = tlog_tiles::Checkpoint::from_bytes(sample().text().as_bytes()).unwrap();
        assert_eq!((theirs.origin(), theirs.size(), theirs.hash().0), (ORIGIN, 1188, [7; 32]));
    }

    #[test]
    fn a_key_cannot_speak_for_another_log() {
        let key = key();
        let note = note::sign(&sample().text(), "example.org/evidence/2027-1", &key).unwrap();
        let verifier = VerifierKey::of("example.org/evidence/2027-1", &key).unwrap();
        assert!(matches!(Checkpoint::open(note.as_bytes(), &verifier), Err(CheckpointError::Origin { .. })));
    }

    #[test]
    fn a_checkpoint_has_one_spelling_and_may_be_extended() {
        let key = key();
        let verifier = VerifierKey::of(ORIGIN, &key).unwrap();
        let open =
            |text: &str| Checkpoint::open(note::sign(text, ORIGIN, &key).unwrap().as_bytes(), &verifier);
        let root = STANDARD.encode([7; 32]);
        assert_eq!(open(&format!("{ORIGIN}\n1188\n{root}\nan extension\n")), Ok(sample()));
        for bad in [
            format!("{ORIGIN}\n01188\n{root}\n"),
            format!("{ORIGIN}\n+1188\n{root}\n"),
            format!("{ORIGIN}\n-1\n{root}\n"),
            format!("{ORIGIN}\n18446744073709551616\n{root}\n"),
            format!("{ORIGIN}\n1188\n{}\n", STANDARD.encode([7; 31])),
            format!("{ORIGIN}\n1188\n{}\n", root.trim_end_matches('=')),
            format!("{ORIGIN}\n1188\n{root}\n\n"),
            format!("\n1188\n{root}\n"),
            format!("{ORIGIN}\n1188\n"),
        ] {
            assert_eq!(open(&bad), Err(CheckpointError::Malformed), "{bad:?}");
        }
    }
}
