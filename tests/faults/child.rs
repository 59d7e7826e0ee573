//! The broker's program as a child process, and the files that it leaves.

use std::fs::File;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use daypass_broker::log::{Anchor, verify_store};
use daypass_broker::store::sqlite::SqliteStore;
use daypass_broker::store::{Reader, Store as _};
use daypass_evidence::entry::Entry;
use daypass_tests::harness::{Deployment, free_port, program};
use rusqlite::Connection;
use tempfile::TempDir;

use crate::simulation::check::Ledger;

const STARTS_WITHIN: Duration = Duration::from_secs(30);
const STOPS_WITHIN: Duration = Duration::from_secs(10);

/// Where a broker's files lie, and where it serves.
pub(super) struct Files {
    store: PathBuf,
    pub(super) anchor: PathBuf,
    pub(super) config: PathBuf,
    output: PathBuf,
    pub(super) api: u16,
    _folder: Option<TempDir>,
}

impl Files {
    /// Writes the configuration with which the program serves `deployment`.
    pub(super) fn of(deployment: &Deployment) -> Self {
        let web = deployment.settings.web.address.port();
        Self::written(deployment, deployment.store(), "daypass.toml", web)
    }

    /// The same store, served by another broker with an anchor of its own.
    pub(super) fn of_another(deployment: &Deployment, name: &str) -> Self {
        let web = free_port();
        let mut files = Self::written(deployment, deployment.store(), &format!("{name}.toml"), web);
        let anchor = deployment.folder().join(format!("anchor-{name}"));
        let text = std::fs::read_to_string(&files.config).unwrap();
        let named = text.replace("[broker]\n", &format!("[broker]\nname = \"{name}\"\n"));
        let named = named.replace(&format!("anchor = {:?}", files.anchor), &format!("anchor = {anchor:?}"));
        std::fs::write(&files.config, named).unwrap();
        files.anchor = anchor;
        files
    }

    /// A store in a database, served by the broker of this name with an anchor of its own.
    pub(super) fn in_database(deployment: &Deployment, name: &str, url: &str) -> Self {
        let none = Path::new("none");
        let web = if name == "b1" { deployment.settings.web.address.port() } else { free_port() };
        let mut files = Self::written(deployment, none, &format!("{name}.toml"), web);
        let text = std::fs::read_to_string(&files.config).unwrap();
        let anchor = deployment.folder().join(format!("anchor-{name}"));
        let text = text
            .replace("[broker]\n", &format!("[broker]\nname = \"{name}\"\n"))
            .replace(&format!("path = {none:?}"), &format!("url = {url:?}"))
            .replace(&format!("anchor = {:?}", files.anchor), &format!("anchor = {anchor:?}"));
        std::fs::write(&files.config, text).unwrap();
        files.anchor = anchor;
        files
    }

    /// The same deployment with its store in `folder`.
    pub(super) fn on(deployment: &Deployment, folder: &Path) -> Self {
        let store = folder.join("daypass.db");
        std::fs::copy(deployment.store(), &store).unwrap();
        std::fs::copy(wal_of(deployment.store()), wal_of(&store)).unwrap();
        Self::written(deployment, &store, "daypass.toml", deployment.settings.web.address.port())
    }

    fn written(deployment: &Deployment, store: &Path, name: &str, web: u16) -> Self {
        let settings = &deployment.settings;
        let (api, ops) = (free_port(), free_port());
        let text = format!(
            "[broker]\ntrust_domain = \"{}\"\nissuer = \"{}\"\n\n[store]\npath = {:?}\nanchor = {:?}\n\n\
             [keys]\nkek_file = {:?}\n\n[api]\nlisten = \"127.0.0.1:{api}\"\ncertificate = {:?}\nkey = {:?}\n\n\
             [web]\nlisten = \"127.0.0.1:{web}\"\ncertificate = {:?}\nkey = {:?}\n\n[ops]\nlisten = \"127.0.0.1:{ops}\"\n\n\
             [emergency]\nsocket = \"{name}.emergency\"\n",
            settings.trust_domain,
            settings.issuer.as_str(),
            store,
            settings.anchor,
            settings.kek,
            settings.api.certificate,
            settings.api.key,
            settings.web.certificate,
            settings.web.key,
        );
        let config = deployment.folder().join(name);
        std::fs::write(&config, text).unwrap();
        Self {
            store: store.to_owned(),
            anchor: settings.anchor.clone(),
            config,
            output: deployment.folder().join(format!("{name}.output")),
            api,
            _folder: None,
        }
    }

    /// Store and anchor as a broker left them, in a folder of their own: whoever opens a store changes it.
    pub(super) fn copy(&self) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (store, anchor) = (folder.path().join("store"), folder.path().join("anchor"));
        std::fs::copy(&self.anchor, &anchor).unwrap();
        let wal = wal_of(&self.store);
        if wal.exists() {
            std::fs::copy(wal, wal_of(&store)).unwrap();
        }
        std::fs::copy(&self.store, &store).unwrap();
        let (config, output) = (self.config.clone(), self.output.clone());
        Self { store, anchor, config, output, api: self.api, _folder: Some(folder) }
    }

    /// The same deployment with these contents of store, write-ahead log and anchor.
    pub(super) fn of_contents(&self, contents: &[Vec<u8>]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (store, anchor) = (folder.path().join("store"), folder.path().join("anchor"));
        let (config, output) = (self.config.clone(), self.output.clone());
        let files = Self { store, anchor, config, output, api: self.api, _folder: Some(folder) };
        for (path, bytes) in files.durable().iter().zip(contents) {
            std::fs::write(path, bytes).unwrap();
        }
        files
    }

    /// Verifies the log that a broker left, as the next one does before it serves, and reads what it says.
    pub(super) fn check(&self, deployment: &Deployment) -> Result<Ledger, String> {
        let copy = self.copy();
        let reader = SqliteStore::open_file(&copy.store, false).unwrap().reader().unwrap();
        let anchor = Anchor::open(&copy.anchor).unwrap();
        verify_store(reader.as_ref(), &deployment.log_key, Some(&anchor))
            .map_err(|error| error.to_string())?;
        copy.read()
    }

    /// Reads what the log says, whether it verifies or not.
    pub(super) fn read(&self) -> Result<Ledger, String> {
        let mut ledger = Ledger::default();
        let store = SqliteStore::open_file(&self.store, false).unwrap();
        ledger.read_on(store.reader().unwrap().as_ref())?;
        Ok(ledger)
    }

    /// The entries, while a broker may still write more.
    pub(super) fn entries(&self) -> Vec<Entry> {
        let rows = SqliteStore::open_reader(&self.store).unwrap().rows(0, u32::MAX).unwrap();
        rows.iter().map(|row| Entry::read(&row.bytes).unwrap()).collect()
    }

    /// Reads the store, while a broker may still write to it.
    pub(super) fn reader(&self) -> Box<dyn Reader> {
        SqliteStore::open_reader(&self.store).unwrap()
    }

    /// Where the broker takes orders.
    pub(super) fn socket(&self) -> PathBuf {
        let mut socket = self.config.clone().into_os_string();
        socket.push(".emergency");
        socket.into()
    }

    /// Makes the store one that never got the entries from `index` on.
    pub(super) fn lose_from(&self, index: u64) {
        let store = Connection::open(&self.store).unwrap();
        store.execute("DELETE FROM entries WHERE idx >= ?1", [i64::try_from(index).unwrap()]).unwrap();
    }

    /// The files that hold evidence: store, write-ahead log and anchor.
    pub(super) fn durable(&self) -> [PathBuf; 3] {
        [self.store.clone(), wal_of(&self.store), self.anchor.clone()]
    }

    /// Puts two neighbouring entries each in the other's place, with their hashes.
    pub(super) fn swap(&self, one: u64, other: u64) {
        let store = Connection::open(&self.store).unwrap();
        let [one, other] = [one, other].map(|index| i64::try_from(index).unwrap());
        for (from, to) in [(one, -1), (other, one), (-1, other)] {
            store.execute("UPDATE entries SET idx = ?2 WHERE idx = ?1", [from, to]).unwrap();
        }
    }

    /// What the program wrote to standard error.
    pub(super) fn output(&self) -> String {
        std::fs::read_to_string(&self.output).unwrap_or_default()
    }

    pub(super) fn said(&self, text: &str) -> bool {
        self.output().contains(text)
    }
}

/// What store, write-ahead log and anchor hold; one that is not there holds nothing.
pub(super) fn contents(files: &Files) -> [Vec<u8>; 3] {
    files.durable().map(|path| std::fs::read(path).unwrap_or_default())
}

fn wal_of(store: &Path) -> PathBuf {
    let mut wal = store.as_os_str().to_owned();
    wal.push("-wal");
    wal.into()
}

/// A running broker; killed where it is dropped.
pub(super) struct Child(std::process::Child);

impl Child {
    /// Starts the program, behind `tracer` where there is one, and waits until it serves.
    pub(super) async fn start(files: &Files, tracer: &[&str]) -> Self {
        let started = Self::try_start(files, tracer).await;
        started.unwrap_or_else(|| panic!("the broker does not serve: {}", files.output()))
    }

    /// The same; nothing where it ends instead of serving.
    pub(super) async fn try_start(files: &Files, tracer: &[&str]) -> Option<Self> {
        let broker = program("daypass-broker");
        let mut line: Vec<&str> = tracer.to_vec();
        line.extend([broker.to_str().unwrap(), "serve", "--config", files.config.to_str().unwrap()]);
        let output = File::options().create(true).append(true).open(&files.output).unwrap();
        let spawned = Command::new(line[0]).args(&line[1..]).stdin(Stdio::null()).stderr(output).spawn();
        let mut child =
            Self(spawned.unwrap_or_else(|error| panic!("`{}` could not be run: {error}", line[0])));
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", files.api)).is_err() {
            if child.0.try_wait().unwrap().is_some() || began.elapsed() > STARTS_WITHIN {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Some(child)
    }

    /// Sends it a signal.
    pub(super) fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.0), signal).unwrap();
    }

    /// Its process id.
    pub(super) fn id(&self) -> u32 {
        self.0.id()
    }

    /// Whether it is gone, of itself or by somebody else's hand.
    pub(super) fn is_gone(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }

    /// SIGKILL: nothing is flushed, nobody is told.
    pub(super) fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// SIGTERM: it stops in order.
    pub(super) async fn stop(mut self) {
        self.signal(rustix::process::Signal::TERM);
        let began = Instant::now();
        while self.0.try_wait().unwrap().is_none() {
            assert!(began.elapsed() < STOPS_WITHIN, "the broker does not stop");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It may be gone already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
