//! Whether the wall clock can be trusted with the next entry: against the newest entry, against the store's clock where
//! it has one, and else against the time since boot, which no one sets.

use daypass_verify::time::UnixMs;

use crate::clock::AGREES_WITHIN_MS;

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
}

impl Pace {
    pub(super) fn new(wall: UnixMs, boot_ms: i64) -> Self {
        Self { wall, boot_ms }
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
        } else if self.ahead(now) > AGREES_WITHIN_MS {
            let why = format!(
                "it says {}, {} s more than have passed since it was believed: set it right, or say that it is right now with `daypass-broker emergency clock-ok`",
                now.wall,
                self.ahead(now) / 1000
            );
            return doubt(why, true);
        }
        Ok(now.wall.max(newest))
    }

    /// The time by what the wall clock does not tell: the store's, or what has passed since it was believed.
    pub(super) fn time_without(self, now: Self, newest: UnixMs, store: Option<UnixMs>) -> UnixMs {
        store.unwrap_or_else(|| self.wall.plus_millis(now.boot_ms - self.boot_ms)).max(newest)
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
            (at(998_500, 51_000), Some(1_000_000)),
            (at(997_000, 51_000), None),
            (at(1_003_000, 51_000), Some(1_003_000)),
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
