//! Keys that operators bring, on the broker's own host.

use daypass_core::rotation::import;
use daypass_core::state::RS256;
use daypass_evidence::entry::{KeyChanged, KeyUse};
use daypass_verify::time::Seconds;

use super::{Authority, RotateError, Rotation, step};
use crate::keyring::Brought;

impl Rotation {
    /// Takes a key in for `usage`: published from now on, and signing for `life` as soon as everybody can know it. The one that
    /// was brought before it ends then. With `dry_run` nothing is written.
    ///
    /// # Errors
    /// When the log names the key already, or nothing could be recorded: then nothing was done.
    pub async fn import(
        &self,
        brought: Brought,
        usage: KeyUse,
        life: Seconds,
        dry_run: bool,
    ) -> Result<KeyChanged, RotateError> {
        let _acting = self.acting.lock().await;
        let (state, now) = (self.newest_state().await, self.desk.clock.now());
        self.follow(&state).await?;
        let (times, steps) = import(state.keys().values(), usage, RS256, life, &self.lifetimes, now);
        let made = brought.with(usage, times);
        if let Some(known) = state.keys().get(&made.changed.key) {
            return Err(RotateError::Known(known.key.clone()));
        }
        let changed = made.changed.clone();
        if dry_run {
            return Ok(changed);
        }
        let mut authority = Authority::default();
        let mut changes = step::changes(self, &state, &steps, now, &mut authority).await?;
        changes.insert(0, step::added(self, made, None)?);
        let written = step::record(self, &state, changes, now, &mut authority).await;
        self.follow_or_say().await;
        written.map(|_| changed)
    }
}
