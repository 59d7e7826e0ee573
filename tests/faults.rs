//! The broker's own program, killed and betrayed by its disk while callers use it.
//!
//! What counts as failure: a caller holds a credential that the log has no record of, or has as other bytes; the log
//! does not verify; the broker does not start again on what a kill left; a credential does not end once, in time.

mod agent;
mod brokers;
mod child;
mod clock;
mod compromise;
mod damage;
mod full;
mod load;
mod network;
mod pauses;
mod postgres;
mod recording;
mod replay;
pub(crate) mod report;
mod rotation;
mod snapshot;
mod sweep;
mod tracer;
mod unsynced;

use std::time::{Duration, Instant};

use daypass_tests::harness::{Deployment, nightly};

use crate::simulation::check::Ledger;
use crate::simulation::op::Random;
use child::{Child, Files};
use load::Load;
use report::stood;

const KILLS: usize = 6;
const KILLS_AT_NIGHT: usize = 120;
const CLIENTS: usize = 4;

/// How long the credentials of these tests live, in seconds.
const TTL_S: i64 = 5;

/// Endings wait for the leeway of receivers, then for the next sweep.
const ENDED_WITHIN: Duration = Duration::from_secs(5 + 30 + 10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_callers_received_is_in_the_log_however_often_the_broker_is_killed() {
    let deployment = Deployment::stopped(daypass_broker::dev::organisation::sample()).await;
    let files = Files::of(&deployment);
    let load = Load::start(&deployment, files.api, CLIENTS, TTL_S);
    let mut random = Random::new(9);
    let kills = if nightly() { KILLS_AT_NIGHT } else { KILLS };
    for kill in 0..kills {
        let before = load.received();
        let child = Child::start(&files, &[]).await;
        load.wait_for(before + 20).await;
        tokio::time::sleep(Duration::from_millis(random.below(700) as u64)).await;
        child.kill();
        let ledger = files.check(&deployment).unwrap_or_else(|failure| panic!("kill {kill}: {failure}"));
        ledger.compare(&load.held(), &[]).unwrap_or_else(|failure| panic!("kill {kill}: {failure}"));
    }
    let held = load.stop().await;

    let child = Child::start(&files, &[]).await;
    let ledger = ended(&files).await;
    ledger.compare(&held, &[]).unwrap();
    child.stop().await;
    assert_eq!(files.check(&deployment).unwrap().unended(), 0);
    stood("P1", "SIGKILL under load", kills);
    stood("P2", "SIGKILL under load, until each credential has ended", held.len());

    // The same check, where the newest record that a caller relies on had never come to the disk.
    let forgetful = files.copy();
    let newest = held.iter().map(|it| it.index).max().unwrap();
    forgetful.lose_from(newest);
    let failure = forgetful.read().unwrap().compare(&held, &[]).unwrap_err();
    assert!(failure.contains(&format!("entry {newest} is not its record")), "{failure}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_fails_to_sync_never_leaves_a_credential_without_its_record() {
    let deployment = Deployment::stopped(daypass_broker::dev::organisation::sample()).await;
    let files = Files::of(&deployment);
    let load = Load::start(&deployment, files.api, CLIENTS, TTL_S);
    // Each thread's third sync fails, and every fourth from there on.
    let inject = "inject=fsync,fdatasync:error=EIO:when=3+4";
    let tracer = ["strace", "-D", "-f", "-q", "-o", "/dev/null", "-e", "trace=fsync,fdatasync", "-e", inject];
    let child = Child::start(&files, &tracer).await;
    load.wait_for(50).await;
    child.kill();
    let held = load.stop().await;
    files.check(&deployment).unwrap().compare(&held, &[]).unwrap();
    assert!(files.said("a batch was not written"), "no sync failed: {}", files.output());

    // And it starts on what the failing disk left.
    let child = Child::start(&files, &[]).await;
    child.stop().await;
    files.check(&deployment).unwrap().compare(&held, &[]).unwrap();
    stood("P5", "each fourth sync fails under load", 1);
}

/// Waits until the log has an ending of everything.
async fn ended(files: &Files) -> Ledger {
    let began = Instant::now();
    loop {
        let ledger = files.read().unwrap();
        if ledger.unended() == 0 {
            return ledger;
        }
        assert!(began.elapsed() < ENDED_WITHIN, "{} credentials have no ending", ledger.unended());
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
