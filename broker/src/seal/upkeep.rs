//! Sealing while a broker serves: beside the writer, by a connection of its own.

use std::time::Duration;

use daypass_evidence::note::VerifierKey;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::{Archive, SEAL_ENTRIES, seal_stepwise};
use crate::store::{StoreAt, StoreError};

/// How much is sealed at once, and how often that is looked for.
#[derive(Debug, Clone, Copy)]
pub struct SealSettings {
    /// How many entries, as [`super::is_seal_size`] asks for.
    pub entries: u64,
    /// How often.
    pub every: Duration,
}

impl Default for SealSettings {
    fn default() -> Self {
        Self { entries: SEAL_ENTRIES, every: Duration::from_secs(60) }
    }
}

/// Seals, where the place of the store names a folder for it, until the task is ended.
pub(crate) fn start(store: &StoreAt, key: &VerifierKey, settings: SealSettings) -> Option<JoinHandle<()>> {
    let folder = store.sealed()?.to_owned();
    let (store, key) = (store.clone(), key.clone());
    Some(tokio::spawn(async move {
        let ended = CancellationToken::new();
        let _ends_with_the_task = ended.clone().drop_guard();
        let mut ticks = interval(settings.every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let (store, key, folder, ended) = (store.clone(), key.clone(), folder.clone(), ended.clone());
            let work = move || seal(&store, &key, &folder, settings.entries, &ended);
            match tokio::task::spawn_blocking(work).await {
                Ok(Ok(0)) => {}
                Ok(Ok(times)) => {
                    tracing::info!(entries = times * settings.entries, "old entries were sealed")
                }
                Ok(Err(error)) => {
                    tracing::error!(%error, "old entries could not be sealed, and stay in the store")
                }
                Err(error) => tracing::error!(%error, "sealing ended"),
            }
        }
    }))
}

/// Seals all that is due. How often there was something.
fn seal(
    store: &StoreAt,
    key: &VerifierKey,
    folder: &std::path::Path,
    entries: u64,
    ended: &CancellationToken,
) -> Result<u64, StoreError> {
    let mut opened = store.open()?;
    let reader = (opened.readers)()?;
    let Some(head) = reader.head()? else { return Ok(0) };
    let archive = Archive::of_log(folder, &head.origin);
    let mut go_on = |_| match ended.is_cancelled() {
        true => Err(StoreError::Unavailable("the broker stops".into())),
        false => Ok(()),
    };
    let mut times = 0;
    while seal_stepwise(opened.store.as_mut(), reader.as_ref(), &archive, key, entries, &mut go_on)? {
        times += 1;
    }
    Ok(times)
}
