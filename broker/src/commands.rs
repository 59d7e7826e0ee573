//! What each command does, from arguments to values.

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use daypass_broker::clock::SystemClock;
use daypass_broker::config::{Config, ConfigError, Listener, Web, Witness};
use daypass_broker::dev::{self, DevError};
use daypass_broker::hardening::keep_memory_private;
use daypass_broker::init::{self, Deployment, InitError};
use daypass_broker::keyring::ImportError;
use daypass_broker::limits::Rates;
use daypass_broker::listen::Limits;
use daypass_broker::log::{QUEUE, StartError, Turns};
use daypass_broker::recover::RecoverError;
use daypass_broker::rotate::RotateError;
use daypass_broker::scrub::Schedule;
use daypass_broker::seal::SealSettings;
use daypass_broker::serve::{self, ListenAt, ServeError, Settings};
use daypass_broker::telemetry::{self, TelemetryError};
use daypass_broker::witness::{WitnessSettings, submission_url};
use daypass_core::rotation::Lifetimes;
use daypass_evidence::audit::Report;
use daypass_evidence::entry::Mode;
use daypass_evidence::note::NoteError;
use daypass_verify::ids::ParseError;
use daypass_verify::time::Seconds;

use crate::args::{CaOrder, Command, Owner};
use bundle::read_bundle;
use store::{owned, store_at};

mod backup;
mod bundle;
mod ca;
mod emergency;
mod import_key;
mod migrate;
mod recover;
mod store;
mod verify;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Dev(#[from] DevError),
    #[error(transparent)]
    Init(#[from] InitError),
    #[error(transparent)]
    Recover(#[from] RecoverError),
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error(transparent)]
    Import(#[from] ImportError),
    #[error(transparent)]
    Rotate(#[from] RotateError),
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    #[error("the bundle is refused:\n{0}")]
    Bundle(String),
    #[error("`{0}` could not be read: {1}")]
    File(String, std::io::Error),
    #[error("{0}")]
    Value(String),
    #[error("the log does not verify: {0} findings")]
    NotVerified(usize),
}

impl Failure {
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::NotVerified(_) | Self::Serve(ServeError::Start(StartError::Refused(_))) => {
                ExitCode::from(4)
            }
            Self::Value(_) | Self::Config(_) => ExitCode::from(2),
            _ => ExitCode::FAILURE,
        }
    }
}

impl From<daypass_broker::store::StoreError> for Failure {
    fn from(error: daypass_broker::store::StoreError) -> Self {
        Self::Serve(error.into())
    }
}

impl From<ParseError> for Failure {
    fn from(error: ParseError) -> Self {
        Self::Value(error.to_string())
    }
}

pub(crate) async fn run(command: Command) -> Result<(), Failure> {
    keep_memory_private().map_err(|error| Failure::File("core dumps".into(), error))?;
    match command {
        Command::Dev { state, bundle, reset, exit } => {
            telemetry::start_logs("warn")?;
            let bundle = bundle.as_deref().map(bundle::files_of).transpose()?;
            Ok(dev::run(dev::Options { state, bundle, reset, exit }).await?)
        }
        Command::Init { config, bundle, host, owner } => {
            init(&config, bundle.as_deref(), &host, &owner).await
        }
        Command::Migrate { config, from, owner } => migrate::run(&config, from.as_deref(), &owner),
        Command::Serve { config } => serve(&config).await,
        Command::Emergency { config, order, what, reason } => {
            emergency::run(&config, order, what.as_deref(), &reason).await
        }
        Command::ImportKey { config, key, usage, days, dry_run } => {
            import_key::run(&config, &key, usage, days, dry_run).await
        }
        Command::Ca { order: CaOrder::Request { config, out } } => ca::request(&config, &out).await,
        Command::Ca { order: CaOrder::Install { config, chain, dry_run } } => {
            ca::install(&config, &chain, dry_run).await
        }
        Command::Check { config, bundle } => check(&config, bundle.as_deref()),
        Command::Verify { config, store, sealed, key, anchor, predecessor, from, json } => {
            verify::run(&verify::Wanted { config, store, sealed, key, anchor, predecessor, from, json })
        }
        Command::Backup { config, to } => backup::run(&config, &to),
        Command::Recover { config, checkpoint, forked, owner } => {
            recover::run(&config, &checkpoint, forked, &owner).await
        }
    }
}

async fn init(config: &Path, bundle: Option<&Path>, hosts: &[String], owner: &Owner) -> Result<(), Failure> {
    let config = Config::read(config)?;
    let bundle = bundle.map(read_bundle).transpose()?;
    let store = owned(store_at(&config)?, &config, owner)?;
    let made = init::init(&Deployment {
        trust_domain: config.broker.trust_domain.clone(),
        broker: config.broker.name.clone(),
        store: &store,
        kek: &config.keys.kek_file,
        bundle: bundle.as_ref(),
        lifetimes: lifetimes(&config),
        clock: Arc::new(SystemClock),
    })
    .await?;
    println!("log      {}", made.origin);
    println!("log key  {}   (keep it outside: it verifies every checkpoint)", made.log_key);
    println!("store    {store}");
    println!(
        "keys     unsealed with {} (keep it apart from the store's backups)",
        config.keys.kek_file.display()
    );
    if !config.api.key.exists() {
        let folder = config.api.key.parent().unwrap_or(Path::new("."));
        let files =
            init::write_listener_certificate(folder, hosts, daypass_broker::clock::Clock::now(&SystemClock))?;
        println!(
            "listener {} for {}; clients trust {}",
            files.certificate.display(),
            hosts.join(", "),
            files.ca.display()
        );
    }
    if bundle.is_none() {
        println!("no bundle is in force: nothing will be issued until one is");
    }
    Ok(())
}

async fn serve(path: &Path) -> Result<(), Failure> {
    let config = Config::read(path)?;
    telemetry::start_logs(&config.output.level)?;
    let settings = settings(&config)?;
    let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
        .map_err(|error| Failure::File("SIGTERM".into(), error))?;
    let mut running = serve::start(settings.clone()).await?;
    loop {
        tracing::info!(api = %running.api, web = %running.web, ops = %running.ops, "serving");
        let reason = tokio::select! {
            _ = tokio::signal::ctrl_c() => "interrupted",
            _ = terminated.recv() => "terminated",
            () = running.over() => {
                let left = running.turn().await;
                running = tokio::select! {
                    next = serve::start_next(&settings, left) => next?,
                    _ = tokio::signal::ctrl_c() => return Ok(()),
                    _ = terminated.recv() => return Ok(()),
                };
                continue;
            }
        };
        return Ok(running.stop(reason).await?);
    }
}

fn check(path: &Path, bundle: Option<&Path>) -> Result<(), Failure> {
    let config = Config::read(path)?;
    settings(&config)?;
    println!("{}: accepted", path.display());
    if let Some(folder) = bundle {
        let bundle = read_bundle(folder)?;
        bundle.warnings().iter().for_each(|finding| println!("{finding}"));
        println!("{}: accepted, {}", folder.display(), bundle.digest());
    }
    Ok(())
}

/// The configuration as the values that a broker runs with.
fn settings(config: &Config) -> Result<Settings, Failure> {
    let limits = Limits {
        connections: config.limits.connections,
        connections_per_address: config.limits.connections_per_address,
        handshake: Duration::from_secs(config.limits.handshake_timeout_s),
        age: Duration::from_secs(config.limits.connection_age_s),
        ..Limits::default()
    };
    Ok(Settings {
        trust_domain: config.broker.trust_domain.clone(),
        broker: config.broker.name.clone(),
        issuer: config.broker.issuer.parse().map_err(|error| Failure::Value(format!("{error}")))?,
        mode: Mode::Production,
        store: store_at(config)?,
        anchor: config.store.anchor.clone(),
        scrub: Schedule {
            every: Duration::from_secs(config.store.scrub_every_s),
            entries_per_s: config.store.scrub_entries_per_s,
        },
        kek: config.keys.kek_file.clone(),
        api: listen_at(config.api.listen, &config.api),
        reflection: config.api.reflection,
        web: listen_web(&config.web),
        checkpoint: config.web.checkpoint,
        tiles: config.web.tiles,
        witnesses: witnesses(config)?,
        turns: Turns { half_years: true, entries: config.log.shard_entries },
        seal: SealSettings { entries: config.log.seal_entries, ..SealSettings::default() },
        ops: config.ops.listen,
        limits,
        lifetimes: lifetimes(config),
        config: config.digest,
        clock: Arc::new(SystemClock),
        clock_trust: config.clock.trust,
        queue: QUEUE,
        rates: Rates {
            issue_per_s: config.limits.issue_per_s,
            issue_burst: config.limits.issue_burst,
            failed_proofs_per_s: config.limits.failed_proofs_per_s,
            failed_proofs_burst: config.limits.failed_proofs_burst,
        },
        emergency: Some(config.emergency.socket.clone()),
    })
}

fn witnesses(config: &Config) -> Result<WitnessSettings, Failure> {
    let value = |error: String| Failure::Value(error);
    let witness = |witness: &Witness| {
        Ok::<_, Failure>(daypass_broker::witness::Witness {
            name: witness.name.clone(),
            url: submission_url(&witness.url).map_err(|error| value(error.to_string()))?,
            key: witness.vkey.parse().map_err(|error: NoteError| value(error.to_string()))?,
        })
    };
    Ok(WitnessSettings {
        witnesses: config.witness.iter().map(witness).collect::<Result<_, _>>()?,
        every: Duration::from_secs(config.log.witness_every_s),
        silent_after: Duration::from_secs(config.log.witness_silent_s),
    })
}

fn lifetimes(config: &Config) -> Lifetimes {
    let keys = &config.keys;
    let [token, ca, ahead] = [keys.token_life_s, keys.ca_life_s, keys.ahead_s].map(Seconds::new);
    Lifetimes { token, ca, ahead }
}

fn listen_at(address: SocketAddr, listener: &Listener) -> ListenAt {
    ListenAt { address, certificate: listener.certificate.clone(), key: listener.key.clone() }
}

fn listen_web(web: &Web) -> ListenAt {
    ListenAt { address: web.listen, certificate: web.certificate.clone(), key: web.key.clone() }
}

/// What a verification found, for a person.
fn print_report(report: &Report) {
    println!("log          {}", report.origin.as_deref().unwrap_or("unknown"));
    println!("entries      {}", report.size);
    println!(
        "credentials  {} issued, {} expired, {} revoked, {} void, {} alive",
        report.issued, report.ended_expired, report.ended_revoked, report.void, report.live
    );
    for finding in &report.findings {
        println!("{finding}");
    }
    if report.is_clean() {
        println!("verified: no finding");
    }
}
