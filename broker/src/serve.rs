//! A broker, put together and running: from values to listeners, and back in order.

mod announce;
mod desk;
mod documents;
mod error;
mod keys;
mod listening;
mod next;
mod ready;
mod shown;
mod upkeep;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use daypass_core::rotation::Lifetimes;
use daypass_evidence::audit::Report;
use daypass_evidence::entry::{BrokerStopped, Mode};
use daypass_evidence::note::VerifierKey;
use daypass_verify::ids::{Digest, Name, TrustDomain};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::alarms::Alarms;
use crate::api::Api;
use crate::clock::{Clock, ClockTrust};
use crate::emergency;
use crate::index::Readers;
use crate::issue::Desk;
use crate::keyring::{self, Kek};
use crate::limits::{Limits, Rates};
use crate::log::{self, Anchor, Attached, Log, StartError, Started, Turns};
use crate::refusals::Refusals;
use crate::revocation::Revocation;
use crate::rotate::{Rotation, keep_rotating};
use crate::scrub;
use crate::seal::{self, SealSettings};
use crate::shelf::Shelf;
use crate::store::{Opened, Reader, StoreAt, StoreError};
use crate::suspension::Suspensions;
use crate::trust::{FetchLimits, Trust, TrustEvent};
pub(crate) use announce::clock_in_doubt;
use desk::open_desk;
pub use error::ServeError;
pub use keys::open_keys;
pub use next::{Left, start_next};
pub use shown::{Shown, TrustShown};
pub(crate) use upkeep::append;

use crate::web::IssuerUrl;
use crate::witness::{self, WitnessSettings};

/// One TLS listener.
#[derive(Debug, Clone)]
pub struct ListenAt {
    /// Its address; port 0 takes a free one.
    pub address: SocketAddr,
    /// Its certificate chain (PEM).
    pub certificate: PathBuf,
    /// Its key (PEM).
    pub key: PathBuf,
}

/// What a broker runs with.
#[derive(Clone)]
pub struct Settings {
    /// The trust domain.
    pub trust_domain: TrustDomain,
    /// Its name in the log.
    pub broker: Name,
    /// The issuer URL.
    pub issuer: IssuerUrl,
    /// How it runs.
    pub mode: Mode,
    /// Where the store lies.
    pub store: StoreAt,
    /// The anchor file.
    pub anchor: PathBuf,
    /// How often, and how fast, the whole log is read again.
    pub scrub: scrub::Schedule,
    /// The key-encryption key.
    pub kek: PathBuf,
    /// The gRPC listener.
    pub api: ListenAt,
    /// Whether it serves reflection.
    pub reflection: bool,
    /// The HTTP listener.
    pub web: ListenAt,
    /// Whether it serves the newest checkpoint.
    pub checkpoint: bool,
    /// Whether it serves the hashes of the log's tree.
    pub tiles: bool,
    /// Who signs its checkpoints too.
    pub witnesses: WitnessSettings,
    /// When a log is closed, and another opened.
    pub turns: Turns,
    /// How old entries are sealed, where the store's place names a folder for them.
    pub seal: SealSettings,
    /// The listener for operators.
    pub ops: SocketAddr,
    /// How much is served at once.
    pub limits: crate::listen::Limits,
    /// How long keys live.
    pub lifetimes: Lifetimes,
    /// SHA-256 of the configuration.
    pub config: Option<Digest>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Whose word it takes that its clock is right after the machine booted.
    pub clock_trust: ClockTrust,
    /// How many acts may wait for the log: past that, callers are told to come back.
    pub queue: usize,
    /// How fast one caller may ask.
    pub rates: Rates,
    /// The socket for emergencies; none: there is none.
    pub emergency: Option<PathBuf>,
}

/// A store that was opened, and whose log was verified with its own key.
pub struct Verified {
    /// Reads it.
    pub reader: Box<dyn Reader>,
    /// What it was found to be.
    pub started: Started,
    /// What verifies its checkpoints.
    pub key: VerifierKey,
    opened: Opened,
    kek: Kek,
    evidence: ring::signature::Ed25519KeyPair,
    anchor: Option<Anchor>,
}

/// Opens a store and verifies its log, or the tail of a long one, before anything is signed.
///
/// # Errors
/// When a file is missing, or the log does not verify.
pub fn open_verified(
    store: &StoreAt,
    kek: &std::path::Path,
    anchor: Option<&std::path::Path>,
) -> Result<Verified, ServeError> {
    let opened = store.open()?;
    let reader = opened.store.reader()?;
    let head = reader.head()?.ok_or(StartError::Empty)?;
    let kek = Kek::read(kek)?;
    let Some(entry) = log::evidence_key_entry(reader.as_ref())? else {
        return Err(StartError::Refused(Box::new(log::verify_without_key(reader.as_ref())?)).into());
    };
    let evidence = keyring::open_evidence_key(&reader.keys()?, &entry, &kek)?;
    let key =
        VerifierKey::of(&head.origin, &evidence).map_err(|error| StoreError::Damaged(error.to_string()))?;
    let anchor_file = anchor;
    let anchor = anchor.map(Anchor::open).transpose()?;
    let started = scrub::examine(store, reader.as_ref(), &key, anchor.as_ref().zip(anchor_file))?;
    if started.report.findings.iter().any(|finding| !finding.code.is_of_operation()) {
        return Err(StartError::Refused(Box::new(started.report)).into());
    }
    for finding in &started.report.findings {
        tracing::warn!(%finding, "the log is whole, and tells of a broker that was away or late");
    }
    Ok(Verified { reader, started, key, opened, kek, evidence, anchor })
}

/// A running broker.
pub struct Running {
    /// Where gRPC is served.
    pub api: SocketAddr,
    /// Where HTTP is served.
    pub web: SocketAddr,
    /// Where metrics and health are served.
    pub ops: SocketAddr,
    /// What was verified at the start.
    pub verified: Report,
    /// What issues.
    pub desk: Desk,
    /// Whom it believes.
    pub trust: Trust,
    /// What reads the log.
    pub readers: Readers,
    /// Changes keys.
    pub rotation: Arc<Rotation>,
    /// What is revoked.
    pub revocation: Arc<Revocation>,
    refusals: Arc<Refusals>,
    shutdown: CancellationToken,
    listeners: Vec<JoinHandle<()>>,
    upkeep: Vec<JoinHandle<()>>,
}

/// Starts a broker.
///
/// # Errors
/// When its store does not verify, a key cannot be opened, or an address is taken.
pub async fn start(settings: Settings) -> Result<Running, ServeError> {
    start_after(settings, Left::default()).await
}

/// The same, where it served the log before.
///
/// # Errors
/// As for [`start`].
pub async fn start_after(settings: Settings, left: Left) -> Result<Running, ServeError> {
    let opened = open_verified(&settings.store, &settings.kek, Some(&settings.anchor))?;
    let bound = listening::bind_all(&settings).await?;
    let (open_reader, about) = (Arc::clone(&opened.opened.readers), opened.opened.about.clone());
    let (desk, kek, started) = open_desk(opened, &settings)?;
    desk.log.settlements().take_over(left.unsettled);
    let ((events, heard), shutdown) = (mpsc::channel(256), CancellationToken::new());
    let shelf = Shelf::open(&settings.store, Readers::new(Arc::clone(&open_reader))).await?;
    let sealing = seal::start(&settings.store, Arc::clone(&open_reader), desk.log.key(), settings.seal);
    let (shelf, readers, scrubbing) = scrub::start(&desk, shelf, &started, &settings);
    let rotation = Arc::new(Rotation::new(desk.clone(), kek, readers.clone(), settings.lifetimes));
    let (revocation, suspensions, containing) = contain(&desk, &readers);
    let (trust, alarms) = (trust_in_force(&settings, &desk, events), Alarms::default());
    announce::announce(&desk, &settings, about, &readers, &alarms).await?;
    rotation.look_at_start().await;
    let switches = emergency::start(&desk, &readers, &settings, &shutdown).await?;
    let (cosignatures, witnesses) =
        witness::start(desk.clone(), readers.clone(), settings.broker.clone(), settings.witnesses.clone());
    let (refusals, (limits, forgetting)) = (left.refusals, Limits::start(settings.rates));
    let [api_at, web_at, ops_at] = bound.each_ref().map(|at| at.local_addr().unwrap_or(settings.ops));
    let site = documents::site(&settings, &desk, Readers::new(open_reader), &cosignatures, web_at).await?;
    let (shown, showing) = shown::start(&desk, &revocation, &site);
    let api = Arc::new(Api {
        cosignatures: cosignatures.clone(),
        desk: desk.clone(),
        trust: trust.clone(),
        readers: readers.clone(),
        shelf,
        limits,
        refusals: Arc::clone(&refusals),
        rotation: Arc::clone(&rotation),
        suspensions,
        revocation: Arc::clone(&revocation),
        shown,
        alarms: alarms.clone(),
    });
    let listeners = listening::listeners(bound, &settings, &site, api, &shutdown)?;
    let documents = upkeep::Shown { site, issuer: settings.issuer.clone(), lifetimes: settings.lifetimes };
    let mut upkeep = upkeep::start(&desk, &trust, &refusals, documents);
    let turning = tokio::spawn(upkeep::turn_when_due(desk.clone(), alarms.clone(), settings.turns));
    upkeep.extend(upkeep::watch(watched(&settings, &desk, &readers, alarms), heard, &refusals));
    upkeep
        .extend([forgetting, turning, keep_rotating(&rotation)].into_iter().chain(containing).chain(showing));
    upkeep.extend(witnesses.into_iter().chain(switches).chain(scrubbing).chain(sealing));
    Ok(Running {
        api: api_at,
        web: web_at,
        ops: ops_at,
        verified: started.report,
        desk,
        trust,
        readers,
        rotation,
        revocation,
        refusals,
        shutdown,
        listeners,
        upkeep,
    })
}

/// What revokes and what suspends, with their tasks.
fn contain(desk: &Desk, readers: &Readers) -> (Arc<Revocation>, Arc<Suspensions>, [JoinHandle<()>; 2]) {
    let (revocation, following) = Revocation::start(desk.clone(), readers.clone());
    let (suspensions, finishing) = Suspensions::start(desk.clone(), readers.clone(), Arc::clone(&revocation));
    (revocation, suspensions, [following, finishing])
}

fn trust_in_force(settings: &Settings, desk: &Desk, events: mpsc::Sender<TrustEvent>) -> Trust {
    let trust = Trust::new(Arc::clone(&settings.clock), FetchLimits::default(), events);
    if let Some(bundle) = desk.log.state().bundle() {
        trust.follow(bundle);
    }
    trust
}

fn watched(settings: &Settings, desk: &Desk, readers: &Readers, alarms: Alarms) -> upkeep::Watched {
    upkeep::Watched {
        desk: desk.clone(),
        readers: readers.clone(),
        broker: settings.broker.clone(),
        alarms,
        clock_trust: settings.clock_trust,
    }
}

impl Running {
    /// Stops in order: no new callers, those in flight end, what became of their credentials is written, then that
    /// the broker stopped.
    ///
    /// # Errors
    /// When the last entries cannot be written.
    pub async fn stop(self, reason: &str) -> Result<(), ServeError> {
        self.shutdown.cancel();
        for listener in self.listeners {
            drop(listener.await);
        }
        for task in &self.upkeep {
            task.abort();
        }
        let now = self.desk.clock.now();
        let refused = self.refusals.due(now, &self.desk.ids, true);
        let counted = match refused.is_empty() {
            true => Ok(Vec::new()),
            false => self.desk.log.append(refused.clone(), Attached::default()).await,
        };
        if counted.is_err() {
            refused.iter().for_each(|entry| self.refusals.count_again(entry));
        }
        upkeep::append(&self.desk, BrokerStopped { reason: reason.into(), of: None }.into()).await?;
        counted?;
        Ok(())
    }

    /// The log.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.desk.log
    }
}
