//! Cosignatures: a witness says that it saw a checkpoint, at what time, and that the log only grew up to it (C2SP
//! tlog-cosignature, version 1 with Ed25519).

use std::fmt;
use std::str::FromStr;

use ring::signature::{ED25519, UnparsedPublicKey};

use super::{MAX_NOTE, NoteError, check_name, key_id, read_key, signature_line, write_key};
use crate::checkpoint::Checkpoint;

/// The signature type of version 1 in a key id and a verifier key.
const TYPE_COSIGNATURE: u8 = 4;

/// The public key of a witness: its name, its id and the Ed25519 key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WitnessKey {
    name: String,
    id: [u8; 4],
    public: [u8; 32],
}

/// What a witness said of one checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cosignature {
    /// The line that goes below the log's own signature, with its line feed.
    pub line: String,
    /// When, by the witness's clock, in seconds since the Unix epoch.
    pub time_s: u64,
}

impl WitnessKey {
    /// The key `public` of the witness `name`.
    ///
    /// # Errors
    /// When the name is empty or has a space or a plus in it.
    pub fn new(name: &str, public: [u8; 32]) -> Result<Self, NoteError> {
        check_name(name)?;
        Ok(Self { name: name.to_owned(), id: key_id(name, TYPE_COSIGNATURE, &public), public })
    }

    /// The name by which the witness signs.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The cosignature by this key among `lines`, which must be of exactly `checkpoint`. Those of others are passed
    /// over.
    ///
    /// # Errors
    /// When `lines` are no signature lines, none is by this key, or the one that is does not fit the checkpoint.
    pub fn cosignature(&self, checkpoint: &Checkpoint, lines: &[u8]) -> Result<Cosignature, NoteError> {
        if lines.len() > MAX_NOTE {
            return Err(NoteError::TooLong(lines.len()));
        }
        let lines = std::str::from_utf8(lines).map_err(|_| NoteError::Malformed("not UTF-8"))?;
        let lines = lines.strip_suffix('\n').ok_or(NoteError::Malformed("no line feed at the end"))?;
        let mut found = None;
        for line in lines.split('\n') {
            let signature = signature_line(line)?;
            if signature.name == self.name && signature.blob.starts_with(&self.id) {
                let time_s = self.check(&checkpoint.text(), signature.blob.get(4..).unwrap_or_default())?;
                found = found.or(Some(Cosignature { line: format!("{line}\n"), time_s }));
            }
        }
        found.ok_or(NoteError::Unsigned)
    }

    /// The time in a timestamped signature over `text`.
    fn check(&self, text: &str, signature: &[u8]) -> Result<u64, NoteError> {
        let refuse = || NoteError::BadSignature(self.name.clone());
        let (time, signature) = signature.split_first_chunk::<8>().ok_or_else(refuse)?;
        let time_s = u64::from_be_bytes(*time);
        let signed = format!("cosignature/v1\ntime {time_s}\n{text}");
        let key = UnparsedPublicKey::new(&ED25519, &self.public);
        key.verify(signed.as_bytes(), signature).map_err(|_| refuse())?;
        Ok(time_s)
    }
}

impl fmt::Display for WitnessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_key(f, &self.name, self.id, TYPE_COSIGNATURE, &self.public)
    }
}

impl FromStr for WitnessKey {
    type Err = NoteError;

    fn from_str(text: &str) -> Result<Self, NoteError> {
        let (name, public) = read_key(text, TYPE_COSIGNATURE)?;
        Self::new(name, public)
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;
    use crate::note::VerifierKey;

    /// The example in C2SP tlog-cosignature.
    const LINE: &str = "\u{2014} witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n";

    fn pair(seed: u8) -> ring::signature::Ed25519KeyPair {
        ring::signature::Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
    }

    fn key(seed: u8, name: &str) -> WitnessKey {
        use ring::signature::KeyPair as _;
        WitnessKey::new(name, pair(seed).public_key().as_ref().try_into().unwrap()).unwrap()
    }

    fn checkpoint() -> Checkpoint {
        let root = STANDARD.decode("CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=").unwrap();
        Checkpoint {
            origin: "example.com/behind-the-sofa".into(),
            size: 20_852_163,
            root: root.try_into().unwrap(),
        }
    }

    fn signed(seed: u8, name: &str, time_s: u64, checkpoint: &Checkpoint) -> String {
        let message = format!("cosignature/v1\ntime {time_s}\n{}", checkpoint.text());
        let signature = pair(seed).sign(message.as_bytes());
        let blob = [&key(seed, name).id[..], &time_s.to_be_bytes(), signature.as_ref()].concat();
        format!("\u{2014} {name} {}\n", STANDARD.encode(blob))
    }

    #[test]
    fn the_example_of_the_specification_has_the_time_that_it_says() {
        let line = signature_line(LINE.trim_end()).unwrap();
        assert_eq!(line.blob.len(), 4 + 8 + 64);
        assert_eq!(u64::from_be_bytes(line.blob[4..12].try_into().unwrap()), 1_679_315_147);
    }

    #[test]
    fn a_witness_speaks_for_one_checkpoint_at_one_time() {
        let (witness, line) = (key(1, "w.example/1"), signed(1, "w.example/1", 1_700_000_000, &checkpoint()));
        let said = witness.cosignature(&checkpoint(), line.as_bytes()).unwrap();
        assert_eq!(said, Cosignature { line: line.clone(), time_s: 1_700_000_000 });

        let bad = Err(NoteError::BadSignature("w.example/1".into()));
        for other in [
            Checkpoint { size: 20_852_164, ..checkpoint() },
            Checkpoint { root: [0; 32], ..checkpoint() },
            Checkpoint { origin: "example.com/other".into(), ..checkpoint() },
        ] {
            assert_eq!(witness.cosignature(&other, line.as_bytes()), bad, "{other:?}");
        }
        let mut blob = STANDARD.decode(line.trim_end().rsplit(' ').next().unwrap()).unwrap();
        blob[11] ^= 1;
        let later = format!("\u{2014} w.example/1 {}\n", STANDARD.encode(&blob));
        assert_eq!(witness.cosignature(&checkpoint(), later.as_bytes()), bad, "another time");
        let cut = format!("\u{2014} w.example/1 {}\n", STANDARD.encode(&blob[..11]));
        assert_eq!(witness.cosignature(&checkpoint(), cut.as_bytes()), bad, "no whole time");
    }

    #[test]
    fn the_words_of_others_are_passed_over_and_no_word_is_none() {
        let (ours, other) = (key(1, "w.example/1"), signed(2, "w.example/2", 5, &checkpoint()));
        assert_eq!(ours.cosignature(&checkpoint(), other.as_bytes()), Err(NoteError::Unsigned));
        let both = format!("{other}{}", signed(1, "w.example/1", 6, &checkpoint()));
        assert_eq!(ours.cosignature(&checkpoint(), both.as_bytes()).unwrap().time_s, 6);
        for malformed in [&b""[..], b"\n", b"nothing\n", both.trim_end().as_bytes(), b"\xff\n"] {
            assert!(ours.cosignature(&checkpoint(), malformed).is_err(), "{malformed:?}");
        }
    }

    #[test]
    fn a_witness_key_is_not_the_key_of_a_log() {
        let witness = key(1, "w.example/1");
        assert_eq!(witness.to_string().parse(), Ok(witness.clone()));
        assert!(witness.to_string().parse::<VerifierKey>().is_err());
        assert!(VerifierKey::of("w.example/1", &pair(1)).unwrap().to_string().parse::<WitnessKey>().is_err());
    }
}
