//! One issuance, and each of its writes and syncs spoiled in turn.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use daypass_tests::harness::{Deployment, nightly};

use super::child::{Child, Files};
use super::load::{Client, Load};
use super::report::stood;
use super::tracer::{Place, Tracer, places, was_spoilt};
use crate::simulation::check::Held;

const TTL_S: i64 = 300;

/// How long after an issuance its settlement is written, and the anchor synced.
const SETTLED: Duration = Duration::from_millis(300);

/// How long a broker at rest takes until it moves its write-ahead log, and how long that may take in all.
const RESTS: Duration = Duration::from_secs(3);
const MOVED_WITHIN: Duration = Duration::from_secs(40);

/// How often one call is waited for: what follows from an issuance is now and then written together.
const TRIES: usize = 5;

/// One deployment whose broker is spoiled again and again.
pub(super) struct Case {
    pub(super) deployment: Deployment,
    pub(super) files: Files,
    client: Client,
}

impl Case {
    pub(super) async fn new() -> Self {
        let deployment = Deployment::stopped(daypass_broker::dev::organisation::sample()).await;
        let files = Files::of(&deployment);
        let client = Client::of(&deployment, files.api, TTL_S);
        Self { deployment, files, client }
    }

    /// The calls of an issuance and of what follows from it, whatever else is written meanwhile.
    pub(super) async fn places(&self, child: &Child) -> Vec<Place> {
        let mut always = self.places_of_one(child).await;
        for _ in 0..3 {
            let again = self.places_of_one(child).await;
            always.retain(|place| again.contains(place));
        }
        let made = |file: &PathBuf| always.iter().filter(|place| place.file == *file).count();
        let [_, wal, anchor] = self.files.durable();
        assert!(made(&wal) >= 4 && made(&anchor) >= 2, "an issuance writes and syncs: {always:?}");
        always.into_iter().collect()
    }

    async fn places_of_one(&self, child: &Child) -> BTreeSet<Place> {
        let trace = self.deployment.folder().join("calls");
        let tracer = Tracer::recording(child, &self.files, &trace);
        self.client.at_last().await;
        tokio::time::sleep(SETTLED).await;
        tracer.detach();
        places(&trace)
    }

    /// Issues while one call is spoilt; what was received.
    async fn spoil(&self, child: &Child, place: &Place, fault: &str) -> Option<Held> {
        self.spoil_while(child, place, fault, self.client.once()).await
    }

    /// Does something while one call is spoilt; what it led to.
    pub(super) async fn spoil_while<T>(
        &self,
        child: &Child,
        place: &Place,
        fault: &str,
        doing: impl Future<Output = T>,
    ) -> T {
        let tracer = Tracer::spoiling(child, place, fault, &self.trace());
        let received = doing.await;
        tokio::time::sleep(SETTLED).await;
        tracer.detach();
        received
    }

    /// The calls on the database itself, which come where a broker at rest moves its write-ahead log: its first write
    /// and its last of one move, and the sync.
    async fn places_of_a_move(&self, child: &Child) -> Vec<Place> {
        let (trace, [store, ..]) = (self.deployment.folder().join("calls"), self.files.durable());
        let tracer = Tracer::recording(child, &self.files, &trace);
        let of_store = || places(&trace).into_iter().filter(|place| place.file == store).collect::<Vec<_>>();
        self.until_moved(|| of_store().iter().any(Place::is_sync)).await;
        tracer.detach();
        let (syncs, writes): (Vec<_>, Vec<_>) = of_store().into_iter().partition(Place::is_sync);
        let (first, last) = (writes.iter().min().cloned(), writes.iter().max().cloned());
        let found: Vec<Place> = [first, last, syncs.into_iter().next()].into_iter().flatten().collect();
        assert_eq!(found.len(), 3, "a move writes and syncs the database");
        found
    }

    /// Issues and rests, until a move of the write-ahead log was seen; what callers hold.
    async fn until_moved(&self, mut seen: impl FnMut() -> bool) -> Vec<Held> {
        let (began, mut held) = (Instant::now(), Vec::new());
        while !seen() {
            assert!(began.elapsed() < MOVED_WITHIN, "the write-ahead log is not moved into the database");
            let load = Load::start(&self.deployment, self.files.api, 4, TTL_S);
            let rested = Instant::now();
            while load.received() < 100 && rested.elapsed() < RESTS && !seen() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            held.extend(load.stop().await);
            let rested = Instant::now();
            while rested.elapsed() < RESTS && !seen() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        held
    }

    fn trace(&self) -> PathBuf {
        self.deployment.folder().join("spoilt")
    }
}

/// All of them, or a few that are spread over all.
pub(super) fn some(places: &[Place], few: usize) -> Vec<&Place> {
    if nightly() || places.len() <= few {
        return places.iter().collect();
    }
    (0..few).map(|at| &places[at * (places.len() - 1) / (few - 1)]).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_fails_anywhere_in_an_issuance_leaves_no_credential_without_its_record() {
    let case = Case::new().await;
    let child = Child::start(&case.files, &[]).await;
    let places = case.places(&child).await;
    let (mut held, mut refused) = (Vec::new(), 0);
    for (fault, name) in [("error=EIO", "EIO"), ("error=ENOSPC", "ENOSPC")] {
        let wanted = some(&places, 10);
        for place in &wanted {
            let mut tries = 0;
            loop {
                let received = case.spoil(&child, place, fault).await;
                refused += usize::from(received.is_none());
                held.extend(received);
                held.push(case.client.at_last().await);
                if was_spoilt(&case.trace()) {
                    break;
                }
                tries += 1;
                assert!(tries < TRIES, "{name} never came to {place:?}");
            }
        }
        stood("P1", &format!("{name} at a write or sync of an issuance, each in turn"), wanted.len());
    }
    assert!(refused > 0, "no fault was felt by a caller");
    child.kill();
    case.files.check(&case.deployment).unwrap().compare(&held, &[]).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_anywhere_in_an_issuance_leaves_no_credential_without_its_record() {
    let case = Case::new().await;
    let mut child = Child::start(&case.files, &[]).await;
    let places = case.places(&child).await;
    let (mut held, wanted) = (Vec::new(), some(&places, 8));
    for place in &wanted {
        let mut tries = 0;
        while !child.is_gone() {
            assert!(tries < TRIES, "SIGKILL never came to {place:?}");
            tries += 1;
            held.extend(case.spoil(&child, place, "signal=KILL").await);
        }
        case.files.check(&case.deployment).unwrap().compare(&held, &[]).unwrap();
        child = Child::start(&case.files, &[]).await;
        held.push(case.client.at_last().await);
    }
    child.kill();
    case.files.check(&case.deployment).unwrap().compare(&held, &[]).unwrap();
    stood("P1", "SIGKILL at a write or sync of an issuance, each in turn", wanted.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fault_while_the_write_ahead_log_is_moved_into_the_database_loses_nothing() {
    let case = Case::new().await;
    let mut child = Child::start(&case.files, &[]).await;
    let places = case.places_of_a_move(&child).await;
    let mut held = Vec::new();
    for (fault, name) in [("error=EIO", "EIO"), ("error=ENOSPC", "ENOSPC"), ("signal=KILL", "SIGKILL")] {
        let wanted = if nightly() { &places[..] } else { &places[1..] };
        for place in wanted {
            let trace = case.trace();
            let tracer = Tracer::spoiling(&child, place, fault, &trace);
            // What injects nothing here fails: no move comes to an end without this call.
            held.extend(case.until_moved(|| child.is_gone() || was_spoilt(&trace)).await);
            tracer.detach();
            if child.is_gone() {
                child = Child::start(&case.files, &[]).await;
            }
            held.push(case.client.at_last().await);
            case.files.check(&case.deployment).unwrap().compare(&held, &[]).unwrap();
        }
        let what =
            format!("{name} at a write or sync of the database, as its write-ahead log is moved into it");
        stood("P1", &what, wanted.len());
    }
    child.kill();
    case.files.check(&case.deployment).unwrap().compare(&held, &[]).unwrap();
}
