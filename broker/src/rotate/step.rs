//! Steps to entries and sealed keys, in one transaction.

use daypass_core::rotation::{Step, Times};
use daypass_core::state::{State, phase};
use daypass_evidence::entry::{KeyChanged, KeyState, KeyUse, NewEntry};
use daypass_verify::ids::{Digest, KeyId};
use daypass_verify::time::UnixMs;

use super::{Authority, RotateError, Rotation};
use crate::authority;
use crate::keyring::{KeyringError, Made, make_key};
use crate::log::{Attached, Place};
use crate::store::SealedKey;

/// What one step changes.
pub(super) struct Change {
    entry: KeyChanged,
    sealed: SealedKey,
}

/// Does all of `steps` or none. A new key is in the keyring before it is in the log, so that no draft names one that
/// cannot sign.
pub(super) async fn carry_out(
    rotation: &Rotation,
    state: &State,
    steps: &[Step],
    now: UnixMs,
    authority: &mut Authority,
) -> Result<Vec<Place>, RotateError> {
    let changes = changes(rotation, state, steps, now, authority).await?;
    record(rotation, state, changes, now, authority).await
}

/// What `steps` change. Each key that they make is in the keyring.
pub(super) async fn changes(
    rotation: &Rotation,
    state: &State,
    steps: &[Step],
    now: UnixMs,
    authority: &mut Authority,
) -> Result<Vec<Change>, RotateError> {
    let held = rotation.sealed().await?;
    let mut changes = Vec::with_capacity(steps.len());
    for step in steps {
        changes.push(match step {
            Step::Make { usage, times } => make(rotation, state, *usage, *times, now, authority).await?,
            Step::Retime { key, times } => retime(rotation, known(state, key)?, &held, *times, now)?,
            Step::Destroy { key } => gone(known(state, key)?, &held, KeyState::Destroyed, now),
            Step::Compromise { key } => gone(known(state, key)?, &held, KeyState::Compromised, now),
        });
    }
    Ok(changes)
}

/// Records all of it or nothing.
pub(super) async fn record(
    rotation: &Rotation,
    state: &State,
    changes: Vec<Change>,
    now: UnixMs,
    authority: &mut Authority,
) -> Result<Vec<Place>, RotateError> {
    let mut entries = Vec::with_capacity(changes.len());
    let mut attached = under(state, authority);
    for Change { entry, sealed } in changes {
        let body = KeyChanged { reason: authority.reason.clone(), ..entry }.into();
        let id = rotation.desk.ids.draw(now)?;
        entries.push(NewEntry { id, request: authority.request, by: authority.by.clone(), body });
        #[cfg(feature = "sabotage")]
        if crate::sabotage::breaks("p9-lost") {
            continue;
        }
        attached.keys.push(sealed);
    }
    let places = rotation.desk.log.append(entries, attached).await?;
    authority.marks.clear();
    Ok(places)
}

/// What holds for all that is written for an act: decided under this state, and bought by a proof that was not spent.
fn under(state: &State, authority: &Authority) -> Attached {
    Attached { if_state: Some(state.at()), marks: authority.marks.clone(), ..Attached::default() }
}

fn known<'a>(state: &'a State, key: &KeyId) -> Result<&'a KeyChanged, RotateError> {
    Ok(state.keys().get(key).ok_or_else(|| KeyringError::Missing(key.clone()))?)
}

async fn make(
    rotation: &Rotation,
    state: &State,
    usage: KeyUse,
    times: Times,
    now: UnixMs,
    authority: &mut Authority,
) -> Result<Change, RotateError> {
    #[cfg(feature = "sabotage")]
    let times = match crate::sabotage::breaks("p9-early") {
        true => Times { sign_from: now.floor_second(), ..times },
        false => times,
    };
    let (made, certificate) = if usage == KeyUse::Ca {
        let (made, certificate) = make_ca(rotation, state, times, now, authority).await?;
        (made, Some(certificate))
    } else {
        (make_key(usage, times)?, None)
    };
    added(rotation, made, certificate)
}

/// A new key: in the keyring, and sealed.
pub(super) fn added(
    rotation: &Rotation,
    made: Made,
    certificate: Option<Vec<u8>>,
) -> Result<Change, RotateError> {
    rotation.desk.keyring.add(&made.changed, &made.pkcs8, certificate.as_deref())?;
    let sealed = rotation.kek.seal(&made.pkcs8, &made.changed)?;
    let sealed = SealedKey { key: made.changed.key.clone(), sealed, certificate };
    Ok(Change { entry: made.changed, sealed })
}

/// An issuing CA below the active root. What the root signs is recorded first.
async fn make_ca(
    rotation: &Rotation,
    state: &State,
    times: Times,
    now: UnixMs,
    authority: &mut Authority,
) -> Result<(Made, Vec<u8>), RotateError> {
    let desk = &rotation.desk;
    let root = state.signing_key(KeyUse::Root, now).ok_or(RotateError::NoRoot)?;
    let times = times.within(root.publish_until_ms);
    if times.sign_until <= times.sign_from {
        return Err(RotateError::NoRoot);
    }
    let mut made = make_key(KeyUse::Ca, times)?;
    let root_certificate = desk.keyring.certificate(&root.key).ok_or(RotateError::NoRoot)?;
    let trust_domain = state.trust_domain().ok_or(RotateError::NoRoot)?;
    let (statement, entry) = authority::issuing_statement(trust_domain, &root.key, &root_certificate, &made)?;
    let id = desk.ids.draw(now)?;
    let entry = NewEntry { id, request: authority.request, by: authority.by.clone(), body: entry.into() };
    let recorded = desk.log.record_statement(statement, entry, under(state, authority)).await?;
    authority.marks.clear();
    let certificate = authority::sign(&desk.signer, &recorded)?;
    made.changed.certificate = Some(Digest::of(&certificate));
    Ok((made, certificate))
}

/// The same key with other times: it is sealed anew, as its times are what the seal is bound to.
fn retime(
    rotation: &Rotation,
    was: &KeyChanged,
    held: &[SealedKey],
    times: Times,
    now: UnixMs,
) -> Result<Change, RotateError> {
    let blob = held.iter().find(|blob| blob.key == was.key);
    let blob = blob.ok_or_else(|| KeyringError::Missing(was.key.clone()))?;
    let mut entry = KeyChanged {
        publish_from_ms: times.publish_from,
        sign_from_ms: times.sign_from,
        sign_until_ms: times.sign_until,
        publish_until_ms: times.publish_until,
        ..was.clone()
    };
    entry.state = phase(&entry, now);
    let sealed = sealed_anew(rotation, blob, was, &entry)?;
    Ok(Change { entry, sealed: SealedKey { sealed, ..blob.clone() } })
}

/// The secret of `was`, where it has one here, sealed for what its entry now says.
fn sealed_anew(
    rotation: &Rotation,
    blob: &SealedKey,
    was: &KeyChanged,
    entry: &KeyChanged,
) -> Result<Vec<u8>, RotateError> {
    if blob.sealed.is_empty() {
        return Ok(Vec::new());
    }
    let secret = rotation.kek.unseal(&blob.sealed, was)?;
    Ok(rotation.kek.seal(&secret, entry)?)
}

/// A key that got its certificates, one behind the other, and the times that they allow.
pub(super) async fn certified(
    rotation: &Rotation,
    was: &KeyChanged,
    entry: KeyChanged,
    certificates: Vec<u8>,
) -> Result<Change, RotateError> {
    let held = rotation.sealed().await?;
    let blob = held.iter().find(|blob| blob.key == was.key);
    let blob = blob.ok_or_else(|| KeyringError::Missing(was.key.clone()))?;
    let secret = rotation.kek.unseal(&blob.sealed, was)?;
    rotation.desk.keyring.add(&entry, &secret, Some(&certificates))?;
    let sealed = rotation.kek.seal(&secret, &entry)?;
    let sealed = SealedKey { key: entry.key.clone(), sealed, certificate: Some(certificates) };
    Ok(Change { entry, sealed })
}

/// A root that is somebody else's.
pub(super) fn root(
    rotation: &Rotation,
    entry: KeyChanged,
    certificate: Vec<u8>,
) -> Result<Change, RotateError> {
    rotation.desk.keyring.add_root(&entry, &certificate)?;
    let sealed = SealedKey { key: entry.key.clone(), sealed: Vec::new(), certificate: Some(certificate) };
    Ok(Change { entry, sealed })
}

/// A key whose secret goes. A compromised one is unpublished with it.
fn gone(was: &KeyChanged, held: &[SealedKey], state: KeyState, now: UnixMs) -> Change {
    let certificate = held.iter().find(|blob| blob.key == was.key).and_then(|blob| blob.certificate.clone());
    let mut entry = KeyChanged { state, ..was.clone() };
    if state == KeyState::Compromised {
        entry.sign_until_ms = was.sign_until_ms.min(now);
        entry.publish_until_ms = was.publish_until_ms.min(now);
    }
    Change { entry, sealed: SealedKey { key: was.key.clone(), sealed: Vec::new(), certificate } }
}
