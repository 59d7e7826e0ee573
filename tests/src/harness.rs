//! A deployment as an organisation would run one, less the waiting: loopback ports, a folder of its own, a clock that
//! can be set forward. Nothing in it is a stand-in for a part that a user would run.

mod agent;
mod answer;
mod beside;
mod clock;
mod declared;
mod forge;
mod network;
mod ports;
pub mod postgres;
mod profiles;
mod programs;
mod receiver;
mod tamper;
mod web;
mod wire;
mod witness;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use daypass_broker::clock::{Clock, ClockTrust, SystemClock};
use daypass_broker::dev::caller::{Caller, possession};
use daypass_broker::dev::organisation::{Organisation, sample};
use daypass_broker::dev::workload_ca::WorkloadCertificate;
use daypass_broker::init::{ListenerFiles, init, write_listener_certificate};
use daypass_broker::limits::Rates;
use daypass_broker::listen::Limits;
use daypass_broker::log::Turns;
use daypass_broker::scrub::Schedule;
use daypass_broker::seal::SealSettings;
use daypass_broker::serve::{self, ListenAt, Running, ServeError, Settings};
use daypass_broker::store::StoreAt;
use daypass_broker::witness::WitnessSettings;
use daypass_core::bundle::SourceFile;
use daypass_core::bundle::object::IssuerKind;
use daypass_core::proof::IssuerKeys;
use daypass_core::rotation::Lifetimes;
use daypass_evidence::entry::{Body, CredentialIssued, Entry, Index, Mode};
use daypass_evidence::note::VerifierKey;
use daypass_proto::v1 as pb;
use daypass_verify::ids::SpiffeId;
use daypass_verify::time::{Seconds, UnixMs};
use rustls_pki_types::CertificateDer;
use tempfile::TempDir;

pub use agent::Agent;
pub use answer::{Answer, Refused, certificate_of, claims_of, token_of};
pub use clock::TestClock;
pub use declared::{edited, sample_with};
pub use forge::Forge;
pub use network::{Link, Network};
pub use ports::free as free_port;
pub use programs::{Output, left_out, nightly, node, program, python, run, run_with};
pub use tamper::Copied;
pub use web::{EXCHANGE, ID_TOKEN, JWT, Said, Web, certificate_digest, encoded, exchange, in_pem};
pub use wire::Wire;
pub use witness::{Manner, WitnessServer};

/// The nightly billing run of the sample organisation.
pub const NIGHTLY: &str = "prod/billing/nightly";
/// Its CI system.
pub const CI: &str = "ci";
/// Where its people log in.
pub const STAFF: &str = "staff";
/// The operator who may read the log.
pub const OPERATOR: &str = "alice-lead";
/// The operator who may change keys.
pub const SECURITY: &str = "bob-sec";
/// The trust domain.
pub const TRUST_DOMAIN: &str = "example.org";

/// A whole deployment, running unless it was stopped.
pub struct Deployment {
    /// Its issuers and its workload CA.
    pub organisation: Organisation,
    /// What time it is for all of them.
    pub clock: Arc<TestClock>,
    /// The roots of the broker's listeners, PEM.
    pub listener_ca: PathBuf,
    /// What verifies the log's checkpoints.
    pub log_key: VerifierKey,
    /// The root of issued certificates.
    pub root: CertificateDer<'static>,
    /// What the broker runs with.
    pub settings: Settings,
    running: Option<Running>,
    folder: TempDir,
}

impl Deployment {
    /// The sample organisation and its broker.
    pub async fn start() -> Self {
        Self::start_with(sample(), |_| {}).await
    }

    /// The same with the files changed, and the organisation changed before the broker first sees it.
    pub async fn start_with(files: Vec<SourceFile>, prepare: impl FnOnce(&Organisation)) -> Self {
        let mut made = Self::stopped(files).await;
        prepare(&made.organisation);
        made.resume().await.unwrap();
        made
    }

    /// The same with its store in `store`, a file of its own where there is none.
    pub async fn start_on(store: Option<StoreAt>) -> Self {
        Self::start_rotating_on(store, Lifetimes::default()).await
    }

    /// The same, where anybody may ask as fast as they can.
    pub async fn start_unlimited_on(store: Option<StoreAt>) -> Self {
        let mut made = Self::made(sample(), true, Lifetimes::default(), store).await;
        made.settings.rates = Rates::NONE;
        made.resume().await.unwrap();
        made
    }

    /// The same with keys that live as long as this.
    pub async fn start_rotating(lifetimes: Lifetimes) -> Self {
        Self::start_rotating_on(None, lifetimes).await
    }

    /// The same with its store in `store`.
    pub async fn start_rotating_on(store: Option<StoreAt>, lifetimes: Lifetimes) -> Self {
        let mut made = Self::made(sample(), true, lifetimes, store).await;
        made.resume().await.unwrap();
        made
    }

    /// Made by `init`, and not served yet.
    pub async fn stopped(files: Vec<SourceFile>) -> Self {
        Self::made(files, true, Lifetimes::default(), None).await
    }

    /// Made by `init` without a bundle, and not served yet.
    pub async fn without_bundle() -> Self {
        Self::made(sample(), false, Lifetimes::default(), None).await
    }

    /// The sample organisation, made by `init` in another store than a file, and not served yet.
    pub async fn stopped_in(store: StoreAt) -> Self {
        Self::made(sample(), true, Lifetimes::default(), Some(store)).await
    }

    async fn made(
        files: Vec<SourceFile>,
        with_bundle: bool,
        lifetimes: Lifetimes,
        store: Option<StoreAt>,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let clock = Arc::new(TestClock::default());
        let shared: Arc<dyn Clock> = Arc::clone(&clock) as _;
        let web = ports::free();
        let issuer = format!("https://127.0.0.1:{web}");
        let organisation = Organisation::start_declaring(files, path, &issuer, &shared).await.unwrap();
        let hosts = ["127.0.0.1", "localhost"].map(String::from);
        let listener = write_listener_certificate(path, &hosts, SystemClock.now()).unwrap();
        let settings = settings(path, &issuer, web, &listener, shared);
        let store = store.unwrap_or_else(|| settings.store.clone());
        let settings = Settings { lifetimes, store, ..settings };
        let deployment = daypass_broker::init::Deployment {
            trust_domain: settings.trust_domain.clone(),
            broker: settings.broker.clone(),
            store: &settings.store,
            kek: &settings.kek,
            bundle: with_bundle.then_some(&organisation.bundle),
            lifetimes: settings.lifetimes,
            clock: Arc::clone(&settings.clock),
        };
        let made = init(&deployment).await.unwrap();
        let root = CertificateDer::from(made.root);
        let listener_ca = listener.ca;
        Self {
            organisation,
            clock,
            listener_ca,
            log_key: made.log_key,
            root,
            settings,
            running: None,
            folder,
        }
    }

    /// The broker that runs.
    pub fn broker(&self) -> &Running {
        self.running.as_ref().expect("the broker runs")
    }

    /// Stops a broker whose last word the log may not take.
    pub async fn abandon(&mut self) {
        if let Some(running) = self.running.take() {
            drop(running.stop("the test gives it up").await);
        }
    }

    /// Stops the broker in order, and waits until all of its log lies in the store's one file.
    pub async fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop("the test stops it").await.unwrap();
        }
        let whole = || async { self.settings.store.file().is_none_or(tamper::is_whole) };
        eventually("the store is at rest", whole).await;
    }

    /// Waits until the log is over, and serves the one that goes on for it, as the program does.
    pub async fn turn(&mut self) {
        let running = self.running.take().expect("the broker runs");
        tokio::time::timeout(Duration::from_secs(20), running.over()).await.expect("the log is not over");
        let left = running.turn().await;
        self.running = Some(serve::start_next(&self.settings, left).await.unwrap());
        self.know_issuers().await;
    }

    /// Serves again, and waits until it knows the keys of every issuer that behaves.
    pub async fn resume(&mut self) -> Result<(), ServeError> {
        self.running = Some(serve::start(self.settings.clone()).await?);
        self.know_issuers().await;
        Ok(())
    }

    async fn know_issuers(&self) {
        let known = |issuer: &str| self.knows(issuer);
        let named = [CI, STAFF, "cluster", "cluster-test", "supplier-idp"];
        eventually("keys of the issuers", || async { named.iter().all(|name| known(name)) }).await;
    }

    /// Whether the broker has keys of an issuer; one that is not declared, or has none of its own, counts as known.
    pub fn knows(&self, issuer: &str) -> bool {
        let state = self.broker().log().state();
        let Some(bundle) = state.bundle() else { return true };
        let declared = &bundle.declared().issuers;
        let Some((name, declared)) = declared.get_key_value(issuer) else { return true };
        let remote = matches!(declared.kind, IssuerKind::Oidc { .. });
        !remote || !matches!(self.broker().trust.known().keys(name), IssuerKeys::Unavailable)
    }

    /// Brings other files into force while the broker runs.
    pub async fn activate(&self, files: Vec<SourceFile>) {
        let (bundle, desk) = (self.organisation.bundle_of(files).unwrap(), &self.broker().desk);
        daypass_broker::activate::bootstrap(&desk.log, &desk.ids, &bundle, self.clock.now()).await.unwrap();
    }

    /// A caller with this certificate, or with none.
    pub async fn connect(&self, certificate: Option<&WorkloadCertificate>) -> Caller {
        Caller::connect(self.broker().api.port(), &self.listener_ca, certificate).await.unwrap()
    }

    /// A caller that shows this token and no certificate.
    pub async fn bearer(&self, token: impl Into<String>) -> Caller {
        self.connect(None).await.with_token(token.into())
    }

    /// A caller that shows this token, and a fresh certificate to which its credentials are bound.
    pub async fn bound(&self, token: impl Into<String>) -> Caller {
        self.connect(Some(&possession().unwrap())).await.with_token(token.into())
    }

    /// A job of the CI system that does the nightly run: a fresh token, and a fresh certificate.
    pub async fn job(&self) -> Caller {
        self.bound(self.organisation.token(CI, NIGHTLY).unwrap()).await
    }

    /// The nightly run as a service with its client certificate.
    pub async fn service(&self) -> Caller {
        self.connect(Some(&self.workload(NIGHTLY))).await
    }

    /// A fresh token of an operator who may read the log, and end what lives.
    pub fn operator_token(&self) -> String {
        self.organisation.token(STAFF, OPERATOR).unwrap()
    }

    /// An operator who may read the log.
    pub async fn operator(&self) -> Caller {
        self.bearer(self.organisation.token(STAFF, OPERATOR).unwrap()).await
    }

    /// The operator who may change keys, with a fresh token.
    pub async fn security(&self) -> Caller {
        self.bearer(self.organisation.token(STAFF, SECURITY).unwrap()).await
    }

    /// A client certificate of the workload CA for `identity`, for a day.
    pub fn workload(&self, identity: &str) -> WorkloadCertificate {
        let now = self.clock.now();
        self.organisation.workloads.issue(&spiffe_id(identity), now, Seconds::new(24 * 3600)).unwrap()
    }

    /// What signs tokens of `issuer` whose every byte is chosen.
    pub fn forge(&self, issuer: &str, who: &str) -> Forge {
        let claims = self.organisation.claims(issuer, who).unwrap();
        Forge::open(&self.folder.path().join("issuers").join(issuer), claims, self.clock.now())
    }

    /// All entries, as they lie in the store.
    pub async fn entries(&self) -> Vec<(Index, Entry)> {
        let rows = self.broker().readers.run(|reader| reader.rows(0, u32::MAX)).await.unwrap();
        rows.into_iter().map(|row| (row.index, Entry::read(&row.bytes).unwrap())).collect()
    }

    /// How many entries there are, less those that a broker writes by the clock: lists of what is revoked.
    pub async fn acts(&self) -> usize {
        let by_the_clock = |entry: &Entry| match &entry.body {
            Body::StatementSigned(signed) => ["revocations", "crl"].contains(&signed.statement.as_str()),
            _ => false,
        };
        self.entries().await.iter().filter(|(_, entry)| !by_the_clock(entry)).count()
    }

    /// Waits until an entry is what `wanted` looks for, and returns what it found.
    pub async fn entry<T>(&self, what: &str, wanted: impl Fn(&Entry) -> Option<T>) -> (Index, T) {
        for _ in 0..200 {
            let entries = self.entries().await;
            let found = entries.into_iter().find_map(|(index, entry)| Some((index, wanted(&entry)?)));
            if let Some(found) = found {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("no entry within 10 s: {what}");
    }

    /// What the log says of the issuance of a credential.
    pub async fn issued(&self, credential: &str) -> CredentialIssued {
        let found = self.entry("the issuance", |entry| match &entry.body {
            Body::CredentialIssued(issued) if entry.envelope.id.to_string() == credential => {
                Some((**issued).clone())
            }
            _ => None,
        });
        found.await.1
    }

    /// What an operator is told of a request.
    pub async fn explain(&self, request_id: &str) -> pb::ExplainResponse {
        let operator = self.operator().await;
        let request = operator.request(pb::ExplainRequest { request_id: request_id.into() }).unwrap();
        operator.evidence().explain(request).await.unwrap().into_inner()
    }

    /// The time of the newest entry of the stopped broker's log.
    pub fn newest_time(&self) -> UnixMs {
        self.settings.store.reader().unwrap().head().unwrap().expect("there is a log").time
    }

    /// A copy of the stopped broker's files, to be changed.
    pub fn copied(&self) -> Copied {
        assert!(self.running.is_none(), "only what is at rest is copied");
        Copied::of(&self.settings)
    }

    /// Changes the stopped broker's own store, as whoever can write its file can.
    pub fn change(&self, change: impl FnOnce(&rusqlite::Connection) -> rusqlite::Result<()>) {
        assert!(self.running.is_none(), "only what is at rest is changed");
        tamper::change(self.store(), change);
    }

    /// The SQLite file.
    pub fn store(&self) -> &Path {
        self.settings.store.file().expect("the store is a file")
    }

    /// Where files of this deployment lie.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// A store of each kind that brokers may share: none is a file of the deployment's own.
pub fn stores() -> [Option<StoreAt>; 2] {
    [None, Some(postgres::Postgres::shared().any_database().at())]
}

/// The SPIFFE ID of a declared identity.
pub fn spiffe_id(identity: &str) -> SpiffeId {
    format!("spiffe://{TRUST_DOMAIN}/{identity}").parse().unwrap()
}

/// Asks for a credential, and sorts the answer.
pub async fn issue(caller: &Caller, wanted: pb::IssueRequest) -> Answer {
    let answered = caller.credentials().issue(caller.request(wanted).unwrap()).await;
    answered.map(tonic::Response::into_inner).map_err(Refused::from)
}

/// A request for `task` and all that it declares.
pub fn task(name: &str) -> pb::IssueRequest {
    pb::IssueRequest { task: name.into(), ..Default::default() }
}

/// Waits until `holds`, for ten seconds at most.
pub async fn eventually<F: Future<Output = bool>>(what: &str, holds: impl Fn() -> F) {
    for _ in 0..500 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("not within 10 s: {what}");
}

fn settings(
    folder: &Path,
    issuer: &str,
    web: u16,
    listener: &ListenerFiles,
    clock: Arc<dyn Clock>,
) -> Settings {
    let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let listen = |port| ListenAt {
        address: at(port),
        certificate: listener.certificate.clone(),
        key: listener.key.clone(),
    };
    Settings {
        trust_domain: TRUST_DOMAIN.parse().unwrap(),
        broker: "b1".parse().unwrap(),
        issuer: issuer.parse().unwrap(),
        mode: Mode::Production,
        store: folder.join("daypass.db").into(),
        anchor: folder.join("daypass.anchor"),
        scrub: Schedule::default(),
        kek: folder.join("kek"),
        api: listen(0),
        reflection: false,
        web: listen(web),
        checkpoint: true,
        tiles: true,
        witnesses: WitnessSettings::default(),
        turns: Turns { half_years: false, entries: 0 },
        seal: SealSettings::default(),
        ops: at(0),
        limits: Limits::default(),
        lifetimes: Lifetimes::default(),
        config: None,
        clock,
        clock_trust: ClockTrust::Kernel,
        queue: daypass_broker::log::QUEUE,
        rates: Rates::default(),
        emergency: Some(folder.join("emergency.sock")),
    }
}
