//! A PostgreSQL as its operator sets it up for credentials of Daypass: with its own certificate by an agent, one login role
//! by certificate alone, and an enforcer beside it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use daypass_broker::clock::Clock as _;
use daypass_broker::dev::organisation::sample;
use daypass_core::bundle::SourceFile;
use daypass_evidence::entry::{AccessObserved, Body, Observed};
use daypass_tests::harness::postgres::{Postgres, client, other_user};
use daypass_tests::harness::{Agent, Deployment, Output, eventually, free_port, program, run};
use daypass_verify::time::UnixMs;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::task::{JoinHandle, JoinSet};

/// Who stands beside the database.
pub(super) const BESIDE: &str = "prod/ledger/database";
/// The role of the nightly run.
pub(super) const ROLE: &str = "billing_nightly";
/// What the server's certificate is for.
const HOST: &str = "ledger-db.example.org";

const HBA: &str = "\
local   all     daypass_enforcer                peer map=enforcer
hostssl all     daypass_enforcer 127.0.0.1/32   cert
hostssl all     billing_nightly  127.0.0.1/32   cert
# What its operator forgot.
local   ledger  billing_nightly                 scram-sha-256
host    all     billing_nightly  all            reject
# The test's own way in.
local   all     postgres                        trust
host    all     postgres         127.0.0.1/32   trust
";

/// All of it.
pub(super) struct Ground {
    pub(super) deployment: Deployment,
    pub(super) server: Postgres,
    pub(super) enforcer: Agent,
    /// Between the enforcer and the broker.
    pub(super) line: Line,
    // Where anybody may read.
    open: TempDir,
    _certificate: Agent,
}

/// How the enforcer stands to the server.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Stands {
    /// On its machine.
    Beside,
    /// On its machine, and the server reads revocation lists.
    WithLists,
    /// On another machine: it shows a certificate that lives for this many seconds.
    Apart(u32),
}

impl Ground {
    /// Of the sample organisation.
    pub(super) async fn start(stands: Stands) -> Self {
        Self::start_with(sample(), stands).await
    }

    /// The same of another organisation.
    pub(super) async fn start_with(files: Vec<SourceFile>, stands: Stands) -> Self {
        let mut deployment = Deployment::stopped(files).await;
        deployment.settings.api.address.set_port(free_port());
        deployment.resume().await.unwrap();
        let server = Postgres::start();
        let open = tempfile::tempdir().unwrap();
        fs::set_permissions(open.path(), fs::Permissions::from_mode(0o755)).unwrap();
        server.sql(
            "postgres",
            "CREATE ROLE billing_nightly LOGIN; CREATE ROLE daypass_enforcer LOGIN; \
             GRANT pg_read_all_stats, pg_signal_backend TO daypass_enforcer",
        );
        server.sql("postgres", "CREATE DATABASE ledger");
        let certificate = serve_by_certificate(&deployment, &server, open.path()).await;
        let crl = open.path().join("daypass.crl");
        let lists = stands == Stands::WithLists;
        let rest = enforcer(&server, open.path(), stands, &crl);
        let line = Line::to(deployment.settings.api.address.port()).await;
        let config = deployment.agent_config_of("enforcer", BESIDE, &rest);
        let text = fs::read_to_string(&config).unwrap();
        let [there, here] = [line.to, line.port].map(|port| format!("broker = \"https://127.0.0.1:{port}\""));
        assert!(text.contains(&there));
        fs::write(&config, text.replace(&there, &here)).unwrap();
        let enforcer = Agent::start(&config, &[]);
        enforcer.says("watching the sessions of PostgreSQL").await;
        if lists {
            eventually("the revocation lists", || async { crl.exists() }).await;
            server.configure(&format!("ssl_crl_file = '{}'", crl.display()));
            server.reload();
        }
        Self { deployment, server, enforcer, line, open, _certificate: certificate }
    }

    /// A certificate of the nightly run in a folder of its own, by the command line.
    pub(super) async fn certificate(&self, name: &str, ttl: &str) -> PathBuf {
        self.certificate_for("ledger-db", name, ttl).await
    }

    /// The same for another task.
    pub(super) async fn certificate_for(&self, task: &str, name: &str, ttl: &str) -> PathBuf {
        let (profile, out) = (self.deployment.services_profile(), self.deployment.folder().join(name));
        let arguments = ["--config", profile.to_str().unwrap(), "get", task, "--ttl", ttl, "--out"];
        let got = run(program("daypass"), [&arguments[..], &[out.to_str().unwrap()]].concat()).await;
        assert_eq!(got.code, Some(0), "{got:?}");
        out
    }

    /// How clients find it, with the certificate in `files`.
    pub(super) fn connection(&self, files: &Path) -> String {
        let file = |name: &str| files.join(name).display().to_string();
        format!(
            "host={HOST} hostaddr=127.0.0.1 port={} dbname=ledger user={ROLE} sslmode=verify-full sslcert={} sslkey={} sslrootcert={}",
            self.server.port,
            file("tls.crt"),
            file("tls.key"),
            file("ca.crt")
        )
    }

    /// A statement by `psql`, without a password.
    pub(super) async fn psql(&self, files: &Path, statement: &str) -> Output {
        run(client("psql"), ["-X", "-A", "-t", "-w", "-d", &self.connection(files), "-c", statement]).await
    }

    /// A session that stays open.
    pub(super) async fn session(&self, files: &Path) -> Session {
        self.session_by(&self.connection(files)).await
    }

    /// A session of the nightly role by a password.
    pub(super) async fn session_by_password(&self, password: &str) -> Session {
        let (at, port) = (self.server.socket_directory().display(), self.server.port);
        self.session_by(&format!("host={at} port={port} dbname=ledger user={ROLE} password={password}")).await
    }

    async fn session_by(&self, connection: &str) -> Session {
        let before = self.sessions();
        let mut command = Command::new(client("psql"));
        command.args(["-X", "-w", "-d", connection, "-c", "SELECT pg_sleep(600)"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        let session = Session(command.spawn().unwrap());
        eventually("the session", || async { self.sessions() > before }).await;
        session
    }

    /// Has the server trust another CA beside the broker's.
    pub(super) async fn trust_also(&self, authority: &str) {
        let ours = fs::read_to_string(self.open.path().join("server/ca.crt")).unwrap();
        self.server.write("both.crt", &format!("{ours}{authority}"));
        self.server.configure("ssl_ca_file = 'both.crt'");
        self.server.reload();
        let reloaded = || async { self.server.query("postgres", "SHOW ssl_ca_file") == [["both.crt"]] };
        eventually("the other CA", reloaded).await;
    }

    /// The credentials of a role's sessions, by their serial numbers; empty where none was shown.
    pub(super) fn serials_of(&self, role: &str) -> Vec<String> {
        let sessions =
            "SELECT client_serial FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename";
        let found = self.server.query("postgres", &format!("{sessions} = '{role}'"));
        found.into_iter().map(|row| row[0].clone()).collect()
    }

    /// How many sessions the role has.
    pub(super) fn sessions(&self) -> usize {
        self.server.sessions_of(ROLE).len()
    }

    /// What the enforcer told, once it has told it of this credential.
    pub(super) async fn observed(&self, what: Observed, credential: u64) -> AccessObserved {
        let named = format!("{what:?}");
        let found = self.deployment.entry(&named, |entry| match &entry.body {
            Body::AccessObserved(it) if it.what == what && it.credential == Some(credential) => {
                Some((**it).clone())
            }
            _ => None,
        });
        found.await.1
    }

    /// The index of the issuance of the certificate in `files`, and its id.
    pub(super) async fn issued(&self, files: &Path) -> (u64, String) {
        let leaf = pem::parse_many(fs::read(files.join("tls.crt")).unwrap()).unwrap().remove(0);
        let (_, leaf) = x509_parser::parse_x509_certificate(leaf.contents()).unwrap();
        let serial: [u8; 16] = leaf.raw_serial().try_into().unwrap();
        let id = daypass_verify::ids::CredentialId::from_bytes(serial).unwrap();
        let index = self.deployment.entry("the issuance", |entry| (entry.envelope.id == id).then_some(()));
        (index.await.0, id.to_string())
    }

    /// An operator revokes a credential; the time of the entry that says so.
    pub(super) async fn revoke(&self, id: &str, index: u64) -> UnixMs {
        let profile = self.deployment.operators_profile();
        let order = ["--config", profile.to_str().unwrap(), "revoke", id, "--reason", "privilege-withdrawn"];
        let revoked = run(program("daypass"), order).await;
        assert_eq!(revoked.code, Some(0), "{revoked:?}");
        let entry = self.deployment.entry("the ending", |entry| match &entry.body {
            Body::CredentialEnded(it) if it.ended.contains(&index) => Some(entry.envelope.time),
            _ => None,
        });
        entry.await.1
    }

    /// The server's version.
    pub(super) fn version(&self) -> String {
        let found = self.server.query("postgres", "SHOW server_version");
        found[0][0].split(' ').next().unwrap().to_owned()
    }
}

/// A line on loopback that can be cut.
pub(super) struct Line {
    port: u16,
    to: u16,
    carrying: Option<JoinHandle<()>>,
}

impl Line {
    async fn to(to: u16) -> Self {
        let mut line = Self { port: free_port(), to, carrying: None };
        line.mend().await;
        line
    }

    /// Nobody comes through any more, nor does who is through.
    pub(super) fn cut(&mut self) {
        self.carrying.take().expect("it is whole").abort();
    }

    /// Carries again.
    pub(super) async fn mend(&mut self) {
        let (listener, to) = (TcpListener::bind(("127.0.0.1", self.port)).await.unwrap(), self.to);
        self.carrying = Some(tokio::spawn(async move {
            let mut all = JoinSet::new();
            while let Ok((mut from, _)) = listener.accept().await {
                all.spawn(async move {
                    let mut there = TcpStream::connect(("127.0.0.1", to)).await?;
                    tokio::io::copy_bidirectional(&mut from, &mut there).await
                });
            }
        }));
    }
}

/// A client with an open session.
pub(super) struct Session(Child);

impl Session {
    /// Waits until the server has ended it; what time it was then.
    pub(super) async fn ended(mut self, ground: &Ground) -> UnixMs {
        let ended = tokio::time::timeout(Duration::from_secs(20), self.0.wait()).await;
        let at = ground.deployment.clock.now();
        let ended = ended.unwrap_or_else(|_| panic!("the session goes on:\n{}", ground.enforcer.said()));
        assert!(!ended.unwrap().success());
        let mut said = String::new();
        let mut stderr = self.0.stderr.take().unwrap();
        tokio::io::AsyncReadExt::read_to_string(&mut stderr, &mut said).await.unwrap();
        assert!(said.contains("terminating connection due to administrator command"), "{said}");
        at
    }
}

/// The end of the certificate in `files`.
pub(super) fn not_after(files: &Path) -> UnixMs {
    let leaf = pem::parse_many(fs::read(files.join("tls.crt")).unwrap()).unwrap().remove(0);
    let (_, leaf) = x509_parser::parse_x509_certificate(leaf.contents()).unwrap();
    UnixMs::from_seconds(leaf.validity().not_after.timestamp())
}

/// The enforcer's configuration.
fn enforcer(server: &Postgres, open: &Path, stands: Stands, crl: &Path) -> String {
    let (port, user) = (server.port, "user=daypass_enforcer");
    let local = format!("postgresql = \"host={} port={port} {user}\"\n", server.socket_directory().display());
    let (before, at) = match stands {
        Stands::Beside => (String::new(), local),
        Stands::WithLists => {
            (String::new(), format!("{local}crl_file = {crl:?}\nreload = {:?}\n", reload(server)))
        }
        Stands::Apart(ttl_s) => (
            format!(
                "[[credential]]\ntask = \"watch-ledger-db\"\nkind = \"common-name\"\nttl = \"{ttl_s}s\"\n"
            ),
            format!(
                "postgresql = \"host={HOST} hostaddr=127.0.0.1 port={port} {user} sslmode=verify-full\"\n\
                 ca = {:?}\ncredential = \"watch-ledger-db\"\n",
                open.join("server/ca.crt")
            ),
        ),
    };
    format!("level = \"debug\"\n{before}[[enforcer]]\ntarget = \"ledger-db\"\n{at}")
}

/// What has the server read its files again.
fn reload(server: &Postgres) -> [String; 3] {
    let pid = server.data().join("postmaster.pid");
    ["sh".into(), "-c".into(), format!("kill -HUP $(head -n 1 {})", pid.display())]
}

/// The server's own certificate, kept fresh by an agent, and clients by certificate alone.
async fn serve_by_certificate(deployment: &Deployment, server: &Postgres, open: &Path) -> Agent {
    let files = open.join("server");
    let owner = other_user().map(|(uid, _)| format!(", uid = {uid}")).unwrap_or_default();
    let rest = format!(
        "[[credential]]\ntask = \"serve-ledger-db\"\nkind = \"certificate\"\n\
         files = {{ dir = {files:?}, reload = {:?}{owner} }}\n",
        reload(server)
    );
    let agent = Agent::start(&deployment.agent_config_of("certificate", BESIDE, &rest), &[]);
    eventually("the server's certificate", || async { files.join("tls.crt").exists() }).await;
    server.write("pg_hba.conf", HBA);
    let user = rustix::process::geteuid().as_raw().to_string();
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    let line = passwd.lines().find(|line| line.split(':').nth(2) == Some(&user)).expect("a user with a name");
    server
        .write("pg_ident.conf", &format!("enforcer {} daypass_enforcer\n", line.split(':').next().unwrap()));
    let at = |name: &str| files.join(name).display().to_string();
    server.configure(&format!(
        "ssl = on\nssl_cert_file = '{}'\nssl_key_file = '{}'\nssl_ca_file = '{}'",
        at("tls.crt"),
        at("tls.key"),
        at("ca.crt")
    ));
    server.reload();
    agent
}
