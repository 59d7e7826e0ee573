//! Brokers' programs on a PostgreSQL that is killed, cut off, replaced, or does not answer.

mod cluster;
mod commits;
mod paused;
mod replay;
mod standby;
mod together;

use std::time::Duration;

use daypass_tests::harness::nightly;
use daypass_tests::harness::postgres::Postgres;

use super::child::Child;
use super::load::Load;
use super::report::stood;
use super::{CLIENTS, TTL_S};
use crate::simulation::op::Random;
use cluster::{Cluster, over};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_killed_again_and_again_under_two_brokers_loses_and_doubles_nothing() {
    let mut server = Postgres::start();
    let cluster = Cluster::on(&server.database("daypass")).await;
    let (here, there) = (cluster.broker("b1", server.port), cluster.broker("b2", server.port));
    let (first, second) = (Child::start(&here, &[]).await, Child::start(&there, &[]).await);
    let loads = [&here, &there].map(|files| Load::start(&cluster.deployment, files.api, CLIENTS, TTL_S));
    let (mut random, kills) = (Random::new(15), if nightly() { 60 } else { 6 });
    for _ in 0..kills {
        for load in &loads {
            load.wait_for(load.received() + 10).await;
        }
        tokio::time::sleep(Duration::from_micros(random.below(300_000) as u64)).await;
        server.kill();
        server.resume();
    }
    for load in &loads {
        load.wait_for(load.received() + 10).await;
    }
    let held = over(&cluster, loads, [first, second]).await;
    assert_eq!(cluster.check(&here).unwrap().unended(), 0);
    stood("P15", "PostgreSQL killed under two loaded brokers", kills);
    stood("P2", "PostgreSQL killed under two brokers, until each credential has ended", held.len());
}
