//! The machine's clock, and what a test adds to it.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering};

use daypass_broker::clock::{Clock, Kernel, SystemClock};
use daypass_verify::time::UnixMs;

/// Runs with the machine's clock; nobody has to wait for what ends in minutes.
#[derive(Debug, Default)]
pub struct TestClock {
    ahead_ms: AtomicI64,
    stepped_ms: AtomicI64,
    boots: AtomicU32,
    booted_ms: AtomicI64,
    synchronised: AtomicBool,
}

impl TestClock {
    /// Sets it forward, or back where `ms` is negative.
    pub fn advance(&self, ms: i64) {
        self.ahead_ms.fetch_add(ms, Ordering::SeqCst);
    }

    /// Somebody sets the wall clock, and no time passes.
    pub fn step(&self, ms: i64) {
        self.stepped_ms.fetch_add(ms, Ordering::SeqCst);
    }

    /// The machine boots again, in no time.
    pub fn reboot(&self) {
        self.booted_ms.fetch_add(self.boot_ms(), Ordering::SeqCst);
        self.boots.fetch_add(1, Ordering::SeqCst);
    }

    /// A time service begins to keep the clock synchronised, or ceases to.
    pub fn synchronise(&self, synchronised: bool) {
        self.synchronised.store(synchronised, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> UnixMs {
        let moved = self.ahead_ms.load(Ordering::SeqCst) + self.stepped_ms.load(Ordering::SeqCst);
        SystemClock.now().plus_millis(moved)
    }

    fn boot_ms(&self) -> i64 {
        let booted = self.booted_ms.load(Ordering::SeqCst);
        SystemClock.boot_ms() + self.ahead_ms.load(Ordering::SeqCst) - booted
    }

    fn boot_id(&self) -> Option<String> {
        Some(format!("boot-{}", self.boots.load(Ordering::SeqCst)))
    }

    fn kernel(&self) -> Option<Kernel> {
        let synchronised = self.synchronised.load(Ordering::SeqCst);
        Some(Kernel { synchronised, max_error_ms: 5, offset_ms: 0, now: self.now() })
    }
}

/// A client on the same machine.
impl daypass_sdk::Clock for TestClock {
    fn now(&self) -> UnixMs {
        Clock::now(self)
    }

    fn boot_ms(&self) -> i64 {
        Clock::boot_ms(self)
    }
}
