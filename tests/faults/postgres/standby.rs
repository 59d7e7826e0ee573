//! A standby that takes the place of a primary that was killed: one that every commit waited for, and one that lags.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use daypass_evidence::entry::{Body, Entry, LogOpened, OpenReason};
use daypass_proto::v1 as pb;
use daypass_tests::harness::postgres::{Postgres, SERVICE};
use daypass_tests::harness::{NIGHTLY, Refused, eventually, issue, task};
use rustix::process::{Pid, Signal, kill_process};

use super::super::child::{Child, Files};
use super::super::load::Load;
use super::super::report::stood;
use super::super::{CLIENTS, TTL_S};
use super::cluster::Cluster;
use daypass_broker::dev::caller::Caller;

/// Longer than a broker waits for the answer to a COMMIT.
const LAGS: Duration = Duration::from_secs(11);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_synchronous_standby_that_is_promoted_under_load_has_all_that_callers_hold() {
    let mut server = Postgres::start();
    let standby = server.standby("second");
    server.wait_for_standby("second");
    let mut cluster = Cluster::on(&server.database("daypass")).await;
    let either = either(&server, &standby);
    let files = Files::in_database(&cluster.deployment, "b1", &either);
    let text = std::fs::read_to_string(&files.config).unwrap();
    std::fs::write(&files.config, text.replace("[store]\n", "[store]\ndurability = \"standby\"\n")).unwrap();
    let child = Child::start(&files, &[]).await;
    let load = Load::start(&cluster.deployment, files.api, CLIENTS, TTL_S);
    load.wait_for(200).await;
    // What the standby has not got is no answer: it lags for longer than the broker waits for any COMMIT.
    let sender = sender(&server);
    kill_process(sender, Signal::STOP).unwrap();
    nothing_is_answered(&server, &load, LAGS).await;
    kill_process(sender, Signal::CONT).unwrap();
    load.wait_for(load.received() + 20).await;
    // And the primary dies with commits that it has, and its standby never gets.
    kill_process(sender, Signal::STOP).unwrap();
    nothing_is_answered(&server, &load, Duration::from_secs(1)).await;
    server.kill();
    standby.promote();
    // The promoted one has no standby of its own yet, and the configuration demands one.
    let next = standby.standby("third");
    standby.wait_for_standby("third");
    let before = load.received();
    load.wait_for(before + 20).await;
    child.stop().await;
    let held = load.stop().await;
    cluster.moves_to(standby.port);
    cluster.check(&files).unwrap().compare(&held, &[]).unwrap();
    drop(next);
    stood("P1", "a synchronous standby that lags: no answer until it has the record", 2);
    stood("P15", "synchronous standby promoted under load: credentials that callers held", held.len());
}

/// The process that sends a server's log to its standby.
fn sender(server: &Postgres) -> Pid {
    let sql = "SELECT pid FROM pg_stat_replication WHERE application_name = 'second'";
    Pid::from_raw(server.query("postgres", sql)[0][0].parse().unwrap()).unwrap()
}

/// A commit waits for the standby, and no caller is answered for this long.
async fn nothing_is_answered(server: &Postgres, load: &Load, long: Duration) {
    let waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    eventually("a commit waits", || async { !server.query("postgres", waiting).is_empty() }).await;
    // Answers of what was committed before may still be on their way.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let (before, began) = (load.received(), Instant::now());
    while began.elapsed() < long {
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(load.received(), before, "answered before the standby had it");
    }
}

/// Both servers, of which the one that takes writes is meant.
fn either(server: &Postgres, standby: &Postgres) -> String {
    format!("postgresql://{SERVICE}@127.0.0.1:{},127.0.0.1:{}/daypass", server.port, standby.port)
}

struct Lost {
    cluster: Cluster,
    standby: Postgres,
    brokers: Vec<(Files, Child)>,
    /// The newest checkpoint that a caller holds, in a file.
    known: PathBuf,
    /// What callers hold of what is lost.
    lost: usize,
}

/// Two brokers whose primary was killed with entries that its asynchronous standby never got, and which is promoted.
async fn lost() -> Lost {
    let mut server = Postgres::start();
    let standby = server.standby("second");
    let mut cluster = Cluster::on(&server.database("daypass")).await;
    let either = either(&server, &standby);
    let mut brokers = Vec::new();
    for name in ["b1", "b2"] {
        let files = Files::in_database(&cluster.deployment, name, &either);
        let child = Child::start(&files, &[]).await;
        brokers.push((files, child));
    }
    let load = Load::start(&cluster.deployment, brokers[0].0.api, 2, 300);
    load.wait_for(20).await;
    kill_process(sender(&server), Signal::STOP).unwrap();
    let before = load.received();
    load.wait_for(before + 30).await;
    let lost = load.stop().await.len() - before;
    let answer = ask(&cluster, &brokers[1].0, Vec::new()).await.unwrap();
    let known = cluster.deployment.folder().join("known");
    std::fs::write(&known, &answer.receipt.unwrap().checkpoint).unwrap();
    server.kill();
    standby.promote();
    cluster.moves_to(standby.port);
    Lost { cluster, standby, brokers, known, lost }
}

/// Asks one broker as the nightly run, which tells it what it knows.
async fn ask(cluster: &Cluster, files: &Files, known: Vec<u8>) -> Result<pb::IssueResponse, Refused> {
    let certificate = cluster.deployment.workload(NIGHTLY);
    let caller =
        Caller::connect(files.api, &cluster.deployment.listener_ca, Some(&certificate)).await.unwrap();
    issue(&caller, pb::IssueRequest { known_checkpoint: known.into(), ..task("post-invoices") }).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_asynchronous_standby_that_lost_entries_stops_each_broker_and_is_recovered_from() {
    let Lost { cluster, standby, brokers, known, lost } = lost().await;
    let size = |it: &Cluster| it.deployment.settings.store.reader().unwrap().head().unwrap().unwrap().size;
    let restored = size(&cluster);
    assert!(lost >= 30, "{lost}");

    // Those that run remember the head.
    for (files, _) in &brokers {
        let refused = until_refused_for_good(&cluster, files).await;
        assert_eq!(refused.reason, "ROLLBACK", "{refused:?}");
    }
    let refused = cluster.recover(&brokers[0].0, standby.port, &[]).await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("stop all brokers first"), "{refused:?}");
    let files: Vec<Files> = brokers
        .into_iter()
        .map(|(files, child)| {
            child.kill();
            files
        })
        .collect();
    // Their anchors remember it over a restart.
    for broker in &files {
        let refused = cluster.run("serve", broker, &[]).await;
        assert_eq!(refused.code, Some(4), "{refused:?}");
        assert!(refused.stderr.contains("ROLLBACK") && refused.stderr.contains("recover"), "{refused:?}");
    }
    assert_eq!(size(&cluster), restored, "none of them wrote");

    let done = cluster.recover(&files[1], standby.port, &["--checkpoint", known.to_str().unwrap()]).await;
    assert_eq!(done.code, Some(0), "{done:?}");
    let verified = cluster.run("verify", &files[1], &[]).await;
    assert_eq!(verified.code, Some(0), "{verified:?}");
    assert!(verified.stdout.contains("follows"), "both logs, and their link: {verified:?}");
    let opened = opened(&cluster);
    let gap = opened.gap.unwrap();
    assert_eq!((opened.reason, gap.from), (OpenReason::Recovered, restored));
    let told = std::fs::read_to_string(&known).unwrap();
    let told: u64 = told.lines().nth(1).unwrap().parse().unwrap();
    assert!(gap.note.contains(&format!("entries up to {} at least", told - 1)), "{}", gap.note);
    serve_again(&cluster, &files).await;
    stood("P4", "asynchronous standby promoted without the newest entries, then `recover`", 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_went_on_where_entries_were_missing_is_recovered_by_order_alone_and_says_so() {
    let Lost { cluster, standby, brokers, known, lost } = lost().await;
    brokers.into_iter().for_each(|(_, child)| child.kill());
    let files = cluster.broker("b3", standby.port);
    let child = Child::start(&files, &[]).await;
    let load = Load::start(&cluster.deployment, files.api, 2, 300);
    load.wait_for(lost + 20).await;
    load.stop().await;
    child.kill();
    let kept = ["--checkpoint", known.to_str().unwrap()];
    let refused = cluster.recover(&files, standby.port, &kept).await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("another history"), "{refused:?}");
    let done = cluster.recover(&files, standby.port, &[&["--forked"], &kept[..]].concat()).await;
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(opened(&cluster).gap.unwrap().note.contains("it was forked"));
    serve_again(&cluster, &[files]).await;
    stood("P4", "a log that went on where a promoted standby lacked entries, then `recover`", 1);
}

/// Both brokers go on in the new log, and what was lost buys nothing there.
async fn serve_again(cluster: &Cluster, files: &[Files]) {
    let mut children = Vec::new();
    for broker in files {
        children.push(Child::start(broker, &[]).await);
    }
    for broker in files {
        ask(cluster, broker, Vec::new()).await.unwrap();
    }
    for child in children {
        child.stop().await;
    }
    for broker in files {
        let verified = cluster.run("verify", broker, &[]).await;
        assert_eq!(verified.code, Some(0), "{verified:?}");
    }
}

/// A broker takes a moment to see that its database is another; then it refuses for good.
async fn until_refused_for_good(cluster: &Cluster, files: &Files) -> Refused {
    let mut last = None;
    for _ in 0..100 {
        match ask(cluster, files, Vec::new()).await {
            Ok(answer) => panic!("issued on a log that lost entries: {}", answer.credential_id),
            Err(refused) if refused.reason == "ROLLBACK" => return refused,
            Err(refused) => last = Some(refused),
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    last.unwrap()
}

fn opened(cluster: &Cluster) -> LogOpened {
    let rows = cluster.deployment.settings.store.reader().unwrap().rows(0, 1).unwrap();
    match Entry::read(&rows[0].bytes).unwrap().body {
        Body::LogOpened(opened) => *opened,
        other => panic!("{other:?}"),
    }
}
