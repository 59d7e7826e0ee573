//! The log alone: what an entry costs on disk and in memory, how long a start takes, how fast all of it is verified,
//! and how long one entry and its proof take to be found.

mod entries;
mod figures;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use daypass_broker::clock::{Clock as _, SystemClock};
use daypass_broker::ids::Ids;
use daypass_broker::index::{self, StoredNodes};
use daypass_broker::keyring::{Kek, open_evidence_key};
use daypass_broker::log::{self, Anchor, Attached, LogSettings, evidence_key_entry};
use daypass_broker::scrub::{Pass, STEP, Step};
use daypass_broker::store::sqlite::SqliteStore;
use daypass_broker::store::{Reader, Store as _};
use daypass_evidence::checkpoint::Checkpoint;
use daypass_evidence::entry::Entry;
use daypass_evidence::note::VerifierKey;
use daypass_evidence::tree::{inclusion_proof, verify_inclusion};
use hdrhistogram::Histogram;

use crate::Fault;
use crate::process::Process;
use entries::{Passing, Writing};
use figures::{Figures, Spread};

/// How many lookups are measured.
const LOOKUPS: u64 = 500;

/// Entries of one append, and appends that are on their way together.
const OF_ONE: usize = 250;
const TOGETHER: usize = 4;

/// Where the parts of the measured deployment lie.
struct Files {
    store: PathBuf,
    kek: PathBuf,
    anchor: PathBuf,
}

impl Files {
    fn in_folder(folder: &Path) -> Self {
        Self { store: folder.join("daypass.db"), kek: folder.join("kek"), anchor: folder.join("anchor") }
    }
}

/// Writes a log of `entries` entries into a folder of its own, measures it, and removes it.
pub(crate) fn run(entries: u64, folder: Option<PathBuf>, json: bool) -> Result<(), Fault> {
    let beside = match folder {
        Some(folder) => folder,
        None => std::env::current_exe()?.parent().map(Path::to_owned).ok_or("no folder")?,
    };
    let folder = tempfile::Builder::new().prefix("bench-log-").tempdir_in(beside)?;
    let files = Files::in_folder(folder.path());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let (key, append) = runtime.block_on(append(&files, entries))?;
    drop(runtime);
    let started: Started = restart(folder.path())?;
    let reader = SqliteStore::open_reader(&files.store)?;
    let reader = reader.as_ref();
    let (scrub_per_s, audit_per_s, audit_cpu_us) = verify(reader, &key)?;
    let size = reader.head()?.ok_or("no head")?.size;
    let [by_id, by_index, proof] = lookups(reader, size)?;
    let figures = Figures {
        entries: size,
        append_per_s: append.per_s,
        entry_bytes: append.entry_bytes,
        disk_bytes: std::fs::metadata(&files.store)?.len() as f64 / size as f64,
        memory_mib: append.memory_mib,
        restart_s: started.seconds,
        restart_memory_mib: started.memory_mib,
        bytes_per_s_core: scrub_per_s,
        meaning_per_s: audit_per_s,
        meaning_per_s_core: 1e6 / audit_cpu_us,
        by_id,
        by_index,
        proof,
    };
    if json {
        println!("{}", serde_json::to_string(&figures)?)
    } else {
        figures.print()
    }
    Ok(())
}

struct Appended {
    per_s: f64,
    entry_bytes: f64,
    memory_mib: f64,
}

async fn append(files: &Files, entries: u64) -> Result<(VerifierKey, Appended), Fault> {
    let key = entries::init(files).await?;
    let clock = Arc::new(Passing::from(SystemClock.now()));
    let store = SqliteStore::open_file(&files.store, false)?;
    let reader = store.reader()?;
    let named = evidence_key_entry(reader.as_ref())?.ok_or("no evidence key")?;
    let signer = open_evidence_key(&reader.keys()?, &named, &Kek::read(&files.kek)?)?;
    let ids = Arc::new(Ids::system());
    let log = log::open(
        Box::new(store),
        LogSettings {
            trust_domain: entries::TRUST_DOMAIN.parse()?,
            broker: "b1".parse()?,
            key: Arc::new(signer),
            clock: Arc::clone(&clock) as Arc<_>,
            ids: Arc::clone(&ids),
            anchor: Some(Anchor::open(&files.anchor)?),
            queue: daypass_broker::log::QUEUE,
        },
    )?;
    let mut writing = Writing::new(&log, ids, clock)?;
    let began = Instant::now();
    while writing.written() < entries {
        // Endings name issuances by their indexes: so the order in which appends are asked for is the order of the log.
        let batches: Vec<_> = (0..TOGETHER).map(|_| writing.batch(OF_ONE)).collect::<Result<_, _>>()?;
        let appends = batches.into_iter().map(|batch| log.append(batch, Attached::default()));
        for appended in futures::future::join_all(appends).await {
            appended?;
        }
    }
    let per_s = writing.written() as f64 / began.elapsed().as_secs_f64();
    let memory_mib = Process(std::process::id()).memory_kib()? as f64 / 1024.0;
    drop(log);
    // The writer puts its store away once nobody can ask it for anything.
    tokio::time::sleep(Duration::from_millis(200)).await;
    rusqlite::Connection::open(&files.store)?.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    let appended = Appended { per_s, entry_bytes: writing.bytes_each(), memory_mib };
    Ok((key, appended))
}

/// What a process says of its own start.
#[derive(serde::Serialize, serde::Deserialize)]
pub(crate) struct Started {
    seconds: f64,
    memory_mib: f64,
}

/// A start in a process of its own: from its first instruction until it could sign.
fn restart(folder: &Path) -> Result<Started, Fault> {
    let output = Command::new(std::env::current_exe()?).arg("log-start").arg(folder).output()?;
    serde_json::from_slice(&output.stdout)
        .map_err(|_| format!("no start: {}", String::from_utf8_lossy(&output.stderr)).into())
}

/// What `restart` runs.
pub(crate) fn start(folder: &Path) -> Result<(), Fault> {
    let began = Instant::now();
    let files = Files::in_folder(folder);
    let store = files.store.as_path().into();
    let opened = daypass_broker::serve::open_verified(&store, &files.kek, Some(&files.anchor))?;
    log::read_state(opened.reader.as_ref())?;
    let seconds = began.elapsed().as_secs_f64();
    let memory_mib = Process(std::process::id()).memory_kib()? as f64 / 1024.0;
    println!("{}", serde_json::to_string(&Started { seconds, memory_mib })?);
    Ok(())
}

/// All bytes on one core; then all of what they mean, on all cores: entries in a second, and microseconds of a core
/// for each.
fn verify(reader: &dyn Reader, key: &VerifierKey) -> Result<(f64, f64, f64), Fault> {
    let head = reader.head()?.ok_or("no head")?;
    let end = Checkpoint::open(&head.checkpoint, key)?;
    let (began, mut pass) = (Instant::now(), Pass::new());
    while let Step::Read(_) = pass.step(reader, &end, STEP)? {}
    if pass.tree().root() != end.root {
        return Err("the log has another root than its checkpoint".into());
    }
    let bytes_per_s = head.size as f64 / began.elapsed().as_secs_f64();
    let (began, before) = (Instant::now(), cpu_us()?);
    let report = log::examine_store(reader, key, None)?.report;
    if let Some(finding) = report.findings.first() {
        return Err(format!("{} findings, the first: {finding}", report.findings.len()).into());
    }
    let seconds = began.elapsed().as_secs_f64();
    Ok((bytes_per_s, head.size as f64 / seconds, (cpu_us()? - before) / head.size as f64))
}

/// The time of this process, threads that ended included.
fn cpu_us() -> Result<f64, Fault> {
    let at = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Ok(at.tv_sec as f64 * 1e6 + at.tv_nsec as f64 / 1e3)
}

/// By id, by index, and the proof of its place, of entries all over the log.
fn lookups(reader: &dyn Reader, size: u64) -> Result<[Spread; 3], Fault> {
    let root = reader.head()?.ok_or("no head")?;
    let root = daypass_evidence::tree::Frontier::from_parts(size, root.frontier)?.root();
    let mut times = [(); 3].map(|()| Histogram::<u64>::new_with_bounds(1, 60_000_000, 3));
    for i in 0..LOOKUPS {
        let index = (i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 16) % size;
        let mut timed = |which: usize, began: Instant| -> Result<(), Fault> {
            let slot = times.get_mut(which).and_then(|slot| slot.as_mut().ok()).ok_or("no histogram")?;
            slot.saturating_record(u64::try_from(began.elapsed().as_micros())?);
            Ok(())
        };
        let began = Instant::now();
        let row = reader.rows(index, 1)?.pop().ok_or("no such entry")?;
        timed(1, began)?;
        let id = Entry::read(&row.bytes)?.envelope.id;
        let began = Instant::now();
        let found = index::find(reader, &id)?;
        timed(0, began)?;
        if found.map(|row| row.index) != Some(index) {
            return Err(format!("entry {index} was not found by its id").into());
        }
        let began = Instant::now();
        let path = inclusion_proof(index, size, &StoredNodes::of(reader)).ok_or("no proof")?;
        timed(2, began)?;
        verify_inclusion(row.leaf, index, size, &path, root)?;
    }
    let mut spreads = Vec::new();
    for one in times {
        spreads.push(Spread::of(&one?));
    }
    spreads.try_into().map_err(|_| "three were measured".into())
}
