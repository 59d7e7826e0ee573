//! How one value is read: into a checked type, or into words about what was expected.

use std::path::PathBuf;

use daypass_evidence::note::VerifierKey;
use daypass_verify::ids::{IdentityName, Name, ParseError};
use daypass_verify::scope::{Action, Audience, Resource};
use daypass_verify::time::Seconds;
use toml::de::DeValue;
use url::Url;

/// What can stand behind a key.
pub(super) trait Value: Sized {
    /// Reads it.
    ///
    /// # Errors
    /// What was wrong, and what was expected.
    fn read(value: &DeValue<'_>) -> Result<Self, String>;
}

/// `: did you mean …?` for the known name nearest to `given`; where none is near, all that are known.
pub(super) fn did_you_mean<'a>(given: &str, known: impl Iterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.collect();
    match known.iter().max_by(|a, b| likeness(given, a).total_cmp(&likeness(given, b))) {
        Some(best) if likeness(given, best) > 0.75 => format!(": did you mean `{best}`?"),
        Some(_) => format!(": expected one of `{}`", known.join("`, `")),
        None => String::new(),
    }
}

/// From 0 to 1; two letters that changed places are one slip, also in a short word.
fn likeness(given: &str, known: &str) -> f64 {
    let slip = if strsim::osa_distance(given, known) == 1 { 0.9 } else { 0.0 };
    strsim::jaro_winkler(given, known).max(slip)
}

/// One word of a few.
pub(super) fn word<T: Copy>(value: &DeValue<'_>, words: &[(&str, T)]) -> Result<T, String> {
    let given = text(value, "a word")?;
    let found = words.iter().find(|(word, _)| *word == given).map(|(_, meant)| *meant);
    let near = || did_you_mean(given, words.iter().map(|(word, _)| *word));
    found.ok_or_else(|| format!("`{}` is not known here{}", given.escape_debug(), near()))
}

pub(super) fn text<'a>(value: &'a DeValue<'_>, expected: &str) -> Result<&'a str, String> {
    value.as_str().ok_or_else(|| format!("{}: expected {expected}, in quotes", value.type_str()))
}

impl Value for String {
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        let text = text(value, "text")?;
        if text.trim().is_empty() { Err("empty: expected some text".into()) } else { Ok(text.into()) }
    }
}

impl Value for PathBuf {
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        let text = text(value, "a path")?;
        let fits = !text.is_empty() && !text.contains('\0');
        fits.then(|| text.into()).ok_or_else(|| "empty: expected a path".into())
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
        let seconds = u32::try_from(duration.as_secs()).ok();
        let seconds = seconds.filter(|seconds| duration.subsec_nanos() == 0 && *seconds > 0);
        seconds.map(Self::new).ok_or_else(refuse)
    }
}

impl Value for Url {
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        let expected = "`https://HOST:PORT`";
        let text = text(value, expected)?;
        let url = Self::parse(text).ok().filter(|url| url.scheme() == "https" && url.has_host());
        url.ok_or_else(|| format!("`{}`: expected {expected}", text.escape_debug()))
    }
}

impl Value for VerifierKey {
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        let expected = "the key of the log, `name+id+key`, as `daypass-broker init` printed it";
        let text = text(value, expected)?;
        text.parse().map_err(|_| format!("`{}`: expected {expected}", text.escape_debug()))
    }
}

/// Types whose checked constructor is `FromStr`.
macro_rules! parsed {
    ($($type:ty),+) => {
        $(impl Value for $type {
            fn read(value: &DeValue<'_>) -> Result<Self, String> {
                text(value, "text")?.parse().map_err(|error: ParseError| error.to_string())
            }
        })+
    };
}

parsed!(Name, IdentityName, Audience, Action, Resource);
