//! The entries that bring a bundle into force: what it changes, then the activation, in one transaction.

use std::sync::Arc;

use daypass_core::bundle::Bundle;
use daypass_core::state::State;
use daypass_evidence::entry::{BundleActivated, NewEntry, RegistryChanged};
use daypass_verify::time::UnixMs;

use crate::ids::{Ids, RandomnessFailed};
use crate::log::{Attached, Log, Place, RecordError};

/// Brings `bundle` into force on the broker's own host, without a second person: at `init`, and by `dev`, whose
/// log says that it is one. None where it is in force already.
///
/// # Errors
/// When the log cannot be written.
pub async fn bootstrap(
    log: &Log,
    ids: &Ids,
    bundle: &Bundle,
    now: UnixMs,
) -> Result<Option<Place>, RecordError> {
    let state = log.state();
    if state.bundle().is_some_and(|inforce| inforce.digest() == bundle.digest()) {
        return Ok(None);
    }
    let entries =
        entries(&state, bundle, ids, now).map_err(|error| RecordError::Unavailable(error.to_string()))?;
    let attached = Attached { objects: vec![(bundle.digest(), bundle.to_object())], ..Attached::default() };
    Ok(log.append(entries, attached).await?.pop())
}

fn entries(
    state: &State,
    bundle: &Bundle,
    ids: &Ids,
    now: UnixMs,
) -> Result<Vec<NewEntry>, RandomnessFailed> {
    let before: Option<&Arc<Bundle>> = state.bundle();
    let digest = bundle.digest();
    let changes =
        bundle.changes_from(before.map(Arc::as_ref)).into_iter().map(|(object, name, change, declared)| {
            let was = state.declared_at(object, name.as_str());
            RegistryChanged {
                object,
                name,
                change,
                was,
                bundle: digest,
                declared,
                since_ms: None,
                next_due_ms: None,
            }
            .into()
        });
    let activated = BundleActivated {
        digest,
        previous: before.map(|bundle| bundle.digest()),
        proposed: None,
        decided: Vec::new(),
        bootstrap: true,
    };
    changes
        .chain(std::iter::once(activated.into()))
        .map(|body| Ok(NewEntry { id: ids.draw(now)?, request: None, by: None, body }))
        .collect()
}
