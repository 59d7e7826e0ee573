//! Brokers that sleep and wake, and two where one was meant.

use std::time::Duration;

use daypass_tests::harness::{Deployment, nightly};
use rustix::process::Signal;

use super::child::{Child, Files};
use super::load::Load;
use super::report::stood;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_was_stopped_and_wakes_goes_on_with_the_same_log() {
    let deployment = Deployment::stopped(daypass_broker::dev::organisation::sample()).await;
    let files = Files::of(&deployment);
    let child = Child::start(&files, &[]).await;
    let load = Load::start(&deployment, files.api, 2, 300);
    let pauses = if nightly() { [500, 5_000, 70_000] } else { [100, 500, 2_500] };
    for pause in pauses {
        load.wait_for(load.received() + 10).await;
        child.signal(Signal::STOP);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        child.signal(Signal::CONT);
    }
    load.wait_for(load.received() + 10).await;
    child.kill();
    let held = load.stop().await;
    files.check(&deployment).unwrap().compare(&held, &[]).unwrap();
    stood("P3", "SIGSTOP under load, and SIGCONT", pauses.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_brokers_by_mistake_on_one_file_write_one_log() {
    let deployment = Deployment::stopped(daypass_broker::dev::organisation::sample()).await;
    let files = Files::of(&deployment);
    let others = Files::of_another(&deployment, "b2");
    let (first, second) = (Child::start(&files, &[]).await, Child::start(&others, &[]).await);
    let here = Load::start(&deployment, files.api, 2, 300);
    let there = Load::start(&deployment, others.api, 2, 300);
    here.wait_for(10).await;
    there.wait_for(10).await;
    tokio::time::sleep(Duration::from_secs(if nightly() { 60 } else { 4 })).await;
    // Neither keeps the other from writing.
    here.wait_for(here.received() + 10).await;
    there.wait_for(there.received() + 10).await;
    second.kill();
    first.kill();
    let held = [here.stop().await, there.stop().await].concat();
    files.check(&deployment).unwrap().compare(&held, &[]).unwrap();
    stood("P3", "a second broker on one SQLite file, both under load", 1);
}
