//! The directory of a development organisation: everything that a second start goes on with.

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use daypass_evidence::entry::Mode;
use daypass_verify::ids::TrustDomain;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::{DevError, files};
use crate::clock::Clock;
use crate::init::{Initialised, ListenerFiles, write_listener_certificate};
use crate::listen::Limits;
use crate::serve::{ListenAt, Settings};

/// The ports of a development broker: an issuer's URL is for ever, so they are kept.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Ports {
    pub(super) api: u16,
    pub(super) web: u16,
    pub(super) ops: u16,
}

/// An open state directory, held against a second instance for as long as this lives.
pub(super) struct State {
    pub(super) folder: PathBuf,
    pub(super) ports: Ports,
    pub(super) listener: ListenerFiles,
    _lock: File,
}

impl State {
    /// Opens or makes the directory, mode 0700.
    pub(super) fn open(folder: &Path, reset: bool) -> Result<Self, DevError> {
        files::private_directory(folder)?;
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
        let ports = ports(&folder.join("ports.json"))?;
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
            store: self.path("daypass.db"),
            anchor: self.path("daypass.anchor"),
            kek: self.path("kek"),
            api: listen(self.ports.api),
            reflection: true,
            web: listen(self.ports.web),
            checkpoint: true,
            ops: at(self.ports.ops),
            limits: Limits::default(),
            config: None,
            clock: Arc::clone(clock),
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

/// Removes what earlier starts left, but for the lock that is held.
fn empty(folder: &Path) -> Result<(), DevError> {
    let failed = |source| DevError::File { path: folder.to_owned(), source };
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let removed = match path.file_name() {
            Some(name) if name == "lock" => Ok(()),
            _ if path.is_dir() => std::fs::remove_dir_all(&path),
            _ => std::fs::remove_file(&path),
        };
        removed.map_err(|source| DevError::File { path, source })?;
    }
    Ok(())
}

fn ports(path: &Path) -> Result<Ports, DevError> {
    if let Some(bytes) = files::read_if_there(path)? {
        let ports: Ports = serde_json::from_slice(&bytes).map_err(|_| DevError::Damaged(path.to_owned()))?;
        for port in [ports.api, ports.web, ports.ops] {
            free(port)?;
        }
        return Ok(ports);
    }
    let (api, web, ops) = (free(0)?, free(0)?, free(0)?);
    let port = |listener: &TcpListener| listener.local_addr().map_or(0, |at| at.port());
    let ports = Ports { api: port(&api), web: port(&web), ops: port(&ops) };
    let bytes = serde_json::to_vec(&ports).map_err(|_| DevError::Damaged(path.to_owned()))?;
    files::write_private(path, &bytes)?;
    Ok(ports)
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
