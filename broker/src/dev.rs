//! A whole organisation on one machine, for development and for tests: a broker, an issuer of ID tokens for each that
//! the sample organisation declares, and a CA for workloads, each a real one on loopback with keys of its own. It
//! trusts its own clock and activates bundles alone, and says so wherever it can be seen.

mod authority;
pub mod caller;
mod files;
pub mod issuer;
pub mod organisation;
mod profiles;
mod proofs;
mod state;
mod story;
mod teller;
pub mod workload_ca;

use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use daypass_core::bundle::SourceFile;
use tokio::time::timeout;

use crate::clock::{Clock, SystemClock};
use crate::init::{Deployment, init};
use crate::log::next_origin;
use crate::serve::{self, Running};
use organisation::Organisation;
use state::State;

/// How long a turn is waited for that is due.
const TURN_WITHIN: Duration = Duration::from_secs(10);

/// How `dev` is run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where everything is kept.
    pub state: PathBuf,
    /// The files of another bundle than the sample's: served without the story, which is the sample's.
    pub bundle: Option<Vec<SourceFile>>,
    /// Begin anew.
    pub reset: bool,
    /// End after the story.
    pub exit: bool,
}

/// Runs the development organisation: its story, and then its service until Ctrl-C.
///
/// # Errors
/// When a part does not start, or the story does not go as it should.
pub async fn run(options: Options) -> Result<(), DevError> {
    let state = State::open(&options.state, options.reset)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let own = options.bundle.is_some();
    let files = options.bundle.unwrap_or_else(organisation::sample);
    let organisation = Organisation::start_declaring(files, &state.folder, &state.issuer(), &clock).await?;
    let mut broker = start(&state, &organisation, &clock).await?;
    let profiles = profiles::write(&state, &organisation, &broker)?;
    let told = if own {
        teller::banner(&state, &broker);
        Ok(())
    } else {
        story::tell(&state, &organisation, &broker).await
    };
    if told.is_ok() && !options.exit {
        if own {
            teller::proofs(&profiles);
        } else {
            teller::commands(&profiles);
        }
        teller::serving(&profiles, &broker);
        let mut interrupted = pin!(interrupted());
        loop {
            let closed = std::cell::Cell::new(false);
            let until = async {
                tokio::select! {
                    () = &mut interrupted => {}
                    () = broker.over() => closed.set(true),
                }
            };
            profiles.keep_fresh(&organisation, until).await;
            if !closed.get() {
                break;
            }
            broker = serve::start_next(&state.settings(&clock)?, broker.turn().await).await?;
        }
    }
    broker.stop("the development broker was told to stop").await?;
    told
}

async fn start(
    state: &State,
    organisation: &Organisation,
    clock: &Arc<dyn Clock>,
) -> Result<Running, DevError> {
    let settings = state.settings(clock)?;
    let now = clock.now();
    if settings.store.file().is_some_and(|file| !file.exists()) {
        let deployment = Deployment {
            trust_domain: settings.trust_domain.clone(),
            broker: settings.broker.clone(),
            store: &settings.store,
            kek: &settings.kek,
            bundle: Some(&organisation.bundle),
            lifetimes: settings.lifetimes,
            clock: Arc::clone(clock),
        };
        state.keep(&init(&deployment).await?)?;
    }
    let mut broker = serve::start(settings.clone()).await?;
    // A log of an earlier half-year is closed before the story begins, which no turn should cut in two.
    let due = next_origin(&broker.log().published(), now, settings.turns).is_some();
    if due && timeout(TURN_WITHIN, broker.over()).await.is_ok() {
        broker = serve::start_next(&settings, broker.turn().await).await?;
    }
    crate::activate::bootstrap(broker.log(), &broker.desk.ids, &organisation.bundle, now).await?;
    broker.trust.follow(&organisation.bundle);
    Ok(broker)
}

async fn interrupted() {
    let mut terminated = match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        Ok(terminated) => terminated,
        Err(_) => return drop(tokio::signal::ctrl_c().await),
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminated.recv() => {}
    }
}

/// Why a part of the development organisation did not start or could not sign.
#[derive(Debug, thiserror::Error)]
pub enum DevError {
    /// A file could not be read or written.
    #[error("cannot use `{}`: {source}; check its owner and the space on its disk", path.display())]
    File {
        /// Which file or directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A state file is not what an earlier start wrote.
    #[error("`{}` is damaged; remove it to begin with new keys", .0.display())]
    Damaged(PathBuf),
    /// The directory holds something else.
    #[error(
        "`{}` holds files that `daypass-broker dev` did not make: name a new or an empty directory with `--state`", .0.display()
    )]
    Foreign(PathBuf),
    /// The port is taken.
    #[error("cannot listen on 127.0.0.1:{port}: {source}; stop what holds the port, or name another")]
    Port {
        /// Which port.
        port: u16,
        /// What the system said.
        source: std::io::Error,
    },
    /// A key is malformed or of another kind than expected.
    #[error("expected {0}")]
    Key(&'static str),
    /// A certificate could not be made.
    #[error("cannot make a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// A token could not be signed.
    #[error("cannot sign a token: {0}")]
    Token(#[from] jsonwebtoken::errors::Error),
    /// The TLS listener could not be set up.
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// Another one runs on the same state.
    #[error("another `daypass-broker dev` runs on `{}`: stop it, or name another directory with `--state`", .0.display())]
    Locked(PathBuf),
    /// The bundle is refused.
    #[error("the bundle is refused:\n{0}")]
    Bundle(String),
    /// The deployment could not be made.
    #[error(transparent)]
    Init(#[from] crate::init::InitError),
    /// The broker could not serve.
    #[error(transparent)]
    Serve(#[from] crate::serve::ServeError),
    /// The log could not be written.
    #[error(transparent)]
    Record(#[from] crate::log::RecordError),
    /// The log could not be read.
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
    /// The story did not go as it should.
    #[error("{0}")]
    Story(String),
    /// The system gave no random bytes.
    #[error("the system gave no random bytes")]
    Random,
}
