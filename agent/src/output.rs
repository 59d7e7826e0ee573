//! What puts a credential into its directory, and takes it away at its end.

use std::sync::Arc;
use std::time::Duration;

use daypass_sdk::{Credential, Secret};
use daypass_verify::ids::{CredentialId, Name};
use daypass_verify::time::{Seconds, UnixMs};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};
use tracing::{error, info, warn};

use crate::clock::now;
use crate::files::{Directory, File, FilesError};
use crate::hook::Hook;
use crate::keep::{Changes, Fresh};
use crate::ready::Board;

/// How long the folder of the credential before stays, for readers that are on their way to it.
const GRACE: Duration = Duration::from_secs(10);
/// How long to wait after a disk that did not take it, at first and at most.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// How long before its end a credential is taken away.
const MARGIN: Seconds = Seconds::new(5);
/// What says which credential is there, and until when.
const DESCRIPTION: &str = "credential.json";

/// Puts each credential of `changes` into `directory`.
pub(crate) struct Output {
    name: Name,
    directory: Directory,
    changes: Changes,
    hook: Option<Hook>,
    board: Board,
    written: Option<CredentialId>,
    retry: Duration,
}

impl Output {
    pub(crate) fn new(
        name: Name,
        directory: Directory,
        changes: Changes,
        hook: Option<Hook>,
        board: Board,
    ) -> Self {
        Self { name, directory, changes, hook, board, written: None, retry: RETRY.0 }
    }

    /// Goes on until nobody keeps the credential any more.
    pub(crate) async fn run(mut self) {
        self.recognise();
        loop {
            let newest = self.changes.borrow_and_update().clone();
            let again = match newest {
                Some(fresh) if self.written != Some(fresh.credential.id) => self.write(&fresh).await,
                Some(_) => self.sweep().await,
                None if self.written.is_some() => self.clear().await,
                None => self.lapse().await,
            };
            let due = async {
                match again {
                    Some(after) => sleep_until(Instant::now() + after).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = self.changes.changed() => if changed.is_err() { return },
                () = due => {}
            }
        }
    }

    /// What is kept from before a restart may be in place already: writing it again would take it away for a moment.
    fn recognise(&mut self) {
        let kept = self.changes.borrow().as_ref().map(|fresh| fresh.credential.id);
        if kept.is_some() && kept == found(&self.directory).map(|(id, _)| id) {
            self.written = kept;
            self.board.arrived(&self.name);
        }
    }

    /// Writes it, and says when there is something to do again.
    async fn write(&mut self, fresh: &Arc<Fresh>) -> Option<Duration> {
        let (directory, fresh, id) = (self.directory.clone(), Arc::clone(fresh), fresh.credential.id);
        match blocking(move || directory.replace(id, &files(&fresh))).await {
            Ok(()) => {
                info!("`{}` is in `{}`", self.name, self.directory.path().display());
                self.written = Some(id);
                self.retry = RETRY.0;
                if let Some(hook) = &self.hook {
                    hook.call();
                }
                self.board.arrived(&self.name);
                Some(GRACE)
            }
            Err(failed) => {
                error!("`{}` could not be written: {failed}", self.name);
                let after = self.retry;
                self.retry = RETRY.1.min(after * 2);
                // What is there from before must not outlive its end because the disk does not take the next.
                let ended = self.lapse().await;
                Some(ended.map_or(after, |at| at.min(after)))
            }
        }
    }

    async fn sweep(&self) -> Option<Duration> {
        let directory = self.directory.clone();
        match blocking(move || directory.sweep()).await {
            Ok(()) => None,
            Err(failed) => {
                warn!("{failed}");
                Some(RETRY.1)
            }
        }
    }

    /// Takes away what was found, from before this one was started or before the disk was full, once it is over.
    async fn lapse(&mut self) -> Option<Duration> {
        match found(&self.directory) {
            Some((_, until)) if now() < until.minus(MARGIN) => Some(Duration::from_secs(1)),
            _ => self.clear().await,
        }
    }

    async fn clear(&mut self) -> Option<Duration> {
        let directory = self.directory.clone();
        match blocking(move || directory.clear()).await {
            Ok(()) => {
                self.written = None;
                None
            }
            Err(failed) => {
                error!("`{}` has ended and cannot be taken away: {failed}", self.name);
                Some(RETRY.0)
            }
        }
    }
}

async fn blocking(work: impl FnOnce() -> Result<(), FilesError> + Send + 'static) -> Result<(), FilesError> {
    let cut_off = |_| FilesError { path: "/".into(), what: "the work was cut off".into() };
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(cut_off(error)))
}

/// What is in `directory`, and its end.
fn found(directory: &Directory) -> Option<(CredentialId, UnixMs)> {
    let text = directory.read(DESCRIPTION)?;
    let description: Value = serde_json::from_slice(&text).ok()?;
    let part = |name: &str| description.get(name)?.as_str();
    Some((part("id")?.parse().ok()?, UnixMs::parse(part("expires_at")?).ok()?))
}

/// All files of a credential.
pub(crate) fn files(fresh: &Fresh) -> Vec<File> {
    let credential = &fresh.credential;
    let mut files = match &credential.secret {
        Secret::Token { value, .. } => vec![("token", value.expose_secret().as_bytes().to_vec())],
        Secret::Certificate { key, .. } => certificate(&credential.secret, key.as_ref()),
    };
    if let Some(holder) = &fresh.holder {
        files.push(("holder.pem", holder.expose_secret().as_bytes().to_vec()));
    }
    files.push((DESCRIPTION, description(credential).into_bytes()));
    files
}

fn certificate(secret: &Secret, key: Option<&SecretString>) -> Vec<File> {
    let Some((chain, roots)) = secret.certificate_pem() else { return Vec::new() };
    let key = key.map(|key| key.expose_secret().to_owned()).unwrap_or_default();
    vec![
        // For programs that read both from one file.
        ("tls.pem", format!("{chain}{key}").into_bytes()),
        ("tls.crt", chain.into_bytes()),
        ("tls.key", key.into_bytes()),
        ("ca.crt", roots.into_bytes()),
    ]
}

fn description(credential: &Credential) -> String {
    let granted = &credential.granted;
    let text = json!({
        "id": credential.id.to_string(),
        "subject": granted.subject.to_string(),
        "task": granted.task.to_string(),
        "expires_at": granted.expires_at.to_string(),
    });
    format!("{text}\n")
}
