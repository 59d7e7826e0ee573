//! Power is lost: whatever was not synced is gone, or only some of it came to the disk.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use daypass_tests::harness::{Deployment, nightly};

use super::child::{Child, Files, contents};
use super::load::Client;
use super::recording::{Recording, command};
use super::report::stood;
use crate::simulation::check::Held;
use crate::simulation::op::Random;

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_callers_received_is_in_the_log_when_all_that_was_not_synced_is_lost() {
    let deployment = Deployment::stopped(daypass_broker::dev::organisation::sample()).await;
    let files = Files::of(&deployment);
    let client = Client::of(&deployment, files.api, 300);
    let before = contents(&files).to_vec();
    let trace = deployment.folder().join("trace").to_str().unwrap().to_owned();
    let line = command(&trace);
    let child = Child::start(&files, &line.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let mut received: Vec<(f64, Held)> = Vec::new();
    for nth in 0..if nightly() { 300 } else { 12 } {
        let held = client.once().await.unwrap();
        received.push((now(), held));
        // Now and then the broker rests, and moves its write-ahead log.
        tokio::time::sleep(Duration::from_millis(if nth % 4 == 3 { 250 } else { 0 })).await;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    child.kill();

    let text = std::fs::read_to_string(&trace).unwrap();
    let recording = Recording::read(&text, &files.durable(), before);
    assert!(recording.syncs() >= received.len() / 2, "{} syncs were seen", recording.syncs());
    let whole = files.of_contents(&recording.files(f64::MAX, || true));
    whole.check(&deployment).expect("the recording leads to what the broker left");
    let mut random = Random::new(3);
    for (at, (moment, _)) in received.iter().enumerate() {
        let held: Vec<Held> = received[..=at].iter().map(|(_, held)| held.clone()).collect();
        let lost = files.of_contents(&recording.files(*moment, || false));
        let torn = files.of_contents(&recording.files(*moment, || random.below(2) == 0));
        for (what, left) in [("lost", lost), ("in part lost", torn)] {
            let compared = left.check(&deployment).and_then(|ledger| ledger.compare(&held, &[]));
            compared.unwrap_or_else(|failure| panic!("credential {at}, un-synced writes {what}: {failure}"));
        }
    }
    stood("P1", "loss of all un-synced writes, and of some, after an answer", received.len() * 2);
}
