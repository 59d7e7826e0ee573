//! A service that takes a static key and nothing else, behind the agent's proxy: the key goes on only while its exception is
//! open and the credential that it goes under lives, and callers never see it.

mod erp;
mod hygiene;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use daypass_broker::clock::Clock as _;
use daypass_broker::dev::organisation::sample;
use daypass_core::bundle::SourceFile;
use daypass_evidence::entry::{AccessObserved, Body, Observed};
use daypass_proto::v1 as pb;
use daypass_proto::v1::selector::What;
use daypass_tests::harness::{Agent, Deployment, NIGHTLY, eventually, free_port, left_out, run};
use rustix::process::Signal;
use serde_json::Value;
use tokio::task::JoinHandle;

use super::table;
use erp::{Erp, KEY};

/// A broker, an old service, and the agent between them.
struct Bench {
    deployment: Deployment,
    erp: Erp,
    agent: Option<Agent>,
    config: PathBuf,
    socket: PathBuf,
}

/// What a caller is answered.
#[derive(Debug)]
struct Said {
    status: u16,
    body: String,
}

impl Said {
    /// The word for why it was refused.
    fn why(&self) -> String {
        let body: Value = serde_json::from_str(&self.body).unwrap_or_default();
        body["error"].as_str().unwrap_or_default().to_owned()
    }
}

impl Bench {
    async fn start() -> Self {
        Self::start_with(sample()).await
    }

    async fn start_with(files: Vec<SourceFile>) -> Self {
        let mut deployment = Deployment::stopped(files).await;
        deployment.settings.api.address.set_port(free_port());
        deployment.resume().await.unwrap();
        let erp = Erp::start().await;
        let (socket, key) = (deployment.folder().join("erp.sock"), deployment.folder().join("erp.key"));
        write_key(&key, KEY);
        let rest = format!(
            "level = \"debug\"\n[[credential]]\ntask = \"erp-batch\"\n[[proxy]]\nlisten = {socket:?}\n\
             credential = \"erp-batch\"\ntarget = \"erp\"\nupstream = \"http://{}\"\n\
             allow = [\"POST /batch\", \"GET /status\", \"GET /echo\", \"GET /moved\", \"PUT /batch\"]\n\
             inject = \"static\"\nkey_file = {key:?}\nexception = \"erp-batch-password\"\ntemplate = \"Key {{}}\"\n\
             timeout = \"3s\"\n",
            erp.address
        );
        let config = deployment.agent_config("erp", &rest);
        let agent = Some(Agent::start(&config, &[]));
        let made = Self { deployment, erp, agent, config, socket };
        eventually("the socket", || async { made.socket.exists() }).await;
        made
    }

    fn agent(&self) -> &Agent {
        self.agent.as_ref().unwrap()
    }

    async fn curl(&self, path: &str, more: &[&str]) -> Said {
        curl(&self.socket, path, more).await
    }

    async fn batch(&self) -> Said {
        self.curl("/batch", &["-X", "POST"]).await
    }

    /// A request that has reached the service, and is answered two seconds later.
    async fn open(&self) -> JoinHandle<Said> {
        let (reached, socket) = (self.erp.seen().len(), self.socket.clone());
        let open = tokio::spawn(async move { curl(&socket, "/status", &["-H", "x-slow: 2"]).await });
        eventually("a request is under way", || async { self.erp.seen().len() > reached }).await;
        open
    }

    /// Waits until a request is answered so, and how long that took.
    async fn answers(&self, status: u16, why: &str) -> Duration {
        let begun = Instant::now();
        let so = || async {
            let said = self.batch().await;
            said.status == status && said.why() == why
        };
        eventually(&format!("{status} {why}"), so).await;
        begun.elapsed()
    }

    /// What the log has of use, once the agent has told all of it.
    async fn observed(&mut self) -> Vec<AccessObserved> {
        let agent = self.agent.take().unwrap();
        agent.signal(Signal::TERM);
        assert_eq!(agent.ended().await, Some(0));
        let entries = self.deployment.entries().await.into_iter();
        let observed = entries.filter_map(|(_, entry)| match entry.body {
            Body::AccessObserved(observed) => Some(*observed),
            _ => None,
        });
        observed.collect()
    }
}

/// What readers are told of this target.
fn seen_after(end: &str, took: Duration) {
    table::seen(&table::Row {
        target: "a service with a static key, the agent's proxy",
        version: "HTTP/1.1",
        end,
        new: "refused (503)",
        open: "a request goes on to its end",
        seconds: [Some(took.as_secs_f64()), None],
    });
}

fn write_key(path: &Path, key: &str) {
    fs::write(path, format!("{key}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

async fn curl(socket: &Path, path: &str, more: &[&str]) -> Said {
    let url = format!("http://erp{path}");
    let mut arguments = vec![
        "-s",
        "-S",
        "--path-as-is",
        "-w",
        "\n%{http_code}",
        "--unix-socket",
        socket.to_str().unwrap(),
        &url,
    ];
    arguments.extend(more);
    let answered = run("curl", arguments).await;
    let (body, status) = answered.stdout.rsplit_once('\n').unwrap_or_else(|| panic!("{answered:?}"));
    Said { status: status.parse().unwrap(), body: body.to_owned() }
}

/// The sample organisation with its exception changed, or without it.
fn exception(until: Option<&str>) -> Vec<SourceFile> {
    let mut files = sample();
    let file = files.iter_mut().find(|file| file.path == "exceptions.toml").unwrap();
    match until {
        Some(until) => {
            let lines = file.text.lines();
            let lines =
                lines.map(|it| if it.starts_with("until") { format!("until = {until}") } else { it.into() });
            file.text = lines.collect::<Vec<_>>().join("\n");
        }
        None => file.text = String::new(),
    }
    files
}

#[tokio::test]
async fn a_key_goes_on_only_while_its_exception_is_open() {
    let mut bench = Bench::start().await;
    let said = bench.curl("/batch?night=7", &["-H", "authorization: Bearer mine", "-d", "run=1"]).await;
    assert_eq!((said.status, said.body.as_str()), (200, "done"), "{}", bench.agent().said());
    let seen = bench.erp.seen();
    assert_eq!((seen[0].target.as_str(), seen[0].body.as_slice()), ("/batch?night=7", &b"run=1"[..]));
    assert_eq!(seen[0].all("authorization"), [format!("Key {KEY}")], "the caller's own is taken away");

    let open = bench.open().await;
    bench.deployment.activate(exception(None)).await;
    let closed_after = bench.answers(503, "exception_closed").await;
    assert_eq!(open.await.unwrap().status, 200, "what went on goes on");
    let reached = bench.erp.seen().len();
    let said = bench.batch().await;
    assert!(said.body.contains("erp-batch-password") && said.body.contains("ask its owner"), "{}", said.body);
    assert_eq!(bench.erp.seen().len(), reached, "what is refused reaches nobody");
    seen_after("exception closed", closed_after);

    bench.deployment.activate(sample()).await;
    bench.answers(200, "").await;
    let soon = bench.deployment.clock.now().plus_millis(5_000).floor_second().to_string();
    bench.deployment.activate(exception(Some(&soon))).await;
    bench.answers(503, "exception_closed").await;

    let seen = u64::try_from(bench.erp.seen().len()).unwrap();
    let observed = bench.observed().await;
    let count = |what: Observed| observed.iter().filter(|it| it.what == what).map(|it| it.count).sum::<u64>();
    assert_eq!(count(Observed::Used), seen, "{observed:?}");
    assert!(count(Observed::Refused) >= 3, "{observed:?}");
    for one in &observed {
        assert_eq!((one.target.as_str(), one.method.as_str()), ("erp", "proxy"));
        assert!(one.credential.is_some(), "{one:?}");
        let named = one.exception.as_ref().map(ToString::to_string);
        assert_eq!(named.as_deref(), Some("erp-batch-password"), "{one:?}");
    }
}

#[tokio::test]
async fn the_end_of_the_credential_stops_the_next_request() {
    let bench = Bench::start().await;
    bench.answers(200, "").await;
    let open = bench.open().await;
    let security = bench.deployment.security().await;
    let selector = pb::Selector { what: Some(What::Identity(NIGHTLY.into())), issued_before: None };
    let wanted =
        pb::SuspendRequest { selector: Some(selector), reason: "stolen".into(), ..Default::default() };
    let suspended =
        security.governance().suspend(security.request(wanted).unwrap()).await.unwrap().into_inner();
    assert_eq!(suspended.revoked, 1);
    seen_after("identity suspended", bench.answers(503, "credential_ended").await);
    assert_eq!(open.await.unwrap().status, 200);

    let security = bench.deployment.security().await;
    let wanted = pb::ResumeRequest { suspension: suspended.suspension, reason: "it was found".into() };
    security.governance().resume(security.request(wanted).unwrap()).await.unwrap();
    // What is revoked is revoked: the next one comes in its time, or with a new start.
    assert_eq!(bench.batch().await.why(), "credential_ended");
    let mut bench = bench;
    bench.agent = None;
    bench.agent = Some(Agent::start(&bench.config, &[]));
    bench.answers(200, "").await;

    let client = bench.deployment.service().await;
    let selector = Some(pb::Selector { what: Some(What::Task("erp-batch".into())), issued_before: None });
    let order = pb::RevokeRequest { selector, reason: 5, ..Default::default() };
    assert!(
        client.credentials().revoke(client.request(order.clone()).unwrap()).await.is_err(),
        "not a holder's"
    );
    let open = bench.open().await;
    let operator = bench.deployment.operator().await;
    operator.credentials().revoke(operator.request(order).unwrap()).await.unwrap();
    seen_after("revoked", bench.answers(503, "credential_ended").await);
    assert_eq!(open.await.unwrap().status, 200);
}

#[tokio::test]
async fn a_proxy_that_hears_nothing_of_its_broker_stops_within_ten_seconds_and_goes_on_when_it_does() {
    let mut bench = Bench::start().await;
    bench.answers(200, "").await;
    bench.deployment.stop().await;
    let cut_off = Instant::now();
    assert_eq!(bench.batch().await.status, 200, "a broker may be started anew");
    let stopped = || async {
        let said = bench.batch().await;
        said.status == 503
            && said.why() == "broker_unheard"
            && said.body.contains("whether the broker serves")
    };
    let deadline = Duration::from_secs(20);
    while !stopped().await {
        assert!(cut_off.elapsed() < deadline, "it goes on without a word: {}", bench.agent().said());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    bench.deployment.resume().await.unwrap();
    bench.answers(200, "").await;
}

#[tokio::test]
async fn the_key_is_nowhere_but_in_its_file_and_at_the_upstream() {
    let mut bench = Bench::start().await;
    bench.answers(200, "").await;
    let mut written = vec![];
    for (path, more) in [
        ("/status", &["-i"][..]),
        ("/elsewhere", &["-i"]),
        ("/batch/../x", &["-i", "-X", "POST"]),
        ("/batch", &["-i", "-X", "POST", "-H", "x-slow: 9"]),
    ] {
        written.push(bench.curl(path, more).await.body);
    }
    let key = bench.deployment.folder().join("erp.key");
    // A file that others may read is refused, and so is one that holds more than the key.
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let said = bench.batch().await;
    assert_eq!((said.status, said.why().as_str()), (503, "key_unusable"));
    written.push(said.body);
    write_key(&key, &format!("{KEY}\n{KEY}"));
    written.push(bench.batch().await.body);
    write_key(&key, "the-next-key");
    assert_eq!(bench.batch().await.status, 401, "it is read anew, and the upstream's answer is handed on");
    let process = PathBuf::from(format!("/proc/{}", bench.agent().pid()));
    written.push(String::from_utf8_lossy(&fs::read(process.join("cmdline")).unwrap()).into_owned());
    match fs::read(process.join("environ")) {
        Ok(environment) => written.push(String::from_utf8_lossy(&environment).into_owned()),
        Err(error) => left_out("the key in the environment of the agent", &error.to_string()),
    }
    written.push(bench.agent().said());
    bench.observed().await;
    written.push(format!("{:?}", bench.deployment.entries().await));
    assert!(written.iter().any(|text| text.contains("key_unusable")), "nothing was looked through");
    let found = written.iter().find(|text| text.contains(KEY) || text.contains("the-next-key"));
    assert!(found.is_none(), "the key is in {}", found.unwrap());
}
