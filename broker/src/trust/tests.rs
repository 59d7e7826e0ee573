//! Against a real provider on loopback that misbehaves one way at a time.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicI64, Ordering};

use daypass_evidence::entry::{Actor, ProofUse};
use daypass_verify::time::{Seconds, UnixMs};
use jsonwebtoken::Algorithm;
use tokio::time::{sleep, timeout};

use super::*;
use crate::clock::SystemClock;
use crate::dev::issuer::{DevIssuer, Endpoint, Start};

mod answers;
mod asked;
mod client_cas;
mod clusters;
mod outage;

/// The machine's clock, with a boot-time clock that tests move.
#[derive(Default)]
struct MovedClock(AtomicI64);

impl MovedClock {
    fn pass(&self, duration: Duration) {
        self.0.fetch_add(millis(duration), Ordering::SeqCst);
    }
}

impl Clock for MovedClock {
    fn now(&self) -> UnixMs {
        SystemClock.now()
    }

    fn boot_ms(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// Bounds short enough for a test. Nothing is fetched again by itself, and every call of `refresh` fetches.
fn limits() -> FetchLimits {
    FetchLimits {
        connect: Duration::from_millis(500),
        total: Duration::from_millis(900),
        asked_apart: Duration::ZERO,
        pause_min: Duration::from_secs(3600),
        pause_max: Duration::from_secs(3600),
        ..FetchLimits::default()
    }
}

/// A provider, and a broker that follows it under the name `ci`.
struct World {
    provider: DevIssuer,
    trust: Trust,
    events: mpsc::Receiver<TrustEvent>,
    clock: Arc<MovedClock>,
}

impl World {
    /// Follows an honest provider; on return its keys are known.
    async fn new(limits: FetchLimits) -> Self {
        let world = Self::unfollowed(limits).await;
        world.trust.follow_issuers(&issuers([("ci", world.declared())]));
        world.wait_for_keys("ci").await;
        world
    }

    async fn unfollowed(limits: FetchLimits) -> Self {
        let provider = DevIssuer::start(Start::in_memory(Arc::new(SystemClock))).await.unwrap();
        let clock = Arc::new(MovedClock::default());
        let (alarms, events) = mpsc::channel(64);
        let trust = Trust::new(clock.clone(), limits, alarms);
        Self { provider, trust, events, clock }
    }

    fn declared(&self) -> Issuer {
        oidc(self.provider.url(), KeySource::Discovery, vec![self.provider.root_base64()])
    }

    async fn wait_for_keys(&self, issuer: &str) {
        self.wait(|| !matches!(self.keys(issuer), IssuerKeys::Unavailable)).await;
    }

    async fn wait(&self, met: impl Fn() -> bool) {
        let poll = async {
            while !met() {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(Duration::from_secs(10), poll).await.expect("never came true");
    }

    fn keys(&self, issuer: &str) -> IssuerKeys {
        self.trust.known().keys(&name(issuer))
    }

    /// Whether the provider's signing key of this moment is known to the broker.
    fn knows_signing_key(&self) -> bool {
        self.knows(&self.provider.kid(Algorithm::ES256).unwrap())
    }

    fn knows(&self, kid: &str) -> bool {
        matches!(self.keys("ci"), IssuerKeys::Jwks(set) if set.key(kid).is_some())
    }

    async fn refresh(&self) -> bool {
        self.trust.refresh(&name("ci")).await
    }

    fn fetches(&self) -> u64 {
        self.provider.requests(Endpoint::Jwks)
    }

    fn events(&mut self) -> Vec<TrustEvent> {
        std::iter::from_fn(|| self.events.try_recv().ok()).collect()
    }

    fn codes(&mut self) -> Vec<&'static str> {
        self.events().iter().map(TrustEvent::code).collect()
    }
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn issuers<const N: usize>(all: [(&str, Issuer); N]) -> BTreeMap<Name, Issuer> {
    all.into_iter().map(|(text, issuer)| (name(text), issuer)).collect()
}

fn oidc(url: &str, keys: KeySource, tls_ca: Vec<String>) -> Issuer {
    declare(IssuerKind::Oidc {
        url: url.to_owned(),
        keys,
        algs: BTreeSet::from(["ES256".to_owned()]),
        typs: BTreeSet::from(["JWT".to_owned()]),
        proof_ttl_max_s: Seconds::new(3600),
        instance_claim: None,
        refuse_key_urls: false,
        tls_ca,
        required_claims: BTreeSet::new(),
    })
}

fn declare(kind: IssuerKind) -> Issuer {
    Issuer {
        preset: None,
        kind,
        environment: name("prod"),
        replay: ProofUse::Once,
        proof_caps: false,
        actor: Actor::Workload,
        internal: true,
        disabled: false,
    }
}
