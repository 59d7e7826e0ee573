//! A walk through what operators of several brokers do and see, with the real programs: `docs/walk.md` is its record.
//! `DAYPASS_BLESS=1` writes it anew.

mod deployment;
mod load;
mod record;

use std::time::Duration;

use daypass_tests::harness::postgres::{OWNER, Postgres};
use daypass_tests::harness::{program, python};

use deployment::{Broker, Walk, receipt_size};
use load::Callers;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_brokers_are_taken_through_all_that_the_operators_page_describes() {
    let mut walk = Walk::new();
    let mut primary = Postgres::start();
    let standby = primary.standby("second");
    primary.wait_for_standby("second");
    let database = primary.database("daypass");
    let owner = database.url(OWNER);
    drop(database);
    let (b1, b2) = begin(&mut walk, &primary, &standby, &owner).await;
    let b1 = one_is_killed(&mut walk, b1, &b2).await;
    the_database_is_restarted(&mut walk, &mut primary).await;
    let next = the_primary_dies(&mut walk, &mut primary, &standby).await;
    a_key_is_rotated(&mut walk).await;
    let (restored, last) = a_backup_is_restored(&mut walk, standby, [b1, b2]).await;
    let brokers = it_is_recovered(&mut walk, &restored).await;
    both_verifiers(&mut walk, brokers).await;
    drop((next, last));
    walk.record.finish();
}

async fn begin(walk: &mut Walk, primary: &Postgres, standby: &Postgres, owner: &str) -> (Broker, Broker) {
    walk.configure(&[primary.port, standby.port]);
    walk.record.names(&[(primary.port, "db1:5432"), (standby.port, "db2:5432")]);
    walk.record.say(
        "## Two brokers, and a database with a synchronous standby\n\n\
         The configurations are [examples/broker-1.toml](examples/broker-1.toml) and [broker-2.toml](examples/broker-2.toml), with \
         other hosts and files. The database has two login roles, `daypass_owner` and `daypass`.",
    );
    let init = ["init", "--config", "b1.toml", "--bundle", "policies", "--owner", owner];
    let made = walk.broker(&init, 0).await;
    walk.learn_key(&made);
    let (b1, b2) = (walk.serve("b1").await, walk.serve("b2").await);
    walk.client(&["--profile", "b1", "get", "post-invoices", "--ttl", "5m"], 0, "> token").await;
    walk.client(&["--profile", "b2", "inspect", "token"], 0, "").await;
    walk.record.say("What one broker issued, the other knows at once: both read one log.");
    (b1, b2)
}

async fn one_is_killed(walk: &mut Walk, b1: Broker, b2: &Broker) -> Broker {
    let callers = Callers::of(walk, &[b2.api]);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let killed_at = callers.issued();
    b1.kill();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let seen = callers.stop().await;
    assert_eq!(seen.refused, 0, "callers of the other broker are refused");
    assert!(seen.issued > killed_at + 20);
    assert!(seen.longest_ms < 5_000, "one waited {} ms", seen.longest_ms);
    walk.record.say(&format!(
        "## A broker is killed under load\n\n\
         `b1` is killed with SIGKILL while callers that see only `b2` ask without a pause: they were issued {} credentials before \
         and {} after it, and refused none; the longest that one waited was {} ms. `b1` is started again.",
        killed_at,
        seen.issued - killed_at,
        seen.longest_ms
    ));
    walk.serve("b1").await
}

async fn the_database_is_restarted(walk: &mut Walk, primary: &mut Postgres) {
    let callers = Callers::of(walk, &walk.ports());
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = callers.issued();
    primary.restart();
    callers.wait_for(callers.issued() + 20).await;
    let seen = callers.stop().await;
    walk.record.say(&format!(
        "## PostgreSQL is restarted under load\n\n\
         `pg_ctl restart -m fast` on `db1`. Callers of both brokers were issued {before} credentials before it; then {} answers were \
         UNAVAILABLE, which callers try again; {} more credentials followed. From the last before it to the first after it {} ms \
         passed. No broker was touched.",
        seen.refused,
        seen.issued - before,
        seen.longest_ms
    ));
}

async fn the_primary_dies(walk: &mut Walk, primary: &mut Postgres, standby: &Postgres) -> Postgres {
    let callers = Callers::of(walk, &walk.ports());
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = callers.issued();
    primary.kill();
    standby.promote();
    let next = standby.standby("third");
    standby.wait_for_standby("third");
    callers.wait_for(before + 20).await;
    let seen = callers.stop().await;
    let held = seen.credentials.len();
    let missing = walk.missing(standby, &seen.credentials);
    assert_eq!(missing, 0, "of {held}");
    walk.record.say(&format!(
        "## The primary dies, and the standby takes its place\n\n\
         `db1` is killed with all its processes while callers of both brokers ask, `db2` is promoted (`pg_promote`) and gets a \
         synchronous standby of its own: until it has one, `store.durability = \"standby\"` lets nothing be issued. The brokers find \
         the new primary by themselves, because `store.url` names both. Callers held {held} credentials of before and after; \
         {missing} of them have no entry.",
    ));
    walk.broker(&["verify", "--config", "b1.toml"], 0).await;
    next
}

async fn a_key_is_rotated(walk: &mut Walk) {
    walk.record.say(
        "## A key is rotated by order\n\n\
         By an operator with the role `rotate`. Keys also rotate by themselves.",
    );
    walk.client(&["--profile", "alice", "rotate", "token", "--reason", "the yearly drill"], 0, "").await;
    walk.client(&["--profile", "b2", "get", "post-invoices", "--ttl", "5m"], 0, "> token").await;
}

async fn a_backup_is_restored(
    walk: &mut Walk,
    mut primary: Postgres,
    brokers: [Broker; 2],
) -> (Postgres, Postgres) {
    let mut restored = primary.backup();
    let callers = Callers::of(walk, &walk.ports());
    callers.wait_for(40).await;
    let seen = callers.stop().await;
    walk.keep_checkpoint(&seen.checkpoint);
    for broker in brokers {
        broker.stop().await;
    }
    primary.kill();
    restored.resume();
    let standby = restored.standby("fourth");
    restored.wait_for_standby("fourth");
    walk.configure(&[restored.port]);
    walk.record.names(&[(restored.port, "db3:5432")]);
    walk.record.say(&format!(
        "## A backup is restored\n\n\
         A backup of the database is taken with `pg_basebackup`; {} more credentials are issued after it. Then both brokers are \
         stopped, the database is lost with its standby, and the backup is restored on `db3`, which `store.url` names from now on. \
         A caller kept the checkpoint of its newest receipt, of size {}.",
        seen.issued,
        receipt_size(&seen.checkpoint)
    ));
    walk.broker(&["serve", "--config", "b2.toml"], 4).await;
    walk.record.say("The broker remembers by its anchor what the store has forgotten, and serves nothing.");
    (restored, standby)
}

async fn it_is_recovered(walk: &mut Walk, restored: &Postgres) -> [Broker; 2] {
    let owner = format!("postgresql://{OWNER}@127.0.0.1:{}/daypass", restored.port);
    walk.record.say("## The backup is recovered");
    let recover = [
        "recover",
        "--config",
        "b1.toml",
        "--checkpoint",
        "kept",
        "--checkpoint",
        "b2.anchor",
        "--owner",
        &owner,
    ];
    let done = walk.broker(&recover, 0).await;
    walk.learn_key(&done);
    walk.record.say(
        "Clients get the new log key, and forget what they kept of the old log. Both brokers serve again.",
    );
    let brokers = [walk.serve("b1").await, walk.serve("b2").await];
    walk.client(&["--profile", "b2", "get", "post-invoices", "--ttl", "5m"], 0, "> token").await;
    brokers
}

async fn both_verifiers(walk: &mut Walk, brokers: [Broker; 2]) {
    walk.record.say(
        "## The log is verified by both verifiers\n\n\
         By the program of the broker, which follows the log to the one before it; and over what anybody with the right to read \
         gets, by `daypass` and by the independent verifier.",
    );
    walk.client(&["--profile", "alice", "log", "checkpoint"], 0, "> checkpoint").await;
    walk.client(&["--profile", "alice", "--format", "ndjson", "log"], 0, "> entries.ndjson").await;
    let key = walk.log_key();
    let verify = ["log", "verify", "entries.ndjson", "--checkpoint", "checkpoint", "--log-key", &key];
    walk.run(&program("daypass"), "daypass", &verify, 0, "").await;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/verifier/verify.py");
    let verified =
        walk.run(&python(), "python3", &[script, "entries.ndjson", "checkpoint", &key], 0, "").await;
    assert!(!verified.stdout.is_empty());
    for broker in brokers {
        broker.stop().await;
    }
    let verified = walk.broker(&["verify", "--config", "b1.toml", "--key", &key], 0).await;
    assert!(verified.stdout.contains("follows"), "both logs: {verified:?}");
}
