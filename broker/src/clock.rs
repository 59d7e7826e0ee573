//! The one place that asks what time it is, and what the machine knows of its own clock. Everything else is given `now`.

mod kernel;

use std::time::{SystemTime, UNIX_EPOCH};

use daypass_verify::time::UnixMs;

pub use kernel::Kernel;

/// How far two clocks that agree may be apart.
pub const AGREES_WITHIN_MS: i64 = 2_000;

/// A source of time.
pub trait Clock: Send + Sync + 'static {
    /// The wall clock. It may go back or jump; whoever orders things must not rely on it alone.
    fn now(&self) -> UnixMs;

    /// Milliseconds since the machine booted, including sleep; never goes back within one boot.
    fn boot_ms(&self) -> i64;

    /// The kernel's boot id: the same until the machine boots again.
    fn boot_id(&self) -> Option<String> {
        kernel::boot_id()
    }

    /// What the kernel says of its clock; none where it cannot be asked.
    fn kernel(&self) -> Option<Kernel> {
        kernel::ask()
    }
}

/// Whose word a broker takes that its clock is right after the machine booted, where the store has no clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClockTrust {
    /// A second source's: the kernel's, where a time service keeps it synchronised, another broker's, an operator's.
    Kernel,
    /// Its own.
    Own,
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
