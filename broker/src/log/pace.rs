//! Whether the wall clock can be trusted with the next entry: against the newest entry, against the store's clock where
//! it has one, and else against the time since boot, which no one sets.

use daypass_verify::time::UnixMs;

use crate::clock::AGREES_WITHIN_MS;

/// How long a machine may have been off by its own word alone. What is issued under a clock that is wrong by less lives
/// longer by no more.
const OFF_AT_MOST_MS: i64 = 300_000;

/// Why the clock cannot be trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Doubt {
    pub(super) why: String,
    /// Whether a second source can end it. Against the newest entry, or the store, no other word counts.
    pub(super) can_be_settled: bool,
}

/// The clocks, read together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    wall: UnixMs,
    boot_ms: i64,
    /// How much more than has passed since boot the wall clock may tell.
    ahead_at_most_ms: i64,
}

impl Pace {
    pub(super) fn new(wall: UnixMs, boot_ms: i64) -> Self {
        Self { wall, boot_ms, ahead_at_most_ms: AGREES_WITHIN_MS }
    }

    /// What is known after a time that nothing measured: it was `wall` or later when the clock since boot said `boot_ms`.
    pub(super) fn at_least(wall: UnixMs, boot_ms: i64) -> Self {
        Self { wall, boot_ms, ahead_at_most_ms: OFF_AT_MOST_MS }
    }

    /// Whether more is allowed than two readings of one boot may be apart.
    pub(super) fn allows_for_a_reboot(self) -> bool {
        self.ahead_at_most_ms > AGREES_WITHIN_MS
    }

    /// The time of the next entry: never before the newest one. A clock that ran ahead would end what still lives.
    /// `self` is the reading that was believed last.
    ///
    /// # Errors
    /// Says in which way the clock cannot be trusted.
    pub(super) fn entry_time(
        self,
        now: Self,
        newest: UnixMs,
        store: Option<UnixMs>,
    ) -> Result<UnixMs, Doubt> {
        let doubt = |why, can_be_settled| Err(Doubt { why, can_be_settled });
        #[cfg(feature = "sabotage")]
        if crate::sabotage::breaks("p11") {
            return Ok(now.wall.max(newest));
        }
        #[cfg(feature = "sabotage")]
        if crate::sabotage::breaks("p3") {
            return Ok(now.wall);
        }
        if newest.millis_since(now.wall) > AGREES_WITHIN_MS {
            let why = format!(
                "it says {}, and the newest entry was written at {newest}: set it right, then issuance goes on by itself",
                now.wall
            );
            return doubt(why, false);
        }
        if let Some(store) = store {
            let apart = now.wall.millis_since(store);
            if apart.abs() > AGREES_WITHIN_MS {
                let why = format!(
                    "it says {}, and the store's clock says {store}: set both by one time service, then issuance goes on by itself",
                    now.wall
                );
                return doubt(why, false);
            }
        } else if !(-AGREES_WITHIN_MS..=self.ahead_at_most_ms).contains(&self.ahead(now)) {
            return doubt(self.apart(now), true);
        }
        Ok(now.wall.max(newest))
    }

    /// The time by what the wall clock does not tell: the store's, or what has passed since it was believed.
    pub(super) fn time_without(self, now: Self, newest: UnixMs, store: Option<UnixMs>) -> UnixMs {
        store.unwrap_or_else(|| self.wall.plus_millis(now.boot_ms - self.boot_ms)).max(newest)
    }

    fn apart(self, now: Self) -> String {
        let ahead = self.ahead(now);
        let (apart, than) = if ahead < 0 { (-ahead, "less") } else { (ahead, "more") };
        format!(
            "it says {}, {} s {than} than have passed since it was believed: set it right, or say that it is right now with `daypass-broker emergency clock-ok`",
            now.wall,
            apart / 1000
        )
    }

    /// How much further the wall clock went since this reading than the time since boot.
    fn ahead(self, now: Self) -> i64 {
        now.wall.millis_since(self.wall) - (now.boot_ms - self.boot_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEWEST: UnixMs = UnixMs::new(1_000_000);
    const DAYS_3: i64 = 259_200_000;

    fn at(wall: i64, boot: i64) -> Pace {
        Pace::new(UnixMs::new(wall), boot)
    }

    #[test]
    fn a_clock_that_jumps_stops_issuance_whichever_way() {
        let last = at(1_000_000, 50_000);
        for (now, expected) in [
            (at(1_001_000, 51_000), Some(1_001_000)),
            (at(999_500, 51_000), Some(1_000_000)),
            (at(998_500, 51_000), None),
            (at(997_000, 51_000), None),
            (at(1_003_000, 51_000), Some(1_003_000)),
            (at(1_001_000, 53_000), Some(1_001_000)),
            (at(1_001_000, 53_001), None),
            (at(1_003_001, 51_000), None),
            (at(1_000_000 + DAYS_3, 51_000), None),
            (at(1_000_000 + DAYS_3, 50_000 + DAYS_3), Some(1_000_000 + DAYS_3)),
        ] {
            assert_eq!(last.entry_time(now, NEWEST, None).ok(), expected.map(UnixMs::new), "{now:?}");
            let without = last.time_without(now, NEWEST, None);
            assert!(without >= NEWEST && without.get() <= 950_000 + now.boot_ms, "{now:?}");
        }
    }

    #[test]
    fn after_a_reboot_the_machine_may_have_been_off_for_minutes_by_its_own_word_and_no_longer() {
        let last = Pace::at_least(NEWEST, 0);
        for (now, expected) in [
            (at(1_001_000, 1_000), Some(1_001_000)),
            (at(1_301_000, 1_000), Some(1_301_000)),
            (at(1_301_001, 1_000), None),
            (at(1_001_000, 4_000), None),
            (at(1_000_000 + DAYS_3, 1_000), None),
        ] {
            assert_eq!(last.entry_time(now, NEWEST, None).ok(), expected.map(UnixMs::new), "{now:?}");
            assert_eq!(last.time_without(now, NEWEST, None), NEWEST.plus_millis(now.boot_ms));
        }
    }

    #[test]
    fn a_clock_that_is_more_than_two_seconds_from_the_stores_stops_whichever_way() {
        let last = at(1_000_000, 50_000);
        for (wall, store, expected) in [
            (1_010_000, 1_010_000, Some(1_010_000)),
            (1_012_000, 1_010_000, Some(1_012_000)),
            (1_008_000, 1_010_000, Some(1_008_000)),
            (1_013_000, 1_010_000, None),
            (1_007_000, 1_010_000, None),
            (1_000_000 + DAYS_3, 1_000_000 + DAYS_3, Some(1_000_000 + DAYS_3)),
        ] {
            let (now, store) = (at(wall, 51_000), Some(UnixMs::new(store)));
            assert_eq!(last.entry_time(now, NEWEST, store).ok(), expected.map(UnixMs::new), "{now:?}");
            assert_eq!(Some(last.time_without(now, NEWEST, store)), store);
        }
    }
}
