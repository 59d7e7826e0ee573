//! One issuance, and each of its writes and syncs spoiled in turn.

use std::collections::HashMap;
use std::time::Duration;

use daypass_tests::harness::{Deployment, nightly};

use super::child::{Child, Files};
use super::load::Client;
use super::report::stood;
use super::tracer::Tracer;

const TTL_S: i64 = 300;

/// How long after an issuance its settlement is written, and the anchor synced.
const SETTLED: Duration = Duration::from_millis(300);

struct Case {
    deployment: Deployment,
    files: Files,
    client: Client,
}

impl Case {
    async fn new() -> Self {
        let deployment = Deployment::stopped(daypass_broker::dev::organisation::sample()).await;
        let files = Files::of(&deployment);
        let client = Client::of(&deployment, files.api, TTL_S);
        Self { deployment, files, client }
    }

    /// The most calls that one thread makes for an issuance and what follows from it.
    async fn calls(&self, child: &Child) -> usize {
        let trace = self.deployment.folder().join("calls");
        let tracer = Tracer::counting(child, &self.files, &trace);
        self.client.at_last().await;
        tokio::time::sleep(SETTLED).await;
        tracer.detach();
        let mut by_thread: HashMap<String, usize> = HashMap::new();
        let text = std::fs::read_to_string(&trace).unwrap();
        for line in text.lines().filter(|line| !line.contains("resumed>") && line.contains('(')) {
            *by_thread.entry(line.split_whitespace().next().unwrap().into()).or_default() += 1;
        }
        let most = by_thread.values().max().copied().unwrap_or_default();
        assert!(most >= 6, "an issuance writes and syncs, but only this was seen:\n{text}");
        most
    }
}

/// All of them, or a few that are spread over all.
fn some(calls: usize, few: usize) -> Vec<usize> {
    if nightly() || calls <= few {
        return (1..=calls).collect();
    }
    (0..few).map(|at| 1 + at * (calls - 1) / (few - 1)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_fails_anywhere_in_an_issuance_leaves_no_credential_without_its_record() {
    let case = Case::new().await;
    let child = Child::start(&case.files, &[]).await;
    let calls = case.calls(&child).await;
    let mut held = Vec::new();
    let mut refused = 0;
    for (fault, name) in [("error=EIO", "EIO"), ("error=ENOSPC", "ENOSPC")] {
        let all = some(calls, 10);
        for nth in &all {
            let tracer = Tracer::spoiling(&child, &case.files, fault, *nth);
            let received = case.client.once().await;
            refused += usize::from(received.is_none());
            held.extend(received);
            tokio::time::sleep(SETTLED).await;
            tracer.detach();
            held.push(case.client.at_last().await);
        }
        stood("P1", &format!("{name} at each write and sync of an issuance"), all.len());
    }
    assert!(refused > 0, "no fault was felt by a caller");
    child.kill();
    case.files.check(&case.deployment).unwrap().compare(&held, &[]).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_anywhere_in_an_issuance_leaves_no_credential_without_its_record() {
    let case = Case::new().await;
    let mut child = Child::start(&case.files, &[]).await;
    let calls = case.calls(&child).await;
    let (mut held, mut killed) = (Vec::new(), 0);
    for nth in some(calls, 8) {
        let tracer = Tracer::spoiling(&child, &case.files, "signal=KILL", nth);
        held.extend(case.client.once().await);
        tokio::time::sleep(SETTLED).await;
        tracer.detach();
        if child.is_gone() {
            killed += 1;
            case.files.check(&case.deployment).unwrap().compare(&held, &[]).unwrap();
            child = Child::start(&case.files, &[]).await;
        }
        held.push(case.client.at_last().await);
    }
    child.kill();
    case.files.check(&case.deployment).unwrap().compare(&held, &[]).unwrap();
    stood("P1", "SIGKILL at each write and sync of an issuance", killed);
}
