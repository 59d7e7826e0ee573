//! A network that fails at the worst moment: around a COMMIT, or for a while, one way or both.

use std::time::{Duration, Instant};

use daypass_tests::harness::nightly;
use daypass_tests::harness::postgres::{Commit, Postgres, Proxy};

use super::super::child::Child;
use super::super::load::{Client, Load};
use super::super::report::stood;
use super::super::{CLIENTS, TTL_S};
use super::cluster::{Cluster, ended, over};
use crate::simulation::op::Random;

/// How long a broker that is cut off may leave a caller without an answer: the 5 s of a request, and a new connection to
/// it while two cores are busy.
const ANSWERS_WITHIN: Duration = Duration::from_secs(8);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_is_lost_is_learned_from_the_head_and_written_once() {
    let server = Postgres::start();
    let proxy = Proxy::before(server.port);
    let cluster = Cluster::on(&server.database("daypass")).await;
    let files = cluster.broker("b1", proxy.port);
    let child = Child::start(&files, &[]).await;
    let load = Load::start(&cluster.deployment, files.api, CLIENTS, TTL_S);
    let rounds = if nightly() { 200 } else { 20 };
    for round in 0..rounds {
        load.wait_for(load.received() + 5).await;
        proxy.arm(if round % 2 == 0 { Commit::LoseAnswer } else { Commit::Lose });
        proxy.wait_for(round + 1);
    }
    load.wait_for(load.received() + 5).await;
    let held = load.stop().await;
    let ledger = ended(&cluster).await;
    ledger.compare(&held, &[]).unwrap();
    child.stop().await;
    cluster.check(&files).unwrap().compare(&held, &[]).unwrap();
    let half = usize::try_from(rounds / 2).unwrap();
    stood("P15", "the answer to a COMMIT lost", half);
    stood("P15", "a connection cut before its COMMIT", half);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_killed_at_a_commit_has_all_of_it_or_nothing() {
    let mut server = Postgres::start();
    let proxy = Proxy::before(server.port);
    let cluster = Cluster::on(&server.database("daypass")).await;
    let files = cluster.broker("b1", proxy.port);
    let child = Child::start(&files, &[]).await;
    let load = Load::start(&cluster.deployment, files.api, CLIENTS, TTL_S);
    let (mut random, kills) = (Random::new(16), if nightly() { 60 } else { 6 });
    for kill in 0..kills {
        load.wait_for(load.received() + 5).await;
        proxy.arm(Commit::HoldAnswer);
        proxy.wait_for(kill + 1);
        tokio::time::sleep(Duration::from_micros(random.below(2_000) as u64)).await;
        server.kill();
        proxy.heal();
        server.resume();
    }
    load.wait_for(load.received() + 5).await;
    let held = load.stop().await;
    child.stop().await;
    cluster.check(&files).unwrap().compare(&held, &[]).unwrap();
    stood("P15", "PostgreSQL killed with a COMMIT on its way", usize::try_from(kills).unwrap());
}

/// A broker cut off while both are used: it answers nobody falsely, within its bound; another goes on; and nothing is
/// lost or double when it is back.
async fn partitioned(cut: fn(&Proxy), what: &str) {
    let server = Postgres::start();
    let proxy = Proxy::before(server.port);
    let cluster = Cluster::on(&server.database("daypass")).await;
    let (here, there) = (cluster.broker("b1", proxy.port), cluster.broker("b2", server.port));
    let (first, second) = (Child::start(&here, &[]).await, Child::start(&there, &[]).await);
    let loads = [&here, &there].map(|files| Load::start(&cluster.deployment, files.api, CLIENTS, TTL_S));
    for load in &loads {
        load.wait_for(30).await;
    }
    cut(&proxy);
    let began = Instant::now();
    let before = loads[1].received();
    loads[1].wait_for(before + 20).await;
    let went_on = began.elapsed();
    assert!(went_on < Duration::from_secs(5), "the other broker went on only after {went_on:?}");
    let asked = Instant::now();
    let refused = Client::of(&cluster.deployment, here.api, TTL_S).answer().await;
    let answered = asked.elapsed();
    assert_eq!(refused.err(), Some(tonic::Code::Unavailable), "the broker that is cut off");
    assert!(answered < ANSWERS_WITHIN, "it answered only after {answered:?}");
    let cut_off = loads[0].received();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(loads[0].received(), cut_off, "it issues nothing");
    proxy.heal();
    loads[0].wait_for(cut_off + 20).await;
    let held = over(&cluster, loads, [first, second]).await;
    cluster.check(&here).unwrap();
    cluster.check(&there).unwrap().compare(&held, &[]).unwrap();
    stood("P15", what, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_cut_off_from_its_database_stops_while_another_goes_on() {
    partitioned(Proxy::stall, "a broker cut off from PostgreSQL both ways, another going on").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_gets_no_answers_any_more_stops_while_another_goes_on() {
    partitioned(
        Proxy::stall_answers,
        "a broker that PostgreSQL hears and that hears nothing, another going on",
    )
    .await;
}
