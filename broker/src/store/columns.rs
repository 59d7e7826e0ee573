//! How values lie in columns, the same in either store.

use daypass_verify::time::UnixMs;

/// The minute that a mark expires in.
pub(super) fn minute(at: UnixMs) -> i64 {
    at.get().div_euclid(60_000)
}

/// Columns of integers are signed; sizes and indexes stay far below 2^63.
pub(super) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(super) fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or_default()
}
