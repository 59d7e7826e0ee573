//! A broker that sleeps with the log's lock in its hand.

use std::time::{Duration, Instant};

use daypass_tests::harness::nightly;
use daypass_tests::harness::postgres::Postgres;
use rustix::process::Signal;

use super::super::child::Child;
use super::super::load::Load;
use super::super::report::stood;
use super::super::{CLIENTS, TTL_S};
use super::cluster::{Cluster, ended};

/// The server ends the session after a second; the rest of what P15 allows is for five issuances on a machine that has
/// other things to do.
const WAITED_MOST: Duration = Duration::from_secs(5);

/// Whether some session holds the log's lock, or waits with what it was granted.
fn held(server: &Postgres) -> bool {
    let sql = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted";
    server.query("daypass", sql) != [["0"]]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_sleeps_with_the_lock_keeps_the_others_waiting_for_a_second_and_writes_nothing_of_it() {
    let server = Postgres::start();
    let cluster = Cluster::on(&server.database("daypass")).await;
    let (here, there) = (cluster.broker("b1", server.port), cluster.broker("b2", server.port));
    let first = Child::start(&here, &[]).await;
    let load = Load::start(&cluster.deployment, here.api, CLIENTS, TTL_S);
    load.wait_for(10).await;
    let second = Child::start(&there, &[]).await;
    let others = Load::start(&cluster.deployment, there.api, 1, TTL_S);
    let sleeps = if nightly() { 30 } else { 3 };
    for _ in 0..sleeps {
        others.wait_for(others.received() + 5).await;
        load.wait_for(load.received() + 5).await;
        let began = fall_asleep(&server, &first, &second).await;
        others.wait_for(others.received() + 5).await;
        let waited = began.elapsed();
        assert!(waited < WAITED_MOST, "the other broker waited {waited:?}");
        first.signal(Signal::CONT);
    }
    assert!(server.log().contains("idle-in-transaction timeout"), "{}", server.log());
    load.wait_for(load.received() + 5).await;
    let held = [load.stop().await, others.stop().await].concat();
    ended(&cluster).await.compare(&held, &[]).unwrap();
    first.stop().await;
    second.stop().await;
    cluster.check(&here).unwrap();
    cluster.check(&there).unwrap().compare(&held, &[]).unwrap();
    stood("P15", "a broker stopped with the log's lock in its hand, and woken", sleeps);
}

/// Stops the first broker again and again, until it is stopped with the lock: the other one is, meanwhile, so that
/// the lock is the first one's. Tells since when.
async fn fall_asleep(server: &Postgres, first: &Child, second: &Child) -> Instant {
    for _ in 0..400 {
        second.signal(Signal::STOP);
        // What the other one began is over by then, or ended by the server.
        tokio::time::sleep(Duration::from_millis(30)).await;
        first.signal(Signal::STOP);
        tokio::time::sleep(Duration::from_millis(30)).await;
        let began = Instant::now();
        let asleep = held(server) && holder_is_idle(server, first.id());
        second.signal(Signal::CONT);
        if asleep {
            return began;
        }
        first.signal(Signal::CONT);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it was never stopped with the lock");
}

/// Whether the session that holds the lock waits for the broker with this process id.
fn holder_is_idle(server: &Postgres, broker: u32) -> bool {
    let sql = "SELECT client_port FROM pg_stat_activity JOIN pg_locks USING (pid)
        WHERE locktype = 'advisory' AND granted AND state = 'idle in transaction'";
    let ports = server.query("daypass", sql);
    ports.iter().any(|row| owns_port(broker, row[0].parse().unwrap()))
}

/// Whether a connection from this port of loopback is the process's.
fn owns_port(process: u32, port: u16) -> bool {
    let table = std::fs::read_to_string(format!("/proc/{process}/net/tcp")).unwrap();
    let inode = table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let local = fields.get(1)?.rsplit(':').next()?;
        (u16::from_str_radix(local, 16) == Ok(port)).then(|| fields[9].to_owned())
    });
    let Some(inode) = inode else { return false };
    let wanted = format!("socket:[{inode}]");
    let files = std::fs::read_dir(format!("/proc/{process}/fd")).unwrap().flatten();
    files.filter_map(|file| std::fs::read_link(file.path()).ok()).any(|link| link.to_string_lossy() == wanted)
}
