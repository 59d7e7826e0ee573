//! What became of recorded credentials, until the next batch carries it into the log.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use daypass_evidence::entry::{CredentialSettled, Index, Released, Void};
use daypass_verify::time::UnixMs;

use crate::store::{Live, place};

/// How many released credentials one entry can name within 16 KiB.
const RELEASED_PER_ENTRY: usize = 120;

/// How many void ones.
const VOID_PER_ENTRY: usize = 64;

/// How many may wait before nothing more is issued; each batch that is written takes them all along.
const CROWDED: usize = 8_192;

/// How many wait at most: what was under way when issuing stopped. Beyond that they are dropped as in a crash.
const WAITING_MAX: usize = 2 * CROWDED;

/// The end of a credential that was recorded and never left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Voided {
    /// Which.
    pub live: Live,
    /// Why.
    pub reason: String,
}

/// Settlements that are not written yet. Lost in a crash: then the log over-reports, and the credential ends by
/// its own time.
#[derive(Debug, Default)]
pub struct Settlements(Mutex<Waiting>);

/// What became of credentials and is not written yet: the log that follows can take it.
#[derive(Debug, Clone, Default)]
pub struct Unsettled(Waiting);

impl Unsettled {
    /// Whether there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.len() == 0
    }
}

/// What waits: by the places of issuances in the store, so that a log can settle what one before it issued.
#[derive(Debug, Clone, Default)]
pub(super) struct Waiting {
    pub(super) released: Vec<Released>,
    pub(super) void: Vec<Voided>,
}

impl Settlements {
    /// A credential was handed out; its index is raised as in [`crate::store::Live`].
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

    /// Takes all that waits, for the log that follows.
    #[must_use]
    pub fn leave(&self) -> Unsettled {
        Unsettled(self.take())
    }

    /// Takes over what was left of the log before.
    pub fn take_over(&self, left: Unsettled) {
        self.put_back(left.0);
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

    /// The entries that say it, each of one log and small enough; `log_of` tells the origin of a shard that is not the
    /// one that is written.
    pub(super) fn entries(&self, log_of: impl Fn(Index) -> Option<String>) -> Vec<CredentialSettled> {
        let mut by_log: BTreeMap<Index, CredentialSettled> = BTreeMap::new();
        for (raised, digest, at) in &self.released {
            let (shard, index) = place(*raised);
            by_log.entry(shard).or_default().released.push((index, *digest, *at));
        }
        for voided in &self.void {
            let (shard, index) = place(voided.live.index);
            by_log.entry(shard).or_default().void.push((index, voided.reason.clone()));
        }
        #[cfg(feature = "sabotage")]
        if crate::sabotage::breaks("p2-void") {
            for all in by_log.values_mut() {
                all.void.extend(all.released.drain(..).map(|it| (it.0, "it was released".into())));
            }
        }
        by_log.into_iter().flat_map(|(shard, all)| chunks(&all, log_of(shard).as_ref())).collect()
    }
}

fn chunks(all: &CredentialSettled, log: Option<&String>) -> Vec<CredentialSettled> {
    let of = |released: &[Released], void: &[Void]| CredentialSettled {
        released: released.to_vec(),
        void: void.to_vec(),
        log: log.cloned(),
    };
    let released = all.released.chunks(RELEASED_PER_ENTRY).map(|chunk| of(chunk, &[]));
    released.chain(all.void.chunks(VOID_PER_ENTRY).map(|chunk| of(&[], chunk))).collect()
}

#[cfg(test)]
mod tests {
    use daypass_verify::ids::Digest;

    use super::*;
    use crate::store::{Live, base};

    fn fill(settlements: &Settlements, released: u64, void: u64) {
        let live = |index| Live { exp: UnixMs::new(1), index };
        (0..released).for_each(|index| settlements.released((index, Digest::of(b"it"), UnixMs::new(1))));
        (0..void).for_each(|index| settlements.void(Voided { live: live(index), reason: "gone".into() }));
    }

    #[test]
    fn what_became_of_credentials_is_said_with_the_log_that_issued_them() {
        let settlements = Settlements::default();
        fill(&settlements, 130, 1);
        settlements.released((base(1) + 7, Digest::of(b"it"), UnixMs::new(1)));
        let entries = settlements.take().entries(|shard| (shard == 0).then(|| "the log before".to_owned()));
        let said: Vec<_> =
            entries.iter().map(|it| (it.log.as_deref(), it.released.len(), it.void.len())).collect();
        let before = Some("the log before");
        assert_eq!(said, [(before, 120, 0), (before, 10, 0), (before, 0, 1), (None, 1, 0)]);
        assert_eq!(entries[3].released[0].0, 7);
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
