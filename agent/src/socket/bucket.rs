//! How often one process may ask: a bucket of calls that fills again with time.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How many calls may come at once.
const BURST: u32 = 100;
/// How long until one more may come.
const PER_CALL: Duration = Duration::from_millis(20);
/// How many processes are remembered before those with full buckets are forgotten.
const REMEMBERED_MAX: usize = 1024;

/// The buckets of all processes that asked.
#[derive(Debug, Default)]
pub(crate) struct Buckets(HashMap<u32, Instant>);

impl Buckets {
    /// Takes a call out of the bucket of `pid`.
    ///
    /// # Errors
    /// How long to wait, where it is empty.
    pub(crate) fn take(&mut self, pid: u32, now: Instant) -> Result<(), Duration> {
        if self.0.len() >= REMEMBERED_MAX {
            self.0.retain(|_, full_at| *full_at > now);
        }
        // Each call moves the moment at which the bucket is full again.
        let full_at = self.0.get(&pid).map_or(now, |at| (*at).max(now)) + PER_CALL;
        let deepest = now + PER_CALL * BURST;
        if full_at > deepest {
            return Err(full_at - deepest);
        }
        self.0.insert(pid, full_at);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_of_one_process_is_held_back_and_hurts_no_other() {
        let (mut buckets, now) = (Buckets::default(), Instant::now());
        let granted = (0..10_000).filter(|_| buckets.take(1, now).is_ok()).count();
        assert_eq!(granted, 100);
        assert!(buckets.take(2, now).is_ok());
        let wait = buckets.take(1, now).unwrap_err();
        assert!(buckets.take(1, now + wait).is_ok());
        assert!(buckets.take(1, now + wait).is_err());
    }

    #[test]
    fn processes_that_are_quiet_are_forgotten() {
        let (mut buckets, now) = (Buckets::default(), Instant::now());
        for pid in 0..10_000 {
            assert!(buckets.take(pid, now + Duration::from_secs(pid.into())).is_ok());
        }
        assert!(buckets.0.len() <= REMEMBERED_MAX);
    }
}
