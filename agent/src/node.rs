//! The machine's own proof: a code traded once for a node certificate, and the certificate renewed by itself.
//!
//! Certificate and key lie in one file, so that one rename replaces both. The key of a renewal is kept before it is asked for:
//! whoever never had the answer asks for the very same key again, and the broker takes that for what it is.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use daypass_sdk::{Client, Error, IdToken, IssueRequest, RequestedKey, VerifyError, write_private};
use daypass_verify::certificate::{Holder, self_signed_holder};
use daypass_verify::credential::unverified_certificate;
use daypass_verify::ids::CredentialId;
use rustix::fs::{FlockOperation, flock};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::time::sleep;
use tracing::{info, warn};

use crate::clients;
use crate::clock::now;
use crate::config::{Connection, Node};

/// The key that the next certificate is asked for.
const NEXT_KEY: &str = "next.key";
/// Held by the one agent that renews.
const LOCK: &str = "lock";

/// How often is looked whether a code was put down, and the longest wait for what is due.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// After a failure: doubled each time.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// A node certificate that is kept, and when it is due.
struct Kept {
    pem: SecretString,
    id: CredentialId,
    holder: Holder,
}

/// Keeps the certificate of a machine. While it lives, no other agent renews the same one.
pub(crate) struct Keeper {
    connection: Connection,
    node: Node,
    _lock: File,
    /// The code that was tried last.
    tried: Option<SecretString>,
}

impl Keeper {
    /// Of the node that `connection` names; none where it names none.
    ///
    /// # Errors
    /// When its directory cannot be used, or another agent uses it.
    pub(crate) fn open(connection: &Connection) -> Result<Option<Self>, Error> {
        let Some(node) = connection.node.clone() else { return Ok(None) };
        make_directory(&node.directory)?;
        let path = node.directory.join(LOCK);
        let cannot = |error: std::io::Error| {
            Error::Config(format!("`{}` cannot be used: {error}", node.directory.display()))
        };
        let lock = File::options().create(true).append(true).open(path).map_err(cannot)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
            let shown = node.directory.display();
            Error::Config(format!("another agent keeps `{shown}`: expected a directory of its own for each"))
        })?;
        Ok(Some(Self { connection: connection.clone(), node, _lock: lock, tried: None }))
    }

    /// Waits until there is a certificate that lives.
    ///
    /// # Errors
    /// When there is none, and no code that buys one.
    pub(crate) async fn ready(&mut self) -> Result<(), Error> {
        let mut pause = PAUSE.0;
        loop {
            match self.enrol().await {
                Ok(_) if self.kept().is_some() => return Ok(()),
                Ok(_) => return Err(self.nothing()),
                Err(error) if self.kept().is_some() => {
                    warn!("the code cannot be used, and the certificate that is there goes on: {error}");
                    return Ok(());
                }
                Err(error @ (Error::Unreachable { .. } | Error::Retry { .. })) => {
                    warn!("not enrolled yet: {error}");
                    self.tried = None;
                }
                Err(error) => return Err(error),
            }
            sleep(pause).await;
            pause = PAUSE.1.min(pause * 2);
        }
    }

    /// Renews for as long as the agent runs, and trades each code that is put down.
    pub(crate) async fn run(mut self) {
        let mut pause = PAUSE.0;
        loop {
            let done = match self.enrol().await {
                Ok(false) => self.renew_if_due().await,
                other => other.map(drop),
            };
            let wait = match done {
                Ok(()) => {
                    pause = PAUSE.0;
                    self.due_in().min(LOOK_EVERY)
                }
                Err(error) => {
                    warn!("the node certificate is as it was: {error}");
                    pause = PAUSE.1.min(pause * 2);
                    pause
                }
            };
            sleep(wait).await;
        }
    }

    /// Trades the code that was put down, if there is one that was not tried before. True where it was.
    async fn enrol(&mut self) -> Result<bool, Error> {
        let Some(path) = self.node.code_file.clone() else { return Ok(false) };
        let Some(code) = read_code(&path)? else { return Ok(false) };
        let is_same = |tried: &SecretString| tried.expose_secret() == code.expose_secret();
        if self.tried.as_ref().is_some_and(is_same) {
            return Ok(false);
        }
        self.tried = Some(code.clone());
        trade(&self.connection, &self.node, code).await?;
        // Its worth is gone: where it cannot be removed, it is only not tried again.
        drop(fs::remove_file(&path));
        Ok(true)
    }

    async fn renew_if_due(&self) -> Result<(), Error> {
        let kept = self.kept().ok_or_else(|| self.nothing())?;
        if !self.due_in().is_zero() {
            return Ok(());
        }
        // Made of the file as it is now: an older certificate must never be shown for a renewal.
        let client = clients::open(&self.connection)?;
        let key = next_key(&self.node, &kept.pem)?;
        obtain(&client, &self.node, &key, Some(kept.id)).await
    }

    fn kept(&self) -> Option<Kept> {
        Kept::read(&self.node).filter(|kept| now() < kept.holder.not_after)
    }

    /// At two thirds of its life, and a little earlier or later by its id, so that not all machines come at once.
    fn due_in(&self) -> Duration {
        let Some(kept) = self.kept() else { return Duration::ZERO };
        let life = kept.holder.not_after.millis_since(kept.holder.not_before);
        let spread = i64::from(kept.id.as_bytes().last().copied().unwrap_or_default());
        let due = life / 100 * (60 + spread * 12 / 255);
        let wait = kept.holder.not_before.plus_millis(due).millis_since(now());
        Duration::from_millis(u64::try_from(wait).unwrap_or_default())
    }

    fn nothing(&self) -> Error {
        let shown = self.node.certificate();
        Error::Config(format!(
            "`{}` holds no node certificate that lives: ask an operator for a code (`daypass node add`), and put it where `code_file` says or give it to `daypass-agent enrol`",
            shown.display()
        ))
    }
}

/// Waits until there is a certificate that lives, where one is asked for: for who stays too short to renew it.
///
/// # Errors
/// As for [`Keeper::ready`].
pub(crate) async fn ready(connection: &Connection) -> Result<(), Error> {
    let lives = |node: &Node| Kept::read(node).is_some_and(|kept| now() < kept.holder.not_after);
    if connection.node.as_ref().is_none_or(lives) {
        return Ok(());
    }
    match Keeper::open(connection)? {
        Some(mut keeper) => keeper.ready().await,
        None => Ok(()),
    }
}

impl Kept {
    fn read(node: &Node) -> Option<Self> {
        let pem = SecretString::from(fs::read_to_string(node.certificate()).ok()?);
        let leaf = CertificateDer::from_pem_slice(pem.expose_secret().as_bytes()).ok()?;
        let (id, _) = unverified_certificate(&leaf)?;
        let holder = self_signed_holder(&leaf).ok()?;
        Some(Self { pem, id, holder })
    }
}

/// Trades `code` for a node certificate, and keeps it.
///
/// # Errors
/// When it buys none, or that cannot be kept.
pub(crate) async fn trade(connection: &Connection, node: &Node, code: SecretString) -> Result<(), Error> {
    make_directory(&node.directory)?;
    let by_code = Connection { certificate: None, node: None, ..connection.clone() };
    let client = clients::open_with(&by_code, Some(IdToken::Text(code)))?;
    let key = RequestedKey::fresh()?;
    obtain(&client, node, &key, None).await
}

async fn obtain(
    client: &Client,
    node: &Node,
    key: &RequestedKey,
    supersedes: Option<CredentialId>,
) -> Result<(), Error> {
    let request = IssueRequest::node(node.task.clone(), key.csr().to_vec(), supersedes);
    let issued = client.issue(request).await?;
    let (chain, _) = issued.secret.certificate_pem().ok_or(VerifyError::Answer("certificate"))?;
    let both = SecretString::from(chain + key.pem().expose_secret());
    write_private(&node.certificate(), both.expose_secret().as_bytes())?;
    drop(fs::remove_file(node.directory.join(NEXT_KEY)));
    info!("the node certificate is fresh: {} until {}", issued.id, issued.granted.expires_at);
    Ok(())
}

/// The key of the next certificate: kept from a try before, or made and kept now. One that is in use already is not the next.
fn next_key(node: &Node, current: &SecretString) -> Result<RequestedKey, Error> {
    let path = node.directory.join(NEXT_KEY);
    if let Ok(kept) = fs::read_to_string(&path).map(SecretString::from)
        && let Ok(key) = RequestedKey::from_pem(&kept)
        && !current.expose_secret().contains(key.pem().expose_secret())
    {
        return Ok(key);
    }
    let key = RequestedKey::fresh()?;
    write_private(&path, key.pem().expose_secret().as_bytes())?;
    Ok(key)
}

/// The code in a file; none where there is no file, or nothing in it.
fn read_code(path: &Path) -> Result<Option<SecretString>, Error> {
    match fs::read_to_string(path).map(SecretString::from) {
        Ok(text) => {
            let code = text.expose_secret().trim();
            Ok((!code.is_empty()).then(|| code.into()))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::Config(format!("cannot read `{}`: {error}", path.display()))),
    }
}

fn make_directory(path: &PathBuf) -> Result<(), Error> {
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            Err(Error::Config(format!("cannot make `{}`: {error}", path.display())))
        }
        _ => Ok(()),
    }
}
