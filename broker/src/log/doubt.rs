//! What this broker thinks of its own clock: whether it may write at all, and whether it may end credentials.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption};
use daypass_verify::time::UnixMs;

use super::RecordError;
use super::pace::{Doubt, Pace};
use crate::clock::Clock;

/// The watch on a broker's clock; shared by the writer, which asks before each batch, and by upkeep, which asks second
/// sources.
pub struct ClockWatch {
    clock: Arc<dyn Clock>,
    believed: ArcSwap<Pace>,
    off: ArcSwapOption<Doubt>,
    held: ArcSwapOption<String>,
    swept: AtomicBool,
}

impl ClockWatch {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        let believed = ArcSwap::from_pointee(Pace::new(clock.now(), clock.boot_ms()));
        Self {
            clock,
            believed,
            off: ArcSwapOption::empty(),
            held: ArcSwapOption::empty(),
            swept: AtomicBool::new(true),
        }
    }

    /// The time of the next entry. A store's clock that agrees is a second source.
    ///
    /// # Errors
    /// When the clock cannot be trusted.
    pub(super) fn entry_time(&self, newest: UnixMs, store: Option<UnixMs>) -> Result<UnixMs, RecordError> {
        let now = self.read();
        let believed = self.believed.load();
        let timed = believed.entry_time(now, newest, store);
        match timed {
            Ok(time) => {
                if self.off.load().is_some() {
                    self.off.store(None);
                }
                if store.is_some() && self.holds_endings() {
                    self.confirm();
                } else if believed.allows_for_a_reboot() {
                    self.believed.store(Arc::new(now));
                }
                Ok(time)
            }
            Err(doubt) => {
                let why = doubt.why.clone();
                self.off.store(Some(Arc::new(doubt)));
                self.swept.store(false, Ordering::Release);
                Err(RecordError::Clock(why))
            }
        }
    }

    /// The time of an alarm about the clock itself: told by anything but the clock.
    pub(super) fn alarm_time(&self, newest: UnixMs, store: Option<UnixMs>) -> UnixMs {
        self.believed.load().time_without(self.read(), newest, store)
    }

    /// Says whether all that was due was ended.
    pub(super) fn swept(&self, whole: bool) {
        self.swept.store(whole, Ordering::Release);
    }

    /// Believes, instead of the reading at the start, one of earlier in this boot.
    pub fn believed_at(&self, wall: UnixMs, boot_ms: i64) {
        self.believed.store(Arc::new(Pace::new(wall, boot_ms)));
    }

    /// Believes, instead of the reading at the start, that it was `wall` or later when the clock since boot said `boot_ms`.
    pub fn believed_at_least(&self, wall: UnixMs, boot_ms: i64) {
        self.believed.store(Arc::new(Pace::at_least(wall, boot_ms)));
    }

    /// Holds endings until a second source agrees.
    pub fn hold(&self, why: &str) {
        self.swept.store(false, Ordering::Release);
        self.held.store(Some(Arc::new(why.into())));
    }

    /// A second source agrees with what the clock says now.
    pub fn confirm(&self) {
        self.believed.store(Arc::new(self.read()));
        self.held.store(None);
    }

    /// Whether endings wait for a second source.
    #[must_use]
    pub fn holds_endings(&self) -> bool {
        self.held.load().is_some()
    }

    /// Why nothing is written by this clock; none where it is trusted.
    #[must_use]
    pub fn off(&self) -> Option<String> {
        self.off.load().as_ref().map(|doubt| doubt.why.clone())
    }

    /// Whether the word of a second source would end what is wrong.
    #[must_use]
    pub fn wants_second_source(&self) -> bool {
        self.off.load().as_ref().map_or_else(|| self.holds_endings(), |doubt| doubt.can_be_settled)
    }

    /// What is wrong with the clock, until it is right again and all that was due is ended.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.off().or_else(|| self.held.load().as_ref().map(|why| why.to_string()))
    }

    /// Whether all that was due was ended since the clock was last in doubt.
    #[must_use]
    pub fn has_caught_up(&self) -> bool {
        self.swept.load(Ordering::Acquire)
    }

    fn read(&self) -> Pace {
        Pace::new(self.clock.now(), self.clock.boot_ms())
    }
}
