//! Signed notes with Ed25519 (C2SP signed-note): a text, a blank line, and a line for each signature.

mod cosignature;

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};

pub use cosignature::{Cosignature, WitnessKey};

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
        check_name(name)?;
        Ok(Self { name: name.to_owned(), id: key_id(name, TYPE_ED25519, &public), public })
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

    /// The same key under the name of another log of the same trust domain, which goes on where this one's ended: of an
    /// origin up to its last part. None where `origin` is no such log's.
    #[must_use]
    pub fn of_shard(&self, origin: &str) -> Option<Self> {
        let (family, _) = self.name.rsplit_once('/')?;
        let shard = origin.strip_prefix(family)?.strip_prefix('/')?;
        (!shard.is_empty() && !shard.contains('/')).then(|| Self::new(origin, self.public).ok()).flatten()
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
        write_key(f, &self.name, self.id, TYPE_ED25519, &self.public)
    }
}

impl FromStr for VerifierKey {
    type Err = NoteError;

    fn from_str(text: &str) -> Result<Self, NoteError> {
        let (name, public) = read_key(text, TYPE_ED25519)?;
        Self::new(name, public)
    }
}

fn check_name(name: &str) -> Result<(), NoteError> {
    if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '+') {
        return Err(NoteError::Name(name.to_owned()));
    }
    Ok(())
}

/// A verifier key as text: `name+id+type and key` (C2SP signed-note, "Verifier keys").
fn write_key(
    f: &mut fmt::Formatter<'_>,
    name: &str,
    id: [u8; 4],
    kind: u8,
    public: &[u8; 32],
) -> fmt::Result {
    let key = [&[kind], public.as_slice()].concat();
    write!(f, "{name}+{:08x}+{}", u32::from_be_bytes(id), STANDARD.encode(key))
}

/// The name and the key in a verifier key of type `kind` whose id fits them.
fn read_key(text: &str, kind: u8) -> Result<(&str, [u8; 32]), NoteError> {
    let refuse = || NoteError::VerifierKey(text.chars().take(200).collect());
    let mut parts = text.splitn(3, '+');
    let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(refuse());
    };
    let key = STANDARD.decode(key).map_err(|_| refuse())?;
    let public = match key.split_first() {
        Some((found, public)) if *found == kind => public.try_into().map_err(|_| refuse())?,
        _ => return Err(refuse()),
    };
    let fits =
        check_name(name).is_ok() && id == format!("{:08x}", u32::from_be_bytes(key_id(name, kind, &public)));
    if fits { Ok((name, public)) } else { Err(refuse()) }
}

/// The first four octets of SHA-256(name || 0x0A || type || public key) (C2SP signed-note, "Signatures").
fn key_id(name: &str, kind: u8, public: &[u8; 32]) -> [u8; 4] {
    let hash = digest(&SHA256, &[name.as_bytes(), b"\n", &[kind], public].concat());
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
mod tests;
