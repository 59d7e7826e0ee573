//! The broker's own program on PostgreSQL: what it issues is recorded there, whatever happens to the server.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use daypass_broker::dev::caller::{Caller, possession};
use daypass_broker::serve::open_verified;
use daypass_evidence::entry::{Body, Entry};
use daypass_tests::harness::postgres::{Database, OWNER, Postgres, SERVICE};
use daypass_tests::harness::{CI, Deployment, NIGHTLY, Output, free_port, issue, program, run, task};

const SERVES_WITHIN: Duration = Duration::from_secs(60);

/// A program that serves; killed where it is dropped.
struct Serving(Child);

impl Drop for Serving {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A deployment in a database, and the configuration of its program.
struct Made {
    deployment: Deployment,
    config: PathBuf,
    api: u16,
}

impl Made {
    async fn on(database: &Database<'_>) -> Self {
        let deployment = Deployment::stopped_in(database.at()).await;
        let api = free_port();
        let text = std::fs::read_to_string(deployment.config_file()).unwrap();
        let web = deployment.settings.web.address;
        let text = text
            .replacen("[api]\nlisten = \"127.0.0.1:0\"", &format!("[api]\nlisten = \"127.0.0.1:{api}\""), 1)
            .replacen("[web]\nlisten = \"127.0.0.1:0\"", &format!("[web]\nlisten = \"{web}\""), 1);
        let config = deployment.folder().join("postgres.toml");
        std::fs::write(&config, text).unwrap();
        Self { deployment, config, api }
    }

    fn output(&self) -> String {
        std::fs::read_to_string(self.deployment.folder().join("output")).unwrap_or_default()
    }

    async fn serve(&self) -> Serving {
        let path = self.deployment.folder().join("output");
        let output = std::fs::File::options().create(true).append(true).open(path).unwrap();
        let mut command = Command::new(program("daypass-broker"));
        command.args(["serve", "--config"]).arg(&self.config).stdin(Stdio::null()).stderr(output);
        let mut serving = Serving(command.spawn().unwrap());
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.api)).is_err() {
            let ended = serving.0.try_wait().unwrap();
            assert!(
                ended.is_none() && began.elapsed() < SERVES_WITHIN,
                "it does not serve: {}",
                self.output()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        serving
    }

    async fn run(&self, command: &str) -> Output {
        run(program("daypass-broker"), [command, "--config", self.config.to_str().unwrap()]).await
    }

    async fn service(&self) -> Caller {
        let certificate = self.deployment.workload(NIGHTLY);
        Caller::connect(self.api, &self.deployment.listener_ca, Some(&certificate)).await.unwrap()
    }

    async fn job(&self) -> Caller {
        let bound = possession().unwrap();
        let caller = Caller::connect(self.api, &self.deployment.listener_ca, Some(&bound)).await.unwrap();
        caller.with_token(self.deployment.organisation.token(CI, NIGHTLY).unwrap())
    }

    /// All entries, once the log was verified.
    fn entries(&self) -> Vec<Entry> {
        let settings = &self.deployment.settings;
        let verified = open_verified(&settings.store, &settings.kek, Some(&settings.anchor)).unwrap();
        let rows = verified.reader.rows(0, u32::MAX).unwrap();
        rows.iter().map(|row| Entry::read(&row.bytes).unwrap()).collect()
    }

    fn assert_issued(&self, held: &[String]) {
        let entries = self.entries();
        for credential in held {
            let issued = entries.iter().any(|entry| {
                matches!(entry.body, Body::CredentialIssued(_))
                    && entry.envelope.id.to_string() == *credential
            });
            assert!(issued, "a caller holds {credential}, and it is not in the log");
        }
    }
}

/// Asks again until the broker knows its issuers' keys, or the store is back.
async fn issued(caller: impl AsyncFn() -> Caller) -> String {
    let mut refused = None;
    for _ in 0..100 {
        match issue(&caller().await, task("post-invoices")).await {
            Ok(answer) => return answer.credential_id,
            Err(error) => refused = Some(error),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("nothing is issued within 10 s: {refused:?}");
}

/// Callers that ask without a pause, and keep what they receive.
async fn ask(made: Arc<Made>, over: Arc<AtomicBool>) -> Vec<String> {
    let mut held = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let caller = made.service().await;
        while !over.load(Ordering::Relaxed) {
            match issue(&caller, task("post-invoices")).await {
                Ok(answer) => held.push(answer.credential_id),
                Err(_) => break,
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    held
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_issued_on_postgres_is_there_after_a_restart() {
    let made = Made::on(&Postgres::shared().any_database()).await;
    let serving = made.serve().await;
    let mut held = vec![issued(async || made.service().await).await, issued(async || made.job().await).await];
    drop(serving);
    let serving = made.serve().await;
    held.push(issued(async || made.service().await).await);
    drop(serving);
    made.assert_issued(&held);
    let verified = made.run("verify").await;
    assert_eq!(verified.code, Some(0), "{verified:?}");
    assert!(made.output().contains("fsync=on"), "what a commit survives is said: {}", made.output());
    let started = made.entries().into_iter().find_map(|entry| match entry.body {
        Body::BrokerStarted(started) => Some(started),
        _ => None,
    });
    let started = started.unwrap();
    assert_eq!((started.store.as_str(), started.schema), ("postgresql", 3));
    assert!(started.durability.contains("synchronous_commit=on"), "{}", started.durability);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_keeps_less_than_is_demanded_is_refused_with_what_was_found() {
    let mut server = Postgres::start();
    let made = Made::on(&server.database("daypass")).await;
    let serving = made.serve().await;
    issued(async || made.service().await).await;
    drop(serving);
    let text = std::fs::read_to_string(&made.config).unwrap();
    std::fs::write(&made.config, text.replace("[store]\n", "[store]\ndurability = \"standby\"\n")).unwrap();
    let refused = made.run("serve").await;
    assert_ne!(refused.code, Some(0), "{refused:?}");
    let said = format!("{}{}", refused.stdout, refused.stderr);
    assert!(said.contains("`store.durability` demands a synchronous standby"), "{said}");
    std::fs::write(&made.config, text).unwrap();
    server.configure("fsync = off");
    server.restart();
    let refused = made.run("serve").await;
    assert_ne!(refused.code, Some(0), "{refused:?}");
    let said = format!("{}{}", refused.stdout, refused.stderr);
    assert!(said.contains("`fsync` is off: what is committed can be lost"), "{said}");
    server.configure("fsync = on");
    server.restart();
    let serving = made.serve().await;
    issued(async || made.service().await).await;
    drop(serving);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_under_load_loses_nothing_that_a_caller_holds() {
    let mut server = Postgres::start();
    let made = Arc::new(Made::on(&server.database("daypass")).await);
    let serving = made.serve().await;
    issued(async || made.service().await).await;
    let over = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..4).map(|_| tokio::spawn(ask(Arc::clone(&made), Arc::clone(&over)))).collect();
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(700)).await;
        server.kill();
        tokio::time::sleep(Duration::from_millis(200)).await;
        server.resume();
        issued(async || made.service().await).await;
    }
    over.store(true, Ordering::Relaxed);
    let mut held = Vec::new();
    for caller in callers {
        held.extend(caller.await.unwrap());
    }
    drop(serving);
    assert!(held.len() > 20, "callers hold only {}", held.len());
    made.assert_issued(&held);
    let verified = made.run("verify").await;
    assert_eq!(verified.code, Some(0), "{verified:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promoted_standby_has_all_that_a_caller_holds() {
    let mut server = Postgres::start();
    let standby = server.standby("second");
    server.wait_for_standby("second");
    let made = Made::on(&server.database("daypass")).await;
    let serving = made.serve().await;
    let mut held = Vec::new();
    for _ in 0..20 {
        held.push(issued(async || made.service().await).await);
    }
    server.kill();
    drop(serving);
    let config = std::fs::read_to_string(&made.config).unwrap();
    let here = |port: u16| format!("127.0.0.1:{port}/daypass");
    std::fs::write(&made.config, config.replace(&here(server.port), &here(standby.port))).unwrap();
    let refused = made.run("serve").await;
    assert_eq!(refused.code, Some(1), "a standby is not served: {refused:?}");
    assert!(refused.stderr.contains("standby"), "{refused:?}");
    standby.promote();
    let verified = made.run("verify").await;
    assert_eq!(verified.code, Some(0), "{verified:?}");
    for credential in &held {
        let found = standby.query(
            "daypass",
            &format!("SELECT count(*) FROM daypass.entries WHERE convert_from(bytes, 'UTF8') LIKE '%\"id\":\"{credential}\"%'"),
        );
        assert_eq!(found, [["1"]], "{credential}");
    }
    let serving = made.serve().await;
    issued(async || made.service().await).await;
    drop(serving);
}

#[tokio::test]
async fn tables_of_a_later_program_are_not_served() {
    let database = Postgres::shared().any_database();
    let made = Made::on(&database).await;
    database.sql("INSERT INTO migrations VALUES (99, 99, 'a later one')");
    for command in ["serve", "verify"] {
        let refused = made.run(command).await;
        assert_eq!(refused.code, Some(1), "{command}: {refused:?}");
        assert!(refused.stderr.contains("newer"), "{command}: {refused:?}");
    }
}

/// A deployment on a file with something in its log, and a configuration of the same that names a database.
async fn on_file(database: &Database<'_>) -> (Deployment, PathBuf, PathBuf) {
    let mut deployment = Deployment::start().await;
    for _ in 0..5 {
        issue(&deployment.service().await, task("post-invoices")).await.unwrap();
    }
    deployment.stop().await;
    let old = deployment.config_file();
    let text = std::fs::read_to_string(&old).unwrap();
    let path = format!("path = {:?}", deployment.store());
    assert!(text.contains(&path));
    let new = deployment.folder().join("new.toml");
    std::fs::write(&new, text.replace(&path, &format!("url = \"{}\"", database.url(SERVICE)))).unwrap();
    (deployment, old, new)
}

async fn migrate(database: &Database<'_>, from: &Path, to: &Path) -> Output {
    let (from, to) = (from.to_str().unwrap(), to.to_str().unwrap());
    let owner = database.url(OWNER);
    run(program("daypass-broker"), ["migrate", "--config", to, "--from", from, "--owner", &owner]).await
}

#[tokio::test]
async fn a_store_moves_to_postgres_whole_and_is_not_served_where_it_was() {
    let database = Postgres::shared().any_database();
    let (mut deployment, old, new) = on_file(&database).await;
    let before = deployment.copied().open().unwrap();
    let token_shown = before.reader.live().unwrap();
    let moved = migrate(&database, &old, &new).await;
    assert_eq!(moved.code, Some(0), "{moved:?}");
    let again = migrate(&database, &old, &new).await;
    assert_eq!(again.code, Some(0), "run again, it finds that it is done: {again:?}");
    let there = database.at().reader().unwrap();
    assert_eq!(there.head().unwrap().unwrap(), before.started.head);
    assert_eq!(there.rows(0, u32::MAX).unwrap(), before.reader.rows(0, u32::MAX).unwrap());
    assert_eq!(there.fold_rows(0, u32::MAX).unwrap(), before.reader.fold_rows(0, u32::MAX).unwrap());
    assert_eq!(there.keys().unwrap(), before.reader.keys().unwrap());
    assert_eq!(there.live().unwrap(), token_shown);
    let refused = run(program("daypass-broker"), ["serve", "--config", old.to_str().unwrap()]).await;
    assert!(refused.code == Some(1) && refused.stderr.contains("was moved to"), "{refused:?}");

    deployment.settings.store = database.at();
    deployment.resume().await.unwrap();
    issue(&deployment.service().await, task("post-invoices")).await.unwrap();
    deployment.stop().await;
    let verified = run(program("daypass-broker"), ["verify", "--config", new.to_str().unwrap()]).await;
    assert_eq!(verified.code, Some(0), "{verified:?}");
}

#[tokio::test]
async fn a_store_that_was_changed_stays_where_it_is() {
    let database = Postgres::shared().any_database();
    let (deployment, old, new) = on_file(&database).await;
    deployment.change(|store| store.execute("DELETE FROM entries WHERE idx = 12", []).map(drop));
    let moved = migrate(&database, &old, &new).await;
    assert_eq!(moved.code, Some(4), "{moved:?}");
    assert_eq!(database.at().reader().unwrap().head().unwrap(), None, "nothing of it is left there");
    let verified = run(program("daypass-broker"), ["verify", "--config", old.to_str().unwrap()]).await;
    assert_eq!(verified.code, Some(4), "and it is still here: {verified:?}");
}
