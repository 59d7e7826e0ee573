//! Sealing while a broker serves: beside the writer, by a connection of its own.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use daypass_evidence::note::VerifierKey;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::{Archive, SEAL_ENTRIES, next, seal_stepwise};
use crate::store::{OpenReader, StoreAt, StoreError};

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

/// Seals, where the place of the store names a folder for it and who does it, until the task is ended.
pub(crate) fn start(
    store: &StoreAt,
    readers: Arc<OpenReader>,
    key: &VerifierKey,
    settings: SealSettings,
) -> Option<JoinHandle<()>> {
    let folder = store.seals_into()?.to_owned();
    let (store, key) = (store.clone(), key.clone());
    Some(tokio::spawn(async move {
        let ended = CancellationToken::new();
        let _ends_with_the_task = ended.clone().drop_guard();
        let mut ticks = interval(settings.every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // At first there may be something that a stop left undone.
        let mut left_undone = true;
        loop {
            ticks.tick().await;
            let sealing = Sealing {
                store: store.clone(),
                readers: Arc::clone(&readers),
                key: key.clone(),
                folder: folder.clone(),
                entries: settings.entries,
                ended: ended.clone(),
                left_undone,
            };
            let done = tokio::task::spawn_blocking(move || sealing.run()).await;
            left_undone = !matches!(done, Ok(Ok(_)));
            match done {
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

struct Sealing {
    store: StoreAt,
    readers: Arc<OpenReader>,
    key: VerifierKey,
    folder: PathBuf,
    entries: u64,
    ended: CancellationToken,
    left_undone: bool,
}

impl Sealing {
    /// Seals all that is due. How often there was something.
    fn run(&self) -> Result<u64, StoreError> {
        let reader = (self.readers)()?;
        let Some(head) = reader.head()? else { return Ok(0) };
        let due = head.size >= next(reader.sealed_until()?, self.entries);
        if !due && !self.left_undone {
            return Ok(0);
        }
        let Some(mut sealer) = self.store.sealer()? else { return Ok(0) };
        let archive = Archive::of_log(&self.folder, &head.origin);
        let mut go_on = |_| match self.ended.is_cancelled() {
            true => Err(StoreError::Unavailable("the broker stops".into())),
            false => Ok(()),
        };
        let (mut times, sealer) = (0, sealer.as_mut());
        while seal_stepwise(sealer, reader.as_ref(), &archive, &self.key, self.entries, &mut go_on)? {
            times += 1;
        }
        Ok(times)
    }
}
