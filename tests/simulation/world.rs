//! One run: a deployment in a directory of its own, its broker, its callers, and the operations done to them.

use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use daypass_broker::clock::{Clock as _, SystemClock};
use daypass_broker::ids::Ids;
use daypass_broker::init::{Deployment, init};
use daypass_broker::issue::Desk;
use daypass_broker::keyring::{Kek, open_evidence_key};
use daypass_broker::log::{Anchor, Attached, LogSettings, evidence_key_entry};
use daypass_broker::store::Reader;
use daypass_core::proof::Principal;
use daypass_core::request::Request;
use daypass_evidence::checkpoint::Checkpoint;
use daypass_evidence::entry::Index;
use daypass_evidence::note::VerifierKey;
use daypass_verify::ids::RequestId;
use daypass_verify::time::UnixMs;
use tempfile::TempDir;

use super::check::{Held, Ledger};
use super::ground::{Ground, Kind};
use super::op::{Op, Random, What};
use super::people::PEOPLE;
use super::seat::{BEGIN, Seat, SeatClock};

/// Runs `ops`; what went wrong, if anything did.
pub(crate) fn run(ops: &[Op], seed: u64, brokers: usize, kind: Kind) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut world = World::new(seed, brokers, kind).await?;
        for (at, op) in ops.iter().enumerate() {
            world.step(*op).await.map_err(|failure| format!("operation {at}, {op:?}: {failure}"))?;
        }
        world.end_well().await.map_err(|failure| format!("at the end: {failure}"))
    })
}

pub(crate) struct World {
    pub(super) folder: TempDir,
    pub(super) ground: Ground,
    common: Arc<AtomicI64>,
    pub(super) ids: Arc<Ids>,
    pub(super) key: VerifierKey,
    pub(super) seats: Vec<Seat>,
    /// Which broker the next operation is about.
    pub(super) turn: usize,
    pub(super) ledger: Ledger,
    pub(super) held: Vec<Held>,
    pub(super) known: Option<Checkpoint>,
    pub(super) serial: u64,
    pub(super) newest_token: Option<(What, String)>,
    pub(super) newest_request: Option<(What, RequestId)>,
    pub(super) suspended: Vec<Index>,
}

impl World {
    pub(super) async fn new(seed: u64, brokers: usize, kind: Kind) -> Result<Self, String> {
        let folder = tempfile::tempdir().unwrap();
        let store = Ground::place(kind, folder.path());
        let common = Arc::new(AtomicI64::new(BEGIN));
        let seats: Vec<Seat> = (0..brokers).map(|number| Seat::new(number, &common)).collect();
        let deployment = Deployment {
            trust_domain: "example.org".parse().unwrap(),
            broker: "b1".parse().unwrap(),
            store: &store,
            kek: &folder.path().join("kek"),
            bundle: Some(&PEOPLE.bundles[0]),
            lifetimes: daypass_core::rotation::Lifetimes::default(),
            // A database has a clock of its own, and `init` asks it.
            clock: match kind {
                Kind::Postgres => Arc::new(SystemClock),
                Kind::File | Kind::Memory => Arc::clone(&seats[0].clock) as Arc<_>,
            },
        };
        let key = init(&deployment).await.map_err(|error| error.to_string())?.log_key;
        if kind == Kind::Postgres {
            common.store(SystemClock.now().get(), Ordering::SeqCst);
        }
        let ground = Ground::of(kind, store).map_err(|error| error.to_string())?;
        let mut world = Self {
            folder,
            ground,
            common,
            ids: Arc::new(ids(seed)),
            key,
            seats,
            turn: 0,
            ledger: Ledger::default(),
            held: Vec::new(),
            known: None,
            serial: 0,
            newest_token: None,
            newest_request: None,
            suspended: Vec::new(),
        };
        for seat in 0..brokers {
            world.start(seat)?;
        }
        Ok(world)
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(super) fn log_settings(
        &self,
        name: &str,
        clock: &Arc<SeatClock>,
        reader: &dyn Reader,
        anchor: Option<Anchor>,
    ) -> LogSettings {
        let kek = Kek::read(&self.path("kek")).unwrap();
        let entry = evidence_key_entry(reader).unwrap().unwrap();
        LogSettings {
            trust_domain: "example.org".parse().unwrap(),
            broker: name.parse().unwrap(),
            key: Arc::new(open_evidence_key(&reader.keys().unwrap(), &entry, &kek).unwrap()),
            clock: Arc::clone(clock) as Arc<_>,
            ids: Arc::clone(&self.ids),
            anchor,
            queue: daypass_broker::log::QUEUE,
        }
    }

    pub(super) fn seat(&self) -> &Seat {
        &self.seats[self.turn]
    }

    pub(super) fn desk(&self) -> &Desk {
        &self.seat().broker.as_ref().unwrap().desk
    }

    pub(super) fn again(&mut self, seat: usize) -> Result<(), String> {
        self.seats[seat].kill();
        self.start(seat)
    }

    async fn step(&mut self, op: Op) -> Result<(), String> {
        if self.seat().faults.is_frozen() && op.needs_an_answer() {
            return Ok(());
        }
        match op {
            Op::Issue { what, ttl_s } => self.issue(what, ttl_s).await?,
            Op::IssueReplay => self.replay().await?,
            Op::IssueRepeat => self.repeat().await?,
            Op::IssueMany(count) => self.issue_many(count).await?,
            Op::IssueEverywhere(what) => self.issue_everywhere(what).await?,
            Op::IssueFrozen { what, frozen } => self.issue_frozen(what, frozen).await?,
            Op::Wake => self.wake().await?,
            Op::CallerGone(what) => {
                self.go_away(what).await;
                self.barrier().await;
            }
            Op::Advance(ms) => drop(self.common.fetch_add(ms, Ordering::SeqCst)),
            Op::Back(ms) => drop(self.common.fetch_sub(ms, Ordering::SeqCst)),
            Op::Skew(ms) => self.seat().clock.ahead.store(ms, Ordering::SeqCst),
            Op::Turn(seat) => self.turn = seat % self.seats.len(),
            Op::Cut => self.seat().faults.cut.store(true, Ordering::SeqCst),
            Op::Heal => self.seat().faults.cut.store(false, Ordering::SeqCst),
            Op::Follow => self.follow().await?,
            Op::Sweep => {
                self.desk().log.sweep();
                self.barrier().await;
            }
            Op::SweepEverywhere => self.sweep_everywhere().await,
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
                self.again(self.turn)?;
            }
            Op::Crash => self.again(self.turn)?,
            Op::TurnLog => self.turn_log().await?,
            fault => self.seat().faults.arm(fault),
        }
        for seat in 0..self.seats.len() {
            if self.seats[seat].faults.dead.load(Ordering::SeqCst) {
                self.again(seat)?;
            } else if self.seats[seat].is_left_behind() {
                self.go_on(seat)?;
            }
        }
        self.check()
    }

    /// Waits until the writer has done what it was told before.
    pub(super) async fn barrier(&self) {
        drop(self.desk().log.append(Vec::new(), Attached::default()).await);
    }

    pub(super) fn now(&self) -> UnixMs {
        self.seat().clock.now()
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
        let newest = self.ground.reader().unwrap().head().unwrap().unwrap().shard;
        loop {
            self.ledger.read_on(self.ground.shard(self.ledger.shard()).unwrap().as_ref())?;
            if self.ledger.shard() == newest {
                return Ok(());
            }
            self.ledger.turn()?;
        }
    }

    /// The whole world.
    pub(super) fn check(&mut self) -> Result<(), String> {
        self.read_on()?;
        for seat in &self.seats {
            self.ledger.compare(&self.held, &seat.faults.signed.lock().unwrap())?;
            let Some(broker) = &seat.broker else { continue };
            let published = Checkpoint::open_shard(&broker.desk.log.published().head.checkpoint, &self.key);
            self.ledger.check_checkpoint(&published.map_err(|error| error.to_string())?)?;
            let own = self.key.of_shard(&broker.desk.log.published().head.origin).unwrap();
            if let Some(anchored) = broker.anchor.newest(&own).unwrap() {
                self.ledger.check_checkpoint(&anchored)?;
            }
        }
        self.ledger.compare_released(&self.held)?;
        self.ledger.check_endings()
    }

    /// All faults are over: each broker must issue, and everything must end.
    async fn end_well(&mut self) -> Result<(), String> {
        for seat in 0..self.seats.len() {
            self.turn = seat;
            self.wake().await?;
            self.seat().faults.disarm();
            self.seat().clock.ahead.store(0, Ordering::SeqCst);
            self.again(seat)?;
        }
        let newest = self.ledger.time().max(self.now());
        self.common.store(newest.get() + 1, Ordering::SeqCst);
        self.suspended = self.ledger.suspensions();
        while !self.suspended.is_empty() {
            let before = self.suspended.len();
            self.lift().await;
            if self.suspended.len() == before {
                return Err("a suspension cannot be lifted".into());
            }
        }
        for seat in 0..self.seats.len() {
            self.turn = seat;
            self.follow().await?;
            let held = self.held.len();
            self.issue(What::ReadInvoices, 60).await?;
            if self.held.len() == held {
                let fault = self.desk().log.fault();
                return Err(format!("nothing is issued although nothing fails: {fault:?}"));
            }
            self.desk().log.flush();
            self.barrier().await;
        }
        let end = self.ledger.last_end().max(Some(self.now())).unwrap().plus_millis(30_001 + 60_000);
        self.common.store(end.get(), Ordering::SeqCst);
        self.sweep_everywhere().await;
        self.check()?;
        for seat in 0..self.seats.len() {
            self.again(seat)?;
        }
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
