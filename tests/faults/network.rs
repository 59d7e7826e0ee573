//! The network between a broker and those who ask it: cut, silent, and there again.
//!
//! What counts as failure: nothing is given out while something lives; something is given out that is over; a connection that
//! nobody answers on any more holds anybody up for good; an agent grows.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use daypass_broker::dev::organisation::sample;
use daypass_sdk::receive::{Presenter, Receiver, ReceiverConfig};
use daypass_sdk::{Clock as _, IssueRequest, RevocationReason, Secret, SystemClock};
use daypass_tests::harness::{
    Agent, Deployment, Link, Network, TRUST_DOMAIN, eventually, free_port, nightly, run,
};
use daypass_verify::time::UnixMs;
use secrecy::ExposeSecret as _;
use serde_json::Value;

use super::agent::check_whole;

/// How long the credentials of the agent live: at the shortest, so that a day of them fits into minutes.
const LIFE_MS: i64 = 8_000;
/// An agent that could reach its broker for this long has something to give out: it tries for five seconds at a time.
const BACK_WITHIN_MS: i64 = 20_000;
/// How much an agent may grow after it has seen one credential of each kind, in KiB: a leak of a connection or of a
/// credential for each life would be more.
const GROWTH_KIB_MAX: u64 = 1_536;

/// A broker whose `api` and `web` are each behind a network of their own.
struct Behind {
    deployment: Deployment,
    networks: [Network; 2],
    /// Where callers find its `api`.
    api: u16,
}

impl Behind {
    async fn start() -> Self {
        let mut deployment = Deployment::stopped(sample()).await;
        let (api, web) = (free_port(), deployment.settings.web.address.port());
        let (own_api, own_web) = (free_port(), free_port());
        deployment.settings.api.address.set_port(own_api);
        deployment.settings.web.address.set_port(own_web);
        let networks = [Network::between(api, own_api), Network::between(web, own_web)];
        deployment.resume().await.unwrap();
        Self { deployment, networks, api }
    }

    fn set(&self, link: Link) {
        self.networks.iter().for_each(|network| network.set(link));
    }

    /// An agent's configuration, by the networks.
    fn config(&self, name: &str, rest: &str) -> PathBuf {
        let path = self.deployment.agent_config(name, rest);
        let own = format!("https://127.0.0.1:{}\"", self.deployment.broker().api.port());
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(&own), "{text}");
        fs::write(&path, text.replace(&own, &format!("https://127.0.0.1:{}\"", self.api))).unwrap();
        path
    }
}

#[tokio::test]
async fn who_receives_hears_of_a_revocation_though_its_connection_was_forgotten_on_the_way() {
    let behind = Behind::start().await;
    let deployment = &behind.deployment;
    let issuer = deployment.settings.issuer.as_str().parse().unwrap();
    let ca = fs::read(&deployment.listener_ca).unwrap();
    let (domain, audience) = (TRUST_DOMAIN.parse().unwrap(), "https://ledger.example.org".parse().unwrap());
    let clock = Arc::clone(&deployment.clock) as _;
    let config = ReceiverConfig { clock, ..ReceiverConfig::new(issuer, ca, domain, audience) };
    let receiver = Receiver::new(config).unwrap();
    receiver.ready().await.unwrap();
    let client = deployment.sdk();
    let issued = client.issue(IssueRequest::token("post-invoices".parse().unwrap())).await.unwrap();
    let Secret::Token { value, .. } = &issued.secret else { panic!("a token") };
    let held = Presenter::Certificate(client.holder().digest());
    let said = || async {
        let verified = receiver.token(value.expose_secret(), held).await;
        verified.map_or_else(|it| it.inner_reason(), |_| "GOOD")
    };
    assert_eq!(said().await, "GOOD");
    behind.networks[1].forget();
    client.revoke(issued.id, RevocationReason::KeyCompromise, "a laptop was lost").await.unwrap();
    let began = Instant::now();
    while said().await != "REVOKED" {
        assert!(
            began.elapsed() < Duration::from_secs(40),
            "it is `{}` 40 s after it was revoked",
            said().await
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What somebody who asks at a socket all the time was given.
struct Asker {
    socket: PathBuf,
    ends: AtomicBool,
}

impl Asker {
    /// Asks until it is told to end; how many different tokens it got. An agent that has none waits ten seconds for its broker
    /// before it says so: whatever was given before must be over by then.
    async fn run(&self) -> usize {
        let (mut seen, mut last) = (BTreeSet::new(), None::<UnixMs>);
        let socket = self.socket.to_str().unwrap();
        while !self.ends.load(Ordering::SeqCst) {
            let asked = SystemClock.now();
            let line = ["-s", "--unix-socket", socket, "http://agent/token?task=post-invoices"];
            let answer = run("curl", line).await;
            let answer: Value = serde_json::from_str(&answer.stdout).unwrap_or_else(|_| panic!("{answer:?}"));
            match (answer["access_token"].as_str(), answer["expires_at"].as_str()) {
                (Some(token), Some(until)) => {
                    let until = UnixMs::parse(until).unwrap();
                    assert!(asked < until, "a token is given out after its end, {until}");
                    seen.insert(token.to_owned());
                    last = Some(until);
                }
                _ => {
                    let over = last.is_none_or(|until| SystemClock.now() >= until.plus_millis(-LIFE_MS / 10));
                    assert!(over, "no token is given out, and the last one lives until {last:?}: {answer}");
                }
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        seen.len()
    }
}

/// The end of the certificate in the files, where there is one.
fn end_of(out: &Path) -> Option<UnixMs> {
    let text = fs::read(out.join("credential.json")).ok()?;
    let description: Value = serde_json::from_slice(&text).ok()?;
    UnixMs::parse(description["expires_at"].as_str()?).ok()
}

/// Looks at the files for so long, while the network has been up since `up`, or is not.
async fn look(out: &Path, last: &mut Option<UnixMs>, up: Option<UnixMs>, for_ms: i64) {
    let until = SystemClock.now().plus_millis(for_ms);
    while SystemClock.now() < until {
        check_whole(out, "in between");
        let (found, now) = (end_of(out), SystemClock.now());
        match (found, *last) {
            // On a busy machine the end of a life comes a little late to a file: nothing hands it to anybody.
            (Some(end), _) => {
                assert!(now < end.plus_millis(2_000), "a certificate stays after its end, {end}")
            }
            (None, Some(end)) => {
                assert!(
                    now >= end.plus_millis(-LIFE_MS / 10),
                    "nothing is there, and the last one lives until {end}"
                );
                let reached_ms = up.map_or(0, |up| now.millis_since(up));
                assert!(reached_ms < BACK_WITHIN_MS, "a gap after {reached_ms} ms with a broker");
            }
            (None, None) => {}
        }
        *last = found.or(*last);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_day_of_lives_with_a_bad_network_leaves_no_gap_and_does_not_grow() {
    let mut behind = Behind::start().await;
    let (out, socket) = (behind.deployment.folder().join("out"), behind.deployment.folder().join("day.sock"));
    let rest = format!(
        "[[credential]]\ntask = \"ledger-db\"\nkind = \"certificate\"\nttl = \"8s\"\nfiles = {{ dir = {out:?} }}\n\
         [[credential]]\ntask = \"post-invoices\"\nttl = \"8s\"\n\
         [[socket]]\npath = {socket:?}\nserves = \"token\"\n"
    );
    let agent = Agent::start(&behind.config("day", &rest), &[]);
    eventually("the first certificate", || async { out.join("tls.key").exists() && socket.exists() }).await;
    let asker = Arc::new(Asker { socket, ends: AtomicBool::new(false) });
    let asking = tokio::spawn({
        let asker = Arc::clone(&asker);
        async move { asker.run().await }
    });
    let (mut last, mut warm_kib) = (None, None);
    look(&out, &mut last, Some(SystemClock.now()), 2_000).await;
    // Some shorter than what is left of a life, some longer than a whole one.
    let rounds: &[(Link, i64)] = if nightly() {
        &[
            (Link::Cut, 2_000),
            (Link::Silent, 3_000),
            (Link::Cut, 12_000),
            (Link::Silent, 12_000),
            (Link::Cut, 300),
        ]
    } else {
        &[(Link::Cut, 2_000), (Link::Silent, 2_000)]
    };
    for round in 0..if nightly() { 6 } else { 1 } {
        for (link, for_ms) in rounds {
            behind.set(*link);
            look(&out, &mut last, None, *for_ms).await;
            behind.set(Link::Up);
            let up = SystemClock.now();
            let before = last;
            while last == before {
                look(&out, &mut last, Some(up), 200).await;
            }
            warm_kib.get_or_insert_with(|| resident_kib(agent.pid()));
            look(&out, &mut last, Some(up), if nightly() { LIFE_MS } else { 500 }).await;
        }
        if nightly() && round % 2 == 0 {
            behind.deployment.stop().await;
            look(&out, &mut last, None, 1_000).await;
            behind.deployment.resume().await.unwrap();
            look(&out, &mut last, Some(SystemClock.now()), LIFE_MS).await;
        }
    }
    let grown_kib = resident_kib(agent.pid()).saturating_sub(warm_kib.unwrap());
    assert!(grown_kib < GROWTH_KIB_MAX, "grown by {grown_kib} KiB from {warm_kib:?} KiB");
    asker.ends.store(true, Ordering::SeqCst);
    let tokens = asking.await.unwrap();
    assert!(tokens > 1, "{tokens} tokens:\n{}", agent.said());
}

fn resident_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
