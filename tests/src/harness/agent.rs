//! The agent's program beside a workload: its configuration, its run, and what it says.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::{Deployment, NIGHTLY, program};

/// A running agent; killed when it is dropped.
pub struct Agent {
    child: Child,
    said: PathBuf,
}

impl Deployment {
    /// The configuration of an agent that proves itself with the nightly run's certificate.
    pub fn agent_config(&self, name: &str, rest: &str) -> PathBuf {
        let (cert, key) = self.agent_proof(name);
        self.agent_config_with(name, &format!("cert = {cert:?}\nkey = {key:?}\n"), rest)
    }

    /// The configuration of an agent that proves itself with a certificate of this identity.
    pub fn agent_config_of(&self, name: &str, identity: &str, rest: &str) -> PathBuf {
        let (cert, key) = self.agent_proof_of(name, identity);
        self.agent_config_with(name, &format!("cert = {cert:?}\nkey = {key:?}\n"), rest)
    }

    /// A new certificate and key of the nightly run, put where the agent called `name` looks for them.
    pub fn agent_proof(&self, name: &str) -> (PathBuf, PathBuf) {
        self.agent_proof_of(name, NIGHTLY)
    }

    /// The same of another identity.
    pub fn agent_proof_of(&self, name: &str, identity: &str) -> (PathBuf, PathBuf) {
        let certificate = self.workload(identity);
        let at = |part: &str| self.folder().join(format!("{name}-proof.{part}"));
        for (part, text) in [("pem", certificate.chain_pem()), ("key", certificate.key_pem())] {
            fs::write(at("next"), text).unwrap();
            fs::set_permissions(at("next"), fs::Permissions::from_mode(0o600)).unwrap();
            fs::rename(at("next"), at(part)).unwrap();
        }
        (at("pem"), at("key"))
    }

    /// The same with any proof.
    pub fn agent_config_with(&self, name: &str, proof: &str, rest: &str) -> PathBuf {
        let (api, web) = (self.broker().api.port(), self.settings.issuer.as_str());
        let (ca, log_key) = (&self.listener_ca, &self.log_key);
        let text = format!(
            "broker = \"https://127.0.0.1:{api}\"\nweb = \"{web}\"\nca = {ca:?}\nlog_key = \"{log_key}\"\n{proof}\n{rest}\n"
        );
        let path = self.folder().join(format!("{name}.toml"));
        fs::write(&path, text).unwrap();
        path
    }
}

impl Agent {
    /// Starts the program with this configuration and these arguments.
    pub fn start(config: &Path, arguments: &[&str]) -> Self {
        Self::start_as(&[], config, arguments)
    }

    /// The same behind other programs that start it.
    pub fn start_as(before: &[&str], config: &Path, arguments: &[&str]) -> Self {
        let said = config.with_extension("said");
        let agent = program("daypass-agent");
        let mut line: Vec<&str> = before.to_vec();
        line.extend([agent.to_str().unwrap(), "--config", config.to_str().unwrap()]);
        line.extend(arguments);
        let output = File::options().create(true).append(true).open(&said).unwrap();
        let mut command = Command::new(line[0]);
        command.args(&line[1..]).stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output);
        Self { child: command.spawn().unwrap(), said }
    }

    /// All that it and its predecessors with the same configuration said.
    pub fn said(&self) -> String {
        fs::read_to_string(&self.said).unwrap()
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it has said something.
    pub async fn says(&self, what: &str) {
        for _ in 0..500 {
            if self.said().contains(what) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        panic!("the agent did not say `{what}` within 10 s, but:\n{}", self.said());
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.child.id().try_into().unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits for its end; its exit code.
    pub async fn ended(mut self) -> Option<i32> {
        for _ in 0..500 {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        panic!("the agent goes on after 10 s:\n{}", self.said());
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
