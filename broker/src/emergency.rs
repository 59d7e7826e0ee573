//! The switches for an emergency, on a Unix socket that root and the broker's own user can reach. To halt needs no store,
//! no key and no network; what it did is written into the log as soon as it takes it.

mod stopped;
mod suspend;

use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use daypass_evidence::entry::{Body, Index, Selector, SuspensionLifted, SuspensionSet};
use daypass_verify::ids::Name;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::index::Readers;
use crate::issue::Desk;
use crate::log::RecordError;
use crate::serve::{Settings, append};
use crate::store::StoreError;

/// The longest order.
const ORDER_BYTES_MAX: u64 = 1024;

/// How long an order may take to arrive.
const ORDER_TIME: Duration = Duration::from_secs(5);

/// How often it is tried again to write what was ordered.
const WRITE_EVERY: Duration = Duration::from_secs(1);

/// What the reason of each suspension by this switch begins with.
const HALTED: &str = "emergency halt of";

/// Whether a suspension is that of a broker's own switch, which alone lifts it.
pub(crate) fn is_by_switch(set: &SuspensionSet) -> bool {
    set.selector.everything && set.reason.starts_with(HALTED)
}

/// Whether a reason begins as those of emergency orders do: by these they find what they suspended.
pub(crate) fn begins_like_an_order(reason: &str) -> bool {
    reason.starts_with(HALTED) || reason.starts_with(suspend::SUSPENDED)
}

/// The marker beside a socket: while it lies there, its broker issues nothing, whatever restarts.
#[must_use]
pub fn marker(socket: &Path) -> PathBuf {
    let mut path = socket.as_os_str().to_owned();
    path.push(".halted");
    path.into()
}

/// Why a broker that never ran, or was stopped, issues nothing; none where no marker lies there.
///
/// # Errors
/// When it cannot be known: then nothing may be issued either.
pub fn halted(socket: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(marker(socket)) {
        Ok(why) => Ok(Some(why.trim().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Lays the marker: durable on return.
///
/// # Errors
/// When it cannot be written.
pub fn lay_marker(socket: &Path, why: &str) -> io::Result<()> {
    let path = marker(socket);
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
    file.write_all(why.as_bytes())?;
    file.sync_all()?;
    sync_folder(&path)
}

/// Takes the marker away: durable on return.
///
/// # Errors
/// When it cannot be removed.
pub fn take_marker(socket: &Path) -> io::Result<()> {
    let path = marker(socket);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => sync_folder(&path),
    }
}

fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

/// Gives one order to the broker at `socket`, and returns its answer.
///
/// # Errors
/// When no broker answers.
pub async fn order(socket: &Path, order: &str) -> io::Result<String> {
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(format!("{}\n", order.replace('\n', " ")).as_bytes()).await?;
    let mut answer = String::new();
    tokio::time::timeout(ORDER_TIME, stream.read_to_string(&mut answer)).await??;
    Ok(answer)
}

/// The switches of a broker that is about to serve at `socket`; it is halted already where it was when it last ran.
///
/// # Errors
/// When the socket cannot be had, or it cannot be known whether it was halted.
pub async fn start(
    desk: &Desk,
    readers: &Readers,
    settings: &Settings,
    shutdown: &CancellationToken,
) -> io::Result<Option<JoinHandle<()>>> {
    let Some(socket) = settings.emergency.as_deref() else { return Ok(None) };
    let failed =
        |error: io::Error| io::Error::other(format!("emergency socket `{}`: {error}", socket.display()));
    if let Some(why) = halted(socket).map_err(failed)? {
        desk.log.halt().set(&why);
    }
    let switches = Switches {
        desk: desk.clone(),
        readers: readers.clone(),
        broker: settings.broker.clone(),
        socket: socket.to_owned(),
        thrown: Arc::default(),
    };
    let listener = switches.listen().await.map_err(failed)?;
    Ok(Some(tokio::spawn(switches.serve(listener, shutdown.clone()))))
}

/// Why an order was not carried out.
#[derive(Debug, thiserror::Error)]
enum OrderError {
    /// It cannot be meant.
    #[error("{0}")]
    Refused(String),
    /// A file could not be written.
    #[error(transparent)]
    File(#[from] io::Error),
    /// The log could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The log did not take it.
    #[error("it is not in the log: {0}; `halt` stops this broker without the log")]
    Log(#[from] RecordError),
}

/// What the switches work on.
#[derive(Clone)]
struct Switches {
    desk: Desk,
    readers: Readers,
    broker: Name,
    socket: PathBuf,
    thrown: Arc<Notify>,
}

impl Switches {
    /// Opens the socket with mode 0600, in the place of one that nobody listens on.
    async fn listen(&self) -> io::Result<UnixListener> {
        if UnixStream::connect(&self.socket).await.is_ok() {
            return Err(io::Error::other("another broker listens on it"));
        }
        match fs::remove_file(&self.socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&self.socket)?;
        fs::set_permissions(&self.socket, Permissions::from_mode(0o600))?;
        Ok(listener)
    }

    /// Takes orders until `shutdown`.
    async fn serve(self, listener: UnixListener, shutdown: CancellationToken) {
        let recording = tokio::spawn(self.clone().record());
        while let Some(accepted) = shutdown.run_until_cancelled(listener.accept()).await {
            let Ok((stream, _)) = accepted else {
                tokio::time::sleep(WRITE_EVERY).await;
                continue;
            };
            let switches = self.clone();
            tokio::spawn(tokio::time::timeout(ORDER_TIME, async move { switches.converse(stream).await }));
        }
        recording.abort();
        drop(fs::remove_file(&self.socket));
    }

    async fn converse(&self, mut stream: UnixStream) -> io::Result<()> {
        let own = rustix::process::geteuid().as_raw();
        let uid = stream.peer_cred()?.uid();
        if uid != 0 && uid != own {
            tracing::error!(uid, "an order was refused: it is neither root's nor the broker's own user's");
            return stream.write_all(b"refused: only root and the broker's own user give orders\n").await;
        }
        let (read, mut write) = stream.split();
        let mut line = String::new();
        BufReader::new(read.take(ORDER_BYTES_MAX)).read_line(&mut line).await?;
        let (order, reason) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
        tracing::warn!(order, reason, uid, "an order came by the emergency socket");
        let answer = self.obey(order, reason).await.unwrap_or_else(|error| format!("failed: {error}"));
        write.write_all(format!("{answer}\n").as_bytes()).await?;
        write.shutdown().await
    }

    async fn obey(&self, order: &str, reason: &str) -> Result<String, OrderError> {
        let (halt, watch) = (self.desk.log.halt(), self.desk.log.watch());
        match order {
            "halt" => {
                let why = format!("{}: {reason}", self.prefix());
                let why = why.trim_end_matches(": ");
                halt.set(why);
                self.thrown.notify_one();
                lay_marker(&self.socket, why)?;
                Ok("halted: this broker issues nothing, and will not after a restart; the log will say so for all".into())
            }
            "suspend" => self.suspend(reason).await,
            "resume" if !reason.is_empty() => self.lift(reason).await,
            "stopped" => self.note_stopped(reason).await,
            "resume" => {
                take_marker(&self.socket)?;
                halt.lift();
                self.thrown.notify_one();
                Ok("resumed".into())
            }
            "clock-ok" => {
                watch.confirm();
                Ok("the clock is believed as it is now".into())
            }
            "status" => Ok(self.status()),
            other => Ok(format!(
                "refused: `{other}` is no order; expected halt, resume, suspend, clock-ok, stopped or status"
            )),
        }
    }

    /// Suspends one thing on all brokers: durable on return.
    async fn suspend(&self, order: &str) -> Result<String, OrderError> {
        let (what, reason) = order.split_once(' ').unwrap_or((order, ""));
        let selector = suspend::selector(what).map_err(OrderError::Refused)?;
        let wanted = selector.clone();
        let found = self.readers.run(move |reader| suspend::live(reader, &wanted)).await;
        // To suspend is more urgent than to count.
        let live = found.inspect_err(|error| tracing::warn!(%error, "live credentials could not be counted"));
        let live = live.unwrap_or_default();
        let place = append(&self.desk, suspend::suspension(selector, reason, live)).await?;
        Ok(format!(
            "suspended by entry {}: nothing is issued for {what} on any broker; {live} credentials found live end by their time",
            place.index
        ))
    }

    /// Lifts what `suspend` suspended.
    async fn lift(&self, order: &str) -> Result<String, OrderError> {
        let (what, reason) = order.split_once(' ').unwrap_or((order, ""));
        let selector = suspend::selector(what).map_err(OrderError::Refused)?;
        let standing = suspend::standing(&self.desk.log.state(), &selector);
        if standing.is_empty() {
            return Err(OrderError::Refused(format!("no emergency order suspends `{what}`")));
        }
        for suspension in standing {
            let reason = format!("emergency resume: {reason}").trim_end_matches(": ").to_owned();
            append(&self.desk, SuspensionLifted { suspension, reason, approval: None }.into()).await?;
        }
        Ok(format!("resumed: {what}"))
    }

    /// What the reason of each suspension by this broker's switch begins with: it lifts no other's.
    fn prefix(&self) -> String {
        format!("{HALTED} `{}`", self.broker)
    }

    fn status(&self) -> String {
        let log = &self.desk.log;
        let said = |what: Option<String>| what.unwrap_or_else(|| "no".into());
        format!(
            "halted: {}\nclock in doubt: {}\nlog fault: {}\nentries: {}",
            said(log.halt().why()),
            said(log.watch().trouble()),
            said(log.fault()),
            log.published().head.size
        )
    }

    /// Brings the log in step with the switch: a suspension of everything while it is thrown, lifted after.
    async fn record(self) {
        loop {
            for body in self.to_record() {
                if let Err(error) = append(&self.desk, body).await {
                    tracing::error!(%error, "an emergency order is not in the log yet");
                }
            }
            drop(tokio::time::timeout(WRITE_EVERY, self.thrown.notified()).await);
        }
    }

    fn to_record(&self) -> Vec<Body> {
        let state = self.desk.log.state();
        let prefix = self.prefix();
        let ours = state
            .suspensions()
            .filter(|(_, set)| set.selector.everything && set.reason.starts_with(&prefix))
            .map(|(index, _)| index);
        let ours: Vec<Index> = ours.collect();
        match self.desk.log.halt().why() {
            Some(why) if ours.is_empty() => {
                // A marker that was laid while no broker ran does not say whose it is.
                let why = if why.starts_with(&prefix) { why } else { format!("{prefix}: {why}") };
                let selector = Selector { everything: true, ..Selector::default() };
                let set = SuspensionSet {
                    selector,
                    reason: why,
                    until_ms: None,
                    revoked: 0,
                    live: 0,
                    drill: None,
                    revokes: false,
                };
                vec![set.into()]
            }
            Some(_) => Vec::new(),
            None => ours
                .into_iter()
                .map(|suspension| {
                    SuspensionLifted { suspension, reason: "emergency resume".into(), approval: None }.into()
                })
                .collect(),
        }
    }
}
