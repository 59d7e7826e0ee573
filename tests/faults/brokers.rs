//! Two brokers' programs on one store, of which one is killed while callers use both.

use std::time::{Duration, Instant};

use daypass_tests::harness::Deployment;

use super::child::{Child, Files};
use super::load::Load;
use super::report::stood;
use super::{CLIENTS, TTL_S, ended};

/// What the loss of a broker may cost whoever asks the other.
const LOST_WITHIN: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_killed_leaves_a_log_that_another_goes_on_with() {
    let deployment = Deployment::stopped(daypass_broker::dev::organisation::sample()).await;
    let (files, others) = (Files::of(&deployment), Files::of_another(&deployment, "b2"));
    let (first, second) = (Child::start(&files, &[]).await, Child::start(&others, &[]).await);
    let here = Load::start(&deployment, files.api, CLIENTS, TTL_S);
    let there = Load::start(&deployment, others.api, CLIENTS, TTL_S);
    here.wait_for(100).await;
    there.wait_for(100).await;
    first.kill();
    let (killed, before) = (Instant::now(), there.received());
    there.wait_for(before + CLIENTS).await;
    assert!(killed.elapsed() < LOST_WITHIN, "the other broker answered after {:?}", killed.elapsed());
    there.wait_for(before + 100).await;
    let held = [here.stop().await, there.stop().await].concat();

    // The other broker ends what the killed one issued, each once: the ledger refuses a second ending.
    let ledger = ended(&others).await;
    ledger.compare(&held, &[]).unwrap();
    second.stop().await;
    assert_eq!(others.check(&deployment).unwrap().unended(), 0);
    stood("P15", "SIGKILL of one of two brokers under load; the other goes on within 5 s", 1);
}
