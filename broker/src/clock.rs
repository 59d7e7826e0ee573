//! The one place that asks what time it is. Everything else is given `now`.

use std::time::{SystemTime, UNIX_EPOCH};

use daypass_verify::time::UnixMs;

/// A source of time.
pub trait Clock: Send + Sync + 'static {
    /// The wall clock. It may go back or jump; whoever orders things must not rely on it alone.
    fn now(&self) -> UnixMs;

    /// Milliseconds since the machine booted, including sleep; never goes back within one boot.
    fn boot_ms(&self) -> i64;
}

/// The machine's own clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> UnixMs {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        UnixMs::new(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    fn boot_ms(&self) -> i64 {
        let at = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        at.tv_sec.saturating_mul(1000).saturating_add(at.tv_nsec / 1_000_000)
    }
}
