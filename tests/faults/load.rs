//! Callers that ask without a pause, through every kill, and keep what they receive.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use daypass_broker::dev::caller::Caller;
use daypass_broker::dev::workload_ca::WorkloadCertificate;
use daypass_proto::v1::issue_response::Credential;
use daypass_proto::v1::{IssueRequest, IssueResponse};
use daypass_tests::harness::{Deployment, NIGHTLY};
use daypass_verify::ids::Digest;
use tokio::task::JoinHandle;

use crate::simulation::check::Held;

/// How long callers are waited for.
const ROUNDS: usize = 1_500;
const PAUSE: Duration = Duration::from_millis(20);

/// The callers, and what they hold.
pub(super) struct Load {
    held: Arc<Mutex<Vec<Held>>>,
    over: Arc<AtomicBool>,
    callers: Vec<JoinHandle<()>>,
}

/// One caller.
pub(super) struct Client {
    port: u16,
    ca: PathBuf,
    pub(super) certificate: WorkloadCertificate,
    ttl_s: i64,
}

impl Load {
    pub(super) fn start(deployment: &Deployment, port: u16, clients: usize, ttl_s: i64) -> Self {
        let (held, over) = (Arc::<Mutex<Vec<Held>>>::default(), Arc::<AtomicBool>::default());
        let callers = (0..clients).map(|_| {
            let client = Client::of(deployment, port, ttl_s);
            let (held, over) = (Arc::clone(&held), Arc::clone(&over));
            tokio::spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    client.ask_until_it_fails(&held, &over).await;
                    tokio::time::sleep(PAUSE).await;
                }
            })
        });
        let callers = callers.collect();
        Self { held, over, callers }
    }

    pub(super) fn received(&self) -> usize {
        self.held.lock().unwrap().len()
    }

    pub(super) fn held(&self) -> Vec<Held> {
        self.held.lock().unwrap().clone()
    }

    pub(super) async fn wait_for(&self, count: usize) {
        for _ in 0..ROUNDS {
            if self.received() >= count {
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
        panic!("callers received {} credentials in 30 s, and not {count}", self.received());
    }

    /// Ends the callers, and gives what they hold.
    pub(super) async fn stop(self) -> Vec<Held> {
        self.over.store(true, Ordering::Relaxed);
        for caller in self.callers {
            caller.await.unwrap();
        }
        std::mem::take(&mut *self.held.lock().unwrap())
    }
}

impl Client {
    pub(super) fn of(deployment: &Deployment, port: u16, ttl_s: i64) -> Self {
        let certificate = deployment.workload(NIGHTLY);
        Self { port, ca: deployment.listener_ca.clone(), certificate, ttl_s }
    }

    async fn ask_until_it_fails(&self, held: &Mutex<Vec<Held>>, over: &AtomicBool) {
        let Ok(caller) = Caller::connect(self.port, &self.ca, Some(&self.certificate)).await else { return };
        while !over.load(Ordering::Relaxed) {
            let Ok(received) = self.ask(&caller).await else { return };
            held.lock().unwrap().push(received);
        }
    }

    async fn ask(&self, caller: &Caller) -> Result<Held, tonic::Status> {
        let ttl = prost_types::Duration { seconds: self.ttl_s, nanos: 0 };
        let wanted = IssueRequest { task: "post-invoices".into(), ttl: Some(ttl), ..Default::default() };
        let answered = caller.credentials().issue(caller.request(wanted).unwrap()).await;
        answered.map(|answer| hold(&answer.into_inner()))
    }

    /// Asks once, on a connection of its own; what was received, or how it was refused.
    pub(super) async fn answer(&self) -> Result<Held, tonic::Code> {
        self.status().await.map_err(|status| status.code())
    }

    /// The same, with all that a refusal says.
    pub(super) async fn status(&self) -> Result<Held, tonic::Status> {
        let connected = Caller::connect(self.port, &self.ca, Some(&self.certificate)).await;
        self.ask(&connected.map_err(|error| tonic::Status::aborted(error.to_string()))?).await
    }

    /// The same, whatever the refusal.
    pub(super) async fn once(&self) -> Option<Held> {
        self.answer().await.ok()
    }

    /// Asks until it is answered with a credential, for five seconds at most.
    pub(super) async fn at_last(&self) -> Held {
        for _ in 0..50 {
            if let Some(held) = self.once().await {
                return held;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("nothing is issued within 5 s after the fault is over");
    }
}

fn hold(answer: &IssueResponse) -> Held {
    let Some(Credential::Token(token)) = &answer.credential else { panic!("expected a token") };
    let (signed, _) = token.value.rsplit_once('.').unwrap();
    Held {
        id: answer.credential_id.parse().unwrap(),
        index: answer.receipt.as_ref().unwrap().entry.as_ref().unwrap().index,
        whole: Digest::of(token.value.as_bytes()),
        tbs: Digest::of(signed.as_bytes()),
    }
}
