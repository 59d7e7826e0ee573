//! Very many agents that renew at one broker, and one agent alone: its memory, and what it syncs.

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use daypass_broker::dev::caller::client_config;
use daypass_proto::v1 as pb;
use futures::future::try_join_all;
use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::net::{TcpSocket, TcpStream};

use crate::Fault;
use crate::broker::Deployment;
use crate::case::{CASES, workload};
use crate::client::Connection;
use crate::load::Call;
use crate::process::Process;

/// How many agents connect at once: a broker bounds how many handshakes it has open.
const CONNECTING: usize = 32;

/// Within how long each agent renews once: ten times as often as with lives of 15 minutes, a minute, and all within five
/// seconds, as after an outage.
const SPREAD: [Duration; 2] = [Duration::from_secs(60), Duration::from_secs(5)];

/// How many renewals of the one agent are counted, and the life that it asks for.
const RENEWALS: usize = 5;
const LIFE: &str = "12s";

/// A fleet that renewed once.
#[derive(Serialize)]
struct Fleet {
    agents: usize,
    within_s: f64,
    per_s: f64,
    p50_ms: f64,
    p99_ms: f64,
    /// Of the broker, a renewal.
    cpu_us: f64,
    refused: u64,
    /// Of the broker, with all connections open.
    memory_kib: u64,
}

/// One agent.
#[derive(Serialize)]
struct One {
    memory_kib: u64,
    /// Of that, what no file backs.
    anonymous_kib: u64,
    renewals: usize,
    syncs_per_renewal: f64,
}

pub(crate) async fn run(json: bool, agents: usize) -> Result<(), Fault> {
    let mut deployment = Deployment::start().await?;
    if !json {
        println!("agents  within s    per s   p50 ms   p99 ms   CPU us  refused  memory of the broker, MiB");
    }
    let connections = connected(&deployment, agents).await?;
    for within in SPREAD {
        let fleet = renewed(&deployment, &connections, within).await?;
        if json { println!("{}", serde_json::to_string(&fleet)?) } else { fleet.print() }
    }
    drop(connections);
    let one = alone(&deployment).await?;
    if json {
        println!("{}", serde_json::to_string(&one)?)
    } else {
        one.print()
    }
    deployment.broker.stop().await
}

/// One connection for each agent, each from an address of its own: a broker bounds how many one address has.
async fn connected(deployment: &Deployment, agents: usize) -> Result<Vec<Connection>, Fault> {
    let tls = Arc::new(client_config(&deployment.ca, Some(&workload(deployment)?))?);
    let mut connections = Vec::with_capacity(agents);
    let all: Vec<usize> = (0..agents).collect();
    for some in all.chunks(CONNECTING) {
        let opened = some.iter().map(|agent| async {
            let stream = connect_from(address(*agent), deployment.broker.api).await?;
            Connection::over(stream, Arc::clone(&tls)).await
        });
        connections.extend(try_join_all(opened).await?);
    }
    Ok(connections)
}

fn address(agent: usize) -> Ipv4Addr {
    let octet = |value: usize| u8::try_from(value % 250).unwrap_or_default() + 1;
    Ipv4Addr::new(127, octet(agent / 62_500), octet(agent / 250), octet(agent))
}

async fn connect_from(from: Ipv4Addr, to: SocketAddr) -> Result<TcpStream, Fault> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((from, 0).into())?;
    Ok(socket.connect(to).await?)
}

/// Each agent renews once, evenly spread.
async fn renewed(
    deployment: &Deployment,
    connections: &[Connection],
    within: Duration,
) -> Result<Fleet, Fault> {
    let case = CASES.iter().find(|case| case.name == "x509-csr").ok_or("no such case")?;
    let (call, starts) = (case.call(deployment)?, Instant::now() + Duration::from_millis(200));
    let agents = u32::try_from(connections.len())?;
    let before = deployment.broker.process.used()?;
    let asking: Vec<_> = (0..agents)
        .zip(connections)
        .map(|(agent, connection)| {
            tokio::spawn(renew(connection.clone(), call.clone(), starts + within * agent / agents))
        })
        .collect();
    let (mut latencies, mut refused) = (Histogram::<u64>::new_with_bounds(1, 60_000_000, 3)?, 0);
    for agent in asking {
        match agent.await? {
            Ok(latency) => latencies.saturating_record(u64::try_from(latency.as_micros())?),
            Err(_) => refused += 1,
        }
    }
    let (took, after) = (starts.elapsed(), deployment.broker.process.used()?);
    let count = latencies.len() as f64;
    Ok(Fleet {
        agents: connections.len(),
        within_s: within.as_secs_f64(),
        per_s: count / took.as_secs_f64(),
        p50_ms: latencies.value_at_quantile(0.5) as f64 / 1000.0,
        p99_ms: latencies.value_at_quantile(0.99) as f64 / 1000.0,
        cpu_us: (after.cpu_us - before.cpu_us) / count,
        refused,
        memory_kib: deployment.broker.process.memory_kib()?,
    })
}

async fn renew(mut connection: Connection, call: Call, at: Instant) -> Result<Duration, Fault> {
    tokio::time::sleep_until(at.into()).await;
    let began = Instant::now();
    let answer: pb::IssueResponse =
        connection.call("/daypass.v1.CredentialService/Issue", &call.message, call.bearer.as_deref()).await?;
    let whole = answer.credential.is_some() && answer.receipt.is_some();
    if whole {
        Ok(began.elapsed())
    } else {
        Err("an answer without a credential or without a receipt".into())
    }
}

/// The real program, with a certificate in files.
async fn alone(deployment: &Deployment) -> Result<One, Fault> {
    let out = deployment.folder().join("agent");
    let config = configuration(deployment, &out)?;
    let traced = deployment.folder().join("agent.syncs");
    let running = Agent::start(&config, &traced)?;
    let (began, mut seen) = (Instant::now(), BTreeSet::new());
    // The first is no renewal.
    while seen.len() <= RENEWALS {
        if began.elapsed() > Duration::from_secs(120) {
            return Err("the agent did not renew within two minutes".into());
        }
        seen.extend(fs::read_link(out.join("current")).ok());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let agent = Process(running.pid()?);
    let (memory_kib, anonymous_kib) = (agent.memory_kib()?, agent.anonymous_kib()?);
    drop(running);
    let syncs = fs::read_to_string(traced)?.lines().filter(|line| line.contains("sync(")).count();
    let syncs_per_renewal = syncs as f64 / seen.len() as f64;
    Ok(One { memory_kib, anonymous_kib, renewals: seen.len() - 1, syncs_per_renewal })
}

fn configuration(deployment: &Deployment, out: &Path) -> Result<PathBuf, Fault> {
    let (proof, at) = (workload(deployment)?, |name: &str| deployment.folder().join(name));
    let (cert, key) = (at("agent.pem"), at("agent.key"));
    fs::write(&cert, proof.chain_pem())?;
    fs::write(&key, proof.key_pem())?;
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600))?;
    let (api, web, ca) = (deployment.broker.api, deployment.broker.web, &deployment.ca);
    let text = format!(
        "broker = \"https://{api}\"\nweb = \"https://{web}\"\nca = {ca:?}\ncert = {cert:?}\nkey = {key:?}\n\n\
         [[credential]]\ntask = \"ledger-db\"\nkind = \"certificate\"\nttl = \"{LIFE}\"\nfiles = {{ dir = {out:?} }}\n"
    );
    let path = at("agent.toml");
    fs::write(&path, text)?;
    Ok(path)
}

/// An agent under strace, which writes down its syncs.
struct Agent(Child);

impl Agent {
    fn start(config: &Path, traced: &Path) -> Result<Self, Fault> {
        let program = std::env::current_exe()?.with_file_name("daypass-agent");
        if !program.exists() {
            return Err(
                format!("{program:?} is missing: run `cargo build --release -p daypass-agent`").into()
            );
        }
        let child = Command::new("strace")
            .args(["-f", "-e", "trace=fsync,fdatasync,syncfs,sync", "-o"])
            .arg(traced)
            .arg(program)
            .arg("--config")
            .arg(config)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Ok(Self(child.map_err(|error| format!("`strace`: {error}"))?))
    }

    /// Of the agent, not of strace.
    fn pid(&self) -> Result<u32, Fault> {
        let strace = self.0.id();
        let children = fs::read_to_string(format!("/proc/{strace}/task/{strace}/children"))?;
        Ok(children.split_whitespace().next().ok_or("the agent ended")?.parse()?)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let pid = self.pid().ok().and_then(|pid| rustix::process::Pid::from_raw(pid.try_into().ok()?));
        if let Some(pid) = pid {
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).ok();
        }
        drop(self.0.wait());
    }
}

impl Fleet {
    fn print(&self) {
        let Self { agents, within_s, per_s, p50_ms, p99_ms, cpu_us, refused, memory_kib } = self;
        println!(
            "{agents:6}  {within_s:8.0}  {per_s:7.1}  {p50_ms:7.2}  {p99_ms:7.2}  {cpu_us:7.0}  {refused:7}  {:.0}",
            *memory_kib as f64 / 1024.0
        );
    }
}

impl One {
    fn print(&self) {
        println!(
            "one agent: {:.1} MiB resident, {:.1} MiB of it its own; {} renewals, {:.1} syncs each",
            self.memory_kib as f64 / 1024.0,
            self.anonymous_kib as f64 / 1024.0,
            self.renewals,
            self.syncs_per_renewal
        );
    }
}
