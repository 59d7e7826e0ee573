//! The broker's client, made anew when the files change that it is made from.

use std::path::Path;
use std::time::Duration;

use daypass_sdk::{Client, ClientCertificate, Config, Error, FileStamp, IdToken};
use secrecy::SecretString;
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{info, warn};

use crate::config::Connection;

/// How often files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The client as it is now, and each that follows it. To be called within a tokio runtime.
///
/// # Errors
/// When the first cannot be made.
pub(crate) fn follow(connection: Connection) -> Result<watch::Receiver<Client>, Error> {
    let seen = stamps(&connection);
    let (clients, receiver) = watch::channel(open(&connection)?);
    tokio::spawn(renew(connection, seen, clients));
    Ok(receiver)
}

async fn renew(connection: Connection, mut seen: Vec<Option<FileStamp>>, clients: watch::Sender<Client>) {
    while !clients.is_closed() {
        sleep(LOOK_EVERY).await;
        let found = stamps(&connection);
        if found == seen {
            continue;
        }
        seen = found;
        // A certificate may have been replaced before its key: then the key's turn comes at the next look.
        match open(&connection) {
            Ok(client) => {
                info!("the proof has changed: it is used from now on");
                clients.send_replace(client);
            }
            Err(error) => warn!("the proof has changed and cannot be used: {error}"),
        }
    }
}

/// A client of what the files hold now.
///
/// # Errors
/// When one cannot be read, or no client can be made of them.
pub(crate) fn open(connection: &Connection) -> Result<Client, Error> {
    open_with(connection, connection.id_token_file.clone().map(IdToken::File))
}

/// The same with another token.
///
/// # Errors
/// As for [`open`].
pub(crate) fn open_with(connection: &Connection, id_token: Option<IdToken>) -> Result<Client, Error> {
    let certificate = match &connection.certificate {
        Some(files) => Some(ClientCertificate::Pem {
            chain: read(&files.chain)?,
            key: SecretString::from(String::from_utf8(read(&files.key)?).unwrap_or_default()),
        }),
        None => None,
    };
    Client::new(Config {
        broker: connection.broker.clone(),
        web: Some(connection.web.clone()),
        ca: read(&connection.ca)?,
        certificate,
        id_token,
        log_key: connection.log_key.clone(),
        state: connection.state.clone(),
    })
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|error| Error::Config(format!("cannot read `{}`: {error}", path.display())))
}

/// The files that a client is made from, as they are now.
fn stamps(connection: &Connection) -> Vec<Option<FileStamp>> {
    let proof = connection.certificate.iter().flat_map(|files| [&files.chain, &files.key]);
    proof.chain([&connection.ca]).map(|path| FileStamp::of(path)).collect()
}
