//! A second server that follows the first, and takes its place.

use super::Postgres;
use std::time::{Duration, Instant};

const WITHIN: Duration = Duration::from_secs(30);

impl Postgres {
    /// A standby of this server, which streams from it as `name`. Commits wait for it once
    /// [`Postgres::wait_for_standby`] says so.
    pub fn standby(&self, name: &str) -> Self {
        let mut made = self.copied(name, &["-R"]);
        made.resume();
        made
    }

    /// A backup of this server as of now, not started: its restored copy is a server of its own.
    pub fn backup(&self) -> Self {
        self.copied("backup", &[])
    }

    fn copied(&self, name: &str, more: &[&str]) -> Self {
        let made = Self::empty();
        let from = format!("host=127.0.0.1 port={} user=postgres application_name={name}", self.port);
        let all = [&["-d", &from, "-D", "data", "-X", "stream", "-c", "fast", "--no-sync"], more].concat();
        made.run("pg_basebackup", &all);
        let path = made.data().join("postgresql.auto.conf");
        let copied = std::fs::read_to_string(&path).unwrap();
        let ours = format!(
            "{copied}\nport = {}\nunix_socket_directories = '{}'\nsynchronous_standby_names = ''\n\
             wal_retrieve_retry_interval = '500ms'\n",
            made.port,
            made.folder.display()
        );
        std::fs::write(&path, ours).unwrap();
        made
    }

    /// From here on a commit returns only when the standby `name` has it on its disk. Waits until it follows.
    pub fn wait_for_standby(&self, name: &str) {
        self.configure(&format!("synchronous_standby_names = '{name}'"));
        self.reload();
        let sql = format!(
            "SELECT 1 FROM pg_stat_replication WHERE application_name = '{name}' AND sync_state = 'sync'"
        );
        self.eventually("the standby follows", || !self.query("postgres", &sql).is_empty());
    }

    /// Makes this standby the primary.
    pub fn promote(&self) {
        self.sql("postgres", "SELECT pg_promote(true, 30)");
        self.eventually("it is a primary", || {
            self.query("postgres", "SELECT pg_is_in_recovery()") == [["f"]]
        });
    }

    fn eventually(&self, what: &str, holds: impl Fn() -> bool) {
        let began = Instant::now();
        while !holds() {
            assert!(began.elapsed() < WITHIN, "not within 30 s: {what}: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
