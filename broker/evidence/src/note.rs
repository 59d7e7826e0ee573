//! Signed notes with Ed25519 (C2SP signed-note): a text, a blank line, and a line for each signature.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};

/// The longest note that is read, in bytes: a checkpoint with all its witnesses' signatures is under 8 KiB.
pub const MAX_NOTE: usize = 16 * 1024;
/// The most signatures that a note may carry: the log's own and those of its witnesses.
pub const MAX_SIGNATURES: usize = 64;

/// The signature type of Ed25519 in a key id and a verifier key.
const TYPE_ED25519: u8 = 1;
const SIGNATURE_START: &str = "\u{2014} ";

/// Why a note, or a key for notes, is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// The note is too long.
    #[error("a note of {0} bytes: expected at most {MAX_NOTE}")]
    TooLong(usize),
    /// It carries too many signatures.
    #[error("a note with over {MAX_SIGNATURES} signatures")]
    TooManySignatures,
    /// It has not the form of a signed note.
    #[error("not a signed note: {0}")]
    Malformed(&'static str),
    /// A key's name is empty or has a space or a plus in it.
    #[error("`{0}` is not the name of a key: expected text without spaces and `+`")]
    Name(String),
    /// A verifier key has not its form.
    #[error("`{0}` is not a verifier key: expected `name+id+key` for Ed25519, the id matching the key")]
    VerifierKey(String),
    /// None of the known keys signed the note.
    #[error("no signature by a known key")]
    Unsigned,
    /// A known key's signature does not fit the text.
    #[error("the signature of `{0}` does not fit the text")]
    BadSignature(String),
    /// A known key signed more than once.
    #[error("`{0}` signed twice")]
    SignedTwice(String),
}

/// The public key of somebody who signs notes: its name, its id and the Ed25519 key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    id: [u8; 4],
    public: [u8; 32],
}

impl VerifierKey {
    /// The verifier key of `public` (32 octets) under `name`.
    ///
    /// # Errors
    /// When the name is empty or has a space or a plus in it.
    pub fn new(name: &str, public: [u8; 32]) -> Result<Self, NoteError> {
        if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '+') {
            return Err(NoteError::Name(name.to_owned()));
        }
        Ok(Self { name: name.to_owned(), id: key_id(name, &public), public })
    }

    /// The verifier key that fits what `key` signs as `name`.
    ///
    /// # Errors
    /// When the name is empty or has a space or a plus in it.
    pub fn of(name: &str, key: &Ed25519KeyPair) -> Result<Self, NoteError> {
        let mut public = [0; 32];
        public.copy_from_slice(key.public_key().as_ref());
        Self::new(name, public)
    }

    /// The name: for a log, its origin.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The Ed25519 public key.
    #[must_use]
    pub fn public(&self) -> &[u8; 32] {
        &self.public
    }

    /// Whether `signature` line claims to be by this key.
    fn made(&self, signature: &SignatureLine<'_>) -> bool {
        signature.name == self.name && signature.blob.starts_with(&self.id)
    }

    fn check(&self, text: &str, signature: &SignatureLine<'_>) -> Result<(), NoteError> {
        let bytes = signature.blob.get(self.id.len()..).unwrap_or_default();
        UnparsedPublicKey::new(&ED25519, &self.public)
            .verify(text.as_bytes(), bytes)
            .map_err(|_| NoteError::BadSignature(self.name.clone()))
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = [&[TYPE_ED25519], self.public.as_slice()].concat();
        write!(f, "{}+{:08x}+{}", self.name, u32::from_be_bytes(self.id), STANDARD.encode(key))
    }
}

impl FromStr for VerifierKey {
    type Err = NoteError;

    fn from_str(text: &str) -> Result<Self, NoteError> {
        let refuse = || NoteError::VerifierKey(text.chars().take(200).collect());
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(refuse());
        };
        let key = STANDARD.decode(key).map_err(|_| refuse())?;
        let public = match key.split_first() {
            Some((&TYPE_ED25519, public)) => public.try_into().map_err(|_| refuse())?,
            _ => return Err(refuse()),
        };
        let key = Self::new(name, public).map_err(|_| refuse())?;
        if id == format!("{:08x}", u32::from_be_bytes(key.id)) { Ok(key) } else { Err(refuse()) }
    }
}

/// The first four octets of SHA-256(name || 0x0A || 0x01 || public key) (C2SP signed-note, "Signatures").
fn key_id(name: &str, public: &[u8; 32]) -> [u8; 4] {
    let hash = digest(&SHA256, &[name.as_bytes(), b"\n", &[TYPE_ED25519], public].concat());
    let mut id = [0; 4];
    id.iter_mut().zip(hash.as_ref()).for_each(|(slot, byte)| *slot = *byte);
    id
}

/// Signs `text`, which ends with a line feed, as `name`: the whole note.
///
/// # Errors
/// When the text is no text of a note, or the name no name of a key.
pub fn sign(text: &str, name: &str, key: &Ed25519KeyPair) -> Result<String, NoteError> {
    check_text(text)?;
    let verifier = VerifierKey::of(name, key)?;
    let blob = [verifier.id.as_slice(), key.sign(text.as_bytes()).as_ref()].concat();
    let note = format!("{text}\n{SIGNATURE_START}{name} {}\n", STANDARD.encode(blob));
    if note.len() > MAX_NOTE { Err(NoteError::TooLong(note.len())) } else { Ok(note) }
}

/// The text of `note`, its last line feed included, if at least one of `keys` signed it and no signature that
/// claims to be by one of them is wrong. Signatures of others are passed over.
///
/// # Errors
/// When the note is malformed, no known key signed it, or a known key's signature is wrong or comes twice.
pub fn verify<'a>(note: &'a [u8], keys: &[VerifierKey]) -> Result<&'a str, NoteError> {
    let (text, signatures) = parse(note)?;
    let mut signed = Vec::new();
    for signature in &signatures {
        let Some(key) = keys.iter().find(|key| key.made(signature)) else { continue };
        if signed.contains(&key.id) {
            return Err(NoteError::SignedTwice(key.name.clone()));
        }
        key.check(text, signature)?;
        signed.push(key.id);
    }
    if signed.is_empty() { Err(NoteError::Unsigned) } else { Ok(text) }
}

#[derive(Debug)]
struct SignatureLine<'a> {
    name: &'a str,
    blob: Vec<u8>,
}

fn parse(note: &[u8]) -> Result<(&str, Vec<SignatureLine<'_>>), NoteError> {
    if note.len() > MAX_NOTE {
        return Err(NoteError::TooLong(note.len()));
    }
    let note = std::str::from_utf8(note).map_err(|_| NoteError::Malformed("not UTF-8"))?;
    let blank = note.rfind("\n\n").ok_or(NoteError::Malformed("no blank line before the signatures"))?;
    let (text, signatures) = note.split_at(blank + 1);
    check_text(text)?;
    let signatures = signatures
        .strip_prefix('\n')
        .and_then(|lines| lines.strip_suffix('\n'))
        .ok_or(NoteError::Malformed("no line feed at the end"))?;
    if signatures.split('\n').count() > MAX_SIGNATURES {
        return Err(NoteError::TooManySignatures);
    }
    let lines = signatures.split('\n').map(signature_line).collect::<Result<_, _>>()?;
    Ok((text, lines))
}

fn signature_line(line: &str) -> Result<SignatureLine<'_>, NoteError> {
    let malformed = NoteError::Malformed("a signature line is not `\u{2014} name base64`");
    let parts = line.strip_prefix(SIGNATURE_START).and_then(|rest| rest.split_once(' '));
    let (name, blob) = parts.filter(|(name, _)| !name.is_empty()).ok_or(malformed.clone())?;
    let blob = STANDARD.decode(blob).map_err(|_| malformed.clone())?;
    if blob.len() > 4 { Ok(SignatureLine { name, blob }) } else { Err(malformed) }
}

fn check_text(text: &str) -> Result<(), NoteError> {
    if text.contains(|c: char| c < ' ' && c != '\n') {
        return Err(NoteError::Malformed("a control character"));
    }
    if text.len() > 1 && text.ends_with('\n') {
        Ok(())
    } else {
        Err(NoteError::Malformed("the text does not end with a line feed"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ring::rand::SystemRandom;
    use signed_note::{Note, StandardVerifier, VerifierList};

    use super::*;

    const NAME: &str = "example.org/evidence/2026-2";
    const TEXT: &str = "example.org/evidence/2026-2\n5\nAAAA\n\nmore\n";

    fn key() -> Ed25519KeyPair {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap()
    }

    fn check(note: &str, keys: &[&VerifierKey]) -> Result<String, NoteError> {
        let keys: Vec<_> = keys.iter().copied().cloned().collect();
        verify(note.as_bytes(), &keys).map(str::to_owned)
    }

    #[test]
    fn another_implementation_accepts_our_notes_and_keys() {
        let key = key();
        let verifier = VerifierKey::of(NAME, &key).unwrap();
        let note = sign(TEXT, NAME, &key).unwrap();
        let known = VerifierList::new(vec![Box::new(StandardVerifier::new(&verifier.to_string()).unwrap())]);
        let parsed = Note::from_bytes(note.as_bytes()).unwrap();
        assert_eq!(parsed.verify(&known).unwrap().0.len(), 1);
        assert_eq!(parsed.text(), TEXT.as_bytes());
    }

    #[test]
    fn signatures_of_strangers_are_passed_over() {
        let (own, other) = (key(), key());
        let verifier = VerifierKey::of(NAME, &own).unwrap();
        let note = sign(TEXT, NAME, &own).unwrap();
        let theirs = sign(TEXT, "witness.example/w1", &other).unwrap();
        let line = theirs.rsplit_once("\n\n").unwrap().1;
        let unknown_type = format!("\u{2014} witness.example/w2 {}\n", STANDARD.encode([9; 77]));
        assert_eq!(check(&format!("{note}{line}{unknown_type}"), &[&verifier]).unwrap(), TEXT);
        assert_eq!(check(&theirs, &[&verifier]), Err(NoteError::Unsigned));
        assert_eq!(check(&note, &[]), Err(NoteError::Unsigned));
        // The same name with another key is a stranger too.
        assert_eq!(check(&sign(TEXT, NAME, &other).unwrap(), &[&verifier]), Err(NoteError::Unsigned));
    }

    #[test]
    fn a_key_that_signs_twice_is_refused() {
        let key = key();
        let verifier = VerifierKey::of(NAME, &key).unwrap();
        let note = sign(TEXT, NAME, &key).unwrap();
        let line = note.rsplit_once("\n\n").unwrap().1;
        assert_eq!(check(&format!("{note}{line}"), &[&verifier]), Err(NoteError::SignedTwice(NAME.into())));
    }

    #[test]
    fn a_note_of_another_form_is_refused() {
        let key = key();
        let verifier = VerifierKey::of(NAME, &key).unwrap();
        let note = sign(TEXT, NAME, &key).unwrap();
        let line = note.rsplit_once("\n\n").unwrap().1.to_owned();
        let spoiled = [
            note.replacen('5', "6", 1),
            note.trim_end().to_owned(),
            note.replace('\u{2014}', "-"),
            note.replace("\n\n\u{2014}", "\n\u{2014}"),
            format!("{note}\n"),
            format!("{note}x\n"),
            format!("\t{note}"),
            format!("{note}\u{2014}  AAAAAAA=\n"),
            format!("{note}\u{2014} w AAAA\n"),
            format!("{note}\u{2014} w !!!!\n"),
            format!("\n\n{line}"),
            format!("{note}{}", format!("\u{2014} w {}\n", STANDARD.encode([9; 68])).repeat(MAX_SIGNATURES)),
            format!("{}{note}", "x\n".repeat(MAX_NOTE)),
            String::new(),
        ];
        for note in spoiled {
            assert!(check(&note, &[&verifier]).is_err(), "{note:?}");
        }
        assert!(sign("no line feed", NAME, &key).is_err());
        assert!(sign("tab\t\n", NAME, &key).is_err());
        assert!(sign(TEXT, "a b", &key).is_err() && sign(TEXT, "a+b", &key).is_err());
    }

    #[test]
    fn a_verifier_key_has_one_spelling() {
        let verifier = VerifierKey::of(NAME, &key()).unwrap();
        let text = verifier.to_string();
        assert_eq!(text.parse::<VerifierKey>().unwrap(), verifier);
        let (name, id, public) = (
            text.split('+').next().unwrap(),
            text.split('+').nth(1).unwrap(),
            text.splitn(3, '+').nth(2).unwrap(),
        );
        let short = STANDARD.encode([1; 32]);
        let other_type = STANDARD.encode([2; 33]);
        for bad in [
            format!("other+{id}+{public}"),
            format!("{name}+00000000+{public}"),
            format!("{name}+{}+{public}", id.to_uppercase() + "0"),
            format!("{name}+{id}+{short}"),
            format!("{name}+{id}+{other_type}"),
            format!("{name}+{id}"),
            format!("+{id}+{public}"),
            String::new(),
        ] {
            assert!(bad.parse::<VerifierKey>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_other_byte_passes(at in 0_usize..300, flip in 1_u8..) {
            let key = key();
            let verifier = VerifierKey::of(NAME, &key).unwrap();
            let mut note = sign(TEXT, NAME, &key).unwrap().into_bytes();
            let at = at % note.len();
            note[at] ^= flip;
            prop_assert!(verify(&note, &[verifier]).is_err());
        }
    }
}
