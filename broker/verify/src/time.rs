//! Times and durations: milliseconds since the Unix epoch inside, RFC 3339 for people.

use std::fmt;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::ids::ParseError;

/// A moment: milliseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixMs(i64);

/// A duration in whole seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seconds(u32);

impl UnixMs {
    /// The moment `millis` after the epoch.
    #[must_use]
    pub const fn new(millis: i64) -> Self {
        Self(millis)
    }

    /// The moment `seconds` after the epoch, as a JWT's NumericDate tells it; saturates.
    #[must_use]
    pub const fn from_seconds(seconds: i64) -> Self {
        Self(seconds.saturating_mul(1000))
    }

    /// Milliseconds since the epoch.
    #[must_use]
    pub const fn get(self) -> i64 {
        self.0
    }

    /// Whole seconds since the epoch, rounded down: a NumericDate (RFC 7519, section 2).
    #[must_use]
    pub const fn seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// The same moment cut to its whole second.
    #[must_use]
    pub const fn floor_second(self) -> Self {
        Self::from_seconds(self.seconds())
    }

    /// This moment and `seconds` more; saturates.
    #[must_use]
    pub const fn plus(self, seconds: Seconds) -> Self {
        self.plus_millis(seconds.millis())
    }

    /// This moment less `seconds`; saturates.
    #[must_use]
    pub const fn minus(self, seconds: Seconds) -> Self {
        self.plus_millis(-seconds.millis())
    }

    /// This moment and `millis` more; saturates.
    #[must_use]
    pub const fn plus_millis(self, millis: i64) -> Self {
        Self(self.0.saturating_add(millis))
    }

    /// Milliseconds from `earlier` to this moment; negative when `earlier` is the later one.
    #[must_use]
    pub const fn millis_since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Reads an RFC 3339 time: the only form that any input of Daypass accepts.
    ///
    /// # Errors
    /// When the text has another form.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let refuse = || ParseError::new("a time", text, "RFC 3339, such as `2027-01-31T12:00:00Z`");
        let at = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| refuse())?;
        i64::try_from(at.unix_timestamp_nanos() / 1_000_000).map(Self).map_err(|_| refuse())
    }
}

impl fmt::Display for UnixMs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = i128::from(self.0) * 1_000_000;
        match OffsetDateTime::from_unix_timestamp_nanos(nanos).ok().and_then(|at| at.format(&Rfc3339).ok()) {
            Some(text) => f.write_str(&text),
            None => write!(f, "{} ms", self.0),
        }
    }
}

impl Seconds {
    /// A duration of `seconds`.
    #[must_use]
    pub const fn new(seconds: u32) -> Self {
        Self(seconds)
    }

    /// The number of seconds.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The number of milliseconds.
    #[must_use]
    pub const fn millis(self) -> i64 {
        self.0 as i64 * 1000
    }

    /// The whole seconds in `millis`, rounded down; none when negative or over `u32`.
    #[must_use]
    pub fn floor_from_millis(millis: i64) -> Option<Self> {
        u32::try_from(millis.div_euclid(1000)).ok().map(Self)
    }
}

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("0s"),
            s if s % 86_400 == 0 => write!(f, "{}d", s / 86_400),
            s if s % 3600 == 0 => write!(f, "{}h", s / 3600),
            s if s % 60 == 0 => write!(f, "{}m", s / 60),
            s => write!(f, "{s}s"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_shown_and_read_as_rfc_3339_only() {
        let at = UnixMs::parse("2026-11-22T03:00:00.123Z").unwrap();
        assert_eq!(at.get(), 1_795_316_400_123);
        assert_eq!(at.to_string(), "2026-11-22T03:00:00.123Z");
        for bad in ["Sun, 22 Nov 2026 03:00:00 GMT", "1795316400", "2026-11-22", "2026-11-22T03:00:00", ""] {
            assert!(UnixMs::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn seconds_round_down_and_never_below_zero() {
        assert_eq!(Seconds::floor_from_millis(1999), Some(Seconds::new(1)));
        assert_eq!(Seconds::floor_from_millis(-1), None);
        assert_eq!(UnixMs::new(-1).seconds(), -1);
    }
}
