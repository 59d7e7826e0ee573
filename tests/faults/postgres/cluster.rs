//! A deployment in a database, and the programs that serve it.

use std::time::{Duration, Instant};

use daypass_broker::log::{Anchor, verify_store};
use daypass_broker::store::StoreAt;
use daypass_broker::store::postgres::{Password, PostgresAt};
use daypass_tests::harness::postgres::{Database, OWNER, SERVICE};
use daypass_tests::harness::{Deployment, Output, program, run};

use super::super::ENDED_WITHIN;
use super::super::child::{Child, Files};
use super::super::load::Load;
use crate::simulation::check::{Held, Ledger};

pub(super) struct Cluster {
    pub(super) deployment: Deployment,
    database: String,
}

impl Cluster {
    /// Made by `init`, and not served yet.
    pub(super) async fn on(database: &Database<'_>) -> Self {
        Self { deployment: Deployment::stopped_in(database.at()).await, database: database.name.clone() }
    }

    /// The files of a broker that reaches the database on `port`.
    pub(super) fn broker(&self, name: &str, port: u16) -> Files {
        Files::in_database(&self.deployment, name, &self.url(SERVICE, port))
    }

    pub(super) fn url(&self, role: &str, port: u16) -> String {
        format!("postgresql://{role}@127.0.0.1:{port}/{}", self.database)
    }

    /// From here on the store is looked for on another port.
    pub(super) fn moves_to(&mut self, port: u16) {
        let at = PostgresAt::new(&self.url(SERVICE, port), Password::None, None, false).unwrap();
        self.deployment.settings.store = StoreAt::Postgres(at.into());
    }

    /// Verifies the log as it lies in the database, as a broker does before it serves, and reads what it says.
    pub(super) fn check(&self, files: &Files) -> Result<Ledger, String> {
        let reader = self.deployment.settings.store.reader().map_err(|error| error.to_string())?;
        let anchor = Anchor::open(&files.anchor).unwrap();
        verify_store(reader.as_ref(), &self.deployment.log_key, Some(&anchor))
            .map_err(|error| error.to_string())?;
        self.read()
    }

    /// Reads what the log says.
    pub(super) fn read(&self) -> Result<Ledger, String> {
        let reader = self.deployment.settings.store.reader().map_err(|error| error.to_string())?;
        let mut ledger = Ledger::default();
        ledger.read_on(reader.as_ref())?;
        Ok(ledger)
    }

    /// Runs a command of the broker's program with the configuration of a broker.
    pub(super) async fn run(&self, command: &str, files: &Files, more: &[&str]) -> Output {
        let config = files.config.to_str().unwrap();
        run(program("daypass-broker"), [&[command, "--config", config], more].concat()).await
    }

    /// `recover`, told where the owner of the tables is.
    pub(super) async fn recover(&self, files: &Files, port: u16, more: &[&str]) -> Output {
        let owner = self.url(OWNER, port);
        self.run("recover", files, &[&["--owner", &owner], more].concat()).await
    }
}

/// Waits until the log has an ending of everything.
pub(super) async fn ended(cluster: &Cluster) -> Ledger {
    let began = Instant::now();
    loop {
        let ledger = cluster.read().unwrap();
        if ledger.unended() == 0 {
            return ledger;
        }
        assert!(began.elapsed() < ENDED_WITHIN, "{} credentials have no ending", ledger.unended());
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Ends the load on brokers and the brokers, once each credential ended, by one of them: the ledger refuses a second
/// ending. What callers hold.
pub(super) async fn over<const N: usize>(
    cluster: &Cluster,
    loads: [Load; N],
    brokers: [Child; N],
) -> Vec<Held> {
    let mut held = Vec::new();
    for load in loads {
        held.extend(load.stop().await);
    }
    ended(cluster).await.compare(&held, &[]).unwrap();
    for broker in brokers {
        broker.stop().await;
    }
    held
}
