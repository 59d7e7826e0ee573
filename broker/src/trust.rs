//! Issuers' keys: fetched, bounded, kept fresh, and given out as a snapshot. A provider's outage hurts only its
//! own callers, and nothing that it answers replaces good keys by none.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use daypass_core::bundle::Bundle;
use daypass_core::bundle::object::{Issuer, IssuerKind, KeySource};
use daypass_core::proof::{IssuerKeys, KnownKeys};
use daypass_verify::ids::Name;
use daypass_verify::jwks::KeySet;
use rustls::RootCertStore;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::clock::Clock;

mod address;
mod client_ca;
mod cluster;
mod discovery;
mod event;
mod fetch;
mod limits;
mod remote;
mod revocation;

pub use event::TrustEvent;
pub use limits::FetchLimits;

use cluster::Cluster;
use event::Events;
use fetch::Fetcher;
use remote::Remote;
use revocation::Revocation;

/// The keys of all declared issuers. Cheap to clone; the refreshing stops with the last clone.
#[derive(Clone)]
pub struct Trust(Arc<Shared>);

struct Shared {
    clock: Arc<dyn Clock>,
    limits: FetchLimits,
    events: Events,
    system_roots: OnceLock<Arc<RootCertStore>>,
    cluster: Cluster,
    followed: Mutex<BTreeMap<Name, Followed>>,
    snapshot: ArcSwap<Snapshot>,
}

/// What was known at one moment.
#[derive(Default)]
struct Snapshot {
    known: Arc<KnownKeys>,
    /// Until when, in boot time, none of it grows too old.
    good_until_ms: i64,
}

/// An issuer, and what of its declaration its keys depend on.
struct Followed {
    kind: IssuerKind,
    internal: bool,
    keys: Source,
}

enum Source {
    Fixed(IssuerKeys),
    Remote(Arc<Remote>, #[expect(dead_code, reason = "held for its drop")] Running),
    Revocation(Arc<Revocation>, #[expect(dead_code, reason = "held for its drop")] Running),
}

/// A task that ends when nobody holds it.
struct Running(JoinHandle<()>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Trust {
    /// Follows nobody yet. `alarms` is told what operators have to hear; events that find it full are logged
    /// and lost.
    pub fn new(clock: Arc<dyn Clock>, limits: FetchLimits, alarms: mpsc::Sender<TrustEvent>) -> Self {
        Self::within(Cluster::in_pod(), clock, limits, alarms)
    }

    fn within(
        cluster: Cluster,
        clock: Arc<dyn Clock>,
        limits: FetchLimits,
        alarms: mpsc::Sender<TrustEvent>,
    ) -> Self {
        Self(Arc::new(Shared {
            clock,
            limits,
            events: Events(alarms),
            system_roots: OnceLock::new(),
            cluster,
            followed: Mutex::default(),
            snapshot: ArcSwap::from_pointee(Snapshot { good_until_ms: i64::MAX, ..Snapshot::default() }),
        }))
    }

    /// Follows the issuers of `bundle` and no others. Those that are declared as before keep their keys. On
    /// return client CAs and keys that the bundle holds itself are known; OIDC issuers become known when they
    /// answer. Call it from within the runtime.
    pub fn follow(&self, bundle: &Bundle) {
        self.follow_issuers(&bundle.declared().issuers);
    }

    pub(crate) fn follow_issuers(&self, issuers: &BTreeMap<Name, Issuer>) {
        let mut followed = lock(&self.0.followed);
        followed.retain(|name, it| issuers.get(name).is_some_and(|issuer| it.is_declared_by(issuer)));
        for (name, issuer) in issuers {
            followed.entry(name.clone()).or_insert_with(|| Followed {
                kind: issuer.kind.clone(),
                internal: issuer.internal,
                keys: self.source(name, issuer),
            });
        }
        drop(followed);
        self.0.publish();
    }

    /// The keys as they are known now, without waiting. An issuer whose keys are older than the limit has none
    /// available.
    #[must_use]
    pub fn known(&self) -> Arc<KnownKeys> {
        let snapshot = self.0.snapshot.load();
        if self.0.clock.boot_ms() < snapshot.good_until_ms {
            Arc::clone(&snapshot.known)
        } else {
            // The task that would say so may itself be late, after a pause of the whole machine for instance.
            self.0.publish()
        }
    }

    /// Fetches an issuer's keys now, for a token under a key that is unknown or was replaced. True: there is a
    /// newly fetched set, and the proof may be tried once more. At most one such fetch is made in 30 s for each
    /// issuer; callers in between wait for the running one or are answered at once. Good keys stay whatever
    /// comes.
    pub async fn refresh(&self, issuer: &Name) -> bool {
        let remote = match lock(&self.0.followed).get(issuer).map(|it| &it.keys) {
            Some(Source::Remote(remote, _)) => Arc::clone(remote),
            _ => return false,
        };
        remote.refresh().await
    }

    fn source(&self, name: &Name, issuer: &Issuer) -> Source {
        let source = match &issuer.kind {
            // Ourselves: what we signed is verified under our own CAs as they are at that moment.
            IssuerKind::Nodes => Ok(Source::Fixed(IssuerKeys::Unavailable)),
            IssuerKind::ClientCa { ca, crl_file, .. } => self.client_ca(name, ca, crl_file.as_deref()),
            IssuerKind::Oidc { keys: KeySource::Jwks(document), .. } => fixed_set(document),
            IssuerKind::Oidc { url, keys, tls_ca, .. } => {
                self.remote(name, url, keys, tls_ca, issuer.internal)
            }
        };
        source.unwrap_or_else(|detail| {
            self.0.events.tell(TrustEvent::IssuerRefused { issuer: name.clone(), detail });
            Source::Fixed(IssuerKeys::Unavailable)
        })
    }

    fn client_ca(&self, name: &Name, ca: &[String], crl_file: Option<&str>) -> Result<Source, String> {
        let anchors = client_ca::anchors(ca)?;
        let Some(path) = crl_file else {
            return Ok(Source::Fixed(IssuerKeys::Ca { anchors, crls: None }));
        };
        let (name, path) = (name.clone(), PathBuf::from(path));
        let lists = Arc::new(Revocation::new(name, anchors, path, self.0.events.clone()));
        let (following, publish) = (Arc::clone(&lists), self.publisher());
        let every = self.0.limits.crl_every;
        let task = tokio::spawn(async move { following.follow(every, publish).await });
        Ok(Source::Revocation(lists, Running(task)))
    }

    fn remote(
        &self,
        name: &Name,
        url: &str,
        keys: &KeySource,
        tls_ca: &[String],
        internal: bool,
    ) -> Result<Source, String> {
        let Shared { clock, limits, events, .. } = &*self.0;
        let fetcher = match keys {
            KeySource::Cluster => Fetcher::in_cluster(url, self.0.cluster.clone(), *limits),
            _ => {
                let system = || Arc::clone(self.0.system_roots.get_or_init(fetch::system_roots));
                let roots = fetch::roots(tls_ca, system)?;
                Fetcher::new(url, keys, roots, internal, *limits)?
            }
        };
        let remote = Remote::new(name.clone(), fetcher, *limits, Arc::clone(clock), events.clone());
        let remote = Arc::new(remote);
        let (following, publish) = (Arc::clone(&remote), self.publisher());
        let task = tokio::spawn(async move { following.follow(publish).await });
        Ok(Source::Remote(remote, Running(task)))
    }

    /// For a task, which must not keep alive what ends it.
    fn publisher(&self) -> impl Fn() -> bool + Send + Sync + 'static {
        let shared: Weak<Shared> = Arc::downgrade(&self.0);
        move || shared.upgrade().map(|it| it.publish()).is_some()
    }
}

impl Shared {
    /// Makes a snapshot of what every source holds now.
    fn publish(&self) -> Arc<KnownKeys> {
        // Held until the snapshot is stored, so that an older one never replaces a newer one.
        let followed = lock(&self.followed);
        let now_ms = self.clock.boot_ms();
        let mut keys = HashMap::with_capacity(followed.len());
        let mut good_until_ms = i64::MAX;
        for (name, it) in &*followed {
            let (of_issuer, until_ms) = it.keys.keys(now_ms);
            keys.insert(name.clone(), of_issuer);
            good_until_ms = good_until_ms.min(until_ms);
        }
        let known = Arc::new(KnownKeys::new(keys));
        self.snapshot.store(Arc::new(Snapshot { known: Arc::clone(&known), good_until_ms }));
        known
    }
}

impl Followed {
    fn is_declared_by(&self, issuer: &Issuer) -> bool {
        self.kind == issuer.kind && self.internal == issuer.internal
    }
}

impl Source {
    fn keys(&self, now_ms: i64) -> (IssuerKeys, i64) {
        match self {
            Self::Fixed(keys) => (keys.clone(), i64::MAX),
            Self::Remote(remote, _) => remote.keys(now_ms),
            Self::Revocation(lists, _) => (lists.keys(), i64::MAX),
        }
    }
}

fn fixed_set(document: &str) -> Result<Source, String> {
    let (keys, _) = KeySet::parse(document.as_bytes()).map_err(|error| error.to_string())?;
    Ok(Source::Fixed(IssuerKeys::Jwks(Arc::new(keys))))
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// What is behind these locks is whole after each statement, so that a panic elsewhere spoils nothing.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
