//! The machine's clock, and what a test adds to it.

use std::sync::atomic::{AtomicI64, Ordering};

use daypass_broker::clock::{Clock, SystemClock};
use daypass_verify::time::UnixMs;

/// Runs with the machine's clock; nobody has to wait for what ends in minutes.
#[derive(Debug, Default)]
pub struct TestClock {
    ahead_ms: AtomicI64,
}

impl TestClock {
    /// Sets it forward, or back where `ms` is negative.
    pub fn advance(&self, ms: i64) {
        self.ahead_ms.fetch_add(ms, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> UnixMs {
        SystemClock.now().plus_millis(self.ahead_ms.load(Ordering::SeqCst))
    }

    fn boot_ms(&self) -> i64 {
        SystemClock.boot_ms().saturating_add(self.ahead_ms.load(Ordering::SeqCst))
    }
}
