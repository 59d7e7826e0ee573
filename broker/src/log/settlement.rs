//! What became of recorded credentials, until the next batch carries it into the log.

use std::sync::{Mutex, MutexGuard, PoisonError};

use daypass_evidence::entry::{CredentialSettled, Released};
use daypass_verify::time::UnixMs;

use super::Voided;

/// How many released credentials one entry can name within 16 KiB.
const RELEASED_PER_ENTRY: usize = 120;

/// How many void ones.
const VOID_PER_ENTRY: usize = 64;

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
        self.lock().released.push(released);
    }

    /// A credential was recorded and provably never left.
    pub fn void(&self, voided: Voided) {
        self.lock().void.push(voided);
    }

    pub(super) fn is_empty(&self) -> bool {
        let waiting = self.lock();
        waiting.released.is_empty() && waiting.void.is_empty()
    }

    pub(super) fn take(&self) -> Waiting {
        std::mem::take(&mut *self.lock())
    }

    pub(super) fn put_back(&self, mut waiting: Waiting) {
        let mut now = self.lock();
        waiting.released.append(&mut now.released);
        waiting.void.append(&mut now.void);
        *now = waiting;
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
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
                void: chunk.iter().map(|voided| (voided.live.index, voided.reason.clone())).collect(),
            }))
            .collect()
    }
}
