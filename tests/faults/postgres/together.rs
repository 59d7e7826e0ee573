//! Two brokers that nothing is wrong with, and one whose clock leaves the database's.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use daypass_evidence::entry::{Body, Entry};
use daypass_tests::harness::postgres::Postgres;
use daypass_verify::time::UnixMs;

use super::super::TTL_S;
use super::super::child::Child;
use super::super::clock::FakeClock;
use super::super::load::Client;
use super::super::report::stood;
use super::cluster::{Cluster, ended};

/// A heartbeat comes each minute.
const A_MINUTE: Duration = Duration::from_secs(63);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_brokers_settle_end_and_beat_each_for_itself_and_nothing_twice() {
    let server = Postgres::start();
    let cluster = Cluster::on(&server.database("daypass")).await;
    let (here, there) = (cluster.broker("b1", server.port), cluster.broker("b2", server.port));
    let (first, second) = (Child::start(&here, &[]).await, Child::start(&there, &[]).await);
    let clients = [&here, &there].map(|files| Client::of(&cluster.deployment, files.api, TTL_S));
    let (began, mut held) = (Instant::now(), Vec::new());
    while began.elapsed() < A_MINUTE {
        for client in &clients {
            held.extend(client.once().await);
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    // The ledger refuses what is ended or settled a second time.
    let ledger = ended(&cluster).await;
    first.stop().await;
    second.stop().await;
    cluster.check(&here).unwrap();
    let ledger_at_the_end = cluster.check(&there).unwrap();
    ledger.compare(&held, &[]).unwrap();
    ledger_at_the_end.compare_released(&held).unwrap();
    assert!(held.len() > 50, "{}", held.len());
    assert_eq!(ledger_at_the_end.released(), held.len(), "each is settled");
    check_heartbeats(&cluster);
    stood("P2", "two brokers on PostgreSQL that settle and end together", held.len());
}

/// Each broker beats for itself: no two heartbeats of one begin at the same moment, and none counts what another issued.
fn check_heartbeats(cluster: &Cluster) {
    let reader = cluster.deployment.settings.store.reader().unwrap();
    let (mut issued, mut counted) = (BTreeMap::<String, u64>::new(), BTreeMap::<String, u64>::new());
    let mut since = BTreeMap::<String, Vec<UnixMs>>::new();
    for row in reader.rows(0, u32::MAX).unwrap() {
        let entry = Entry::read(&row.bytes).unwrap();
        let broker = entry.envelope.broker.to_string();
        match entry.body {
            Body::CredentialIssued(_) => *issued.entry(broker).or_default() += 1,
            Body::BrokerHeartbeat(beat) => {
                *counted.entry(broker.clone()).or_default() += beat.counts.issued;
                since.entry(broker).or_default().push(beat.since_ms);
            }
            _ => {}
        }
    }
    assert_eq!(since.len(), 2, "{since:?}");
    for (broker, since) in since {
        assert!(since.is_sorted_by(|a, b| a < b), "{broker}: {since:?}");
        let (issued, counted) = (issued[&broker], counted[&broker]);
        assert!(counted > 0 && counted <= issued, "{broker}: issued {issued}, counted {counted}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_whose_clock_leaves_the_databases_stops_while_another_goes_on() {
    let server = Postgres::start();
    let cluster = Cluster::on(&server.database("daypass")).await;
    let (here, there) = (cluster.broker("b1", server.port), cluster.broker("b2", server.port));
    let fake = FakeClock::new(&cluster.deployment);
    let (first, second) = (Child::start(&here, &[]).await, fake.start(&there).await);
    let [right, wrong] = [&here, &there].map(|files| Client::of(&cluster.deployment, files.api, TTL_S));
    let mut held = vec![right.at_last().await, wrong.at_last().await];
    let jumps = ["+3", "-3", "+600"];
    for jump in jumps {
        fake.set(jump);
        for _ in 0..10 {
            assert!(wrong.answer().await.is_err(), "issued with a clock that is {jump} s off");
            held.push(right.answer().await.unwrap());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        fake.set("+0");
        held.push(wrong.at_last().await);
    }
    ended(&cluster).await.compare(&held, &[]).unwrap();
    first.stop().await;
    second.stop().await;
    cluster.check(&here).unwrap();
    cluster.check(&there).unwrap();
    stood("P11", "one broker's clock set off PostgreSQL's by 3 s or more, another going on", jumps.len());
}
