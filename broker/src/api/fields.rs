//! What both faces spell alike, read in one way: each field checked, or refused by name.

use std::fmt::Display;
use std::str::FromStr;

use daypass_verify::time::Seconds;

use super::Outgoing;

/// How long the caller's name for a run may be, in bytes.
const RUN_BYTES_MAX: usize = 128;

/// What `text` says, or nothing where it is empty.
pub(crate) fn optional<T: FromStr<Err: Display>>(field: &str, text: &str) -> Result<Option<T>, Outgoing> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|error: T::Err| Outgoing::malformed(field, error.to_string()))
}

/// How long a credential should live at most; `None` is a time that is no whole number of seconds.
pub(crate) fn ttl(seconds: Option<i64>) -> Result<Seconds, Outgoing> {
    let whole = seconds.filter(|seconds| *seconds > 0).map(|seconds| seconds.min(i64::from(u32::MAX)));
    whole.and_then(|seconds| u32::try_from(seconds).ok()).map(Seconds::new).ok_or_else(|| {
        Outgoing::malformed("ttl", "expected a whole number of seconds from 1 on, such as `300`")
    })
}

/// The caller's name for this run.
pub(crate) fn run(text: &str) -> Result<Option<String>, Outgoing> {
    if text.len() > RUN_BYTES_MAX || text.chars().any(char::is_control) {
        return Err(Outgoing::malformed("run", "expected at most 128 bytes without control characters"));
    }
    Ok((!text.is_empty()).then(|| text.to_owned()))
}
