//! What receivers believe: the roots and token keys of the trust domain, as the broker publishes them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use daypass_sdk::{Client, Credential, Error, Secret};
use rustls_pki_types::CertificateDer;
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::warn;

/// How often is looked whether something else is published; the client asks the broker every five minutes.
const LOOK_EVERY: Duration = Duration::from_secs(20);
/// How long until the first is asked for again.
const RETRY: Duration = Duration::from_secs(1);

/// Roots and keys.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Trust {
    /// The trust domain.
    pub(super) trust_domain: String,
    /// The roots of certificates, DER one after another.
    pub(super) roots: Bytes,
    /// The keys of JWT-SVIDs: a JWK set; none until the broker was reached.
    pub(super) token_keys: Option<Bytes>,
}

impl Trust {
    /// The roots that came with a certificate.
    pub(super) fn of(credential: &Credential) -> Option<Self> {
        let Secret::Certificate { roots, .. } = &credential.secret else { return None };
        let trust_domain = credential.granted.subject.trust_domain().to_string();
        Some(Self { trust_domain, roots: joined(roots), token_keys: None })
    }
}

/// The newest; until the broker was reached `known`, which is from before a restart.
pub(super) fn follow(
    clients: watch::Receiver<Client>,
    known: Option<Trust>,
) -> watch::Receiver<Option<Arc<Trust>>> {
    let (sender, receiver) = watch::channel(known.map(Arc::new));
    tokio::spawn(look(clients, sender));
    receiver
}

async fn look(clients: watch::Receiver<Client>, sender: watch::Sender<Option<Arc<Trust>>>) {
    while !sender.is_closed() {
        let client = clients.borrow().clone();
        match fetch(&client).await {
            Ok(trust) => {
                let trust = Some(Arc::new(trust));
                sender.send_if_modified(|known| {
                    let differs = *known != trust;
                    known.clone_from(&trust);
                    differs
                });
            }
            Err(error) => warn!("roots and keys could not be fetched: {error}"),
        }
        let known = sender.borrow().as_ref().is_some_and(|known| known.token_keys.is_some());
        sleep(if known { LOOK_EVERY } else { RETRY }).await;
    }
}

async fn fetch(client: &Client) -> Result<Trust, Error> {
    let (log_key, published) = (client.log_key().await?, client.published().await?);
    // A log is named `TRUST-DOMAIN/evidence/PERIOD`.
    let trust_domain = log_key.name().split('/').next().unwrap_or_default().to_owned();
    let token_keys = Some(Bytes::copy_from_slice(published.svid_jwks.as_bytes()));
    Ok(Trust { trust_domain, roots: joined(&published.roots), token_keys })
}

fn joined(roots: &[CertificateDer<'_>]) -> Bytes {
    roots.iter().flat_map(|root| root.as_ref()).copied().collect()
}
