//! One run: a deployment in a directory of its own, its broker, its callers, and the operations done to them.

use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::{Duration, Instant};

use daypass_broker::activate;
use daypass_broker::clock::Clock;
use daypass_broker::ids::Ids;
use daypass_broker::init::{Deployment, init};
use daypass_broker::issue::{Credential, Desk, Refusal, issue};
use daypass_broker::keyring::{Kek, Keyring, open_evidence_key};
use daypass_broker::log::{
    self, Anchor, Attached, LogSettings, RecordError, evidence_key_entry, verify_store,
};
use daypass_broker::signer::Signer;
use daypass_broker::store::Store as _;
use daypass_broker::store::sqlite::SqliteStore;
use daypass_core::proof::Principal;
use daypass_core::request::Request;
use daypass_evidence::checkpoint::Checkpoint;
use daypass_evidence::entry::{
    Alarm, AlarmState, Body, Index, NewEntry, Selector, SuspensionLifted, SuspensionSet,
};
use daypass_evidence::note::VerifierKey;
use daypass_verify::ids::{Digest, RequestId};
use daypass_verify::time::UnixMs;
use futures::future::join_all;
use tempfile::TempDir;

use super::check::{HALF, Held, Ledger};
use super::faults::{Faults, FaultyKeys, FaultyStore};
use super::op::{Op, Random, What, Whom};
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
struct Broker {
    desk: Desk,
    keyring: Arc<Keyring>,
    held_by_writer: Arc<()>,
}

struct World {
    folder: TempDir,
    clock: Arc<ManualClock>,
    ids: Arc<Ids>,
    faults: Arc<Faults>,
    key: VerifierKey,
    broker: Option<Broker>,
    ledger: Ledger,
    held: Vec<Held>,
    known: Option<Checkpoint>,
    serial: u64,
    newest_token: Option<(What, String)>,
    newest_request: Option<(What, RequestId)>,
    suspended: Vec<Index>,
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

    fn path(&self, name: &str) -> PathBuf {
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
        let entry = evidence_key_entry(reader.as_ref()).unwrap().unwrap();
        let sealed = reader.keys().unwrap();
        let held_by_writer = Arc::new(());
        let faulty = FaultyStore {
            inner: store,
            faults: Arc::clone(&self.faults),
            _held: Arc::clone(&held_by_writer),
        };
        let settings = LogSettings {
            trust_domain: "example.org".parse().unwrap(),
            broker: "b1".parse().unwrap(),
            key: Arc::new(open_evidence_key(&sealed, &entry, &kek).unwrap()),
            clock: Arc::clone(&self.clock) as Arc<_>,
            ids: Arc::clone(&self.ids),
            anchor: Some(anchor),
        };
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

    fn desk(&self) -> &Desk {
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

    fn now(&self) -> UnixMs {
        self.clock.now()
    }

    fn fresh_token(&mut self, what: What) -> String {
        self.serial += 1;
        PEOPLE.token(what, self.serial, self.now())
    }

    /// A principal under the bundle in force; none where the clock has left the proof behind.
    fn principal(&self, token: &str) -> Option<Principal> {
        let state = self.desk().log.state();
        PEOPLE.principal(token, state.bundle().unwrap(), self.now()).ok()
    }

    fn request(&self, what: What, ttl_s: u32) -> Request {
        PEOPLE.request(what, ttl_s, self.ids.draw(self.now()).unwrap().into())
    }

    async fn issue(&mut self, what: What, ttl_s: u32) -> Result<(), String> {
        let token = self.fresh_token(what);
        self.newest_token = Some((what, token.clone()));
        let request = self.request(what, ttl_s);
        self.newest_request = Some((what, request.id));
        self.ask(&token, request).await
    }

    async fn replay(&mut self) -> Result<(), String> {
        let Some((what, token)) = self.newest_token.clone() else { return Ok(()) };
        self.ask(&token, self.request(what, 60)).await
    }

    async fn repeat(&mut self) -> Result<(), String> {
        let Some((what, id)) = self.newest_request else { return Ok(()) };
        let token = self.fresh_token(what);
        self.ask(&token, PEOPLE.request(what, 60, id)).await
    }

    async fn ask(&mut self, token: &str, request: Request) -> Result<(), String> {
        let Some(principal) = self.principal(token) else { return Ok(()) };
        let answer = issue(self.desk(), &principal, &request, self.known.clone()).await;
        self.answered(answer, &principal, &request)
    }

    async fn issue_many(&mut self, count: usize) -> Result<(), String> {
        let what = What::ReadInvoices;
        let mut tokens: Vec<String> = (0..count).map(|_| self.fresh_token(what)).collect();
        tokens[1] = tokens[0].clone();
        let principals: Vec<Principal> = tokens.iter().filter_map(|token| self.principal(token)).collect();
        let requests: Vec<Request> = principals.iter().map(|_| self.request(what, 60)).collect();
        let pairs = principals.iter().zip(&requests);
        let answers = join_all(
            pairs.map(|(principal, request)| issue(self.desk(), principal, request, self.known.clone())),
        )
        .await;
        for ((answer, principal), request) in answers.into_iter().zip(&principals).zip(&requests) {
            self.answered(answer, principal, request)?;
        }
        Ok(())
    }

    /// Asks, and is gone before the writer answers.
    async fn go_away(&mut self, what: What) {
        let token = self.fresh_token(what);
        let Some(principal) = self.principal(&token) else { return };
        let request = self.request(what, 60);
        let asking = Box::pin(issue(self.desk(), &principal, &request, None));
        let answered = matches!(futures::poll!(asking), Poll::Ready(Ok(_)));
        assert!(!answered, "a credential without the writer");
    }

    fn answered(
        &mut self,
        answer: Result<Credential, Refusal>,
        principal: &Principal,
        request: &Request,
    ) -> Result<(), String> {
        match answer {
            Ok(credential) => {
                let keyring = &self.broker.as_ref().unwrap().keyring;
                self.held.push(Held::take(&credential, &self.key, keyring)?);
                self.known = Some(Checkpoint::open(&credential.place().checkpoint, &self.key).unwrap());
                Ok(())
            }
            Err(Refusal::NotRecorded(error)) => self.excused(&error, principal.digest(), request),
            Err(_) => Ok(()),
        }
    }

    /// Nobody is told that something was spent where nothing was bought.
    fn excused(&mut self, error: &RecordError, proof: Digest, request: &Request) -> Result<(), String> {
        self.read_on()?;
        match error {
            RecordError::Replayed if !self.ledger.bought(&proof) => {
                Err("a proof is called spent, and bought nothing".into())
            }
            RecordError::AlreadyIssued if !self.ledger.asked(&request.id.to_string()) => {
                Err("a request id is called used, and nothing was issued for it".into())
            }
            RecordError::Rollback(detail) => Err(format!("a rollback that was none: {detail}")),
            _ => Ok(()),
        }
    }

    async fn append(&self, body: Body) -> Option<Index> {
        let entry = NewEntry { id: self.ids.draw(self.now()).unwrap(), request: None, by: None, body };
        let places = self.desk().log.append(vec![entry], Attached::default()).await.ok()?;
        places.first().map(|place| place.index)
    }

    /// An append is all or nothing: the first of these two entries must not be there alone.
    async fn append_half(&mut self) -> Result<(), String> {
        let entry = |detail: String| NewEntry {
            id: self.ids.draw(self.now()).unwrap(),
            request: None,
            by: None,
            body: Alarm { code: HALF.into(), state: AlarmState::Raised, raised: None, detail: Some(detail) }
                .into(),
        };
        let entries = vec![entry("fits".into()), entry("x".repeat(20_000))];
        match self.desk().log.append(entries, Attached::default()).await {
            Ok(_) => Err("an entry of 20,000 bytes was written".into()),
            Err(_) => Ok(()),
        }
    }

    async fn suspend(&mut self, whom: Whom) {
        let selector = match whom {
            Whom::Nightly => {
                Selector { identity: Some("prod/billing/nightly".parse().unwrap()), ..Default::default() }
            }
            Whom::Mesh => Selector { task: Some("mesh-identity".parse().unwrap()), ..Default::default() },
            Whom::Everything => Selector { everything: true, ..Default::default() },
        };
        let reason = "a drill".to_owned();
        let set = SuspensionSet { selector, reason, until_ms: None, revoked: 0, live: 0, drill: None };
        self.suspended.extend(self.append(set.into()).await);
    }

    async fn lift(&mut self) {
        let Some(suspension) = self.suspended.first().copied() else { return };
        let lifted = SuspensionLifted { suspension, reason: "it is over".into(), approval: None };
        if self.append(lifted.into()).await.is_some() {
            self.suspended.remove(0);
        }
    }

    async fn activate(&mut self) {
        let state = self.desk().log.state();
        let [first, second] = &PEOPLE.bundles;
        let in_force = state.bundle().is_some_and(|bundle| bundle.digest() == first.digest());
        let next = if in_force { second } else { first };
        drop(activate::bootstrap(&self.desk().log, &self.ids, next, self.now()).await);
    }

    fn read_on(&mut self) -> Result<(), String> {
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
