//! What issues, made from a store that was verified.

use std::sync::Arc;

use super::{ServeError, Settings, Verified};
use crate::ids::Ids;
use crate::issue::Desk;
use crate::keyring::{Kek, Keyring};
use crate::log::{self, LogSettings, RecordError, Started};
use crate::signer::Signer;

/// What issues, on a log that was verified, with the keys that its state names.
pub(super) fn open_desk(
    mut opened: Verified,
    settings: &Settings,
) -> Result<(Desk, Arc<Kek>, Started), ServeError> {
    opened.opened.store.keep_room()?;
    let ids = Arc::new(Ids::system());
    let sealed = opened.reader.keys()?;
    let log = log::open(
        opened.opened.store,
        LogSettings {
            trust_domain: settings.trust_domain.clone(),
            broker: settings.broker.clone(),
            key: Arc::new(opened.evidence),
            clock: Arc::clone(&settings.clock),
            ids: Arc::clone(&ids),
            anchor: opened.anchor,
            queue: settings.queue,
        },
    )?;
    if log.published().head.shard != opened.started.head.shard {
        // Another broker closed the log that was verified.
        return Err(RecordError::Turned.into());
    }
    let (configured, state) = (settings.trust_domain.clone(), log.state());
    if let Some(log) = state.trust_domain().filter(|log| **log != configured) {
        return Err(ServeError::OtherTrustDomain { configured, log: log.clone() });
    }
    let keyring = Arc::new(Keyring::open(&sealed, &log.state(), &opened.kek)?);
    let desk = Desk {
        signer: Signer::new(Arc::clone(&keyring) as Arc<_>),
        keyring,
        clock: Arc::clone(&settings.clock),
        ids,
        issuer: settings.issuer.as_str().into(),
        log,
    };
    Ok((desk, Arc::new(opened.kek), opened.started))
}
