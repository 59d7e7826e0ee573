//! For cron and CI: fetch once, run one command, end with its code, leave nothing.

use daypass_proto::v1::RevocationReason;
use daypass_sdk::{Client, Reach};
use tracing::{info, warn};

use crate::clients;
use crate::config::{Config, Credential, Exec, Restart};
use crate::exec;
use crate::files::Directory;
use crate::keep::{Fresh, once};
use crate::node;
use crate::output::files;
use crate::ready::Board;
use crate::run::{Failure, close};
use crate::signals::Signals;

/// What is recorded beside a revocation.
const OVER: &str = "the command that it was for has ended";

/// Fetches each credential once, and puts it into its files. Then runs `command`, or that of `[exec]`, says with which
/// code to end, takes the files away, and revokes what a revocation reaches. Without a command the files stay. To be called
/// within a tokio runtime.
///
/// # Errors
/// When a credential was refused, nobody answered, or the command cannot be started.
pub async fn run_once(config: &Config, command: Vec<String>) -> Result<u8, Failure> {
    let mut signals =
        Signals::listen().map_err(|error| Failure::Other(format!("cannot listen to signals: {error}")))?;
    node::ready(&config.connection).await.map_err(Failure::Client)?;
    let client = clients::open(&config.connection).map_err(Failure::Client)?;
    let (mut fetched, mut directories) = (Vec::new(), Vec::new());
    for credential in &config.credentials {
        let directory = credential.files.as_ref().map(Directory::of);
        fetched.push(fetch(&client, credential, directory.as_ref()).await?);
        directories.extend(directory);
    }
    let given = config.exec.as_ref().map(|exec| exec.command.clone());
    let command = if command.is_empty() { given.unwrap_or_default() } else { command };
    if command.is_empty() {
        return Ok(0);
    }
    let exec = Exec { command, reload_signal: None, reload: Vec::new(), restart: Restart::Never };
    let ended = exec::run(&exec, &Board::complete_already(), &mut signals).await.map_err(Failure::Other);
    close(&directories);
    for fresh in &fetched {
        revoke(&client, fresh).await;
    }
    ended
}

async fn fetch(
    client: &Client,
    credential: &Credential,
    directory: Option<&Directory>,
) -> Result<Fresh, Failure> {
    let fresh = once(client, credential.request.clone()).await.map_err(Failure::Client)?;
    let (id, until) = (fresh.credential.id, fresh.credential.granted.expires_at);
    info!("`{}` is there: {id} until {until}", credential.name);
    if let Some(directory) = directory {
        let put = directory.replace(id, &files(&fresh)).and_then(|()| directory.sweep());
        put.map_err(|error| Failure::Other(error.to_string()))?;
    }
    Ok(fresh)
}

/// Where a revocation reaches nobody, the credential lives to its end, and saying otherwise would be a lie.
async fn revoke(client: &Client, fresh: &Fresh) {
    let credential = &fresh.credential;
    if matches!(credential.granted.reach, Reach::Unspecified | Reach::None) {
        return;
    }
    match client.revoke(credential.id, RevocationReason::CessationOfOperation, OVER).await {
        Ok(_) => info!("{} is revoked", credential.id),
        Err(error) => warn!("{} lives on until its end: {error}", credential.id),
    }
}
