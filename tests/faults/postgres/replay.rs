//! A proof that buys once, and a broker that is killed while its COMMIT is on the way.

use daypass_evidence::entry::Entry;
use daypass_tests::harness::nightly;
use daypass_tests::harness::postgres::{Commit, Postgres, Proxy};

use super::super::child::Child;
use super::super::replay::{Replays, bought, job, show, show_at_last};
use super::super::report::stood;
use super::cluster::Cluster;

fn entries(cluster: &Cluster) -> Vec<Entry> {
    let rows = cluster.deployment.settings.store.reader().unwrap().rows(0, u32::MAX).unwrap();
    rows.iter().map(|row| Entry::read(&row.bytes).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proof_that_a_killed_broker_recorded_buys_no_more_of_another_nor_of_itself() {
    let server = Postgres::start();
    let proxy = Proxy::before(server.port);
    let cluster = Cluster::on(&server.database("daypass")).await;
    let (here, there) = (cluster.broker("b1", proxy.port), cluster.broker("b2", server.port));
    let other = Child::start(&there, &[]).await;
    let ca = cluster.deployment.listener_ca.clone();
    let (mut replays, rounds) = (Replays::default(), if nightly() { 60 } else { 6 });
    for round in 0..rounds {
        let first = Child::start(&here, &[]).await;
        show_at_last(&ca, here.api, &job(&cluster.deployment)).await.unwrap();
        let (token, before) = (job(&cluster.deployment), bought(&entries(&cluster)));
        // The server carries the COMMIT out, or never hears of it; the broker learns neither.
        proxy.arm(if round % 3 == 2 { Commit::Lose } else { Commit::HoldAnswer });
        let asked = tokio::spawn({
            let (ca, port, token) = (ca.clone(), here.api, token.clone());
            async move { show(&ca, port, &token).await }
        });
        proxy.wait_for(u64::try_from(round).unwrap() + 1);
        first.kill();
        proxy.heal();
        let answer = asked.await.unwrap();
        // Where the killed broker's transaction is not over yet, the other one waits for the log's lock.
        let again = show_at_last(&ca, there.api, &token).await;
        let recorded = bought(&entries(&cluster)) - before;
        replays.check(&answer, recorded - usize::from(again.is_ok()), &again);
        let first = Child::start(&here, &[]).await;
        let third = show_at_last(&ca, here.api, &token).await;
        assert!(third.is_err(), "bought again of the broker that had been killed");
        first.stop().await;
    }
    assert!(replays.unanswered > 0, "no kill fell between a record and its answer");
    other.stop().await;
    cluster.check(&here).unwrap();
    cluster.check(&there).unwrap();
    stood("P7", "SIGKILL of a broker with a COMMIT on its way, and its proof shown to another", rounds);
    stood("P7", "SIGKILL between record and answer, and the proof shown again", replays.unanswered);
}
