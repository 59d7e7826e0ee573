//! `recover`: what is to be done when the store was put back. The log cannot go on, as somebody may hold what it does
//! not know: a new one is opened that names the gap, every signing key is replaced, and what still holds is carried
//! over. The old log stays beside it, whole.

mod carry;
mod place;

use std::path::Path;
use std::sync::Arc;

use daypass_core::rotation::Lifetimes;
use daypass_evidence::audit::Report;
use daypass_evidence::checkpoint::Checkpoint;
use daypass_evidence::entry::{Gap, OpenReason, Predecessor};
use daypass_evidence::note::VerifierKey;
use daypass_verify::ids::{Digest, Name, TrustDomain};
use daypass_verify::time::UnixMs;

use crate::clock::Clock;
use crate::ids::RandomnessFailed;
use crate::init::{self, Deployment, InitError, Initialised, Opening};
use crate::keyring::{Kek, KekError, KeyringError, open_evidence_key};
use crate::log::{self, Anchor, AnchorError, RecordError, StartError, Started};
use crate::serve::clock_in_doubt;
use crate::store::{Reader, StoreAt, StoreError};
use carry::{Living, carry, imported, tell_of_clock, tell_of_rollback};
use place::Taken;

pub use crate::log::Carried;
pub use place::aside;

/// What is recovered, and from what is known.
pub struct Recovery<'a> {
    /// The trust domain.
    pub trust_domain: TrustDomain,
    /// This broker's name.
    pub broker: Name,
    /// The store that was put back.
    pub store: &'a StoreAt,
    /// The key-encryption key.
    pub kek: &'a Path,
    /// How long the keys of the new log live.
    pub lifetimes: Lifetimes,
    /// The anchor file, where there is one.
    pub anchor: &'a Path,
    /// Checkpoints that were kept elsewhere: signed notes, or anchor files of other brokers.
    pub checkpoints: Vec<(String, Vec<u8>)>,
    /// Whether the store may be of another history than such a checkpoint: it was written on where entries were missing.
    pub forked: bool,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
}

/// Why nothing was recovered. The store is then as it was.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each says what failed in its text")]
pub enum RecoverError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Anchor(#[from] AnchorError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Init(#[from] InitError),
    #[error(transparent)]
    Kek(#[from] KekError),
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error(transparent)]
    Random(#[from] RandomnessFailed),
    #[error("`{0}`: {1}")]
    File(String, std::io::Error),
    #[error("the new log could not take the place of the old one: {0}")]
    Swap(String),
    #[error("the checkpoint `{0}` is not one of this log: {1}")]
    Checkpoint(String, String),
    #[error(
        "the store is of another history: it has another root at size {0} than a checkpoint that was kept; restore another copy, or where there is none, say with --forked that this one is to go on"
    )]
    OtherHistory(u64),
    #[error(
        "nothing is missing: the store has the {size} entries of the newest checkpoint that is known, so serve it; if it was put back all the same, move the anchor `{anchor}` away and run this again"
    )]
    NothingMissing { size: u64, anchor: String },
}

/// What was done.
#[derive(Debug)]
pub struct Recovered {
    /// The new log.
    pub opened: Initialised,
    /// The log before it.
    pub predecessor: Predecessor,
    /// What is missing between the two.
    pub gap: Gap,
    /// Where the old store lies now.
    pub aside: StoreAt,
    /// Declared objects, suspensions, and credentials of the old log that may be alive.
    pub carried: Carried,
}

/// Recovers. Until the new store takes the old one's place, in one step, nothing was changed but that an old file is a
/// single one.
///
/// # Errors
/// When a broker runs, the old log does not verify, or nothing is missing.
pub async fn recover(recovery: &Recovery<'_>) -> Result<Recovered, RecoverError> {
    let taken = Taken::of(recovery.store)?;
    let reader = recovery.store.reader()?;
    let old = examined(reader.as_ref(), recovery.kek)?;
    let newest = newest_known(recovery, reader.as_ref(), &old)?;
    let predecessor = Predecessor {
        origin: old.started.head.origin.clone(),
        size: old.started.head.size,
        root: Digest::from_bytes(old.started.report.root),
    };
    let gap = gap(&old.started.report, newest.as_ref());
    let new = taken.make_room()?;
    let made = open_anew(recovery, &taken, &new, reader.as_ref(), &predecessor, &gap).await;
    let (opened, carried) = made.inspect_err(|_| drop(taken.make_room()))?;
    let aside = aside(recovery.store, &predecessor);
    keep_anchor(recovery.anchor, &predecessor)?;
    taken.swap(&new, &aside)?;
    if let Some(head) = recovery.store.reader()?.head()? {
        let written = Anchor::open(recovery.anchor)?.write(&head.checkpoint);
        written.map_err(|error| RecoverError::File(recovery.anchor.display().to_string(), error))?;
    }
    Ok(Recovered { opened, predecessor, gap, aside, carried })
}

struct Old {
    key: VerifierKey,
    started: Started,
}

/// The old log, all of it sound.
fn examined(reader: &dyn Reader, kek: &Path) -> Result<Old, RecoverError> {
    let head = reader.head()?.ok_or(StartError::Empty)?;
    let Some(entry) = log::evidence_key_entry(reader)? else {
        return Err(StartError::Refused(Box::new(log::verify_without_key(reader)?)).into());
    };
    let evidence = open_evidence_key(&reader.keys()?, &entry, &Kek::read(kek)?)?;
    let key =
        VerifierKey::of(&head.origin, &evidence).map_err(|error| StoreError::Damaged(error.to_string()))?;
    let started = log::examine_store(reader, &key, None)?;
    if started.report.findings.iter().all(|finding| finding.code.is_of_operation()) {
        return Ok(Old { key, started });
    }
    Err(StartError::Refused(Box::new(started.report)).into())
}

/// The newest checkpoint that anybody kept and this store does not have; each that it should have, it must have.
fn newest_known(
    recovery: &Recovery<'_>,
    reader: &dyn Reader,
    old: &Old,
) -> Result<Option<Checkpoint>, RecoverError> {
    let size = old.started.head.size;
    let anchored = match recovery.anchor.exists() {
        true => Anchor::open(recovery.anchor)?.newest(&old.key)?,
        false => None,
    };
    let at_the_end = anchored.as_ref().is_some_and(|anchored| anchored.size == size);
    let mut known: Vec<Checkpoint> = anchored.into_iter().collect();
    for (name, bytes) in &recovery.checkpoints {
        known.extend(kept_in(bytes, &old.key).map_err(|why| RecoverError::Checkpoint(name.clone(), why))?);
    }
    let excluded = |it: &&Checkpoint| it.size <= size && !log::begins_with(reader, &old.started.head, it);
    if let Some(other) = known.iter().filter(excluded).max_by_key(|it| it.size) {
        let forked = recovery.forked.then(|| other.clone());
        return forked.map(Some).ok_or(RecoverError::OtherHistory(other.size));
    }
    let newest = known.into_iter().filter(|it| it.size > size).max_by_key(|it| it.size);
    if newest.is_none() && at_the_end {
        return Err(RecoverError::NothingMissing { size, anchor: recovery.anchor.display().to_string() });
    }
    Ok(newest)
}

/// The checkpoints of this log in a file that somebody kept: a note, or the anchor of another broker.
fn kept_in(bytes: &[u8], key: &VerifierKey) -> Result<Vec<Checkpoint>, String> {
    let slots = Anchor::notes(bytes);
    if slots.is_empty() {
        return Checkpoint::open(bytes, key).map(|it| vec![it]).map_err(|error| error.to_string());
    }
    let opened: Vec<_> = slots.iter().filter_map(|note| Checkpoint::open(note, key).ok()).collect();
    if opened.is_empty() { Err("it is the anchor of another log".into()) } else { Ok(opened) }
}

fn gap(restored: &Report, newest: Option<&Checkpoint>) -> Gap {
    let last = restored.last_time.map(|time| format!(", the last of {time}")).unwrap_or_default();
    let known = match newest {
        Some(other) if other.size <= restored.size => {
            let root = Digest::from_bytes(other.root);
            format!(
                "it was forked: a checkpoint of size {} and root {root}, by the same key, is of another history, whose entries are lost",
                other.size
            )
        }
        Some(newest) => {
            let root = Digest::from_bytes(newest.root);
            format!(
                "entries up to {} at least are lost: a checkpoint of size {} and root {root} is known",
                newest.size - 1,
                newest.size
            )
        }
        None => "how many entries are lost is not known".to_owned(),
    };
    let note = format!(
        "a copy of {} entries was restored{last}; {known}; what was issued in between is not known, and every signing key was replaced",
        restored.size
    );
    Gap { from: restored.size, note }
}

/// The new log in a store of its own, with all that is carried over.
async fn open_anew(
    recovery: &Recovery<'_>,
    taken: &Taken,
    new: &StoreAt,
    old: &dyn Reader,
    predecessor: &Predecessor,
    gap: &Gap,
) -> Result<(Initialised, Carried), RecoverError> {
    let state = log::read_state(old)?;
    let clock = recovery.clock.as_ref();
    let doubt = clock_in_doubt(old, &state, predecessor.size, &recovery.broker, clock)?;
    let deployment = Deployment {
        trust_domain: recovery.trust_domain.clone(),
        broker: recovery.broker.clone(),
        store: new,
        kek: recovery.kek,
        bundle: None,
        lifetimes: recovery.lifetimes,
        clock: Arc::clone(&recovery.clock),
    };
    let living = Living::of(old)?;
    let opening = Opening {
        origin: next_origin(&recovery.trust_domain, recovery.clock.now(), &predecessor.origin),
        reason: OpenReason::Recovered,
        predecessor: Some(predecessor.clone()),
        gap: Some(gap.clone()),
        earlier: living.earlier.clone(),
    };
    let claimed = new.claim()?.ok_or_else(|| InitError::Exists(new.to_string()))?;
    let (opened, log, ids) = init::found(&deployment, &claimed, opening).await?;
    tell_of_rollback(&log, &ids, recovery.clock.now(), gap).await?;
    tell_of_clock(&log, &ids, recovery.clock.now(), doubt).await?;
    let mut carried = carry(&log, &ids, recovery.clock.now(), &state).await?;
    (carried.held, carried.imported) = (doubt.is_some(), imported(&state, recovery.clock.now()));
    drop(log);
    taken.wait_until_at_rest(new).await;
    carried.live = living.carry(new)?;
    taken.wait_until_at_rest(new).await;
    log::verify_store(new.reader()?.as_ref(), &opened.log_key, None)?;
    Ok((opened, carried))
}

/// `2026h2` follows any other half-year; within one, `2026h2-r2`, `2026h2-r3` and so on, whatever followed each of them.
fn next_origin(trust_domain: &TrustDomain, now: UnixMs, old: &str) -> String {
    let half_year = init::shard(now);
    let old_shard = old.rsplit('/').next().unwrap_or_default();
    let shard = match old_shard.strip_prefix(&half_year) {
        None => half_year,
        Some(rest) => {
            let number = rest.strip_prefix("-r").and_then(|rest| rest.split('-').next());
            let number: u32 = number.and_then(|number| number.parse().ok()).unwrap_or(1);
            format!("{half_year}-r{}", number + 1)
        }
    };
    format!("{trust_domain}/evidence/{shard}")
}

/// The anchor of the log before, beside the one that follows it: it is evidence.
fn keep_anchor(anchor: &Path, predecessor: &Predecessor) -> Result<(), RecoverError> {
    if !anchor.exists() {
        return Ok(());
    }
    let mut kept = anchor.as_os_str().to_owned();
    kept.push(format!(".{}-{}", place::shard_of(predecessor), predecessor.size));
    let copied = std::fs::copy(anchor, &kept).map(drop);
    copied.map_err(|error| RecoverError::File(anchor.display().to_string(), error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_logs_of_a_trust_domain_have_one_name() {
        let in_2026h2 = UnixMs::new(1_795_310_000_000);
        for (old, next) in [
            ("2026h1", "2026h2"),
            ("2026h1-r4", "2026h2"),
            ("2026h2", "2026h2-r2"),
            ("2026h2-7", "2026h2-r2"),
            ("2026h2-r2", "2026h2-r3"),
            ("2026h2-r2-7", "2026h2-r3"),
        ] {
            let old = format!("example.org/evidence/{old}");
            let named = next_origin(&"example.org".parse().unwrap(), in_2026h2, &old);
            assert_eq!(named, format!("example.org/evidence/{next}"), "{old}");
        }
    }
}
