//! Credentials that outlive the process, where `[sealed]` says so: each in one encrypted file, which is served again after a
//! restart if it is still what is asked for and still lives. Nothing here ever stops the agent: where a file, the key or the
//! directory cannot be used, it goes on as without.

mod content;
mod envelope;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use daypass_sdk::{IssueRequest, Kind};
use daypass_verify::ids::{CredentialId, Digest, Name};
use daypass_verify::jose::UnverifiedToken;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::json;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info, warn};
use x509_parser::prelude::FromDer as _;
use zeroize::Zeroizing;

use crate::clock::{boot_id, boot_ms, now};
use crate::config::{Connection, Sealed};
use crate::files::folder::Folder;
use crate::keep::{Changes, Fresh};

use content::Moment;
use envelope::Key;

/// How the file of a credential ends.
const SUFFIX: &str = ".sealed";
/// The longest file, in bytes: a token of 16 KiB or a chain of 64 KiB, with roots and a receipt.
const LEN_MAX: u64 = 512 * 1024;
/// How long to wait after a disk that did not take it, at first and at most.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Why a sealed credential is not used, and what to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum Unfit {
    #[error("it is of a version that this agent does not read: it is removed, and another one is fetched")]
    Version,
    #[error(
        "it was sealed under another key: put that key back into `key_file`, or leave it: the next credential takes its place"
    )]
    AnotherKey,
    #[error(
        "it was fetched for another request, or by another proof, than is configured now: it is removed, and another one is fetched"
    )]
    AnotherRequest,
    #[error(
        "its token is bound to a certificate that the agent no longer has: it is removed, and another one is fetched"
    )]
    AnotherHolder,
    #[error(
        "it is damaged, or that of another credential: it is removed, and another one is fetched; if nobody changed it, look after the disk"
    )]
    Damaged,
    #[error("it is over: it is removed, and another one is fetched")]
    Over,
    #[error(
        "the clock stands before the moment at which it was sealed, so that nothing tells how long it lives: it is removed; look after the machine's clock"
    )]
    Clock,
    #[error("the system gives no randomness")]
    Random,
}

/// What is asked for now, and with which certificate tokens are bound.
struct Asked {
    request: IssueRequest,
    holder: Digest,
}

/// A credential from before the restart.
pub(crate) struct Resumed {
    pub(crate) fresh: Fresh,
    /// How far away its end is at most.
    pub(crate) left: Duration,
}

/// Where all credentials are sealed. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Vault {
    folder: Arc<Folder>,
    key: Arc<Key>,
    connection: Connection,
}

impl Vault {
    /// The one that is configured, where it can be used; of what is in it, only that of the credentials called `names` stays.
    pub(crate) fn open(sealed: Option<&Sealed>, connection: &Connection, names: &[&Name]) -> Option<Self> {
        let Sealed { directory, key_file } = sealed?;
        let opened = Key::read(key_file).and_then(|key| {
            let folder = Folder::open(directory.clone()).map_err(|error| error.to_string())?;
            Ok((folder, key))
        });
        match opened {
            Ok((folder, key)) => {
                forget_all_but(&folder, names);
                Some(Self { folder: Arc::new(folder), key: Arc::new(key), connection: connection.clone() })
            }
            Err(why) => {
                warn!("nothing is sealed, and nothing that was is used: {why}");
                None
            }
        }
    }

    /// The place of the credential called `name`, which is asked for so.
    pub(crate) fn slot(&self, name: &Name, request: &IssueRequest) -> Slot {
        let file = format!("{name}{SUFFIX}");
        Slot {
            vault: self.clone(),
            name: name.clone(),
            file,
            request: request.clone(),
            sealed: None,
            retry: RETRY.0,
        }
    }
}

fn forget_all_but(folder: &Folder, names: &[&Name]) {
    let kept = |file: &String| names.iter().any(|name| *file == format!("{name}{SUFFIX}"));
    let others = folder.names().map(|all| all.into_iter().filter(|file| !kept(file)).collect::<Vec<_>>());
    let forgotten = others.and_then(|others| {
        let ours = others.iter().filter(|file| file.ends_with(SUFFIX));
        ours.into_iter().try_for_each(|file| folder.remove(file))
    });
    if let Err(error) = forgotten {
        warn!("what is no longer configured stays sealed: {error}");
    }
}

/// The place of one credential.
pub(crate) struct Slot {
    vault: Vault,
    name: Name,
    file: String,
    request: IssueRequest,
    /// What is there.
    sealed: Option<CredentialId>,
    retry: Duration,
}

impl Slot {
    /// The credential from before, if there is one that can be used; tokens are bound to `holder` now.
    pub(crate) fn open(&mut self, holder: Digest) -> Option<Resumed> {
        let file = match self.vault.folder.read(&self.file, LEN_MAX) {
            Ok(file) => file?,
            Err(error) => {
                warn!("`{}` was sealed, and is not used: {error}", self.name);
                return None;
            }
        };
        match self.try_open(&file, holder) {
            Ok(resumed) => {
                let credential = &resumed.fresh.credential;
                let until = credential.granted.handed_out_until();
                info!("`{}` is there from before: {} is given out until {until}", self.name, credential.id);
                self.sealed = Some(credential.id);
                Some(resumed)
            }
            Err((keep, why)) => {
                warn!("`{}` was sealed, and is not used: {why}", self.name);
                if !keep && let Err(error) = self.vault.folder.remove(&self.file) {
                    warn!("{error}");
                }
                None
            }
        }
    }

    /// Why not, and whether it may still be of use another time.
    fn try_open(&self, file: &[u8], holder: Digest) -> Result<Resumed, (bool, String)> {
        let unfit = |why: Unfit| (why == Unfit::AnotherKey, why.to_string());
        let digest = self.digest().map_err(|why| (true, why))?;
        let content = self.vault.key.open(&self.name, &digest, file).map_err(unfit)?;
        let asked = Asked { request: self.request.clone(), holder };
        content::read(&content, &asked, &moment()).map_err(unfit)
    }

    /// Keeps there what `changes` brings, until nobody keeps the credential any more.
    pub(crate) async fn keep(mut self, mut changes: Changes) {
        loop {
            let newest = changes.borrow_and_update().clone();
            let done = match newest {
                Some(fresh) if self.sealed != Some(fresh.credential.id) => self.seal(fresh).await,
                None if self.sealed.is_some() => self.remove().await,
                _ => Ok(()),
            };
            let again = match done {
                Ok(()) => {
                    self.retry = RETRY.0;
                    None
                }
                Err(why) => {
                    warn!("`{}` is not sealed as it is now: {why}", self.name);
                    let after = self.retry;
                    self.retry = RETRY.1.min(after * 2);
                    Some(after)
                }
            };
            let due = async {
                match again {
                    Some(after) => sleep_until(Instant::now() + after).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                () = due => {}
            }
        }
    }

    async fn seal(&mut self, fresh: Arc<Fresh>) -> Result<(), String> {
        let (digest, id) = (self.digest()?, fresh.credential.id);
        let content = content::write(&fresh, moment()).map_err(|why| why.to_string())?;
        let key = &self.vault.key;
        let bytes = key.seal(&self.name, &digest, &content).map_err(|why| why.to_string())?;
        let (folder, file) = (Arc::clone(&self.vault.folder), self.file.clone());
        blocking(move || folder.replace(&file, &bytes).map_err(|error| error.to_string())).await?;
        debug!("`{}` is sealed: {id}", self.name);
        self.sealed = Some(id);
        Ok(())
    }

    async fn remove(&mut self) -> Result<(), String> {
        let (folder, file) = (Arc::clone(&self.vault.folder), self.file.clone());
        blocking(move || folder.remove(&file).map_err(|error| error.to_string())).await?;
        self.sealed = None;
        Ok(())
    }

    /// What tells this request from any other: all that is asked for, of whom, and who asks.
    fn digest(&self) -> Result<Digest, String> {
        let IssueRequest { task, identity, scope, ttl, kind, run, supersedes: _, allow_narrowed, workload } =
            &self.request;
        let (kind, profile, bearer) = match kind {
            Kind::Token { profile, binding } => ("token", format!("{profile:?}"), format!("{binding:?}")),
            Kind::Certificate { profile, .. } => {
                ("certificate", profile.as_str_name().to_owned(), String::new())
            }
        };
        let connection = &self.vault.connection;
        let text = json!({
            "web": connection.web.as_str(),
            "prover": prover(connection)?.to_string(),
            "task": task,
            "identity": identity,
            "scope": scope,
            "ttl": ttl,
            "kind": [kind, profile.as_str(), bearer.as_str()],
            "run": run,
            "allow_narrowed": allow_narrowed,
            "workload": workload.as_ref().map(|it| json!([it.unit, it.uid, it.instance])),
        });
        Ok(Digest::of(text.to_string().as_bytes()))
    }
}

async fn blocking(work: impl FnOnce() -> Result<(), String> + Send + 'static) -> Result<(), String> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| Err("the work was cut off".to_owned()))
}

fn moment() -> Moment {
    Moment { wall: now(), boot_ms: boot_ms(), boot_id: boot_id() }
}

/// Whose proof the agent shows: the same for each certificate and each token of one holder.
fn prover(connection: &Connection) -> Result<Digest, String> {
    let certificate = connection.certificate.as_ref().map(|files| names_of(&files.chain)).transpose()?;
    let token = connection.id_token_file.as_ref().map(|path| claims_of(path)).transpose()?;
    let text =
        json!([certificate.as_ref().map(ToString::to_string), token.as_ref().map(ToString::to_string)]);
    Ok(Digest::of(text.to_string().as_bytes()))
}

/// The subject of the first certificate in a file, and its other names.
fn names_of(path: &Path) -> Result<Digest, String> {
    let unfit = |why: &str| format!("`{}`: {why}", path.display());
    let text = fs::read(path).map(Zeroizing::new).map_err(|error| unfit(&error.to_string()))?;
    let leaf = CertificateDer::from_pem_slice(&text).map_err(|_| unfit("expected a certificate"))?;
    let parsed = x509_parser::certificate::X509Certificate::from_der(&leaf);
    let (_, leaf) = parsed.map_err(|_| unfit("expected a certificate"))?;
    let oid = x509_parser::oid_registry::OID_X509_EXT_SUBJECT_ALT_NAME;
    let names = leaf.get_extension_unique(&oid).ok().flatten().map(|it| it.value).unwrap_or_default();
    let subject = leaf.subject().as_raw();
    Ok(Digest::of(&[&subject.len().to_be_bytes()[..], subject, names].concat()))
}

/// Who a token of the platform says it is of; where it does not say so, the token itself.
fn claims_of(path: &Path) -> Result<Digest, String> {
    let text = fs::read_to_string(path).map(Zeroizing::new);
    let text = text.map_err(|error| format!("`{}`: {error}", path.display()))?;
    let Ok(token) = UnverifiedToken::parse(text.trim()) else {
        return Ok(Digest::of(text.trim().as_bytes()));
    };
    let whose = token.unverified_issuer().ok().zip(token.unverified_subject());
    Ok(whose
        .map_or_else(|| token.digest(), |whose| Digest::of(json!([whose.0, whose.1]).to_string().as_bytes())))
}

#[cfg(test)]
mod tests;
