//! What became of recorded credentials, until the next batch carries it into the log.

use std::sync::{Mutex, MutexGuard, PoisonError};

use daypass_evidence::entry::{CredentialSettled, Released};
use daypass_verify::time::UnixMs;

use super::Voided;
use crate::store::place;

/// How many released credentials one entry can name within 16 KiB.
const RELEASED_PER_ENTRY: usize = 120;

/// How many void ones.
const VOID_PER_ENTRY: usize = 64;

/// How many may wait before nothing more is issued; each batch that is written takes them all along.
const CROWDED: usize = 8_192;

/// How many wait at most: what was under way when issuing stopped. Beyond that they are dropped as in a crash.
const WAITING_MAX: usize = 2 * CROWDED;

/// Settlements that are not written yet. Lost in a crash: then the log over-reports, and the credential ends by
/// its own time.
#[derive(Debug, Default)]
pub struct Settlements(Mutex<Waiting>);

/// What waits.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    pub(super) released: Vec<Released>,
    pub(super) void: Vec<Voided>,
}

impl Settlements {
    /// A credential was handed out.
    pub fn released(&self, released: Released) {
        let mut waiting = self.lock();
        waiting.released.push(released);
        waiting.bound();
    }

    /// A credential was recorded and provably never left.
    pub fn void(&self, voided: Voided) {
        let mut waiting = self.lock();
        waiting.void.push(voided);
        waiting.bound();
    }

    /// Whether so many wait that nothing more may be issued.
    pub(super) fn is_crowded(&self) -> bool {
        self.lock().len() >= CROWDED
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lock().len() == 0
    }

    pub(super) fn take(&self) -> Waiting {
        std::mem::take(&mut *self.lock())
    }

    pub(super) fn put_back(&self, mut waiting: Waiting) {
        let mut now = self.lock();
        waiting.released.append(&mut now.released);
        waiting.void.append(&mut now.void);
        waiting.bound();
        *now = waiting;
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn len(&self) -> usize {
        self.released.len() + self.void.len()
    }

    /// Drops the newest releases, and then the newest that are void: the log says more of them than happened, not less.
    fn bound(&mut self) {
        let over = self.len().saturating_sub(WAITING_MAX);
        if over == 0 {
            return;
        }
        tracing::error!(
            over,
            "what became of credentials cannot be kept until the log takes it: they end by their time"
        );
        let kept = self.released.len().saturating_sub(over);
        self.released.truncate(kept);
        self.void.truncate(WAITING_MAX - kept);
    }

    /// Leaves out as void what a sweep may have ended by `swept`: it ended by its time, and ends once.
    pub(super) fn forget_ended(&mut self, swept: UnixMs) {
        self.void.retain(|voided| voided.live.exp > swept);
    }

    /// The entries that say it, each small enough.
    pub(super) fn entries(&self) -> Vec<CredentialSettled> {
        let released = self.released.chunks(RELEASED_PER_ENTRY);
        let void = self.void.chunks(VOID_PER_ENTRY);
        released
            .map(|chunk| CredentialSettled { released: chunk.to_vec(), void: Vec::new() })
            .chain(void.map(|chunk| CredentialSettled {
                released: Vec::new(),
                void:
                    chunk.iter().map(|voided| (place(voided.live.index).1, voided.reason.clone())).collect(),
            }))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use daypass_verify::ids::Digest;

    use super::*;
    use crate::store::Live;

    fn fill(settlements: &Settlements, released: u64, void: u64) {
        let live = |index| Live { exp: UnixMs::new(1), index };
        (0..released).for_each(|index| settlements.released((index, Digest::of(b"it"), UnixMs::new(1))));
        (0..void).for_each(|index| settlements.void(Voided { live: live(index), reason: "gone".into() }));
    }

    #[test]
    fn what_waits_for_a_store_that_is_away_is_bounded_and_issuing_stops_first() {
        let settlements = Settlements::default();
        fill(&settlements, 8_191, 0);
        assert!(!settlements.is_crowded());
        fill(&settlements, 1, 0);
        assert!(settlements.is_crowded());
        fill(&settlements, 8_000, 8_000);
        let waiting = settlements.take();
        assert_eq!((waiting.released.len(), waiting.void.len()), (8_384, 8_000));
        fill(&settlements, 0, 16_000);
        settlements.put_back(waiting);
        let waiting = settlements.take();
        assert_eq!((waiting.released.len(), waiting.void.len()), (0, 16_384));
    }
}
