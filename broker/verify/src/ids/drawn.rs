//! Ids that are drawn: of credentials and entries, and of requests.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::ParseError;
use crate::time::UnixMs;

/// A UUIDv7 (RFC 9562, section 5.7): the id of a credential, and so its `jti`, its X.509 serial and the id of
/// the entry that recorded it. Its first 48 bits are the time at which it was drawn.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CredentialId([u8; 16]);

impl CredentialId {
    /// The id for a time and 10 bytes of randomness; version and variant bits are set over them.
    #[must_use]
    pub fn new(at: UnixMs, random: [u8; 10]) -> Self {
        let millis = u64::try_from(at.get()).unwrap_or_default();
        Self(uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid().into_bytes())
    }

    /// The 16 octets: an X.509 serial number.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The id whose octets these are.
    ///
    /// # Errors
    /// When they are no UUIDv7.
    pub fn from_bytes(bytes: [u8; 16]) -> Result<Self, ParseError> {
        uuid::Uuid::from_bytes(bytes).hyphenated().to_string().parse()
    }

    /// The millisecond in which the id was drawn.
    #[must_use]
    pub fn drawn_at(&self) -> UnixMs {
        let [a, b, c, d, e, f, ..] = self.0;
        UnixMs::new(i64::from_be_bytes([0, 0, a, b, c, d, e, f]))
    }
}

impl FromStr for CredentialId {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let lower_hyphenated = text.len() == 36 && !text.bytes().any(|b| b.is_ascii_uppercase());
        match uuid::Uuid::try_parse(text) {
            Ok(id)
                if lower_hyphenated
                    && id.get_version_num() == 7
                    && id.get_variant() == uuid::Variant::RFC4122 =>
            {
                Ok(Self(id.into_bytes()))
            }
            _ => Err(ParseError::new("a credential id", text, "a UUIDv7 in lower case with hyphens")),
        }
    }
}

impl fmt::Display for CredentialId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        uuid::Uuid::from_bytes(self.0).hyphenated().fmt(f)
    }
}

impl fmt::Debug for CredentialId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CredentialId({self})")
    }
}

impl Serialize for CredentialId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut buffer = uuid::Uuid::encode_buffer();
        serializer.serialize_str(uuid::Uuid::from_bytes(self.0).hyphenated().encode_lower(&mut buffer))
    }
}

impl<'de> Deserialize<'de> for CredentialId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The id of a request: any UUID (RFC 9562), chosen by the caller or else drawn by the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(uuid::Uuid);

impl RequestId {
    /// The 16 octets.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

impl From<CredentialId> for RequestId {
    fn from(id: CredentialId) -> Self {
        Self(uuid::Uuid::from_bytes(id.0))
    }
}

impl FromStr for RequestId {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let refuse = || ParseError::new("a request id", text, "a UUID with hyphens");
        match uuid::Uuid::try_parse(text) {
            Ok(id) if text.len() == 36 && !id.is_nil() => Ok(Self(id)),
            _ => Err(refuse()),
        }
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl Serialize for RequestId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.hyphenated().encode_lower(&mut uuid::Uuid::encode_buffer()))
    }
}

impl<'de> Deserialize<'de> for RequestId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
