//! `recover`: what is to be done when the store was put back. The log cannot go on, as somebody may hold what it does
//! not know: a new one is opened that names the gap, every signing key is replaced, and what still holds is carried
//! over. The old log stays beside it, whole.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use daypass_core::bundle::Bundle;
use daypass_core::rotation::Lifetimes;
use daypass_core::state::State;
use daypass_evidence::audit::Report;
use daypass_evidence::checkpoint::Checkpoint;
use daypass_evidence::entry::{
    BundleActivated, Change, Gap, NewEntry, OpenReason, Predecessor, RegistryChanged,
};
use daypass_evidence::note::VerifierKey;
use daypass_verify::ids::{Digest, Name, TrustDomain};

use crate::clock::Clock;
use crate::ids::{Ids, RandomnessFailed};
use crate::init::{self, Deployment, InitError, Initialised, Opening};
use crate::keyring::{Kek, KekError, KeyringError, open_evidence_key};
use crate::log::{self, Anchor, AnchorError, Attached, Log, RecordError, StartError, Started};
use crate::store::sqlite::{SqliteStore, sync_folder_of};
use crate::store::{Batch, Live, PREDECESSOR, Reader, Store as _, StoreAt, StoreError};

/// What is recovered, and from what is known.
pub struct Recovery<'a> {
    /// The trust domain.
    pub trust_domain: TrustDomain,
    /// This broker's name.
    pub broker: Name,
    /// The store that was put back.
    pub store: &'a Path,
    /// The key-encryption key.
    pub kek: &'a Path,
    /// How long the keys of the new log live.
    pub lifetimes: Lifetimes,
    /// The anchor file, where there is one.
    pub anchor: &'a Path,
    /// Checkpoints that were kept elsewhere: signed notes.
    pub checkpoints: Vec<(String, Vec<u8>)>,
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
    #[error("the checkpoint `{0}` is not one of this log: {1}")]
    Checkpoint(String, String),
    #[error(
        "the store is of another history: it has another root at size {0} than a checkpoint that was kept; restore another copy"
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
    pub aside: PathBuf,
    /// Declared objects, suspensions, and credentials of the old log that may be alive.
    pub carried: Carried,
}

/// How much was carried over.
#[derive(Debug, Clone, Copy, Default)]
pub struct Carried {
    /// Declared objects.
    pub objects: usize,
    /// Suspensions.
    pub suspensions: usize,
    /// Credentials whose endings the new log will hold.
    pub live: usize,
}

/// Where the store of a log before this one lies.
#[must_use]
pub fn aside(store: &Path, predecessor: &Predecessor) -> PathBuf {
    let shard = predecessor.origin.rsplit('/').next().unwrap_or_default();
    let mut path = store.as_os_str().to_owned();
    path.push(format!(".{shard}-{}", predecessor.size));
    path.into()
}

/// Recovers. Until the new store takes the old one's place, in one step, nothing was changed but that the old one
/// is a single file.
///
/// # Errors
/// When the broker runs, the old log does not verify, or nothing is missing.
pub async fn recover(recovery: &Recovery<'_>) -> Result<Recovered, RecoverError> {
    let alone = SqliteStore::take_alone(recovery.store)?;
    let reader = SqliteStore::open_reader(recovery.store)?;
    let old = examined(reader.as_ref(), recovery.kek)?;
    let newest = newest_known(recovery, reader.as_ref(), &old)?;
    let predecessor = Predecessor {
        origin: old.started.head.origin.clone(),
        size: old.started.head.size,
        root: Digest::from_bytes(old.started.report.root),
    };
    let gap = gap(&old.started.report, newest.as_ref());
    let mut new = recovery.store.as_os_str().to_owned();
    new.push(".recovering");
    let new = PathBuf::from(new);
    remove(&new);
    let made = open_anew(recovery, &new, reader.as_ref(), &predecessor, &gap).await;
    let (opened, carried) = made.inspect_err(|_| remove(&new))?;
    let aside = aside(recovery.store, &predecessor);
    swap(recovery, &new, &aside)?;
    drop(alone);
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
    for (name, note) in &recovery.checkpoints {
        let opened = Checkpoint::open(note, &old.key);
        known.push(opened.map_err(|error| RecoverError::Checkpoint(name.clone(), error.to_string()))?);
    }
    if let Some(other) =
        known.iter().find(|it| it.size <= size && !log::begins_with(reader, &old.started.head, it))
    {
        return Err(RecoverError::OtherHistory(other.size));
    }
    let newest = known.into_iter().filter(|it| it.size > size).max_by_key(|it| it.size);
    if newest.is_none() && at_the_end {
        return Err(RecoverError::NothingMissing { size, anchor: recovery.anchor.display().to_string() });
    }
    Ok(newest)
}

fn gap(restored: &Report, newest: Option<&Checkpoint>) -> Gap {
    let last = restored.last_time.map(|time| format!(", the last of {time}")).unwrap_or_default();
    let known = match newest {
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
    new: &Path,
    old: &dyn Reader,
    predecessor: &Predecessor,
    gap: &Gap,
) -> Result<(Initialised, Carried), RecoverError> {
    let state = log::read_state(old)?;
    let store = StoreAt::from(new);
    let deployment = Deployment {
        trust_domain: recovery.trust_domain.clone(),
        broker: recovery.broker.clone(),
        store: &store,
        kek: recovery.kek,
        bundle: None,
        lifetimes: recovery.lifetimes,
        clock: Arc::clone(&recovery.clock),
    };
    let opening = Opening {
        origin: next_origin(recovery, &predecessor.origin),
        reason: OpenReason::Recovered,
        predecessor: Some(predecessor.clone()),
        gap: Some(gap.clone()),
    };
    let claimed = store.claim()?.ok_or_else(|| InitError::Exists(store.to_string()))?;
    let (opened, log, ids) = init::found(&deployment, &claimed, opening).await?;
    let mut carried = carry(&log, &ids, recovery, &state).await?;
    drop(log);
    carried.live = carry_live(new, old).await?;
    let reader = SqliteStore::open_reader(new)?;
    log::verify_store(reader.as_ref(), &opened.log_key, None)?;
    Ok((opened, carried))
}

/// `2026h2` follows any other half-year; within one, `2026h2-r2`, `2026h2-r3` and so on.
fn next_origin(recovery: &Recovery<'_>, old: &str) -> String {
    let half_year = init::shard(recovery.clock.now());
    let old_shard = old.rsplit('/').next().unwrap_or_default();
    let shard = match old_shard.strip_prefix(&half_year) {
        None => half_year,
        Some(rest) => {
            let number: u32 = rest.strip_prefix("-r").and_then(|number| number.parse().ok()).unwrap_or(1);
            format!("{half_year}-r{}", number + 1)
        }
    };
    format!("{}/evidence/{shard}", recovery.trust_domain)
}

/// The bundle in force with all that it declares, and the suspensions.
async fn carry(
    log: &Log,
    ids: &Ids,
    recovery: &Recovery<'_>,
    state: &State,
) -> Result<Carried, RecoverError> {
    let now = recovery.clock.now();
    let mut bodies = Vec::new();
    let mut attached = Attached::default();
    if let Some(bundle) = state.bundle() {
        bodies.extend(register(bundle).into_iter().map(Into::into));
        attached.objects.push((bundle.digest(), bundle.to_object()));
    }
    let objects = bodies.len();
    bodies.extend(state.bundle().map(|bundle| {
        BundleActivated {
            digest: bundle.digest(),
            previous: None,
            proposed: None,
            decided: Vec::new(),
            bootstrap: true,
        }
        .into()
    }));
    let in_force = state.suspensions().filter(|(_, set)| set.until_ms.is_none_or(|until| now < until));
    let before = bodies.len();
    bodies.extend(in_force.map(|(_, set)| set.clone().into()));
    let suspensions = bodies.len() - before;
    let entries: Result<Vec<_>, RandomnessFailed> = bodies
        .into_iter()
        .map(|body| Ok(NewEntry { id: ids.draw(now)?, request: None, by: None, body }))
        .collect();
    log.append(entries?, attached).await?;
    Ok(Carried { objects, suspensions, live: 0 })
}

fn register(bundle: &Bundle) -> Vec<RegistryChanged> {
    let changes = bundle.changes_from(None).into_iter();
    let carried = changes.map(|(object, name, _, declared)| RegistryChanged {
        object,
        name,
        change: Change::Carried,
        was: None,
        bundle: bundle.digest(),
        declared,
    });
    carried.collect()
}

/// What may be alive of the old log ends in the new one: its writer's thread must be gone first.
async fn carry_live(new: &Path, old: &dyn Reader) -> Result<usize, RecoverError> {
    let alone = loop {
        match SqliteStore::take_alone(new) {
            Ok(alone) => break alone,
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    };
    drop(alone);
    let mut born: Vec<Live> = Vec::new();
    let mut last = None;
    loop {
        let page = old.live_after(last, 1_000)?;
        if page.is_empty() {
            break;
        }
        last = page.last().copied();
        let own = page.into_iter().filter(|live| live.index < PREDECESSOR);
        born.extend(own.map(|live| Live { index: PREDECESSOR + live.index, ..live }));
    }
    let count = born.len();
    let mut store = SqliteStore::open_file(new, false)?;
    let transaction = store.begin()?;
    let head = transaction.head().clone();
    transaction.commit(&Batch { born, ..Batch::default() }, &head)?;
    drop(store);
    drop(SqliteStore::take_alone(new)?);
    Ok(count)
}

/// The old store gets its other name, and the new one its place, in one step; the anchor follows.
fn swap(recovery: &Recovery<'_>, new: &Path, aside: &Path) -> Result<(), RecoverError> {
    let failed = |path: &Path| {
        let name = path.display().to_string();
        move |error| RecoverError::File(name, error)
    };
    if recovery.anchor.exists() {
        let mut kept = aside.as_os_str().to_owned();
        kept.push(".anchor");
        std::fs::copy(recovery.anchor, &kept).map_err(failed(recovery.anchor))?;
    }
    std::fs::hard_link(recovery.store, aside).map_err(failed(aside))?;
    std::fs::rename(new, recovery.store).map_err(failed(recovery.store))?;
    sync_folder_of(recovery.store).map_err(failed(recovery.store))?;
    if let Some(head) = SqliteStore::open_reader(recovery.store)?.head()? {
        Anchor::open(recovery.anchor)?.write(&head.checkpoint).map_err(failed(recovery.anchor))?;
    }
    Ok(())
}

fn remove(store: &Path) {
    for suffix in ["", "-wal", "-shm", "-journal"] {
        let mut path = store.as_os_str().to_owned();
        path.push(suffix);
        drop(std::fs::remove_file(path));
    }
}
