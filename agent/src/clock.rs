//! The only place where the agent reads a clock.

use std::time::{SystemTime, UNIX_EPOCH};

use daypass_sdk::{Clock as _, SystemClock};
use daypass_verify::time::UnixMs;

/// What time it is, by the clock on the wall.
pub(crate) fn now() -> UnixMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMs::new(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Milliseconds since some moment, the sleep of the machine included; nobody can set it.
pub(crate) fn boot_ms() -> i64 {
    SystemClock.boot_ms()
}

/// Which run of the machine this is: from one to the next, [`boot_ms`] begins anew. None where the kernel does not say.
pub(crate) fn boot_id() -> Option<String> {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok().map(|text| text.trim().to_owned())
}
