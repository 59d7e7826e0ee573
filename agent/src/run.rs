//! How the parts are put together, and what becomes of them at the end.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use daypass_sdk::{Client, Error};
use daypass_verify::ids::Name;
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::warn;

use crate::auth::Auth;
use crate::clients;
use crate::config::{self, Config, Credential, Serves, Socket};
use crate::door::Door;
use crate::enforcer;
use crate::exec;
use crate::files::Directory;
use crate::hook::Hook;
use crate::keep::Kept;
use crate::node::Keeper;
use crate::notify::{self, State};
use crate::output::Output;
use crate::proxy::Proxy;
use crate::ready::Board;
use crate::sealed::Vault;
use crate::signals::Signals;
use crate::socket::Bound;
use crate::standing::Standing;
use crate::tally::Reporter;
use crate::token;
use crate::workload;

/// Why the agent could not go on.
#[derive(Debug)]
pub enum Failure {
    /// The client of the broker cannot be made, or did not get what is needed.
    Client(Error),
    /// Something else, in words.
    Other(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(error) => error.fmt(f),
            Self::Other(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for Failure {}

impl Failure {
    /// The code to end with, as for `daypass`: 1 where it was refused, 2 where it cannot be so, 3 where nobody answered.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Client(Error::Config(_)) => 2,
            Self::Client(Error::Unreachable { .. } | Error::Retry { .. }) => 3,
            Self::Client(_) | Self::Other(_) => 1,
        }
    }
}

/// Leaves no core behind, and lets no other process of the same user read this one's memory.
///
/// # Errors
/// When the kernel refuses.
pub fn keep_memory_private() -> std::io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

/// Keeps what `config` names until a signal or the program of `[exec]` ends it, and says with which code to end.
/// To be called within a tokio runtime.
///
/// # Errors
/// When it cannot begin.
pub async fn run(config: &Config) -> Result<u8, Failure> {
    let mut signals =
        Signals::listen().map_err(|error| Failure::Other(format!("cannot listen to signals: {error}")))?;
    if let Some(mut node) = Keeper::open(&config.connection).map_err(Failure::Client)? {
        tokio::select! {
            ready = node.ready() => ready.map_err(Failure::Client)?,
            () = signals.told_to_end() => return Ok(0),
        }
        tokio::spawn(node.run());
    }
    let clients = clients::follow(config.connection.clone()).map_err(Failure::Client)?;
    let board = Board::waiting_for(config.credentials.iter().map(|it| it.name.clone()).collect());
    let (mut all, mut directories) = (Vec::new(), Vec::new());
    let names: Vec<&Name> = config.credentials.iter().map(|it| &it.name).collect();
    let vault = Vault::open(config.sealed.as_ref(), &config.connection, &names);
    for credential in &config.credentials {
        let kept = keep(credential, &clients, vault.as_ref());
        directories.extend(put_out(credential, &kept, &board));
        all.push(kept);
    }
    let mut serving = serve_sockets(&config.sockets, &all, &clients)?;
    let mut standings = Standings { of: BTreeMap::new(), clients: clients.clone() };
    let proxies = serve_proxies(&config.proxies, &all, &mut standings, &mut serving)?;
    let auths = serve_auths(config, &mut standings, &mut serving)?;
    let reporters: Vec<Arc<Reporter>> = proxies.into_iter().chain(auths).map(Arc::new).collect();
    for reporter in &reporters {
        serving.spawn(Arc::clone(reporter).run());
    }
    for enforcer in &config.enforcers {
        let shown = enforcer.tls.as_ref().and_then(|tls| all.iter().find(|it| it.name == tls.credential));
        serving.spawn(enforcer::run(enforcer.clone(), shown.cloned(), clients.clone()));
    }
    tokio::spawn(tell_when_complete(board.clone()));
    let ended = match &config.exec {
        Some(exec) => exec::run(exec, &board, &mut signals).await.map_err(Failure::Other),
        None => {
            signals.told_to_end().await;
            Ok(0)
        }
    };
    notify::tell(State::Stopping);
    drop(serving);
    for reporter in &reporters {
        reporter.close().await;
    }
    if config.exec.is_some() {
        // Whoever they were for is gone.
        close(&directories);
    }
    ended
}

/// Keeps a credential fresh, and sealed where that is wanted, beginning with what was sealed before.
fn keep(credential: &Credential, clients: &watch::Receiver<Client>, vault: Option<&Vault>) -> Kept {
    let (name, request) = (&credential.name, &credential.request);
    let mut slot = vault.map(|vault| vault.slot(name, request));
    let holder = clients.borrow().holder().digest();
    let resumed = slot.as_mut().and_then(|slot| slot.open(holder));
    let kept = Kept::new(name.clone(), request.clone(), clients.clone(), resumed);
    if let Some(slot) = slot {
        tokio::spawn(slot.keep(kept.changes.clone()));
    }
    kept
}

/// Serves every socket until what is returned is dropped.
fn serve_sockets(
    sockets: &[Socket],
    all: &[Kept],
    clients: &watch::Receiver<Client>,
) -> Result<JoinSet<()>, Failure> {
    let mut serving = JoinSet::new();
    for socket in sockets {
        let bound = Bound::new(&socket.path, socket.shared_parent, &socket.allowed);
        let bound = bound.map_err(|error| Failure::Other(error.to_string()))?;
        let served = all.iter().filter(|kept| socket.credentials.contains(&kept.name)).cloned().collect();
        match socket.serves {
            Serves::Token => serving.spawn(token::serve(bound, served)),
            Serves::WorkloadApi => serving.spawn(workload::serve(bound, served, clients.clone())),
        };
    }
    Ok(serving)
}

/// How things stand at each target that is asked about, listened to once.
struct Standings {
    of: BTreeMap<Name, Standing>,
    clients: watch::Receiver<Client>,
}

impl Standings {
    fn at(&mut self, target: &Name) -> Standing {
        let follow = || Standing::follow(target.clone(), self.clients.clone());
        self.of.entry(target.clone()).or_insert_with(follow).clone()
    }
}

/// Serves every proxy until `serving` is dropped; what reports their use.
fn serve_proxies(
    proxies: &[config::Proxy],
    all: &[Kept],
    standings: &mut Standings,
    serving: &mut JoinSet<()>,
) -> Result<Vec<Reporter>, Failure> {
    let mut reporters = Vec::new();
    for proxy in proxies {
        let Some(kept) = all.iter().find(|kept| kept.name == proxy.credential) else { continue };
        let standing = proxy.target.as_ref().map(|target| standings.at(target));
        let door = Door::open(&proxy.listen).map_err(Failure::Other)?;
        let made = Proxy::new(proxy, kept.clone(), standing, standings.clients.clone());
        let (proxy, reporter) = made.map_err(Failure::Client)?;
        serving.spawn(proxy.serve(door));
        reporters.extend(reporter);
    }
    Ok(reporters)
}

/// Serves whoever asks whether a token may pass, until `serving` is dropped; what reports their use.
fn serve_auths(
    config: &Config,
    standings: &mut Standings,
    serving: &mut JoinSet<()>,
) -> Result<Vec<Reporter>, Failure> {
    let mut reporters = Vec::new();
    for auth in &config.auths {
        let standing = auth.target.as_ref().map(|target| standings.at(target));
        let door = Door::open(&auth.listen).map_err(Failure::Other)?;
        let connection = config.connection.clone();
        let (auth, reporter) = Auth::new(auth, connection, standing, standings.clients.clone());
        serving.spawn(auth.serve(door));
        reporters.extend(reporter);
    }
    Ok(reporters)
}

/// Puts a credential where it is wanted; the directory, where it goes to one.
fn put_out(credential: &Credential, kept: &Kept, board: &Board) -> Option<Directory> {
    let Some(files) = &credential.files else {
        tokio::spawn(announce(kept.clone(), board.clone()));
        return None;
    };
    let directory = Directory::of(files);
    let hook = Hook::new(files.reload.clone());
    let name = credential.name.clone();
    let output = Output::new(name, directory.clone(), kept.changes.clone(), hook, board.clone());
    tokio::spawn(output.run());
    Some(directory)
}

/// Says of a credential that goes to sockets only when it is there.
async fn announce(mut kept: Kept, board: Board) {
    loop {
        if kept.changes.borrow_and_update().is_some() {
            board.arrived(&kept.name);
        }
        if kept.changes.changed().await.is_err() {
            return;
        }
    }
}

async fn tell_when_complete(board: Board) {
    board.complete().await;
    notify::tell(State::Ready);
}

/// Takes away what is in these directories, for good.
pub(crate) fn close(directories: &[Directory]) {
    for directory in directories {
        if let Err(error) = directory.close() {
            warn!("{error}");
        }
    }
}
