//! A PostgreSQL of its own: in a temporary folder, on a free port of loopback, as a user who is not root, gone with
//! whoever started it.

mod keeper;
mod proxy;
mod sql;
mod standby;

use std::fmt::Write as _;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use daypass_broker::store::StoreAt;
use daypass_broker::store::postgres::{Durability, Password, PostgresAt};
use rustix::process::{Pid, Signal, kill_process};

use super::ports;
use keeper::Keeper;

pub use proxy::{Commit, Proxy};

const STARTS_WITHIN: Duration = Duration::from_secs(60);

/// The role that brokers write as.
pub const SERVICE: &str = "daypass";
/// The owner of their tables.
pub const OWNER: &str = "daypass_owner";
/// The role that lets sealed entries go.
pub const SEALER: &str = "daypass_sealer";

/// A server and its data.
pub struct Postgres {
    /// Where it listens on loopback.
    pub port: u16,
    folder: PathBuf,
    server: Option<Child>,
    // Last: it removes the folder.
    _keeper: Keeper,
}

impl Postgres {
    /// A new server with the two roles of a deployment, and nothing else.
    pub fn start() -> Self {
        Self::start_with("")
    }

    /// The same with these lines in its configuration.
    pub fn start_with(configuration: &str) -> Self {
        let mut made = Self::empty();
        made.run(
            "initdb",
            &["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "-N", "-D", "data"],
        );
        made.configure(configuration);
        made.resume();
        made.sql(
            "postgres",
            &format!("CREATE ROLE {OWNER} LOGIN; CREATE ROLE {SERVICE} LOGIN; CREATE ROLE {SEALER} LOGIN"),
        );
        made
    }

    /// One that all tests of this process share, each with a database of its own.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Postgres> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// A folder and a port, and no data yet.
    fn empty() -> Self {
        let folder = tempfile::Builder::new().prefix("daypass-pg-").tempdir().unwrap().keep();
        if let Some((uid, gid)) = other_user() {
            chown(&folder, Some(uid), Some(gid)).unwrap();
        }
        Self { port: ports::free(), server: None, _keeper: Keeper::of(&folder), folder }
    }

    /// A new database of the owner.
    pub fn database(&self, name: &str) -> Database<'_> {
        self.sql("postgres", &format!("CREATE DATABASE {name} OWNER {OWNER}"));
        Database { server: self, name: name.into() }
    }

    /// A database with a name that no other test took.
    pub fn any_database(&self) -> Database<'_> {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        self.database(&format!("d{}", NEXT.fetch_add(1, Ordering::Relaxed)))
    }

    /// Where its files lie.
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Where its Unix socket is.
    pub fn socket_directory(&self) -> &Path {
        &self.folder
    }

    /// Adds lines to its configuration; those that it reads only at a start are in force after [`Postgres::restart`].
    pub fn configure(&self, lines: &str) {
        let mut text = format!(
            "listen_addresses = '127.0.0.1'\nport = {}\nunix_socket_directories = '{}'\nshared_buffers = 32MB\n\
             max_connections = 200\nlog_min_messages = warning\n",
            self.port,
            self.folder.display()
        );
        let path = self.data().join("postgresql.auto.conf");
        let before = std::fs::read_to_string(&path).unwrap_or_default();
        if before.contains("unix_socket_directories") {
            text = before;
        }
        writeln!(text, "{lines}").unwrap();
        std::fs::write(&path, text).unwrap();
    }

    /// Writes a file beside its data, as its own and nobody else's.
    pub fn write(&self, name: &str, text: &str) {
        let path = self.data().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        if let Some((uid, gid)) = other_user() {
            chown(&path, Some(uid), Some(gid)).unwrap();
        }
    }

    /// Has it read its configuration again.
    pub fn reload(&self) {
        self.signal(Signal::HUP);
    }

    /// Starts it, and waits until it takes connections.
    pub fn resume(&mut self) {
        assert!(self.server.is_none(), "it runs");
        let began = Instant::now();
        loop {
            let mut server = self.spawn();
            while server.try_wait().unwrap().is_none() && began.elapsed() < STARTS_WITHIN {
                if self.answers() {
                    self.server = Some(server);
                    return;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            // A session that began while it was killed holds its memory for a moment longer.
            drop((server.kill(), server.wait()));
            assert!(began.elapsed() < STARTS_WITHIN, "PostgreSQL does not start: {}", self.log());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn spawn(&self) -> std::process::Child {
        let log = std::fs::File::options().create(true).append(true).open(self.folder.join("log")).unwrap();
        let mut command = self.command("postgres");
        command.args(["-D", "data"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command.spawn().unwrap()
    }

    /// Stops it in order: sessions are ended, everything is written.
    pub fn stop(&mut self) {
        self.end(Signal::INT);
    }

    /// Stops it in order, and starts it again.
    pub fn restart(&mut self) {
        self.stop();
        self.resume();
    }

    /// SIGKILL to the server and to each of its sessions: as if the machine had stopped.
    pub fn kill(&mut self) {
        let Some(server) = &self.server else { return };
        // Stopped, it begins no session that would outlive it: the next start finds nobody in its memory.
        self.signal(Signal::STOP);
        let children = children_of(server.id());
        self.signal(Signal::KILL);
        for child in &children {
            // It may be gone already.
            let _gone = kill_process(*child, Signal::KILL);
        }
        drop(self.server.take().unwrap().wait());
        let gone = |child: &Pid| !Path::new(&format!("/proc/{}", child.as_raw_nonzero())).exists();
        while !children.iter().all(gone) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Sends a signal to the server itself.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(self.server.as_ref().expect("it runs")), signal).unwrap();
    }

    /// The processes of its sessions, by the role that they serve.
    pub fn sessions_of(&self, role: &str) -> Vec<Pid> {
        let sql = format!("SELECT pid FROM pg_stat_activity WHERE usename = '{role}'");
        let found = self.query("postgres", &sql);
        found.iter().filter_map(|row| Pid::from_raw(row[0].parse().unwrap())).collect()
    }

    /// What it wrote to its log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    fn end(&mut self, signal: Signal) {
        if let Some(mut server) = self.server.take() {
            // It may have ended by itself.
            let _gone = kill_process(Pid::from_child(&server), signal);
            server.wait().unwrap();
        }
    }

    /// Runs a program of PostgreSQL to its end in the server's folder.
    fn run(&self, program: &str, arguments: &[&str]) {
        let output = self.command(program).args(arguments).output().unwrap();
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(binaries().join(program));
        command.current_dir(&self.folder).env_clear().env("LC_ALL", "C");
        if let Some((uid, gid)) = other_user() {
            command.uid(uid).gid(gid);
        }
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.end(Signal::QUIT);
    }
}

/// One database of a server, as a deployment uses it.
#[derive(Clone)]
pub struct Database<'a> {
    server: &'a Postgres,
    /// Its name.
    pub name: String,
}

impl Database<'_> {
    /// Its URL for a role.
    pub fn url(&self, role: &str) -> String {
        format!("postgresql://{role}@127.0.0.1:{}/{}", self.server.port, self.name)
    }

    /// The same where a proxy stands on `port` before the server.
    pub fn url_at(&self, port: u16, role: &str) -> String {
        format!("postgresql://{role}@127.0.0.1:{port}/{}", self.name)
    }

    /// Where brokers find it, and who makes its tables.
    pub fn at(&self) -> StoreAt {
        self.demanding(Durability::Local)
    }

    /// The same where commits must survive more.
    pub fn demanding(&self, durability: Durability) -> StoreAt {
        let as_role = |role| PostgresAt::new(&self.url(role), Password::None, None, false).unwrap();
        let service = as_role(SERVICE).demanding(durability);
        StoreAt::Postgres(Arc::new(service.owned_by(as_role(OWNER)).sealed_by(as_role(SEALER))))
    }

    /// Runs statements as the superuser, who may do anything.
    pub fn sql(&self, text: &str) {
        self.server.sql(&self.name, &format!("SET search_path = daypass; {text}"));
    }

    /// Ends all sessions of the brokers' role in it, whatever they do.
    pub fn end_sessions(&self) {
        let sql = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = '{role}' AND datname = '{name}'";
        self.server.sql("postgres", &sql.replace("{role}", SERVICE).replace("{name}", &self.name));
    }

    /// Asks as the superuser.
    pub fn query(&self, text: &str) -> Vec<Vec<String>> {
        self.server.query(&self.name, text)
    }

    /// Runs statements as the role that seals; the error where one is refused.
    pub fn sql_as_sealer(&self, text: &str) -> Result<(), String> {
        self.server.sql_as(SEALER, &self.name, &format!("SET search_path = daypass; {text}"))
    }

    /// Runs statements as the brokers' role; the error where one is refused.
    pub fn sql_as_service(&self, text: &str) -> Result<(), String> {
        self.server.sql_as(SERVICE, &self.name, &format!("SET search_path = daypass; {text}"))
    }
}

/// Where PostgreSQL's programs lie.
fn binaries() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| {
        let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
        let mut folders: Vec<PathBuf> = versions.map(|version| version.path().join("bin")).collect();
        folders.sort();
        let path = std::env::var_os("PATH").unwrap_or_default();
        folders.splice(0..0, std::env::split_paths(&path));
        let whole =
            |folder: &&PathBuf| folder.join("initdb").exists() && folder.join("pg_basebackup").exists();
        let found = folders.iter().rev().find(whole);
        found.expect("PostgreSQL is not installed: run tests/run, which installs it").clone()
    })
}

/// One of its programs for clients.
pub fn client(name: &str) -> PathBuf {
    binaries().join(name)
}

/// Whom the server runs as, where the tests run as root: PostgreSQL refuses that.
pub fn other_user() -> Option<(u32, u32)> {
    rustix::process::getuid().is_root().then(|| {
        let users = std::fs::read_to_string("/etc/passwd").unwrap();
        let user =
            users.lines().find(|line| line.starts_with("postgres:")).expect("there is no user `postgres`");
        let fields: Vec<&str> = user.split(':').collect();
        (fields[2].parse().unwrap(), fields[3].parse().unwrap())
    })
}

fn children_of(parent: u32) -> Vec<Pid> {
    let text = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().unwrap())).collect()
}
