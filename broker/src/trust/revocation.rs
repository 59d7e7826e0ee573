//! One client CA whose revocation lists are in a file: read at once, and again every minute.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use daypass_core::proof::IssuerKeys;
use daypass_verify::certificate::{Crls, TrustAnchors};
use daypass_verify::ids::{Digest, Name};
use tokio::time::{Duration, sleep};

use super::client_ca::read_crls;
use super::event::{Events, TrustEvent};
use super::lock;

pub(super) struct Revocation {
    issuer: Name,
    anchors: Arc<TrustAnchors>,
    path: PathBuf,
    events: Events,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    crls: Option<(Arc<Crls>, Digest)>,
    refused: bool,
}

impl Revocation {
    pub(super) fn new(issuer: Name, anchors: Arc<TrustAnchors>, path: PathBuf, events: Events) -> Self {
        let new = Self { issuer, anchors, path, events, held: Mutex::default() };
        new.take(read_crls(&new.path));
        new
    }

    /// The roots, with the lists once there are some. Without them no chain of this CA is believed; the roots still
    /// tell its chains from those of others, which do not wait for it.
    pub(super) fn keys(&self) -> IssuerKeys {
        let crls = lock(&self.held).crls.as_ref().map(|(crls, _)| Arc::clone(crls));
        IssuerKeys::Ca { anchors: Arc::clone(&self.anchors), crls }
    }

    /// Reads the file again for ever. `publish` is called after each change and says whether anybody still
    /// cares.
    pub(super) async fn follow(&self, every: Duration, publish: impl Fn() -> bool) {
        loop {
            sleep(every).await;
            let path = self.path.clone();
            let Ok(read) = tokio::task::spawn_blocking(move || read_crls(&path)).await else { continue };
            if self.take(read) && !publish() {
                return;
            }
        }
    }

    /// Whether the lists changed. A file that is not believed leaves the last good lists; they end by
    /// themselves at their `nextUpdate`.
    fn take(&self, read: Result<(Arc<Crls>, Digest), String>) -> bool {
        let mut held = lock(&self.held);
        let issuer = self.issuer.clone();
        match read {
            Ok((crls, digest)) => {
                if std::mem::take(&mut held.refused) {
                    self.events.tell(TrustEvent::CrlRestored { issuer });
                }
                held.crls.replace((crls, digest)).is_none_or(|(_, before)| before != digest)
            }
            Err(detail) => {
                if !std::mem::replace(&mut held.refused, true) {
                    self.events.tell(TrustEvent::CrlRefused { issuer, detail });
                }
                false
            }
        }
    }
}
