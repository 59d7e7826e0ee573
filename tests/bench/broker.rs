//! A deployment to measure: the sample organisation with one more way for its nightly job to prove itself, the
//! broker in a process of its own.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use daypass_broker::clock::{Clock, ClockTrust, SystemClock};
use daypass_broker::dev::issuer::{DevIssuer, Start};
use daypass_broker::dev::organisation::{Organisation, sample};
use daypass_broker::init::{self, write_listener_certificate};
use daypass_broker::limits::Rates;
use daypass_broker::listen::Limits;
use daypass_broker::log::Turns;
use daypass_broker::scrub::Schedule;
use daypass_broker::seal::SealSettings;
use daypass_broker::serve::{self, ListenAt, Settings};
use daypass_broker::store::StoreAt;
use daypass_broker::store::postgres::{Password, PostgresAt};
use daypass_broker::witness::WitnessSettings;
use daypass_core::bundle::{SourceFile, compile};
use daypass_evidence::entry::Mode;
use daypass_tests::harness::postgres::{Database, SERVICE};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::Fault;
use crate::process::{Process, stay_on_core};

/// The identity that every case issues for.
pub(crate) const NIGHTLY: &str = "prod/billing/nightly";

/// One broker of a deployment: its name, its ports, its core, and its PostgreSQL where it has one.
#[derive(Clone, Serialize, Deserialize)]
struct Seat {
    name: String,
    api: u16,
    web: u16,
    ops: u16,
    core: Option<usize>,
    database: Option<String>,
}

/// A broker in a process of its own.
pub(crate) struct Broker {
    pub(crate) process: Process,
    pub(crate) api: SocketAddr,
    pub(crate) web: SocketAddr,
    ops: SocketAddr,
    child: Child,
}

/// A deployment with one broker that runs.
pub(crate) struct Deployment {
    pub(crate) broker: Broker,
    pub(crate) ca: PathBuf,
    pub(crate) organisation: Organisation,
    /// An issuer of RS256 tokens that may be shown again, and be verified again each time.
    pub(crate) rs256: DevIssuer,
    pub(crate) audience: String,
    seat: Seat,
    folder: tempfile::TempDir,
}

impl Deployment {
    /// On SQLite, its broker on core 0.
    pub(crate) async fn start() -> Result<Self, Fault> {
        Self::start_on(None, Some(0)).await
    }

    /// On a database of PostgreSQL, its broker wherever the kernel puts it.
    pub(crate) async fn start_on_postgres(database: &Database<'_>) -> Result<Self, Fault> {
        Self::start_on(Some(database), None).await
    }

    async fn start_on(database: Option<&Database<'_>>, core: Option<usize>) -> Result<Self, Fault> {
        // On the disk that the program was built on: a file system in memory would make syncs free.
        let beside = std::env::current_exe()?.parent().map(Path::to_owned).ok_or("no folder")?;
        let folder = tempfile::Builder::new().prefix("bench-").tempdir_in(beside)?;
        let seat = Seat::free("b1", core, database.map(|it| it.url(SERVICE)))?;
        let audience = format!("https://127.0.0.1:{}", seat.web);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let rs256 =
            DevIssuer::start(Start { rs256: Some(rsa_key()?), ..Start::in_memory(Arc::clone(&clock)) })
                .await?;
        let files = with_rs256(sample(), &rs256);
        let organisation = Organisation::start_declaring(files, folder.path(), &audience, &clock).await?;
        let settings = settings(folder.path(), &seat, seat.web)?;
        write_listener_certificate(folder.path(), &["127.0.0.1".into(), "localhost".into()], clock.now())?;
        init::init(&init::Deployment {
            trust_domain: settings.trust_domain,
            broker: settings.broker,
            store: &database.map_or(settings.store, Database::at),
            kek: &settings.kek,
            bundle: Some(&organisation.bundle),
            lifetimes: settings.lifetimes,
            clock,
        })
        .await?;
        let broker = Broker::start(folder.path(), &seat, seat.web).await?;
        let ca = folder.path().join("server-ca.pem");
        Ok(Self { broker, ca, organisation, rs256, audience, seat, folder })
    }

    /// One more broker of the same deployment, on the same store.
    pub(crate) async fn another(&self, name: &str) -> Result<Broker, Fault> {
        let seat = Seat::free(name, self.seat.core, self.seat.database.clone())?;
        Broker::start(self.folder(), &seat, self.seat.web).await
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its store, where that is a file.
    pub(crate) fn store(&self) -> PathBuf {
        self.folder().join("daypass.db")
    }
}

impl Seat {
    fn free(name: &str, core: Option<usize>, database: Option<String>) -> Result<Self, Fault> {
        let (api, web, ops) = (free_port()?, free_port()?, free_port()?);
        Ok(Self { name: name.into(), api, web, ops, core, database })
    }
}

impl Broker {
    /// `issuer` is the port in the URL that all brokers of a deployment are known by.
    async fn start(folder: &Path, seat: &Seat, issuer: u16) -> Result<Self, Fault> {
        let file = folder.join(format!("{}.json", seat.name));
        fs::write(&file, serde_json::to_vec(&(seat, issuer))?)?;
        let child = Command::new(std::env::current_exe()?)
            .args(["broker".as_ref(), file.as_os_str()])
            .stdin(Stdio::null())
            .spawn()?;
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let [api, web, ops] = [seat.api, seat.web, seat.ops].map(at);
        let broker = Self { process: Process(child.id()), api, web, ops, child };
        broker.ready().await?;
        Ok(broker)
    }

    async fn ready(&self) -> Result<(), Fault> {
        for _ in 0..100 {
            let answer = plain_get(self.ops, "/readyz").await;
            if answer.is_ok_and(|text| text.contains("\"ready\":true")) {
                // The keys of issuers come a moment later.
                tokio::time::sleep(Duration::from_millis(500)).await;
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Err("the broker did not become ready in 10 s".into())
    }

    /// How many commits the broker made: each is one sync of the log.
    pub(crate) async fn commits(&self) -> Result<f64, Fault> {
        self.counted("daypass_log_commit_duration_seconds_count").await?.ok_or("no such metric".into())
    }

    /// One metric; none where nothing was counted yet.
    pub(crate) async fn counted(&self, metric: &str) -> Result<Option<f64>, Fault> {
        let metrics = plain_get(self.ops, "/metrics").await?;
        let value = |line: &str| line.strip_prefix(metric)?.strip_prefix(' ').map(str::to_owned);
        Ok(metrics.lines().find_map(value).map(|value| value.trim().parse()).transpose()?)
    }

    pub(crate) async fn stop(&mut self) -> Result<(), Fault> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The broker's own process: as many threads as its core gives it.
pub(crate) fn serve(seat: &Path) -> Result<(), Fault> {
    let folder = seat.parent().ok_or("no folder")?;
    let (seat, issuer): (Seat, u16) = serde_json::from_slice(&fs::read(seat)?)?;
    seat.core.map(stay_on_core).transpose()?;
    let settings = settings(folder, &seat, issuer)?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let running = serve::start(settings).await?;
        let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        terminated.recv().await;
        Ok(running.stop("the benchmark is over").await?)
    })
}

fn settings(folder: &Path, seat: &Seat, issuer: u16) -> Result<Settings, Fault> {
    let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let listen = |port| ListenAt {
        address: at(port),
        certificate: folder.join("server.pem"),
        key: folder.join("server.key"),
    };
    let store = match &seat.database {
        Some(url) => StoreAt::Postgres(Arc::new(PostgresAt::new(url, Password::None, None, false)?)),
        None => folder.join("daypass.db").into(),
    };
    Ok(Settings {
        trust_domain: "example.org".parse()?,
        broker: seat.name.parse()?,
        issuer: format!("https://127.0.0.1:{}", issuer).parse()?,
        mode: Mode::Production,
        store,
        anchor: folder.join(format!("{}.anchor", seat.name)),
        scrub: Schedule::default(),
        kek: folder.join("kek"),
        api: listen(seat.api),
        reflection: false,
        web: listen(seat.web),
        checkpoint: true,
        tiles: true,
        witnesses: WitnessSettings::default(),
        turns: Turns { half_years: true, entries: 0 },
        seal: SealSettings::default(),
        ops: at(seat.ops),
        limits: Limits::default(),
        lifetimes: daypass_core::rotation::Lifetimes::default(),
        config: None,
        clock: Arc::new(SystemClock),
        clock_trust: ClockTrust::Kernel,
        queue: daypass_broker::log::QUEUE,
        rates: Rates::NONE,
        emergency: None,
    })
}

/// The sample's files, with an issuer of RS256 tokens that the nightly job may prove itself by. It holds its keys in
/// the bundle, so that what is measured is verification and not fetching.
fn with_rs256(mut files: Vec<SourceFile>, issuer: &DevIssuer) -> Vec<SourceFile> {
    files.push(SourceFile { path: "bench/jwks.json".into(), text: issuer.jwks().to_string() });
    files.push(SourceFile {
        path: "bench/issuer.toml".into(),
        text: format!(
            "[issuer.bench]\nkind = \"oidc\"\nurl = \"{}\"\njwks_file = \"bench/jwks.json\"\nenvironment = \"prod\"\nalgs = [\"RS256\"]\n\
             proof_ttl_max = \"24h\"\ninstance_claim = \"pod_uid\"\nreplay = \"until_expiry\"\ninternal = true\n",
            issuer.url()
        ),
    });
    for file in &mut files {
        let clause = "{ issuer = \"workloads\", spiffe_id = \"spiffe://example.org/prod/billing/nightly\" },";
        let more = format!("{clause}\n  {{ issuer = \"bench\", subject = \"nightly\" }},");
        file.text = file.text.replace(clause, &more);
    }
    debug_assert!(compile(&files).is_ok());
    files
}

fn rsa_key() -> Result<String, Fault> {
    let made = Command::new("openssl")
        .args(["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"])
        .stderr(Stdio::null())
        .output()?;
    Ok(String::from_utf8(made.stdout)?)
}

fn free_port() -> Result<u16, Fault> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// One plain HTTP request on loopback.
async fn plain_get(at: SocketAddr, path: &str) -> Result<String, Fault> {
    let mut stream = TcpStream::connect(at).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {at}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}
