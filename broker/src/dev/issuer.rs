//! An OIDC issuer on loopback: HTTPS under a CA of its own, discovery, a key set, and ID tokens for the
//! workloads that it was given. Everything in it is real; tests make it misbehave by values.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::{Algorithm, Header};
use ring::rand::{SecureRandom as _, SystemRandom};
use rustls_pki_types::CertificateDer;
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::{DevError, files};
use crate::clock::Clock;

mod behaviour;
mod keys;
mod listener;
mod tls;

pub use behaviour::{Behaviour, Connection, Endpoint};
pub use keys::Rotation;
use keys::{Keys, Saved};
use tls::Tls;

/// How long a token lives whose claims do not say.
const TOKEN_LIFE_S: i64 = 300;

/// The claims of an ID token for a workload, by its name; none for a name that the issuer does not serve.
pub type Workloads = Arc<dyn Fn(&str) -> Option<Map<String, Value>> + Send + Sync>;

/// What a development issuer is started with.
pub struct Start {
    /// The port on 127.0.0.1; 0 takes the one of the last start, or a free one.
    pub port: u16,
    /// The state directory, where keys and port are kept under `dev/`; none keeps everything in memory.
    pub state: Option<PathBuf>,
    /// An RSA key (PEM, PKCS#8) to sign RS256 tokens with besides.
    pub rs256: Option<String>,
    /// Whom `/mint` serves.
    pub workloads: Workloads,
    /// Where `iat` and `exp` come from.
    pub clock: Arc<dyn Clock>,
}

impl Start {
    /// An issuer in memory, on a free port, that `/mint` serves nobody.
    #[must_use]
    pub fn in_memory(clock: Arc<dyn Clock>) -> Self {
        Self { port: 0, state: None, rs256: None, workloads: Arc::new(|_| None), clock }
    }
}

/// A running issuer; it stops when this is dropped.
pub struct DevIssuer {
    shared: Arc<Shared>,
    listening: JoinHandle<()>,
}

/// What the listener and its owner share.
struct Shared {
    url: String,
    port: u16,
    state: Option<PathBuf>,
    clock: Arc<dyn Clock>,
    workloads: Workloads,
    tls: Tls,
    keys: Mutex<Keys>,
    behaviours: Mutex<HashMap<Endpoint, Behaviour>>,
    connection: Mutex<Connection>,
    requests: Mutex<HashMap<Endpoint, Arc<AtomicU64>>>,
}

impl DevIssuer {
    /// Listens, with the URL and keys of the last start where there was one.
    ///
    /// # Errors
    /// When the state cannot be read or written, the port is taken, or `rs256` is no RSA key.
    pub async fn start(start: Start) -> Result<Self, DevError> {
        daypass_verify::provider::install();
        let now = start.clock.now();
        let state = start.state.map(|it| it.join("dev"));
        if let Some(directory) = &state {
            files::private_directory(directory)?;
        }
        let saved = state.as_deref().map(read_saved).transpose()?.flatten();
        let keys = match &saved {
            Some(saved) => Keys::from_saved(saved, start.rs256.as_deref())?,
            None => Keys::new(start.rs256.as_deref())?,
        };
        let port = if start.port == 0 { saved.map_or(0, |it| it.port) } else { start.port };
        let (listener, port) = listen(port).await?;
        let shared = Arc::new(Shared {
            url: format!("https://127.0.0.1:{port}"),
            port,
            tls: Tls::new(Tls::authority(state.as_deref(), now)?, now)?,
            state,
            clock: start.clock,
            workloads: start.workloads,
            keys: Mutex::new(keys),
            behaviours: Mutex::default(),
            connection: Mutex::default(),
            requests: Mutex::default(),
        });
        shared.save()?;
        let listening = tokio::spawn(listener::serve(listener, Arc::clone(&shared)));
        Ok(Self { shared, listening })
    }

    /// The issuer identifier: `https://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.shared.url
    }

    /// The root of the listener's certificate, to be pinned.
    #[must_use]
    pub fn root(&self) -> &CertificateDer<'static> {
        self.shared.tls.root()
    }

    /// The same as a bundle declares it in `tls_ca`: base64 of DER.
    #[must_use]
    pub fn root_base64(&self) -> String {
        STANDARD.encode(self.root())
    }

    /// An ES256 ID token of these claims. `iss`, `iat`, `exp` (five minutes) and `jti` are added where they are
    /// missing; a claim that is null is left out.
    ///
    /// # Errors
    /// When signing failed.
    pub fn issue(&self, claims: Map<String, Value>) -> Result<String, DevError> {
        self.shared.issue(&self.shared.header(), claims)
    }

    /// The same under another header; its `alg` chooses the key: ES256, or RS256 where one was given.
    ///
    /// # Errors
    /// When there is no key for the algorithm, or signing failed.
    pub fn issue_under(&self, header: &Header, claims: Map<String, Value>) -> Result<String, DevError> {
        self.shared.issue(header, claims)
    }

    /// The key id that tokens of `alg` name now.
    ///
    /// # Errors
    /// When there is no key for the algorithm.
    pub fn kid(&self, alg: Algorithm) -> Result<String, DevError> {
        lock(&self.shared.keys).signing(alg).map(|key| key.kid.clone())
    }

    /// The key set as it is published now.
    #[must_use]
    pub fn jwks(&self) -> Value {
        lock(&self.shared.keys).jwks()
    }

    /// Signs with a new ES256 key from now on.
    ///
    /// # Errors
    /// When no key could be made, or the state could not be written.
    pub fn rotate(&self, rotation: Rotation) -> Result<(), DevError> {
        lock(&self.shared.keys).rotate(rotation)?;
        self.shared.save()
    }

    /// Makes an endpoint behave so from the next request on.
    pub fn behave(&self, endpoint: Endpoint, behaviour: Behaviour) {
        lock(&self.shared.behaviours).insert(endpoint, behaviour);
    }

    /// Does this with every new connection from now on.
    pub fn connect(&self, connection: Connection) {
        *lock(&self.shared.connection) = connection;
    }

    /// How many requests have reached an endpoint.
    #[must_use]
    pub fn requests(&self, endpoint: Endpoint) -> u64 {
        self.shared.counter(endpoint).load(Ordering::Relaxed)
    }
}

impl Drop for DevIssuer {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

impl Shared {
    fn header(&self) -> Header {
        let mut header = Header::new(Algorithm::ES256);
        header.kid = lock(&self.keys).signing(Algorithm::ES256).ok().map(|key| key.kid.clone());
        header
    }

    fn issue(&self, header: &Header, mut claims: Map<String, Value>) -> Result<String, DevError> {
        let now = self.clock.now().seconds();
        let defaults = [
            ("iss", json!(self.url)),
            ("iat", json!(now)),
            ("exp", json!(now.saturating_add(TOKEN_LIFE_S))),
            ("jti", json!(random_id()?)),
        ];
        for (name, value) in defaults {
            claims.entry(name).or_insert(value);
        }
        claims.retain(|_, value| !value.is_null());
        let keys = lock(&self.keys);
        Ok(jsonwebtoken::encode(header, &claims, &keys.signing(header.alg)?.encoding)?)
    }

    fn counter(&self, endpoint: Endpoint) -> Arc<AtomicU64> {
        Arc::clone(lock(&self.requests).entry(endpoint).or_default())
    }

    fn count(&self, endpoint: Endpoint) {
        self.counter(endpoint).fetch_add(1, Ordering::Relaxed);
    }

    fn save(&self) -> Result<(), DevError> {
        let Some(directory) = &self.state else { return Ok(()) };
        let saved = lock(&self.keys).saved(self.port);
        let bytes = serde_json::to_vec(&saved).map_err(|_| DevError::Key("keys that can be written"))?;
        files::write_private(&state_file(directory), &bytes)
    }
}

fn state_file(directory: &Path) -> PathBuf {
    directory.join("issuer.json")
}

fn read_saved(directory: &Path) -> Result<Option<Saved>, DevError> {
    let path = state_file(directory);
    let bytes = files::read_if_there(&path)?;
    bytes.map(|bytes| serde_json::from_slice(&bytes).map_err(|_| DevError::Damaged(path))).transpose()
}

async fn listen(port: u16) -> Result<(TcpListener, u16), DevError> {
    let refuse = |source| DevError::Port { port, source };
    let listener = TcpListener::bind(("127.0.0.1", port)).await.map_err(refuse)?;
    let bound = listener.local_addr().map_err(refuse)?.port();
    Ok((listener, bound))
}

fn random_id() -> Result<String, DevError> {
    let mut octets = [0; 16];
    SystemRandom::new().fill(&mut octets).map_err(|_| DevError::Random)?;
    Ok(base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(octets))
}

/// What is behind these locks is whole after each statement, so that a panic elsewhere spoils nothing.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
