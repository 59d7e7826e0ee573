//! One run: a deployment in a directory of its own, its broker, its callers, and the operations done to them.

use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use daypass_broker::clock::Clock;
use daypass_broker::ids::Ids;
use daypass_broker::init::{Deployment, init};
use daypass_broker::issue::Desk;
use daypass_broker::keyring::{Kek, Keyring, open_evidence_key};
use daypass_broker::log::{self, Anchor, Attached, LogSettings, evidence_key_entry, verify_store};
use daypass_broker::signer::Signer;
use daypass_broker::store::sqlite::SqliteStore;
use daypass_broker::store::{Reader, Store as _};
use daypass_core::proof::Principal;
use daypass_core::request::Request;
use daypass_evidence::checkpoint::Checkpoint;
use daypass_evidence::entry::Index;
use daypass_evidence::note::VerifierKey;
use daypass_verify::ids::RequestId;
use daypass_verify::time::UnixMs;
use tempfile::TempDir;

use super::check::{Held, Ledger};
use super::faults::{Faults, FaultyKeys, FaultyStore};
use super::op::{Op, Random, What};
use super::people::{OURS, PEOPLE};

/// 2026-12-01T00:00:00Z.
const BEGIN: i64 = 1_796_083_200_000;

/// How long a killed writer may take to be gone.
const GONE_WITHIN: Duration = Duration::from_secs(5);

/// A clock that stands until it is moved.
struct ManualClock(AtomicI64);

impl Clock for ManualClock {
    fn now(&self) -> UnixMs {
        UnixMs::new(self.0.load(Ordering::SeqCst))
    }

    fn boot_ms(&self) -> i64 {
        self.0.load(Ordering::SeqCst) - BEGIN
    }
}

/// Runs `ops`; what went wrong, if anything did.
pub(crate) fn run(ops: &[Op], seed: u64) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut world = World::new(seed).await?;
        for (at, op) in ops.iter().enumerate() {
            world.step(*op).await.map_err(|failure| format!("operation {at}, {op:?}: {failure}"))?;
        }
        world.end_well().await.map_err(|failure| format!("at the end: {failure}"))
    })
}

/// A broker that runs.
pub(super) struct Broker {
    pub(super) desk: Desk,
    pub(super) keyring: Arc<Keyring>,
    pub(super) held_by_writer: Arc<()>,
}

pub(crate) struct World {
    pub(super) folder: TempDir,
    clock: Arc<ManualClock>,
    pub(super) ids: Arc<Ids>,
    pub(super) faults: Arc<Faults>,
    pub(super) key: VerifierKey,
    pub(super) broker: Option<Broker>,
    pub(super) ledger: Ledger,
    pub(super) held: Vec<Held>,
    pub(super) known: Option<Checkpoint>,
    pub(super) serial: u64,
    pub(super) newest_token: Option<(What, String)>,
    pub(super) newest_request: Option<(What, RequestId)>,
    pub(super) suspended: Vec<Index>,
}

impl World {
    async fn new(seed: u64) -> Result<Self, String> {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock(AtomicI64::new(BEGIN)));
        let deployment = Deployment {
            trust_domain: "example.org".parse().unwrap(),
            broker: "b1".parse().unwrap(),
            store: &folder.path().join("store"),
            kek: &folder.path().join("kek"),
            bundle: Some(&PEOPLE.bundles[0]),
            clock: Arc::clone(&clock) as Arc<_>,
        };
        let key = init(&deployment).await.map_err(|error| error.to_string())?.log_key;
        let mut world = Self {
            folder,
            clock,
            ids: Arc::new(ids(seed)),
            faults: Arc::default(),
            key,
            broker: None,
            ledger: Ledger::default(),
            held: Vec::new(),
            known: None,
            serial: 0,
            newest_token: None,
            newest_request: None,
            suspended: Vec::new(),
        };
        world.start()?;
        Ok(world)
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts a broker as `serve` does: everything is verified before anything is signed.
    fn start(&mut self) -> Result<(), String> {
        let failed = |error: &dyn std::fmt::Display| format!("the broker does not start: {error}");
        let store = SqliteStore::open_file(&self.path("store"), false).map_err(|error| failed(&error))?;
        let reader = store.reader().map_err(|error| failed(&error))?;
        let kek = Kek::read(&self.path("kek")).map_err(|error| failed(&error))?;
        let anchor = Anchor::open(&self.path("anchor")).map_err(|error| failed(&error))?;
        verify_store(reader.as_ref(), &self.key, Some(&anchor)).map_err(|error| failed(&error))?;
        let sealed = reader.keys().unwrap();
        let held_by_writer = Arc::new(());
        let faulty = FaultyStore {
            inner: store,
            faults: Arc::clone(&self.faults),
            _held: Arc::clone(&held_by_writer),
        };
        let settings = self.log_settings("b1", reader.as_ref(), Some(anchor));
        let log = log::open(Box::new(faulty), settings).map_err(|error| failed(&error))?;
        let keyring = Arc::new(Keyring::open(&sealed, &log.state(), &kek).map_err(|error| failed(&error))?);
        let keys = FaultyKeys {
            inner: Arc::clone(&keyring),
            faults: Arc::clone(&self.faults),
            reader: Mutex::new(reader),
        };
        let desk = Desk {
            log,
            signer: Signer::new(Arc::new(keys)),
            keyring: Arc::clone(&keyring),
            clock: Arc::clone(&self.clock) as Arc<_>,
            ids: Arc::clone(&self.ids),
            issuer: OURS.into(),
        };
        self.broker = Some(Broker { desk, keyring, held_by_writer });
        self.ledger = Ledger::default();
        self.check()
    }

    pub(super) fn log_settings(
        &self,
        name: &str,
        reader: &dyn Reader,
        anchor: Option<Anchor>,
    ) -> LogSettings {
        let kek = Kek::read(&self.path("kek")).unwrap();
        let entry = evidence_key_entry(reader).unwrap().unwrap();
        LogSettings {
            trust_domain: "example.org".parse().unwrap(),
            broker: name.parse().unwrap(),
            key: Arc::new(open_evidence_key(&reader.keys().unwrap(), &entry, &kek).unwrap()),
            clock: Arc::clone(&self.clock) as Arc<_>,
            ids: Arc::clone(&self.ids),
            anchor,
        }
    }

    /// Lets go of the broker, whatever it was about to do, and waits until its writer is gone.
    fn kill(&mut self) {
        let Some(Broker { desk, held_by_writer, .. }) = self.broker.take() else { return };
        drop(desk);
        let began = Instant::now();
        while Arc::strong_count(&held_by_writer) > 1 {
            assert!(began.elapsed() < GONE_WITHIN, "the writer of a killed broker goes on");
            std::thread::sleep(Duration::from_millis(1));
        }
        self.faults.dead.store(false, Ordering::SeqCst);
    }

    pub(super) fn desk(&self) -> &Desk {
        &self.broker.as_ref().unwrap().desk
    }

    async fn step(&mut self, op: Op) -> Result<(), String> {
        match op {
            Op::Issue { what, ttl_s } => self.issue(what, ttl_s).await?,
            Op::IssueReplay => self.replay().await?,
            Op::IssueRepeat => self.repeat().await?,
            Op::IssueMany(count) => self.issue_many(count).await?,
            Op::CallerGone(what) => {
                self.go_away(what).await;
                self.barrier().await;
            }
            Op::Advance(ms) => drop(self.clock.0.fetch_add(ms, Ordering::SeqCst)),
            Op::Back(ms) => drop(self.clock.0.fetch_sub(ms, Ordering::SeqCst)),
            Op::Sweep => {
                self.desk().log.sweep();
                self.barrier().await;
            }
            Op::Flush => {
                self.desk().log.flush();
                self.barrier().await;
            }
            Op::Suspend(whom) => self.suspend(whom).await,
            Op::Lift => self.lift().await,
            Op::ActivateBundle => self.activate().await,
            Op::ActivateElsewhere => self.activate_elsewhere().await,
            Op::AppendHalf => self.append_half().await?,
            Op::Restart => {
                self.desk().log.flush();
                self.barrier().await;
                self.kill();
                self.start()?;
            }
            Op::Crash => {
                self.kill();
                self.start()?;
            }
            fault => self.faults.arm(fault),
        }
        if self.faults.dead.load(Ordering::SeqCst) {
            self.kill();
            self.start()?;
        }
        self.check()
    }

    /// Waits until the writer has done what it was told before.
    async fn barrier(&self) {
        drop(self.desk().log.append(Vec::new(), Attached::default()).await);
    }

    pub(super) fn now(&self) -> UnixMs {
        self.clock.now()
    }

    pub(super) fn fresh_token(&mut self, what: What) -> String {
        self.serial += 1;
        PEOPLE.token(what, self.serial, self.now())
    }

    /// A principal under the bundle in force; none where the clock has left the proof behind.
    pub(super) fn principal(&self, token: &str) -> Option<Principal> {
        let state = self.desk().log.state();
        PEOPLE.principal(token, state.bundle().unwrap(), self.now()).ok()
    }

    pub(super) fn request(&self, what: What, ttl_s: u32) -> Request {
        PEOPLE.request(what, ttl_s, self.ids.draw(self.now()).unwrap().into())
    }

    pub(super) fn read_on(&mut self) -> Result<(), String> {
        let store = SqliteStore::open_file(&self.path("store"), false).unwrap();
        self.ledger.read_on(store.reader().unwrap().as_ref())
    }

    /// The whole world.
    fn check(&mut self) -> Result<(), String> {
        self.read_on()?;
        self.ledger.compare(&self.held, &self.faults.signed.lock().unwrap())?;
        self.ledger.compare_released(&self.held)?;
        self.ledger.check_endings()
    }

    /// All faults are over: the broker must issue, and everything must end.
    async fn end_well(&mut self) -> Result<(), String> {
        self.faults.disarm();
        self.kill();
        self.start()?;
        let newest = self.ledger.time().max(self.now());
        self.clock.0.store(newest.get() + 1, Ordering::SeqCst);
        self.suspended = self.ledger.suspensions();
        while !self.suspended.is_empty() {
            let before = self.suspended.len();
            self.lift().await;
            if self.suspended.len() == before {
                return Err("a suspension cannot be lifted".into());
            }
        }
        let held = self.held.len();
        self.issue(What::ReadInvoices, 60).await?;
        if self.held.len() == held {
            return Err(format!("nothing is issued although nothing fails: {:?}", self.desk().log.fault()));
        }
        self.desk().log.flush();
        self.barrier().await;
        let end = self.ledger.last_end().max(Some(self.now())).unwrap().plus_millis(30_001 + 60_000);
        self.clock.0.store(end.get(), Ordering::SeqCst);
        self.desk().log.sweep();
        self.barrier().await;
        self.check()?;
        self.kill();
        self.start()?;
        match self.ledger.unended() {
            0 => Ok(()),
            some => Err(format!("{some} credentials never ended")),
        }
    }
}

/// Ids that are the same for each run of a seed.
fn ids(seed: u64) -> Ids {
    let random = Mutex::new(Random::new(seed ^ 0x5eed));
    Ids::from_source(Box::new(move |bytes| {
        let mut random = random.lock().unwrap();
        let (first, second) = (random.next().to_be_bytes(), random.next().to_be_bytes());
        bytes[..8].copy_from_slice(&first);
        bytes[8..].copy_from_slice(&second[..2]);
        Ok(())
    }))
}
