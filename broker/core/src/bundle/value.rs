//! How one value in a file is read: into a checked type, or into words about what was expected.

use std::collections::BTreeSet;

use daypass_evidence::entry::{Actor, Profile, ProofUse, Reach};
use daypass_verify::ids::{IdentityName, Name, SpiffeId, TrustDomain};
use daypass_verify::scope::{Action, Audience, Resource};
use daypass_verify::time::{Seconds, UnixMs};
use serde::Deserialize;
use serde::de::IntoDeserializer as _;
use serde::de::value::{Error as WordError, StrDeserializer};
use toml::de::DeValue;

use super::object::{Class, Enforcement, OwnerStatus, Privilege};
use super::preset::Preset;

/// What can stand behind a key.
pub(super) trait Value: Sized {
    /// Reads it.
    ///
    /// # Errors
    /// What was wrong, and what was expected.
    fn read(value: &DeValue<'_>) -> Result<Self, String>;
}

fn text<'a>(value: &'a DeValue<'_>, expected: &str) -> Result<&'a str, String> {
    value.as_str().ok_or_else(|| format!("{}: expected {expected}, in quotes", value.type_str()))
}

impl Value for String {
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        let text = text(value, "text")?.trim();
        if text.is_empty() { Err("empty: expected some text".into()) } else { Ok(text.into()) }
    }
}

impl Value for bool {
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        value.as_bool().ok_or_else(|| format!("{}: expected `true` or `false`", value.type_str()))
    }
}

impl Value for u32 {
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        let number = value.as_integer().and_then(|it| Self::from_str_radix(it.as_str(), it.radix()).ok());
        number.ok_or_else(|| format!("{}: expected a whole number, 0 or more", value.type_str()))
    }
}

impl Value for Seconds {
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        let expected = "a duration in whole seconds, such as `15m` or `1h 30m`";
        let text = text(value, expected)?;
        let refuse = || format!("`{}` is not a duration: expected {expected}", text.escape_debug());
        let duration = humantime::parse_duration(text).map_err(|_| refuse())?;
        let whole = duration.subsec_nanos() == 0;
        let seconds = u32::try_from(duration.as_secs()).ok().filter(|seconds| whole && *seconds > 0);
        seconds.map(Self::new).ok_or_else(refuse)
    }
}

/// One text, or several of which one is enough.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct OneOf(pub(super) BTreeSet<String>);

impl Value for OneOf {
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        match value.as_array() {
            Some(list) if list.is_empty() => Err("empty: expected at least one".into()),
            Some(list) => {
                list.iter().map(|it| String::read(it.get_ref())).collect::<Result<_, _>>().map(Self)
            }
            None => String::read(value).map(|text| Self(BTreeSet::from([text]))),
        }
    }
}

/// A duration in whole days.
pub(super) struct Days(pub(super) u32);

impl Value for Days {
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        let seconds = Seconds::read(value)?.get();
        let whole = seconds.is_multiple_of(86_400);
        if whole {
            Ok(Self(seconds / 86_400))
        } else {
            Err("not in whole days: expected such as `90d`".into())
        }
    }
}

impl Value for UnixMs {
    /// A date alone is its first moment in UTC.
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        let written = match value.as_datetime() {
            Some(at) => at.to_string(),
            None => text(value, "a date such as `2027-06-30`").map(str::to_owned)?,
        };
        let whole = if written.len() == 10 { format!("{written}T00:00:00Z") } else { written };
        Self::parse(&whole).map_err(|error| error.to_string())
    }
}

/// Types whose checked constructor is `FromStr`.
macro_rules! parsed {
    ($($type:ty),+) => {
        $(impl Value for $type {
            fn read(value: &DeValue<'_>) -> Result<Self, String> {
                text(value, "text")?.parse().map_err(|error: daypass_verify::ids::ParseError| error.to_string())
            }
        })+
    };
}

parsed!(Name, IdentityName, SpiffeId, TrustDomain, Audience, Action, Resource);

/// Types that are one word of a few.
macro_rules! word {
    ($($type:ty),+) => {
        $(impl Value for $type {
            fn read(value: &DeValue<'_>) -> Result<Self, String> {
                let word: StrDeserializer<'_, WordError> = text(value, "a word")?.into_deserializer();
                Self::deserialize(word).map_err(|error| error.to_string().replace("variant", "word"))
            }
        })+
    };
}

word!(Class, Privilege, Profile, Reach, Enforcement, ProofUse, Actor, OwnerStatus, Preset);
