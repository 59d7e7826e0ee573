//! `init`: a new deployment on its own host: the store, the log's first entries, the keys, and a first certificate
//! for the listeners.

mod listener;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use daypass_core::bundle::Bundle;
use daypass_core::rotation::{Lifetimes, Times};
use daypass_evidence::entry::{Body, Gap, KeyUse, LogOpened, NewEntry, OpenReason, Predecessor};
use daypass_evidence::note::VerifierKey;
use daypass_verify::ids::{Digest, Name, TrustDomain};
use daypass_verify::time::UnixMs;
use ring::signature::Ed25519KeyPair;

use crate::activate;
use crate::authority::{self, AuthorityError};
use crate::clock::Clock;
use crate::ids::Ids;
use crate::keyring::{
    Kek, KekError, Keyring, KeyringError, Made, make_evidence_key, make_key, make_root_key,
};
use crate::log::{self, Attached, Log, LogSettings, RecordError};
use crate::signer::{SignError, Signer};
use crate::store::{Claimed, SealedKey, StoreAt, StoreError};

pub use listener::{ListenerFiles, write_listener_certificate};

/// What a deployment is made from.
pub struct Deployment<'a> {
    /// Its trust domain.
    pub trust_domain: TrustDomain,
    /// The name of the broker that is set up here.
    pub broker: Name,
    /// The store to make.
    pub store: &'a StoreAt,
    /// The key-encryption key to make, or to use where it is there.
    pub kek: &'a Path,
    /// The first bundle.
    pub bundle: Option<&'a Bundle>,
    /// How long its keys live.
    pub lifetimes: Lifetimes,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
}

/// Why a deployment was not made.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each says what failed in its text")]
pub enum InitError {
    #[error("there is a store at `{0}` already: `init` never touches one; name another place, or serve it")]
    Exists(String),
    #[error(transparent)]
    Kek(#[from] KekError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    #[error(transparent)]
    Sign(#[from] SignError),
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    #[error("a certificate could not be made: {0}")]
    Certificate(String),
    #[error("`{0}` could not be written: {1}")]
    File(String, std::io::Error),
}

/// What was made.
#[derive(Debug)]
pub struct Initialised {
    /// The log's origin.
    pub origin: String,
    /// The key that verifies its checkpoints: to be kept outside.
    pub log_key: VerifierKey,
    /// The root of the certificates that it will issue: DER.
    pub root: Vec<u8>,
}

/// Makes a deployment. On an error no store of it is left; a key-encryption key that was made is used by the next
/// attempt.
///
/// # Errors
/// When there is one already, or a part of it cannot be made.
pub async fn init(deployment: &Deployment<'_>) -> Result<Initialised, InitError> {
    let exists = || InitError::Exists(deployment.store.to_string());
    let claimed = deployment.store.claim()?.ok_or_else(exists)?;
    let made = make(deployment, &claimed).await;
    if made.is_err() {
        claimed.undo();
    }
    made
}

/// A half-year, as shards of the log are named: `2026h2`.
#[must_use]
pub fn shard(now: UnixMs) -> String {
    let date =
        time::OffsetDateTime::from_unix_timestamp(now.seconds()).unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    format!("{}h{}", date.year(), if u8::from(date.month()) <= 6 { 1 } else { 2 })
}

/// What the first entry of a log says of it.
pub(crate) struct Opening {
    pub(crate) origin: String,
    pub(crate) reason: OpenReason,
    pub(crate) predecessor: Option<Predecessor>,
    pub(crate) gap: Option<Gap>,
    pub(crate) earlier: Vec<String>,
}

async fn make(deployment: &Deployment<'_>, claimed: &Claimed) -> Result<Initialised, InitError> {
    let now = deployment.clock.now();
    let origin = format!("{}/evidence/{}", deployment.trust_domain, shard(now));
    let opening =
        Opening { origin, reason: OpenReason::First, predecessor: None, gap: None, earlier: Vec::new() };
    let (made, log, ids) = found(deployment, claimed, opening).await?;
    if let Some(bundle) = deployment.bundle {
        activate::bootstrap(&log, &ids, bundle, now).await?;
    }
    Ok(made)
}

/// Opens a log in the store that was claimed, with keys of its own, and nothing declared yet.
pub(crate) async fn found(
    deployment: &Deployment<'_>,
    claimed: &Claimed,
    opening: Opening,
) -> Result<(Initialised, Log, Arc<Ids>), InitError> {
    let kek = if deployment.kek.exists() { Kek::read(deployment.kek)? } else { Kek::create(deployment.kek)? };
    let now = deployment.clock.now();
    let origin = opening.origin;
    let evidence = make_evidence_key(now)?;
    let first = |usage| Times::of_next(usage, now, now.floor_second(), &deployment.lifetimes);
    let mut root = make_root_key(now)?;
    let mut ca = make_key(KeyUse::Ca, first(KeyUse::Ca).within(root.changed.publish_until_ms))?;
    let settings = settings(deployment, &evidence)?;
    let log_key =
        VerifierKey::of(&origin, &settings.key).map_err(|error| InitError::Certificate(error.to_string()))?;
    let statements = authority::first_statements(&deployment.trust_domain, &root, &ca)?;
    let opened = LogOpened {
        origin: origin.clone(),
        key: log_key.to_string(),
        reason: opening.reason,
        predecessor: opening.predecessor,
        gap: opening.gap,
        earlier: opening.earlier,
    };
    let bodies: Vec<Body> = vec![opened.into(), evidence.changed.clone().into()];
    let mut store = deployment.store.create(claimed)?;
    let sealed = vec![seal(&kek, &evidence, None)?];
    let recorded = log::create(store.as_mut(), &settings, &origin, bodies, Vec::from(statements), sealed)?;

    let keyring = Keyring::empty();
    keyring.add(&root.changed, &root.pkcs8, None)?;
    let signer = Signer::new(Arc::new(keyring));
    let signed: Result<Vec<_>, _> =
        recorded.iter().map(|statement| authority::sign(&signer, statement)).collect();
    let mut certificates = signed?.into_iter();
    let (root_der, ca_der) =
        (certificates.next().unwrap_or_default(), certificates.next().unwrap_or_default());
    root.changed.certificate = Some(Digest::of(&root_der));
    ca.changed.certificate = Some(Digest::of(&ca_der));
    let (token, svid) =
        (make_key(KeyUse::Token, first(KeyUse::Token))?, make_key(KeyUse::Svid, first(KeyUse::Svid))?);

    let ids = Arc::clone(&settings.ids);
    let log = log::open(store, settings)?;
    let keys = [(&root, Some(&root_der)), (&ca, Some(&ca_der)), (&token, None), (&svid, None)];
    let sealed: Result<Vec<_>, _> =
        keys.iter().map(|(made, certificate)| seal(&kek, made, *certificate)).collect();
    let entries: Result<Vec<_>, _> = keys
        .iter()
        .map(|(made, _)| {
            Ok(NewEntry { id: ids.draw(now)?, request: None, by: None, body: made.changed.clone().into() })
        })
        .collect();
    let entries =
        entries.map_err(|error: crate::ids::RandomnessFailed| RecordError::Unavailable(error.to_string()))?;
    log.append(entries, Attached { keys: sealed?, ..Attached::default() }).await?;
    Ok((Initialised { origin, log_key, root: root_der }, log, ids))
}

fn settings(deployment: &Deployment<'_>, evidence: &Made) -> Result<LogSettings, InitError> {
    let key = Ed25519KeyPair::from_pkcs8(&evidence.pkcs8)
        .map_err(|error| KeyringError::Damaged(evidence.changed.key.clone(), error.to_string()))?;
    Ok(LogSettings {
        trust_domain: deployment.trust_domain.clone(),
        broker: deployment.broker.clone(),
        key: Arc::new(key),
        clock: Arc::clone(&deployment.clock),
        ids: Arc::new(Ids::system()),
        anchor: None,
        queue: log::QUEUE,
    })
}

fn seal(kek: &Kek, made: &Made, certificate: Option<&Vec<u8>>) -> Result<SealedKey, KekError> {
    let sealed = kek.seal(&made.pkcs8, &made.changed)?;
    Ok(SealedKey { key: made.changed.key.clone(), sealed, certificate: certificate.cloned() })
}
