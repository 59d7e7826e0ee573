//! One issuance, and each of its writes and syncs spoiled in turn.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use daypass_tests::harness::{Deployment, nightly};

use super::child::{Child, Files};
use super::load::Client;
use super::report::stood;
use super::tracer::{Place, Tracer, places, was_spoilt};
use crate::simulation::check::Held;

const TTL_S: i64 = 300;

/// How long after an issuance its settlement is written, and the anchor synced.
const SETTLED: Duration = Duration::from_millis(300);

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
