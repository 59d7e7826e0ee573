//! Key sets (RFC 7517). One key that is unknown or bad is dropped and never spoils the set; a set that is
//! ambiguous or too large is refused whole, so that the last good one stays.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use crate::alg::Alg;
use crate::header::is_kid;
use crate::jose::{JoseError, UnverifiedToken};
use crate::json::{self, JsonError, Limits};
use crate::key::{KeyError, KeyKind, RawKey};

pub use crate::key::VerifyingKey;
pub use crate::thumbprint::{p256_jwk, rsa_jwk, thumbprint_ed25519, thumbprint_p256, thumbprint_rsa};

const SET_LEN_MAX: usize = 256 * 1024;
const KEYS_MAX: usize = 64;
const KEY_LEN_MAX: usize = 8 * 1024;

/// Why a whole key set is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JwksError {
    /// Over 256 KiB.
    #[error("expected a key set of at most 256 KiB")]
    TooLarge,
    /// Not strict JSON.
    #[error("the key set is not strict JSON: {0}")]
    Json(#[from] JsonError),
    /// No `keys` member that is an array.
    #[error("expected a member `keys` that is an array")]
    Malformed,
    /// Over 64 keys.
    #[error("expected at most 64 keys, found {0}")]
    TooManyKeys(usize),
    /// One key is over 8 KiB.
    #[error("expected keys of at most 8 KiB each")]
    KeyTooLarge,
    /// Two keys have one id.
    #[error("expected each key id once, found `{}` twice", .0.escape_debug())]
    DuplicateKid(String),
    /// No key is left that checks signatures; says what was dropped.
    #[error("expected at least one key for signatures that is accepted here; {} dropped", .0.len())]
    NoUsableKey(Vec<DroppedKey>),
}

/// A key that was left out of its set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DroppedKey {
    /// Its id, if it has one that is text; cut at 128 characters.
    pub kid: Option<String>,
    /// Why, in words for the operator.
    pub why: &'static str,
    /// Whether private members were published with it: the issuer has to be told.
    pub private_members: bool,
}

/// The keys of one issuer by their ids.
#[derive(Debug, Clone, Default)]
pub struct KeySet {
    keys: HashMap<Box<str>, VerifyingKey>,
}

impl KeySet {
    /// Parses an issuer's key set: keys with `use` absent or `sig`.
    ///
    /// # Errors
    /// When the set is too large, no strict JSON, names a key id twice, or has no key that is accepted.
    pub fn parse(bytes: &[u8]) -> Result<(Self, Vec<DroppedKey>), JwksError> {
        Self::parse_for(bytes, &["sig"])
    }

    /// Parses the key set of a SPIFFE bundle (SPIFFE Trust Domain and Bundle, section 4.2): keys with `use`
    /// absent, `sig` or `jwt-svid`.
    ///
    /// # Errors
    /// As [`KeySet::parse`].
    pub fn parse_bundle(bytes: &[u8]) -> Result<(Self, Vec<DroppedKey>), JwksError> {
        Self::parse_for(bytes, &["sig", "jwt-svid"])
    }

    fn parse_for(bytes: &[u8], uses: &[&str]) -> Result<(Self, Vec<DroppedKey>), JwksError> {
        let entries = entries(bytes)?;
        let mut set = Self::default();
        let mut dropped = Vec::new();
        for entry in &entries {
            match read_key(entry, uses) {
                Ok(key) => {
                    set.keys.insert(key.kid().into(), key);
                }
                Err(why) => dropped.push(DroppedKey {
                    kid: kid_of(entry).map(|kid| kid.chars().take(128).collect()),
                    why,
                    private_members: has_private_members(entry),
                }),
            }
        }
        if set.is_empty() { Err(JwksError::NoUsableKey(dropped)) } else { Ok((set, dropped)) }
    }

    /// The key with this id: a lookup, nothing else.
    #[must_use]
    pub fn key(&self, kid: &str) -> Option<&VerifyingKey> {
        self.keys.get(kid)
    }

    /// The key that `token` names.
    ///
    /// # Errors
    /// When the token names none, or one that is not in the set.
    pub fn key_for(&self, token: &UnverifiedToken) -> Result<&VerifyingKey, JoseError> {
        token.kid().and_then(|kid| self.key(kid)).ok_or(JoseError::UnknownKey)
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is none, as in a set that was made from nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The keys, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &VerifyingKey> {
        self.keys.values()
    }
}

impl FromIterator<VerifyingKey> for KeySet {
    /// A set of keys that are known already, such as a broker's own. Of two with one id the last stays.
    fn from_iter<I: IntoIterator<Item = VerifyingKey>>(keys: I) -> Self {
        Self { keys: keys.into_iter().map(|key| (key.kid().into(), key)).collect() }
    }
}

fn entries(bytes: &[u8]) -> Result<Vec<Map<String, Value>>, JwksError> {
    if bytes.len() > SET_LEN_MAX {
        return Err(JwksError::TooLarge);
    }
    let mut document = json::parse_limited(bytes, &Limits::DOCUMENT)?;
    let Some(Value::Array(keys)) = document.remove("keys") else {
        return Err(JwksError::Malformed);
    };
    if keys.len() > KEYS_MAX {
        return Err(JwksError::TooManyKeys(keys.len()));
    }
    let mut seen = std::collections::BTreeSet::new();
    let mut entries = Vec::with_capacity(keys.len());
    for key in keys {
        if key.to_string().len() > KEY_LEN_MAX {
            return Err(JwksError::KeyTooLarge);
        }
        // What is no object has no `kid`, and is dropped for that.
        let entry = if let Value::Object(entry) = key { entry } else { Map::new() };
        if let Some(kid) = kid_of(&entry).filter(|kid| !seen.insert((*kid).to_owned())) {
            return Err(JwksError::DuplicateKid(kid.chars().take(80).collect()));
        }
        entries.push(entry);
    }
    Ok(entries)
}

fn kid_of(entry: &Map<String, Value>) -> Option<&str> {
    entry.get("kid").and_then(Value::as_str)
}

fn has_private_members(entry: &Map<String, Value>) -> bool {
    ["d", "p", "q", "dp", "dq", "qi", "oth", "k"].iter().any(|name| entry.contains_key(*name))
}

fn read_key(entry: &Map<String, Value>, uses: &[&str]) -> Result<VerifyingKey, &'static str> {
    let kid = kid_of(entry).filter(|kid| is_kid(kid)).ok_or("expected a `kid` of printable ASCII")?;
    if entry.get("kty").and_then(Value::as_str) == Some("oct") {
        return Err("a shared secret is no public key");
    }
    if has_private_members(entry) {
        return Err("the private part of the key is published; its issuer must replace it");
    }
    if entry.get("use").is_some_and(|it| !it.as_str().is_some_and(|it| uses.contains(&it))) {
        return Err("the key is not for signatures (`use`)");
    }
    if entry.get("key_ops").is_some_and(|ops| !lists_verify(ops)) {
        return Err("the key is not for checking signatures (`key_ops`)");
    }
    let parts = Parts::read(entry)?;
    let raw = parts.raw().map_err(drop_reason)?;
    let alg = match entry.get("alg") {
        None => raw.kind().default_alg(),
        Some(alg) => alg
            .as_str()
            .and_then(|text| text.parse::<Alg>().ok())
            .ok_or("the key's `alg` is not an accepted algorithm")?,
    };
    VerifyingKey::new(kid, alg, &raw).map_err(drop_reason)
}

fn lists_verify(ops: &Value) -> bool {
    ops.as_array().is_some_and(|ops| ops.iter().any(|op| op.as_str() == Some("verify")))
}

fn drop_reason(error: KeyError) -> &'static str {
    match error {
        KeyError::Malformed => "the key's members are malformed",
        KeyError::Kind => "the key's type or curve is not accepted",
        KeyError::RsaSize => "the RSA modulus has not 2048 to 4096 bits",
        KeyError::RsaExponent => "the RSA exponent is not 65537",
        KeyError::WeakPoint => "the Ed25519 point has a small order",
        KeyError::AlgMismatch => "the key's `alg` does not fit its type",
    }
}

/// The decoded members of one key.
enum Parts {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    Ec { kind: KeyKind, point: Vec<u8> },
    Ed25519(Vec<u8>),
}

impl Parts {
    fn read(entry: &Map<String, Value>) -> Result<Self, &'static str> {
        let text = |name: &str| entry.get(name).and_then(Value::as_str);
        let octets = |name: &str| {
            text(name)
                .and_then(|it| URL_SAFE_NO_PAD.decode(it).ok())
                .ok_or("the key's members are missing or not base64url")
        };
        let ec = |kind, len| {
            let point = [vec![4], octets("x")?, octets("y")?].concat();
            // Each coordinate has its full length (RFC 7518, section 6.2.1.2).
            let whole = octets("x")?.len() == len && point.len() == 2 * len + 1;
            if whole {
                Ok(Self::Ec { kind, point })
            } else {
                Err("the key's coordinates have a wrong length")
            }
        };
        match (text("kty"), text("crv")) {
            (Some("RSA"), _) => Ok(Self::Rsa { n: octets("n")?, e: octets("e")? }),
            (Some("EC"), Some("P-256")) => ec(KeyKind::P256, 32),
            (Some("EC"), Some("P-384")) => ec(KeyKind::P384, 48),
            (Some("OKP"), Some("Ed25519")) => Ok(Self::Ed25519(octets("x")?)),
            _ => Err("the key's type or curve is not accepted"),
        }
    }

    fn raw(&self) -> Result<RawKey<'_>, KeyError> {
        match self {
            Self::Rsa { n, e } => RawKey::rsa(n, e),
            Self::Ec { kind, point } => RawKey::ec(*kind, point),
            Self::Ed25519(point) => RawKey::ed25519(point),
        }
    }
}
