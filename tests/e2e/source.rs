//! The SDK's source against a whole broker, through what a day brings: restarts, a network that is cut, sleep.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use daypass_broker::clock::Clock as _;
use daypass_evidence::entry::Body;
use daypass_sdk::receive::{Feed, Presenter, Receiver, ReceiverConfig};
use daypass_sdk::{CredentialSource, IssueRequest, Secret};
use daypass_tests::harness::{Deployment, TRUST_DOMAIN, TestClock, Wire, nightly};
use daypass_verify::ids::CredentialId;
use daypass_verify::time::Seconds;
use secrecy::ExposeSecret as _;
use tokio::time::sleep;

/// Short lives, so that many pass: renewed at 8 s or so, handed out until 10.8 s.
const TTL: Seconds = Seconds::new(12);

#[tokio::test]
async fn each_certificate_has_a_key_of_its_own_and_each_renewal_names_what_it_renews() {
    let deployment = Deployment::start().await;
    let client = deployment.sdk_through(deployment.broker().api.port());
    let source = CredentialSource::new(client, IssueRequest::certificate("ledger-db".parse().unwrap()));
    let first = source.credential().await.unwrap();
    deployment.clock.advance(25 * 60_000);
    let mut changes = source.subscribe();
    let second =
        changes.wait_for(|it| it.as_ref().is_some_and(|it| it.id != first.id)).await.unwrap().clone();
    let second = second.unwrap();
    let key = |secret: &Secret| match secret {
        Secret::Certificate { key: Some(key), .. } => key.expose_secret().to_owned(),
        _ => panic!("a certificate with its key"),
    };
    assert_ne!(key(&first.secret), key(&second.secret));
    let renewed = deployment.entries().await.into_iter().find_map(|(_, entry)| match &entry.body {
        Body::CredentialIssued(issued) if entry.envelope.id == second.id => {
            Some(issued.credential.supersedes)
        }
        _ => None,
    });
    assert_eq!(renewed.unwrap().unwrap(), first.receipt.index);
}

/// Looks at a source without pause, as a service would, and holds what it gets to the clock and to a receiver.
struct Watcher {
    source: CredentialSource,
    receiver: Receiver,
    held: Presenter,
    clock: Arc<TestClock>,
    disturbed: AtomicBool,
    seen: AtomicU64,
    ended: AtomicBool,
}

impl Watcher {
    async fn watch(self: Arc<Self>) {
        let mut newest: Option<CredentialId> = None;
        while !self.ended.load(Ordering::SeqCst) {
            let before = self.clock.now();
            match self.source.current() {
                Some(credential) if self.clock.now().millis_since(before) < 1_000 => {
                    assert!(credential.granted.expires_at > before, "handed out after its end");
                    if newest != Some(credential.id) {
                        newest = Some(credential.id);
                        let Secret::Token { value, .. } = &credential.secret else { panic!("a token") };
                        self.receiver.token(value.expose_secret(), self.held).await.unwrap();
                    }
                    self.seen.fetch_add(1, Ordering::SeqCst);
                }
                Some(_) => {}
                None => assert!(self.disturbed.load(Ordering::SeqCst), "a gap, and nothing was wrong"),
            }
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// What may leave a gap is over once there is another credential.
    async fn renewed(&self, than: Option<CredentialId>) {
        let another = || self.source.current().is_some_and(|it| Some(it.id) != than);
        let began = Instant::now();
        while !another() {
            assert!(began.elapsed() < Duration::from_secs(60), "no other credential within 60 s");
            sleep(Duration::from_millis(20)).await;
        }
        self.disturbed.store(false, Ordering::SeqCst);
    }

    fn held(&self) -> Option<CredentialId> {
        self.source.current().map(|credential| credential.id)
    }
}

async fn watcher(deployment: &Deployment, wire: &Wire) -> Arc<Watcher> {
    let client = deployment.sdk_through(wire.port);
    let issuer = deployment.settings.issuer.as_str().parse().unwrap();
    let ca = std::fs::read(&deployment.listener_ca).unwrap();
    let audience = "https://ledger.example.org".parse().unwrap();
    let config = ReceiverConfig::new(issuer, ca, TRUST_DOMAIN.parse().unwrap(), audience);
    let clock = Arc::clone(&deployment.clock);
    let config = ReceiverConfig { feed: Feed::Ignored, clock: Arc::clone(&clock) as _, ..config };
    let receiver = Receiver::new(config).unwrap();
    receiver.ready().await.unwrap();
    let held = Presenter::Certificate(client.holder().digest());
    let request = IssueRequest { ttl: Some(TTL), ..IssueRequest::token("post-invoices".parse().unwrap()) };
    let source = CredentialSource::new(client, request);
    source.credential().await.unwrap();
    let (disturbed, seen, ended) = Default::default();
    Arc::new(Watcher { source, receiver, held, clock, disturbed, seen, ended })
}

/// As many lives as a day has of a quarter of an hour, in the long version.
#[tokio::test(flavor = "multi_thread")]
async fn a_day_has_no_gap_and_nothing_is_handed_out_after_its_end() {
    let mut deployment = Deployment::start().await;
    let wire = Wire::to(deployment.broker().api.port()).await;
    let watcher = watcher(&deployment, &wire).await;
    let watching = tokio::spawn(Arc::clone(&watcher).watch());
    for round in 0..if nightly() { 96 } else { 4 } {
        let mut held = watcher.held();
        watcher.disturbed.store(round % 4 != 0, Ordering::SeqCst);
        match round % 4 {
            // The network is cut for less than anybody notices.
            0 => {
                wire.cut();
                sleep(Duration::from_millis(300)).await;
                wire.mend();
            }
            // The machine sleeps for longer than a life.
            1 => deployment.clock.advance(2 * TTL.millis()),
            // The broker is started anew, and nobody knows for how long.
            2 => {
                deployment.stop().await;
                deployment.resume().await.unwrap();
                wire.lead_to(deployment.broker().api.port());
                held = watcher.held();
            }
            // The network is cut for longer than a life.
            _ => {
                wire.cut();
                let began = Instant::now();
                while watcher.held().is_some() {
                    assert!(began.elapsed() < Duration::from_secs(30), "handed out after its end");
                    sleep(Duration::from_millis(20)).await;
                }
                held = None;
                wire.mend();
            }
        }
        watcher.renewed(held).await;
        assert!(!watching.is_finished(), "the watcher saw what must not be");
    }
    watcher.ended.store(true, Ordering::SeqCst);
    watching.await.unwrap();
    assert!(watcher.seen.load(Ordering::SeqCst) > 100);
}
