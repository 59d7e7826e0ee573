//! One of the brokers of a run: its name, its clock, its faults, and itself while it runs.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use daypass_broker::clock::Clock;
use daypass_broker::issue::{Credential, Desk, Refusal};
use daypass_broker::keyring::{Kek, Keyring};
use daypass_broker::log::{self, Anchor, verify_store};
use daypass_broker::signer::Signer;
use daypass_core::proof::Principal;
use daypass_core::request::Request;
use daypass_verify::time::UnixMs;
use tokio::task::JoinHandle;

use super::faults::{Faults, FaultyKeys, FaultyStore};
use super::people::OURS;
use super::world::World;

/// 2026-12-01T00:00:00Z.
pub(super) const BEGIN: i64 = 1_796_083_200_000;

/// How long a killed writer may take to be gone.
const GONE_WITHIN: Duration = Duration::from_secs(5);

/// A clock that stands until it is moved, and goes before or after that of the others.
pub(super) struct SeatClock {
    pub(super) common: Arc<AtomicI64>,
    pub(super) ahead: AtomicI64,
}

impl Clock for SeatClock {
    fn now(&self) -> UnixMs {
        UnixMs::new(self.common.load(Ordering::SeqCst) + self.ahead.load(Ordering::SeqCst))
    }

    fn boot_ms(&self) -> i64 {
        self.common.load(Ordering::SeqCst) - BEGIN
    }
}

/// A broker that runs.
pub(super) struct Broker {
    pub(super) desk: Desk,
    pub(super) keyring: Arc<Keyring>,
    pub(super) anchor: Anchor,
    held_by_writer: Arc<()>,
}

/// A caller of a broker that stands still.
pub(super) struct Waiting {
    pub(super) principal: Arc<Principal>,
    pub(super) request: Arc<Request>,
    pub(super) answer: JoinHandle<Result<Credential, Refusal>>,
}

pub(super) struct Seat {
    pub(super) name: String,
    pub(super) clock: Arc<SeatClock>,
    pub(super) faults: Arc<Faults>,
    pub(super) broker: Option<Broker>,
    pub(super) waiting: Vec<Waiting>,
}

impl Seat {
    pub(super) fn new(number: usize, common: &Arc<AtomicI64>) -> Self {
        Self {
            name: format!("b{}", number + 1),
            clock: Arc::new(SeatClock { common: Arc::clone(common), ahead: AtomicI64::new(0) }),
            faults: Arc::default(),
            broker: None,
            waiting: Vec::new(),
        }
    }

    /// Lets go of the broker, whatever it was about to do, and waits until its writer is gone.
    pub(super) fn kill(&mut self) {
        for caller in self.waiting.drain(..) {
            caller.answer.abort();
        }
        let Some(Broker { desk, held_by_writer, .. }) = self.broker.take() else { return };
        self.faults.kill_if_frozen();
        drop(desk);
        let began = Instant::now();
        while Arc::strong_count(&held_by_writer) > 1 {
            assert!(began.elapsed() < GONE_WITHIN, "the writer of a killed broker goes on");
            std::thread::sleep(Duration::from_millis(1));
        }
        self.faults.is_over();
    }
}

impl World {
    /// Starts a broker as `serve` does: everything is verified before anything is signed.
    pub(super) fn start(&mut self, seat: usize) -> Result<(), String> {
        let failed = |error: &dyn std::fmt::Display| format!("the broker does not start: {error}");
        let Seat { name, clock, faults, .. } = &self.seats[seat];
        let store = self.ground.open().map_err(|error| failed(&error))?;
        let reader = store.reader().map_err(|error| failed(&error))?;
        let kek = Kek::read(&self.path("kek")).map_err(|error| failed(&error))?;
        let anchored = self.path(&format!("anchor-{name}"));
        let anchor = Anchor::open(&anchored).map_err(|error| failed(&error))?;
        let origin = reader.head().map_err(|error| failed(&error))?.unwrap().origin;
        let key = self.key.of_shard(&origin).unwrap();
        verify_store(reader.as_ref(), &key, Some(&anchor)).map_err(|error| failed(&error))?;
        let sealed = reader.keys().unwrap();
        let held_by_writer = Arc::new(());
        let settings = self.log_settings(name, clock, reader.as_ref(), Some(anchor));
        let faulty =
            FaultyStore { inner: store, faults: Arc::clone(faults), _held: Arc::clone(&held_by_writer) };
        let log = log::open(Box::new(faulty), settings).map_err(|error| failed(&error))?;
        let keyring = Arc::new(Keyring::open(&sealed, &log.state(), &kek).map_err(|error| failed(&error))?);
        let keys = FaultyKeys {
            inner: Arc::clone(&keyring),
            faults: Arc::clone(faults),
            reader: Mutex::new(reader),
        };
        let desk = Desk {
            log,
            signer: Signer::new(Arc::new(keys)),
            keyring: Arc::clone(&keyring),
            clock: Arc::clone(clock) as Arc<_>,
            ids: Arc::clone(&self.ids),
            issuer: OURS.into(),
        };
        let anchor = Anchor::open(&anchored).map_err(|error| failed(&error))?;
        self.seats[seat].broker = Some(Broker { desk, keyring, anchor, held_by_writer });
        self.ledger = super::check::Ledger::default();
        self.check()
    }
}
