//! What the broker tells: what lives at the target, each that ends, and what its CAs are called.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use daypass_proto::v1::watch_endings_response::Event;
use daypass_proto::v1::{EndingKind, Live, WatchEndingsResponse};
use daypass_sdk::{Client, Error, TrustUpdates};
use daypass_verify::ids::{CredentialId, Name};
use daypass_verify::time::UnixMs;
use tokio::sync::{Notify, watch};
use tokio::time::sleep;
use tracing::{info, warn};

use super::known::{How, Known};
use super::lists::Lists;
use super::names::Issuers;
use crate::clock::now;

/// How long to wait before a broker that did not answer is asked again.
const RETRY: Duration = Duration::from_secs(1);

/// What is known, by whoever follows and by whoever ends sessions.
#[derive(Default)]
pub(super) struct Shared {
    known: Mutex<Known>,
    /// Something has ended.
    pub(super) changed: Notify,
    /// It has to be asked anew what was recorded.
    pub(super) ask: Notify,
}

impl Shared {
    pub(super) fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Follows the endings of one target.
pub(super) struct Follower {
    pub(super) target: Name,
    pub(super) clients: watch::Receiver<Client>,
    pub(super) shared: Arc<Shared>,
    /// The cursor of the last event that was acted on.
    cursor: String,
    complained: Option<String>,
}

/// Why a stream is left.
enum Left {
    /// To ask anew, with the newest proof, from the cursor on.
    Anew,
    Failed(Error),
}

impl From<Error> for Left {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl Follower {
    pub(super) fn new(target: Name, clients: watch::Receiver<Client>, shared: Arc<Shared>) -> Self {
        Self { target, clients, shared, cursor: String::new(), complained: None }
    }

    /// Goes on until it is dropped.
    pub(super) async fn run(mut self) {
        loop {
            let client = self.clients.borrow_and_update().clone();
            if let Left::Failed(error) = self.follow(&client).await {
                if let Error::FixRequest { .. } = error {
                    // A log that was recovered does not know where we were.
                    self.cursor.clear();
                }
                self.complain(&error);
                sleep(RETRY).await;
            }
        }
    }

    async fn follow(&mut self, client: &Client) -> Left {
        let asked_at = now();
        let mut endings = match client.watch_endings(&self.target, &self.cursor).await {
            Ok(endings) => endings,
            Err(error) => return error.into(),
        };
        // What lives, where that is told from the beginning.
        let mut listing = self.cursor.is_empty().then(BTreeMap::new);
        loop {
            let told = tokio::select! {
                told = endings.next() => told,
                Ok(()) = self.clients.changed() => return Left::Anew,
                () = self.shared.ask.notified() => return Left::Anew,
            };
            match told {
                Ok(Some(told)) => {
                    if let Err(left) = self.take(told, &mut listing, asked_at) {
                        return left;
                    }
                }
                Ok(None) => return Left::Anew,
                Err(error) => return error.into(),
            }
        }
    }

    fn take(
        &mut self,
        told: WatchEndingsResponse,
        listing: &mut Option<BTreeMap<CredentialId, UnixMs>>,
        asked_at: UnixMs,
    ) -> Result<(), Left> {
        let mut known = self.shared.known();
        match told.event {
            Some(Event::Live(live)) => {
                // In a log that follows ours what lives is told again.
                if told.cursor.is_empty() && listing.is_none() {
                    *listing = Some(BTreeMap::new());
                }
                if let Some((id, expires_at)) = lives(&live) {
                    match listing {
                        Some(listing) => drop(listing.insert(id, expires_at)),
                        None => known.lives(id, expires_at),
                    }
                }
            }
            Some(Event::Ended(ended)) => {
                if let Ok(id) = ended.credential_id.parse() {
                    if let Some(listing) = listing {
                        listing.remove(&id);
                    }
                    known.ended(id, how(ended.how()), now());
                    self.shared.changed.notify_one();
                }
            }
            Some(Event::Synced(synced)) => {
                if let Some(listing) = listing.take() {
                    known.only_these_live(listing);
                } else if known.live() != synced.live {
                    let (ours, theirs, target) = (known.live(), synced.live, &self.target);
                    warn!(
                        "`{target}`: {ours} credentials were known to live, and the broker says {theirs}: asking anew"
                    );
                    self.cursor.clear();
                    return Err(Left::Anew);
                }
                known.told(asked_at);
                drop(known);
                self.shared.changed.notify_one();
                self.synced(synced.live);
            }
            // Static secrets are the proxy's part.
            Some(Event::Exception(_) | Event::Heartbeat(_)) | None => {}
        }
        if !told.cursor.is_empty() {
            self.cursor = told.cursor;
        }
        Ok(())
    }

    fn synced(&mut self, live: u64) {
        let (target, again) = (&self.target, self.complained.take().is_some());
        if again {
            info!("`{target}`: the broker tells of endings again: {live} credentials live");
        } else {
            tracing::debug!("`{target}`: {live} credentials live");
        }
    }

    fn complain(&mut self, error: &Error) {
        let failure = error.to_string();
        if self.complained.as_ref() != Some(&failure) {
            warn!("`{}`: the broker tells of no endings, what is known is enforced: {failure}", self.target);
            self.complained = Some(failure);
        }
    }
}

fn lives(live: &Live) -> Option<(CredentialId, UnixMs)> {
    let at = live.expires_at.as_ref()?;
    let millis = i64::from(at.nanos) / 1_000_000;
    Some((live.credential_id.parse().ok()?, UnixMs::from_seconds(at.seconds).plus_millis(millis)))
}

fn how(kind: EndingKind) -> How {
    match kind {
        EndingKind::Expired => How::Expired,
        EndingKind::Void => How::Void,
        EndingKind::Revoked | EndingKind::Unspecified => How::Revoked,
    }
}

/// Follows what the broker's CAs are called, and their revocation lists.
pub(super) async fn follow_trust(
    clients: watch::Receiver<Client>,
    shared: Arc<Shared>,
    mut lists: Option<Lists>,
) {
    let mut complained = None;
    loop {
        let client = clients.borrow().clone();
        let failed = match client.watch_trust().await {
            Ok(updates) => take_trust(updates, &shared, &mut lists).await,
            Err(error) => Some(error.to_string()),
        };
        if failed.is_some() && failed != complained {
            warn!("the broker does not tell of its CAs: {}", failed.as_deref().unwrap_or_default());
        }
        complained = failed;
        sleep(RETRY).await;
    }
}

/// Until the stream ends, and why it broke off.
async fn take_trust(mut updates: TrustUpdates, shared: &Shared, lists: &mut Option<Lists>) -> Option<String> {
    loop {
        let trust = match updates.next().await {
            Ok(Some(trust)) => trust,
            Ok(None) => return None,
            Err(error) => return Some(error.to_string()),
        };
        let issuers = Issuers::of_lists(&trust.crl);
        tracing::debug!("the broker's CAs: {issuers:?}");
        if !issuers.is_empty() {
            shared.known().issuers(issuers);
            shared.changed.notify_one();
        }
        if let Some(lists) = lists {
            lists.put(&trust.crl);
        }
    }
}
