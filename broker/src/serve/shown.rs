//! What receivers need to verify credentials, as one whole: for those who watch it over gRPC instead of fetching its parts.

use std::sync::Arc;
use std::time::Duration;

use daypass_evidence::entry::KeyUse;
use daypass_verify::time::Seconds;
use rustls_pki_types::CertificateDer;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use crate::issue::Desk;
use crate::revocation::Revocation;
use crate::web::{Page, Site};

/// How often it is looked whether something changed.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How often those ask who do not watch.
const REFRESH: Seconds = Seconds::new(30);

/// All of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustShown {
    /// The time, in ms, of the newest entry when it was put together: it grows.
    pub sequence: u64,
    /// How often to ask again.
    pub refresh: Seconds,
    /// The roots of certificates.
    pub authorities: Vec<CertificateDer<'static>>,
    /// All keys, as one set.
    pub jwks: String,
    /// The feed of revocations; empty before there is one.
    pub revocations: String,
    /// The revocation lists of all CAs, DER, one after the other.
    pub crl: Vec<u8>,
    /// What verifies the log's checkpoints.
    pub log_keys: Vec<String>,
}

/// The newest; none in the first moment of a start.
pub type Shown = watch::Receiver<Option<Arc<TrustShown>>>;

/// Keeps it, and what `site` tells of revocations, up to date for as long as the broker runs.
pub(super) fn start(desk: &Desk, revocation: &Revocation, site: &Arc<Site>) -> (Shown, [JoinHandle<()>; 2]) {
    let telling = revocation.publish(Arc::clone(site));
    let (desk, site) = (desk.clone(), Arc::clone(site));
    let (sender, receiver) = watch::channel(Some(Arc::new(current(&desk, &site))));
    let keeping = async move {
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let next = current(&desk, &site);
            sender.send_if_modified(|shown| {
                let same =
                    |old: &Arc<TrustShown>| TrustShown { sequence: next.sequence, ..(**old).clone() } == next;
                let changed = !shown.as_ref().is_some_and(same);
                if changed {
                    *shown = Some(Arc::new(next.clone()));
                }
                changed
            });
        }
    };
    (receiver, [telling, tokio::spawn(keeping)])
}

fn current(desk: &Desk, site: &Site) -> TrustShown {
    let (published, now) = (desk.log.published(), desk.clock.now());
    let roots = published.state.published_keys(KeyUse::Root, now);
    let (documents, lists) = (site.documents.load(), site.revoked.load());
    let all_keys = [keys(&documents.jwks), keys(&documents.bundle)].concat();
    let text = |page: &Page| String::from_utf8_lossy(page.content()).into_owned();
    TrustShown {
        sequence: u64::try_from(published.head.time.get()).unwrap_or_default(),
        refresh: REFRESH,
        authorities: roots.filter_map(|root| desk.keyring.certificate(&root.key)).collect(),
        jwks: json!({ "keys": all_keys }).to_string(),
        revocations: lists.feed.as_ref().map(text).unwrap_or_default(),
        crl: lists.crl_by_key.values().flat_map(|page| page.content().iter().copied()).collect(),
        log_keys: vec![desk.log.key().to_string()],
    }
}

fn keys(page: &Page) -> Vec<Value> {
    let document: Value = serde_json::from_slice(page.content()).unwrap_or_default();
    document.get("keys").and_then(Value::as_array).cloned().unwrap_or_default()
}
