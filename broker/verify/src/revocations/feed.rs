//! The feed as text: written to be signed, and read back strictly.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};

use super::{CUT_OFFS_MAX, CutOffs, IDS_MAX, LEN_MAX, LIFE, Revoked, TYP};
use crate::ids::{CredentialId, KeyId};
use crate::jose::{JoseError, UnverifiedToken};
use crate::json::Limits;
use crate::jwks::KeySet;
use crate::time::{Seconds, UnixMs};

/// The cut-offs are members, and a few others.
const LIMITS: Limits = Limits { depth: 3, members: 3 * CUT_OFFS_MAX + 32 };

/// Why a feed is refused: whoever has an older one that is fresh goes on with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FeedError {
    /// A fault of the token that it is.
    #[error(transparent)]
    Token(#[from] JoseError),
    /// A member that is missing or malformed.
    #[error("the feed's `{0}` is malformed: expected {1}")]
    Member(&'static str, &'static str),
    /// More than a feed may list.
    #[error(
        "the feed lists more than it may: expected at most {IDS_MAX} ids and {CUT_OFFS_MAX} cut-offs of each kind"
    )]
    TooMany,
    /// Older than the one that is known.
    #[error("the feed is older than the one that is known ({found} follows {known}): it went back")]
    WentBack {
        /// The sequence that is known.
        known: u64,
        /// The sequence that was found.
        found: u64,
    },
}

/// What a receiver knows before it reads a feed.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// The broker's issuer URL, byte for byte.
    pub issuer: &'a str,
    /// The broker's published keys.
    pub keys: &'a KeySet,
    /// The sequence of the newest feed that it holds.
    pub sequence: Option<u64>,
    /// The time.
    pub now: UnixMs,
    /// How far the clocks may differ.
    pub leeway: Seconds,
}

/// A feed: what is revoked, as of when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocations {
    /// The time, in ms, of the newest entry of the log that it covers. It never goes back, whichever broker of the log
    /// signs: of two feeds the one with the higher sequence holds.
    pub sequence: u64,
    /// When it was signed (`iat`).
    pub signed_at: UnixMs,
    /// When it must not be used any more (`exp`).
    pub expires_at: UnixMs,
    /// What is revoked.
    pub revoked: Revoked,
}

impl Revocations {
    /// The feed of now.
    #[must_use]
    pub fn new(revoked: Revoked, sequence: u64, now: UnixMs) -> Self {
        let signed_at = now.floor_second();
        Self { sequence, signed_at, expires_at: signed_at.plus(LIFE), revoked }
    }

    /// The signing input (RFC 7515, section 5.1) for the key `kid` and its algorithm.
    #[must_use]
    pub fn signing_input(&self, issuer: &str, alg: &str, kid: &KeyId) -> String {
        let header = json!({ "alg": alg, "kid": kid, "typ": TYP });
        let CutOffs { identities, issuers, keys } = self.revoked.cut_offs();
        let claims = json!({
            "iss": issuer,
            "iat": self.signed_at.seconds(),
            "exp": self.expires_at.seconds(),
            "sequence": self.sequence,
            "complete": self.revoked.is_complete(),
            "revoked": self.revoked.ids(),
            "before_ms": { "identities": identities, "issuers": issuers, "keys": keys },
        });
        let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        format!("{}.{}", part(header), part(claims))
    }

    /// Reads a feed and checks its signature, its life and that it does not go back.
    ///
    /// # Errors
    /// When it is malformed in any part, not signed by one of the broker's keys, of another issuer, over, or older than
    /// the one that is known.
    pub fn open(compact: &str, known: &Known<'_>) -> Result<Self, FeedError> {
        let token = UnverifiedToken::parse_within(compact, LEN_MAX, &LIMITS)?;
        let key = known.keys.key_for(&token)?;
        let token = token.verify(key)?;
        if !token.typ_is(TYP) {
            return Err(JoseError::Typ.into());
        }
        if token.issuer()? != known.issuer {
            return Err(JoseError::BadIssuer.into());
        }
        let lifetime = token.lifetime(known.now, known.leeway, LIFE)?;
        let read = Self {
            sequence: sequence(token.claims())?,
            signed_at: lifetime.issued_at,
            expires_at: lifetime.expires_at,
            revoked: revoked(token.claims())?,
        };
        match known.sequence {
            Some(known) if read.sequence < known => Err(FeedError::WentBack { known, found: read.sequence }),
            _ => Ok(read),
        }
    }

    /// How long ago it was signed; 0 by a clock that is behind.
    #[must_use]
    pub fn age_ms(&self, now: UnixMs) -> u64 {
        u64::try_from(now.millis_since(self.signed_at)).unwrap_or_default()
    }
}

fn sequence(claims: &Map<String, Value>) -> Result<u64, FeedError> {
    let sequence = claims.get("sequence").and_then(Value::as_u64);
    sequence.ok_or(FeedError::Member("sequence", "a whole number"))
}

fn revoked(claims: &Map<String, Value>) -> Result<Revoked, FeedError> {
    let complete = claims.get("complete").and_then(Value::as_bool);
    let before = claims.get("before_ms").and_then(Value::as_object);
    let before = before.ok_or(FeedError::Member("before_ms", "an object"))?;
    let cut_offs = CutOffs {
        identities: cut_offs(before, "identities")?,
        issuers: cut_offs(before, "issuers")?,
        keys: cut_offs(before, "keys")?,
    };
    let complete = complete.ok_or(FeedError::Member("complete", "true or false"))?;
    Ok(Revoked { ids: ids(claims)?, cut_offs, complete })
}

fn ids(claims: &Map<String, Value>) -> Result<Vec<CredentialId>, FeedError> {
    let wrong = || FeedError::Member("revoked", "credential ids, each once, ascending");
    let listed = claims.get("revoked").and_then(Value::as_array).ok_or_else(wrong)?;
    if listed.len() > IDS_MAX {
        return Err(FeedError::TooMany);
    }
    let mut ids: Vec<CredentialId> = Vec::with_capacity(listed.len());
    for id in listed {
        let id = id.as_str().and_then(|id| id.parse().ok()).ok_or_else(wrong)?;
        if ids.last().is_some_and(|last| *last >= id) {
            return Err(wrong());
        }
        ids.push(id);
    }
    Ok(ids)
}

fn cut_offs<T: FromStr<Err: Display> + Ord>(
    before: &Map<String, Value>,
    kind: &'static str,
) -> Result<BTreeMap<T, UnixMs>, FeedError> {
    let wrong = || FeedError::Member(kind, "names with the time, in ms, before which theirs are revoked");
    let listed = before.get(kind).and_then(Value::as_object).ok_or_else(wrong)?;
    if listed.len() > CUT_OFFS_MAX {
        return Err(FeedError::TooMany);
    }
    let read = listed.iter().map(|(name, at)| {
        let name = name.parse().map_err(|_| wrong())?;
        Ok((name, at.as_i64().map(UnixMs::new).ok_or_else(wrong)?))
    });
    read.collect()
}
