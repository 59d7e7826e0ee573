//! How long one credential may be handed out, and when it is due to be renewed, by both clocks at once. A wall clock
//! that is set back must not lengthen a life, and a machine that slept must not lengthen it either.

use std::time::Duration;

use daypass_verify::time::UnixMs;

use crate::clock::Moment;
use crate::credential::Grant;

/// Where in its range a random value lies: 0 to 1,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Draw(u16);

impl Draw {
    pub(super) const fn new(of_thousand: u16) -> Self {
        Self(if of_thousand > 1000 { 1000 } else { of_thousand })
    }

    /// A new one; the middle where the system gives no randomness.
    pub(super) fn fresh() -> Self {
        let mut octets = [0; 2];
        let drawn = ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut octets);
        Self::new(if drawn.is_ok() { u16::from_be_bytes(octets) % 1001 } else { 500 })
    }

    /// The value this far from `low` to `high`.
    pub(super) fn between(self, low: i64, high: i64) -> i64 {
        low.saturating_add(high.saturating_sub(low).saturating_mul(self.0.into()) / 1000)
    }
}

/// What is left of one credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Life {
    due: Moment,
    over: Moment,
}

impl Life {
    /// The life of a credential that was asked for at `asked`: measured from there, it ends on the second clock
    /// no later than in truth, however long the answer took.
    pub(super) fn of(granted: &Grant, renew_after: UnixMs, asked: Moment, draw: Draw) -> Self {
        let whole_ms = granted.expires_at.millis_since(granted.issued_at);
        let left_ms = granted.expires_at.millis_since(asked.wall).min(whole_ms);
        let over_ms = left_ms - granted.margin_ms();
        // As the broker says, and never so early that one would ask without end.
        let two_thirds_ms = renew_after.millis_since(granted.issued_at);
        let two_thirds_ms = two_thirds_ms.max(whole_ms / 2).min(whole_ms);
        let due_ms = draw.between(two_thirds_ms * 9 / 10, two_thirds_ms * 11 / 10).min(over_ms);
        let after = |ms| Moment { wall: asked.wall.plus_millis(ms), boot_ms: asked.boot_ms + ms };
        Self { due: after(due_ms), over: after(over_ms) }
    }

    /// The life of a credential from before, whose end is at most `left` away: it is due now.
    pub(super) fn resumed(granted: &Grant, left: Duration, now: Moment) -> Self {
        let whole_ms = granted.expires_at.millis_since(granted.issued_at);
        let left_ms = i64::try_from(left.as_millis()).unwrap_or(i64::MAX);
        let left_ms = left_ms.min(granted.expires_at.millis_since(now.wall)).min(whole_ms);
        let over_ms = left_ms - granted.margin_ms();
        let over =
            Moment { wall: now.wall.plus_millis(over_ms), boot_ms: now.boot_ms.saturating_add(over_ms) };
        Self { due: now, over }
    }

    /// Whether it may no longer be handed out: either clock says so.
    pub(super) fn is_over(&self, now: Moment) -> bool {
        #[cfg(feature = "sabotage")]
        if crate::sabotage::breaks("p16") {
            return now.wall >= self.over.wall;
        }
        is_past(self.over, now)
    }

    /// Whether it is to be renewed: either clock says so.
    pub(super) fn is_due(&self, now: Moment) -> bool {
        is_past(self.due, now)
    }

    /// Milliseconds until it is due, if nobody sets a clock.
    pub(super) fn due_in_ms(&self, now: Moment) -> i64 {
        self.due.wall.millis_since(now.wall).min(self.due.boot_ms - now.boot_ms).max(0)
    }

    /// Milliseconds until it is over, if nobody sets a clock.
    pub(super) fn over_in_ms(&self, now: Moment) -> i64 {
        self.over.wall.millis_since(now.wall).min(self.over.boot_ms - now.boot_ms).max(0)
    }
}

fn is_past(at: Moment, now: Moment) -> bool {
    now.wall >= at.wall || now.boot_ms >= at.boot_ms
}
