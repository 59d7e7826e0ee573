//! When to ask: a pure state machine between two clocks and what the broker said last.

use std::time::Duration;

use super::life::{Draw, Life};
use crate::clock::Moment;
use crate::error::Error;

/// The longest wait before the clocks are looked at again: a machine that slept, or whose clock was set, is known
/// to have done so within this time. Timers do not run while a machine sleeps.
pub(super) const LOOK: Duration = Duration::from_millis(LOOK_MS.unsigned_abs());
const LOOK_MS: i64 = 1_000;
/// After nobody answered: doubled each time.
const UNREACHABLE_MS: (i64, i64) = (250, 15_000);
/// After a refusal that only somebody else can turn into a permission: doubled each time.
const REFUSED_MS: (i64, i64) = (30_000, 300_000);

/// What is to be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Ask,
    Wait(Duration),
}

/// What is held, and what keeps it from being renewed.
#[derive(Debug, Default)]
pub(super) struct Plan {
    held: Option<Life>,
    failures: u32,
    pause: Option<Pause>,
}

#[derive(Debug, Clone, Copy)]
struct Pause {
    until_boot_ms: i64,
    by_refusal: bool,
}

impl Plan {
    /// What is held from the beginning.
    pub(super) fn holding(life: Life) -> Self {
        Self { held: Some(life), ..Self::default() }
    }

    pub(super) fn next(&self, now: Moment) -> Step {
        let wait_ms = match (self.pause, self.held) {
            (Some(pause), _) => pause.until_boot_ms - now.boot_ms,
            (None, Some(held)) if !held.is_due(now) => held.due_in_ms(now),
            (None, _) => 0,
        };
        if wait_ms <= 0 {
            return Step::Ask;
        }
        // What is held may end meanwhile, and whoever follows it is told then.
        let held_ms = self.held.map_or(LOOK_MS, |held| held.over_in_ms(now));
        let wait_ms = wait_ms.min(held_ms).clamp(1, LOOK_MS);
        Step::Wait(Duration::from_millis(wait_ms.unsigned_abs()))
    }

    /// Another credential is held from now on.
    pub(super) fn succeeded(&mut self, life: Life) {
        *self = Self::holding(life);
    }

    /// Nothing came back that can be used.
    pub(super) fn failed(&mut self, error: &Error, now: Moment, draw: Draw) {
        self.failures = self.failures.saturating_add(1);
        let doubled =
            |(first, most): (i64, i64)| first.saturating_mul(1 << (self.failures - 1).min(16)).min(most);
        let by_refusal = !error.heals_itself();
        let pause_ms = match error {
            // Never sooner than the broker said.
            Error::Retry { after, .. } => {
                let said = i64::try_from(after.as_millis()).unwrap_or(i64::MAX / 2);
                let least = said.max(doubled(UNREACHABLE_MS));
                draw.between(least, least.saturating_add(least / 5))
            }
            _ if by_refusal => draw.between(doubled(REFUSED_MS) * 9 / 10, doubled(REFUSED_MS)),
            _ => {
                let most = doubled(UNREACHABLE_MS).min(self.haste_ms(now));
                draw.between(most / 2, most)
            }
        };
        self.pause = Some(Pause { until_boot_ms: now.boot_ms.saturating_add(pause_ms), by_refusal });
    }

    /// The nearer the end of what is held, the oftener: a broker that comes back in time is found in time.
    fn haste_ms(&self, now: Moment) -> i64 {
        let left_ms = self.held.map_or(i64::MAX, |held| held.over_in_ms(now));
        if left_ms == 0 { i64::MAX } else { (left_ms / 4).max(UNREACHABLE_MS.0) }
    }

    /// Whether a refusal stands that another proof could turn.
    pub(super) fn is_refused(&self) -> bool {
        self.pause.is_some_and(|pause| pause.by_refusal)
    }

    /// Whether a failure is waited out.
    pub(super) fn is_paused(&self) -> bool {
        self.pause.is_some()
    }

    /// What was refused is asked again at once: the proof is another.
    pub(super) fn proof_changed(&mut self) {
        (self.pause, self.failures) = (None, 0);
    }

    /// What is held ends now.
    pub(super) fn ends(&mut self, now: Moment) -> bool {
        let over = self.held.is_some_and(|held| held.is_over(now));
        if over {
            self.held = None;
        }
        over
    }
}

#[cfg(test)]
mod tests;
