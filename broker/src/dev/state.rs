//! The directory of a development organisation: everything that a second start goes on with.

use std::ffi::OsString;
use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use daypass_evidence::entry::Mode;
use daypass_verify::ids::TrustDomain;
use ring::rand::{SecureRandom as _, SystemRandom};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::{DevError, files};
use crate::clock::{Clock, ClockTrust};
use crate::init::{Initialised, ListenerFiles, write_listener_certificate};
use crate::limits::Rates;
use crate::listen::Limits;
use crate::log::Turns;
use crate::scrub::Schedule;
use crate::seal::SealSettings;
use crate::serve::{ListenAt, Settings};
use crate::witness::WitnessSettings;

/// The ports of a development broker: an issuer's URL is for ever, so they are kept.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Ports {
    pub(super) api: u16,
    pub(super) web: u16,
    pub(super) ops: u16,
}

/// Where a new organisation looks for its ports: below those that the system gives to outgoing connections, one of which
/// would be in the way of a later start.
const FIRST: u16 = 12_000;
const COUNT: u16 = 18_000;

/// The file that tells a state directory from any other.
const MARKER: &str = "ports.json";

/// What a start that was cut short leaves before the marker is there.
const BEFORE_MARKER: [&str; 2] = ["lock", "ports.new"];

/// An open state directory, held against a second instance for as long as this lives.
pub(super) struct State {
    pub(super) folder: PathBuf,
    pub(super) ports: Ports,
    pub(super) listener: ListenerFiles,
    _lock: File,
}

impl State {
    /// Opens the directory, or makes it with mode 0700. One that holds what is not ours is left as it is.
    pub(super) fn open(folder: &Path, reset: bool) -> Result<Self, DevError> {
        files::private_directory(folder)?;
        refuse_foreign(folder)?;
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| DevError::File { path, source }
        };
        let folder = folder.canonicalize().map_err(failed(folder))?;
        let lock_path = folder.join("lock");
        let lock = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&lock_path)
            .map_err(failed(&lock_path))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| DevError::Locked(folder.clone()))?;
        if reset {
            empty(&folder)?;
        }
        let ports = ports(&folder.join(MARKER))?;
        let listener = listener(&folder)?;
        Ok(Self { folder, ports, listener, _lock: lock })
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub(super) fn issuer(&self) -> String {
        format!("https://127.0.0.1:{}", self.ports.web)
    }

    /// What the broker runs with.
    pub(super) fn settings(&self, clock: &Arc<dyn Clock>) -> Result<Settings, DevError> {
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let listen = |port| ListenAt {
            address: at(port),
            certificate: self.listener.certificate.clone(),
            key: self.listener.key.clone(),
        };
        let refused = |error: &dyn std::fmt::Display| DevError::Story(error.to_string());
        Ok(Settings {
            trust_domain: trust_domain()?,
            broker: "dev".parse().map_err(|error| refused(&error))?,
            issuer: self.issuer().parse().map_err(|error| refused(&error))?,
            mode: Mode::Dev,
            store: self.path("daypass.db").into(),
            anchor: self.path("daypass.anchor"),
            scrub: Schedule::default(),
            kek: self.path("kek"),
            api: listen(self.ports.api),
            reflection: true,
            web: listen(self.ports.web),
            checkpoint: true,
            tiles: true,
            witnesses: WitnessSettings::default(),
            turns: Turns { half_years: true, entries: 0 },
            seal: SealSettings::default(),
            ops: at(self.ports.ops),
            limits: Limits::default(),
            lifetimes: daypass_core::rotation::Lifetimes::default(),
            config: None,
            clock: Arc::clone(clock),
            clock_trust: ClockTrust::Own,
            queue: crate::log::QUEUE,
            rates: Rates::default(),
            emergency: Some(self.path("emergency.sock")),
        })
    }

    /// Keeps what a verifier needs beside the log: its key and the root.
    pub(super) fn keep(&self, made: &Initialised) -> Result<(), DevError> {
        files::write_private(&self.path("log.vkey"), format!("{}\n", made.log_key).as_bytes())?;
        let root = pem::encode(&pem::Pem::new("CERTIFICATE", made.root.clone()));
        files::write_private(&self.path("root.pem"), root.as_bytes())
    }
}

/// The trust domain of the sample organisation.
pub(super) fn trust_domain() -> Result<TrustDomain, DevError> {
    "example.org".parse().map_err(|error: daypass_verify::ids::ParseError| DevError::Story(error.to_string()))
}

fn refuse_foreign(folder: &Path) -> Result<(), DevError> {
    let names = names(folder)?;
    let ours = names.iter().any(|name| name == MARKER)
        || names.iter().all(|name| BEFORE_MARKER.iter().any(|known| name == known));
    if ours { Ok(()) } else { Err(DevError::Foreign(folder.to_owned())) }
}

/// Removes what earlier starts left, but for the lock that is held; the marker goes last, so that what is left
/// of a removal that was cut short is still known as ours.
fn empty(folder: &Path) -> Result<(), DevError> {
    let mut names = names(folder)?;
    names.retain(|name| name != "lock");
    names.sort_by_key(|name| name == MARKER);
    for path in names.into_iter().map(|name| folder.join(name)) {
        let removed =
            if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
        removed.map_err(|source| DevError::File { path, source })?;
    }
    Ok(())
}

fn names(folder: &Path) -> Result<Vec<OsString>, DevError> {
    std::fs::read_dir(folder)
        .and_then(|entries| entries.map(|entry| Ok(entry?.file_name())).collect())
        .map_err(|source| DevError::File { path: folder.to_owned(), source })
}

fn ports(path: &Path) -> Result<Ports, DevError> {
    if let Some(bytes) = files::read_if_there(path)? {
        let ports: Ports = serde_json::from_slice(&bytes).map_err(|_| DevError::Damaged(path.to_owned()))?;
        for port in [ports.api, ports.web, ports.ops] {
            free(port)?;
        }
        return Ok(ports);
    }
    let ports = new_ports()?;
    let bytes = serde_json::to_vec(&ports).map_err(|_| DevError::Damaged(path.to_owned()))?;
    files::write_private(path, &bytes)?;
    Ok(ports)
}

/// Three that nobody listens on, from a place that no other start looks at.
fn new_ports() -> Result<Ports, DevError> {
    let mut drawn = [0; 2];
    SystemRandom::new().fill(&mut drawn).map_err(|_| DevError::Random)?;
    let start = u16::from_be_bytes(drawn) % COUNT;
    let mut found = (0..COUNT).map(|next| FIRST + (start + next) % COUNT).filter(|port| free(*port).is_ok());
    let mut next = || found.next().ok_or(DevError::Key("three ports of loopback that nobody listens on"));
    Ok(Ports { api: next()?, web: next()?, ops: next()? })
}

/// Says which port is taken, before anything else is done.
fn free(port: u16) -> Result<TcpListener, DevError> {
    TcpListener::bind(("127.0.0.1", port)).map_err(|source| DevError::Port { port, source })
}

fn listener(folder: &Path) -> Result<ListenerFiles, DevError> {
    let files = ListenerFiles {
        certificate: folder.join("server.pem"),
        key: folder.join("server.key"),
        ca: folder.join("server-ca.pem"),
    };
    if files.key.exists() {
        return Ok(files);
    }
    let hosts = ["127.0.0.1", "localhost"].map(String::from);
    Ok(write_listener_certificate(folder, &hosts, crate::clock::SystemClock.now())?)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_directory_of_somebody_elses_files_is_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(folder.path().join("thesis.tex"), "years").unwrap();
        for reset in [false, true] {
            assert!(matches!(State::open(folder.path(), reset), Err(DevError::Foreign(_))), "{reset}");
            assert_eq!(names(folder.path()).unwrap(), ["thesis.tex"], "{reset}");
            assert_eq!(mode(folder.path()), 0o755, "{reset}");
        }
    }

    #[test]
    fn an_empty_or_unfinished_directory_is_taken_and_emptied_only_on_demand() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("lock"), "").unwrap();
        drop(State::open(folder.path(), false).unwrap());
        fs::write(folder.path().join("kek"), "secret").unwrap();
        drop(State::open(folder.path(), false).unwrap());
        assert!(folder.path().join("kek").exists());
        drop(State::open(folder.path(), true).unwrap());
        assert!(!folder.path().join("kek").exists());
    }

    #[test]
    fn a_new_directory_is_for_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::open(&folder.path().join("a/b"), false).unwrap();
        assert_eq!(mode(&state.folder), 0o700);
    }
}
