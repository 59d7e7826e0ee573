//! The paths of an agent: in as a node, everything sealed, at a socket, on requests to another service, asked about tokens.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::thread;

use daypass_tests::harness::Agent;
use rustix::process::Signal;

use super::*;

/// The key of the old service.
const STATIC_KEY: &str = "canary-static-9d2b71c6e0";
/// What credentials are sealed with.
const SEALING_KEY: &[u8; 32] = b"canary-sealing-key-5e0a44b1c7d9f";

/// Answers every request with what is no secret, for as long as the process lives.
fn old_service() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut head = [0; 4096];
            let count = stream.read(&mut head).unwrap_or_default();
            let has_key = contains(&head[..count], STATIC_KEY.as_bytes());
            let said = if has_key { "with its key" } else { "without its key" };
            let length = said.len();
            let answer =
                format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{said}");
            drop(stream.write_all(answer.as_bytes()));
        }
    });
    port
}

impl Watch {
    pub(super) async fn agents_paths(&mut self) {
        self.machines_paths().await;
        let config = self.agent_config();
        let agent = Agent::start(&config, &[]);
        self.ask_everywhere(&agent).await;
        self.look_at_the_process(&agent);
        // Another one takes over what is sealed; its key is another one for a while.
        agent.signal(Signal::KILL);
        agent.ended().await;
        let key = self.path("seal.key");
        fs::write(&key, [1; 32]).unwrap();
        let agent = Agent::start(&config, &[]);
        agent.says("it was sealed under another key").await;
        agent.signal(Signal::ABORT);
        assert_eq!(agent.ended().await, None, "it ends by the signal");
        let said = fs::read_to_string(config.with_extension("said")).unwrap();
        assert!(said.contains("`erp-batch` is sealed"), "nothing was sealed: {said}");
    }

    fn connection(&self) -> String {
        let (api, web) = (self.api, self.deployment.settings.issuer.as_str());
        let (ca, log_key) = (&self.deployment.listener_ca, &self.deployment.log_key);
        format!(
            "broker = \"https://127.0.0.1:{api}\"\nweb = \"{web}\"\nca = {ca:?}\nlog_key = \"{log_key}\"\nlevel = \"debug\"\n"
        )
    }

    /// A machine is let in by its code, tries it again, and gets a certificate for its workload.
    async fn machines_paths(&mut self) {
        let token = self.deployment.organisation.token(STAFF, SECURITY).unwrap();
        self.keep_token_secret("an operator's proof", &token);
        let file = self.write("security", &token).display().to_string();
        let line = ["--format", "json", "node", "add", "prod/node/db1"];
        let added = self.daypass(&["--id-token-file", &file], &line, true).await;
        assert_eq!(added.code, Some(0), "{}", added.stderr);
        let added: serde_json::Value = serde_json::from_str(&added.stdout).unwrap();
        let code = added["code"].as_str().unwrap().to_owned();
        self.keep_secret("an enrolment code", code.as_bytes());
        let (dir, code_file, out) = (self.path("node"), self.write("code", &code), self.path("node-out"));
        let config = self.path("node.toml");
        let rest = format!(
            "[node]\ndir = {dir:?}\ncode_file = {code_file:?}\n[[credential]]\ntask = \"mesh-identity\"\n\
             kind = \"x509-svid\"\nfiles = {{ dir = {out:?} }}\n"
        );
        fs::write(&config, self.connection() + &rest).unwrap();
        let agent = Agent::start(&config, &[]);
        eventually("the workload's certificate", || async { out.join("tls.key").exists() }).await;
        let both = fs::read_to_string(dir.join("node.pem")).unwrap();
        self.keep_key_secret("the key of a node", &both[both.find("-----BEGIN PRIVATE").unwrap()..]);
        self.keep_key_secret("the key of a workload", &fs::read_to_string(out.join("tls.key")).unwrap());
        // Its worth is gone, and it is refused: whoever says so must not show it.
        self.write("code", &code);
        drop(agent);
        let agent = Agent::start(&config, &[]);
        agent.says("the code cannot be used").await;
    }

    /// An agent that keeps one of each kind, sealed, and gives them out in every way.
    fn agent_config(&mut self) -> PathBuf {
        let (cert, key) = self.deployment.agent_proof("everything");
        self.keep_key_secret("the agent's own key", &fs::read_to_string(&key).unwrap());
        self.keep_secret("a static key", STATIC_KEY.as_bytes());
        self.keep_secret("a key for sealing", SEALING_KEY);
        let (old_key, seal) = (self.write("erp.key", STATIC_KEY), self.path("seal.key"));
        fs::write(&seal, SEALING_KEY).unwrap();
        fs::set_permissions(&seal, fs::Permissions::from_mode(0o600)).unwrap();
        let at = |name: &str| self.path(name);
        let (upstream, allow) = (old_service(), "allow = [\"GET /batch\"]");
        let rest = format!(
            "cert = {cert:?}\nkey = {key:?}\nstate = {:?}\n[sealed]\ndir = {:?}\nkey_file = {seal:?}\n\
             [[credential]]\ntask = \"post-invoices\"\n\
             [[credential]]\ntask = \"read-invoices\"\nbearer = true\naudiences = [\"{LEDGER}\"]\n\
             [[credential]]\ntask = \"erp-batch\"\n\
             [[credential]]\ntask = \"ledger-db\"\nkind = \"certificate\"\nfiles = {{ dir = {:?} }}\n\
             [[socket]]\npath = {:?}\nserves = \"token\"\ncredentials = [\"post-invoices\", \"read-invoices\"]\n\
             [[proxy]]\nlisten = {:?}\ncredential = \"erp-batch\"\ntarget = \"erp\"\n\
             upstream = \"http://127.0.0.1:{upstream}\"\n{allow}\ninject = \"static\"\nkey_file = {old_key:?}\n\
             exception = \"erp-batch-password\"\n\
             [[proxy]]\nlisten = {:?}\ncredential = \"read-invoices\"\nupstream = \"http://127.0.0.1:{upstream}\"\n\
             {allow}\ninject = \"token\"\n\
             [[auth]]\nlisten = {:?}\naudience = \"{LEDGER}\"\n",
            at("agent-state"),
            at("sealed"),
            at("db"),
            at("tokens.sock"),
            at("old.sock"),
            at("new.sock"),
            at("auth.sock"),
        );
        let config = self.path("everything.toml");
        fs::write(&config, self.connection() + &rest).unwrap();
        config
    }

    /// What a socket of the agent answers; `theirs` says whether that is the secret itself.
    async fn ask(&mut self, socket: &str, path: &str, more: &[&str], theirs: bool) -> String {
        let (at, url) = (self.path(socket).display().to_string(), format!("http://agent{path}"));
        let mut line = vec!["-s", "-i", "--unix-socket", at.as_str(), url.as_str()];
        line.extend(more);
        let answer = run("curl", line).await.stdout;
        if !theirs {
            self.said.push((format!("{path} at {socket}"), answer.clone().into()));
        }
        answer
    }

    async fn ask_everywhere(&mut self, agent: &Agent) {
        eventually("the sockets", || async { self.path("auth.sock").exists() }).await;
        let text = ["-H", "accept: text/plain"];
        let mut held = Vec::new();
        for task in ["post-invoices", "read-invoices"] {
            let answer = self.ask("tokens.sock", &format!("/token?task={task}"), &text, true).await;
            let token = answer.lines().last().unwrap().to_owned();
            self.keep_token_secret(&format!("a token of {task}"), &token);
            held.push(token);
        }
        eventually("the certificate", || async { self.path("db/tls.key").exists() }).await;
        let made = fs::read_to_string(self.path("db/tls.key")).unwrap();
        self.keep_key_secret("the key of an agent's certificate", &made);
        for task in ["post-invoices", "read-invoices", "ledger-db", &held[0]] {
            self.ask("tokens.sock", &format!("/holder?task={task}"), &[], false).await;
        }
        let with_key = self.ask("old.sock", "/batch", &[], false).await;
        assert!(with_key.ends_with("with its key") && !with_key.contains("without"), "{with_key}");
        let passed = self.ask("new.sock", "/batch", &["-H", &format!("x-secret: {WORD}")], false).await;
        assert!(passed.contains("200 OK"), "{passed}");
        for (what, bearer) in [("a good one", held[1].clone()), ("a bad one", format!("{}x", held[1]))] {
            let header = format!("authorization: Bearer {bearer}");
            let path = "/verify?task=read-invoices";
            let answer = self.ask("auth.sock", path, &["-H", &header], false).await;
            assert_eq!(answer.contains(" 204 "), what == "a good one", "{what}: {answer}");
            for socket in ["old.sock", "new.sock"] {
                let refused = self.ask(socket, "/admin", &["-H", &header], false).await;
                assert!(refused.contains(" 403 "), "{refused}");
            }
        }
        for task in ["post-invoices", "read-invoices", "erp-batch", "ledger-db"] {
            agent.says(&format!("`{task}` is sealed")).await;
        }
        let broken = fs::read(self.path("erp.key")).unwrap();
        fs::write(self.path("erp.key"), [broken.as_slice(), b"\nanother line"].concat()).unwrap();
        let refused = self.ask("old.sock", "/batch", &[], false).await;
        assert!(refused.contains("key_unusable"), "{refused}");
        self.introspect(&held).await;
    }

    /// Tokens that are asked about by whoever may not, and by whoever may.
    async fn introspect(&mut self, held: &[String]) {
        let tls = client_config(&self.deployment.listener_ca, None).unwrap();
        let client = reqwest::Client::builder().no_proxy().tls_backend_preconfigured(tls).build().unwrap();
        let url = format!("{}/introspect", self.deployment.settings.issuer.as_str());
        let proof = fs::read_to_string(self.proof("introspecting")).unwrap();
        for (bearer, token) in [(&proof, &held[0]), (&held[1], &held[0]), (&proof, &held[1])] {
            let request = client.post(&url).bearer_auth(bearer).header("content-type", FORM);
            let answer = request.body(format!("token={token}")).send().await.unwrap();
            let said = format!("{:?} {}", answer.headers().clone(), answer.text().await.unwrap());
            self.said.push(("POST /introspect with a token".into(), said.into()));
        }
    }

    /// What the kernel tells of the agent, and that it would leave no core behind.
    fn look_at_the_process(&mut self, agent: &Agent) {
        let process = PathBuf::from(format!("/proc/{}", agent.pid()));
        for part in ["cmdline", "environ"] {
            match fs::read(process.join(part)) {
                Ok(text) => self.said.push((format!("the agent's {part}"), text)),
                // Kept from others of the same user: that is more than to hold nothing.
                Err(error) => {
                    assert_eq!((part, error.kind()), ("environ", std::io::ErrorKind::PermissionDenied))
                }
            }
        }
        let limits = fs::read_to_string(process.join("limits")).unwrap();
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        assert_eq!(core.split_whitespace().filter(|it| *it == "0").count(), 2, "{core}");
    }
}
