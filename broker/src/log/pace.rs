//! Whether the wall clock can be trusted with the next entry: against the newest entry, and against the time since
//! boot, which no one sets.

use daypass_verify::time::UnixMs;

use super::RecordError;

/// How far the clock may lie behind the newest entry, or run ahead of the time since boot, before the broker stops
/// itself.
const OFF_MAX_MS: i64 = 2_000;

/// The clocks, as they were at the last entry that this broker wrote.
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
    ///
    /// # Errors
    /// When the clock lies far behind, or ran ahead since the last entry.
    pub(super) fn entry_time(self, now: Self, newest: UnixMs) -> Result<UnixMs, RecordError> {
        if newest.millis_since(now.wall) > OFF_MAX_MS {
            return Err(RecordError::Clock(format!(
                "it says {}, and the newest entry was written at {newest}: set it right, then issuance goes on by itself",
                now.wall
            )));
        }
        let ahead = now.wall.millis_since(self.wall) - (now.boot_ms - self.boot_ms);
        if ahead > OFF_MAX_MS {
            return Err(RecordError::Clock(format!(
                "it says {}, {} s more than have passed since the last entry: set it right, or restart the broker if it is right now",
                now.wall,
                ahead / 1000
            )));
        }
        Ok(now.wall.max(newest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_jumps_stops_issuance_whichever_way() {
        let at = |wall, boot| Pace::new(UnixMs::new(wall), boot);
        let last = at(1_000_000, 50_000);
        let newest = UnixMs::new(1_000_000);
        for (now, expected) in [
            (at(1_001_000, 51_000), Some(1_001_000)),
            (at(998_500, 51_000), Some(1_000_000)),
            (at(997_000, 51_000), None),
            (at(1_003_000, 51_000), Some(1_003_000)),
            (at(1_003_001, 51_000), None),
            (at(1_000_000 + 259_200_000, 51_000), None),
            (at(1_000_000 + 259_200_000, 50_000 + 259_200_000), Some(1_000_000 + 259_200_000)),
        ] {
            assert_eq!(last.entry_time(now, newest).ok(), expected.map(UnixMs::new), "{now:?}");
        }
    }
}
