//! The one place that asks what time it is. Everything else is given `now`.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use daypass_verify::time::UnixMs;

/// A source of time, by two clocks: one that others agree with and somebody may set, and one that nobody sets.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// The wall clock. It may jump, in either direction.
    fn now(&self) -> UnixMs;

    /// Milliseconds since some moment before this program began, the sleep of the machine included; never goes
    /// back.
    fn boot_ms(&self) -> i64;
}

/// The machine's own clocks.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> UnixMs {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        UnixMs::new(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    #[cfg(target_os = "linux")]
    fn boot_ms(&self) -> i64 {
        let at = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        at.tv_sec.saturating_mul(1000).saturating_add(at.tv_nsec / 1_000_000)
    }

    #[cfg(not(target_os = "linux"))]
    fn boot_ms(&self) -> i64 {
        static BEGAN: std::sync::LazyLock<std::time::Instant> =
            std::sync::LazyLock::new(std::time::Instant::now);
        i64::try_from(BEGAN.elapsed().as_millis()).unwrap_or(i64::MAX)
    }
}

/// A moment by both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment {
    pub(crate) wall: UnixMs,
    pub(crate) boot_ms: i64,
}

impl Moment {
    pub(crate) fn of(clock: &dyn Clock) -> Self {
        Self { wall: clock.now(), boot_ms: clock.boot_ms() }
    }
}
