//! What the kernel says of its clock (`adjtimex(2)`), and which boot it is.

use daypass_verify::time::UnixMs;
use rtime_clock::adjtime::{Timex, adjtimex};

use super::AGREES_WITHIN_MS;

/// `adjtimex` answers this where the clock is not synchronised.
const TIME_ERROR: i32 = 5;

/// Its status: not synchronised; and in nanoseconds, where it would be microseconds.
const STA_UNSYNC: i32 = 0x0040;
const STA_NANO: i32 = 0x2000;

/// What the kernel says of its clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kernel {
    /// Whether a time service keeps it synchronised.
    pub synchronised: bool,
    /// Its estimate of the largest error.
    pub max_error_ms: u64,
    /// What it has still to correct.
    pub offset_ms: i64,
    /// Its time.
    pub now: UnixMs,
}

impl Kernel {
    /// Whether it vouches for `wall`.
    #[must_use]
    pub fn vouches_for(&self, wall: UnixMs) -> bool {
        self.synchronised
            && self.max_error_ms <= AGREES_WITHIN_MS.unsigned_abs()
            && self.now.millis_since(wall).abs() <= AGREES_WITHIN_MS
    }
}

pub(super) fn boot_id() -> Option<String> {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok().map(|id| id.trim().to_owned())
}

/// Asks, and sets nothing: no mode is given.
pub(super) fn ask() -> Option<Kernel> {
    let mut read = Timex::new();
    let state = adjtimex(&mut read).ok()?;
    let told = read.0;
    let per_ms = if told.status & STA_NANO == 0 { 1_000 } else { 1_000_000 };
    let seconds = UnixMs::new(told.time.tv_sec.saturating_mul(1_000));
    Some(Kernel {
        synchronised: state != TIME_ERROR && told.status & STA_UNSYNC == 0,
        max_error_ms: u64::try_from(told.maxerror / 1_000).unwrap_or(u64::MAX),
        offset_ms: told.offset / per_ms,
        now: seconds.plus_millis(told.time.tv_usec / per_ms),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock as _, SystemClock};

    #[test]
    fn the_kernel_is_asked_and_tells_the_time_that_it_keeps() {
        let (kernel, now) = (SystemClock.kernel().unwrap(), SystemClock.now());
        assert!(kernel.now.millis_since(now).abs() < 1_000, "{kernel:?} {now}");
        assert_eq!(SystemClock.boot_id().unwrap().len(), 36);
    }

    #[test]
    fn a_kernel_vouches_for_a_clock_near_its_own_when_it_is_synchronised_and_sure() {
        let wall = UnixMs::new(1_800_000_000_000);
        let good = Kernel { synchronised: true, max_error_ms: 40, offset_ms: 0, now: wall };
        assert!(good.vouches_for(wall.plus_millis(1_999)));
        for bad in [
            Kernel { synchronised: false, ..good },
            Kernel { max_error_ms: 16_000, ..good },
            Kernel { now: wall.plus_millis(3_000), ..good },
            Kernel { now: wall.plus_millis(-3_000), ..good },
        ] {
            assert!(!bad.vouches_for(wall), "{bad:?}");
        }
    }
}
