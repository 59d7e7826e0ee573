//! The files of the walk, made from the sample configurations, and its programs.

use std::fs::File;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use daypass_broker::clock::{Clock as _, SystemClock};
use daypass_broker::config::Config;
use daypass_broker::dev::workload_ca::{WorkloadCa, WorkloadCertificate};
use daypass_tests::harness::postgres::Postgres;
use daypass_tests::harness::{Output, free_port, program};
use daypass_verify::time::Seconds;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use toml::{Table, Value};

use super::record::Record;

const SAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/examples/");

const ORGANISATION: &str = r#"
[organisation]
environments = ["prod"]
overdue_ttl_max = "15m"
overdue_refuse_after = "30d"
[owner.finance]
kind = "team"
[owner.platform]
kind = "team"
[issuer.workloads]
kind = "client_ca"
ca_file = "workloads.pem"
trust_domain = "example.org"
environment = "prod"
[operator.alice]
roles = ["read_evidence", "rotate"]
expires = 2036-11-30
proofs = [{ issuer = "workloads", spiffe_id = "spiffe://example.org/people/alice" }]
[identity."billing/nightly"]
class = "service"
privilege = "standard"
purpose = "posts each night's invoices"
business_owner = "finance"
technical_owner = "platform"
environment = "prod"
expires = 2036-11-30
review_every = "90d"
tasks = ["post-invoices"]
proofs = [{ issuer = "workloads", spiffe_id = "spiffe://example.org/billing/nightly" }]
[target.ledger]
kind = "http"
environment = "prod"
audiences = ["https://ledger.example.org"]
reach = "none"
enforcement = "connect"
[task.post-invoices]
targets = ["ledger"]
audiences = ["https://ledger.example.org"]
actions = ["invoice:read", "invoice:write"]
resources = ["eu/*"]
kinds = ["at+jwt"]
ttl = "10m"
ttl_max = "15m"
"#;

const RULES: &str = r#"
@id("billing/nightly")
permit (principal == Identity::"billing/nightly", action == Action::"issue", resource == Task::"post-invoices");
"#;

/// Where one broker listens.
struct Seat {
    name: &'static str,
    api: u16,
    web: u16,
}

pub(super) struct Walk {
    pub(super) record: Record,
    folder: TempDir,
    workloads: WorkloadCa,
    seats: [Seat; 2],
    log_key: String,
    logs: u32,
}

impl Walk {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let workloads = WorkloadCa::new(&"example.org".parse().unwrap(), SystemClock.now()).unwrap();
        let policies = folder.path().join("policies");
        std::fs::create_dir(&policies).unwrap();
        std::fs::write(policies.join("organisation.toml"), ORGANISATION).unwrap();
        std::fs::write(policies.join("rules.cedar"), RULES).unwrap();
        let root = pem::encode(&pem::Pem::new("CERTIFICATE", workloads.root().to_vec()));
        std::fs::write(policies.join("workloads.pem"), root).unwrap();
        let seats = ["b1", "b2"].map(|name| Seat { name, api: free_port(), web: free_port() });
        let mut record = Record::new(folder.path());
        record.names(&[
            (seats[0].api, "b1:8443"),
            (seats[0].web, "b1:443"),
            (seats[1].api, "b2:8443"),
            (seats[1].web, "b2:443"),
        ]);
        let made = Self { record, folder, workloads, seats, log_key: String::new(), logs: 0 };
        for (file, identity) in [("nightly", "billing/nightly"), ("alice", "people/alice")] {
            let certificate = made.certificate(identity);
            std::fs::write(made.path(&format!("{file}.pem")), certificate.chain_pem()).unwrap();
            let key = made.path(&format!("{file}.key"));
            std::fs::write(&key, certificate.key_pem()).unwrap();
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
            std::fs::set_permissions(&key, mode).unwrap();
        }
        made
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(super) fn ports(&self) -> [u16; 2] {
        self.seats.each_ref().map(|seat| seat.api)
    }

    fn certificate(&self, identity: &str) -> WorkloadCertificate {
        let id = format!("spiffe://example.org/{identity}").parse().unwrap();
        self.workloads.issue(&id, SystemClock.now(), Seconds::new(24 * 3600)).unwrap()
    }

    pub(super) fn nightly(&self) -> WorkloadCertificate {
        self.certificate("billing/nightly")
    }

    /// Writes the brokers' configurations: the samples, with the databases on these ports and files of the walk.
    pub(super) fn configure(&self, databases: &[u16]) {
        let hosts: Vec<String> = databases.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        let issuer = format!("https://127.0.0.1:{}", self.seats[0].web);
        for (number, Seat { name, api, web }) in (1..).zip(&self.seats) {
            let sample = std::fs::read_to_string(format!("{SAMPLES}broker-{number}.toml")).unwrap();
            Config::parse(&sample, "the sample").unwrap();
            let mut config: Table = toml::from_str(&sample).unwrap();
            for (section, key, value) in [
                ("broker", "issuer", issuer.clone()),
                ("store", "url", format!("postgresql://daypass@{}/daypass", hosts.join(","))),
                ("store", "ca_file", String::new()),
                ("store", "anchor", format!("{name}.anchor")),
                ("keys", "kek_file", "kek".into()),
                ("api", "listen", format!("127.0.0.1:{api}")),
                ("api", "certificate", "server.pem".into()),
                ("api", "key", "server.key".into()),
                ("web", "listen", format!("127.0.0.1:{web}")),
                ("web", "certificate", "server.pem".into()),
                ("web", "key", "server.key".into()),
                ("ops", "listen", "127.0.0.1:0".into()),
                ("emergency", "socket", format!("{name}.sock")),
            ] {
                let section = config.get_mut(section).unwrap().as_table_mut().unwrap();
                let before = section.insert(key.into(), Value::String(value));
                assert!(before.is_some(), "the sample names `{key}`");
            }
            std::fs::write(self.path(&format!("{name}.toml")), toml::to_string(&config).unwrap()).unwrap();
        }
    }

    /// Takes the log's key from what `init` or `recover` printed, and writes the clients' profiles with it.
    pub(super) fn learn_key(&mut self, printed: &Output) {
        let line = printed.stdout.lines().find_map(|line| line.strip_prefix("log key")).unwrap();
        self.log_key = line.split_whitespace().next().unwrap().to_owned();
        self.logs += 1;
        let mut text = String::new();
        for (name, seat, who) in [("b1", 0, "nightly"), ("b2", 1, "nightly"), ("alice", 1, "alice")] {
            text += &format!(
                "[profile.{name}]\nbroker = \"https://127.0.0.1:{}\"\nweb = \"https://127.0.0.1:{}\"\n\
                 ca = \"server-ca.pem\"\nlog_key = \"{}\"\nstate = \"kept-{}-{name}\"\ncert = \"{who}.pem\"\nkey = \"{who}.key\"\n",
                self.seats[seat].api, self.seats[0].web, self.log_key, self.logs
            );
        }
        std::fs::write(self.path("client.toml"), text).unwrap();
    }

    pub(super) fn log_key(&self) -> String {
        self.log_key.clone()
    }

    pub(super) fn keep_checkpoint(&self, note: &[u8]) {
        std::fs::write(self.path("kept"), note).unwrap();
    }

    /// How many of these credentials have no entry.
    pub(super) fn missing(&self, server: &Postgres, credentials: &[String]) -> usize {
        let sql = "SELECT convert_from(bytes, 'UTF8')::json->>'id' FROM daypass.entries";
        let ids: std::collections::HashSet<String> =
            server.query("daypass", sql).into_iter().flatten().collect();
        credentials.iter().filter(|id| !ids.contains(*id)).count()
    }

    /// Runs a command of the broker's program.
    pub(super) async fn broker(&mut self, arguments: &[&str], code: i32) -> Output {
        self.run(&program("daypass-broker"), "daypass-broker", arguments, code, "").await
    }

    /// Runs a command of a client; what it prints may go into a file.
    pub(super) async fn client(&mut self, arguments: &[&str], code: i32, into: &str) -> Output {
        let all = [&["--config", "client.toml"], arguments].concat();
        self.run(&program("daypass"), "daypass", &all, code, into).await
    }

    pub(super) async fn run(
        &mut self,
        program: &Path,
        name: &str,
        arguments: &[&str],
        code: i32,
        into: &str,
    ) -> Output {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(self.folder.path()).stdin(Stdio::null());
        let ended = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let mut output =
            Output { code: ended.status.code(), stdout: text(ended.stdout), stderr: text(ended.stderr) };
        assert_eq!(output.code, Some(code), "{name} {arguments:?}: {output:?}");
        let quoted = |it: &&str| if it.contains(' ') { format!("\"{it}\"") } else { (*it).to_owned() };
        let words: Vec<String> = arguments.iter().map(quoted).collect();
        let line = format!("{name} {} {into}", words.join(" "));
        let shown = if into.is_empty() {
            format!("{}{}", output.stdout, output.stderr)
        } else {
            output.stderr.clone()
        };
        let ended = if code == 0 { String::new() } else { format!("exit code {code}\n") };
        self.record.command(line.trim_end(), &format!("{shown}{ended}"));
        if let Some(file) = into.strip_prefix("> ") {
            std::fs::write(self.path(file), &output.stdout).unwrap();
            output.stdout.clear();
        }
        output
    }

    /// Starts a broker, and waits until it serves.
    pub(super) async fn serve(&mut self, name: &'static str) -> Broker {
        let seat = self.seats.iter().find(|seat| seat.name == name).unwrap();
        let (api, log) = (seat.api, self.path(&format!("{name}.log")));
        let output = File::options().create(true).append(true).open(&log).unwrap();
        let mut command = Command::new(program("daypass-broker"));
        command.args(["serve", "--config", &format!("{name}.toml")]).current_dir(self.folder.path());
        let mut broker = Broker { api, child: command.stdin(Stdio::null()).stderr(output).spawn().unwrap() };
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", api)).is_err() {
            let ended = broker.child.try_wait().unwrap().is_some();
            let said = || std::fs::read_to_string(&log).unwrap();
            assert!(!ended && began.elapsed() < Duration::from_secs(60), "{name} does not serve: {}", said());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.record.command(&format!("daypass-broker serve --config {name}.toml &"), "");
        broker
    }
}

/// The size that a checkpoint is of.
pub(super) fn receipt_size(note: &[u8]) -> String {
    String::from_utf8_lossy(note).lines().nth(1).unwrap_or_default().to_owned()
}

/// A broker that serves; killed where it is dropped.
pub(super) struct Broker {
    pub(super) api: u16,
    child: std::process::Child,
}

impl Broker {
    pub(super) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM: it stops in order.
    pub(super) async fn stop(mut self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        let began = Instant::now();
        while self.child.try_wait().unwrap().is_none() {
            assert!(began.elapsed() < Duration::from_secs(20), "the broker does not stop");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // It may be gone already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
