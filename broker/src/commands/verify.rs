//! `verify`: a whole store, offline, without a secret: the log's own public key is enough. A log that goes on for
//! another is verified together with it, and so is their link.

use std::cell::Cell;
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use daypass_broker::config::Config;
use daypass_broker::log::{Anchor, Started, examine_from, examine_watched, next_half_year};
use daypass_broker::recover;
use daypass_broker::serve::ServeError;
use daypass_broker::store::{Reader, StoreAt};
use daypass_evidence::entry::{Body, Entry, LogOpened, Predecessor};
use daypass_evidence::note::VerifierKey;
use daypass_verify::ids::Digest;

use super::{Failure, print_report};

/// How often progress is shown.
const SHOWN_EVERY: Duration = Duration::from_millis(500);

/// What is asked for.
pub(super) struct Wanted {
    pub(super) config: Option<PathBuf>,
    pub(super) store: Option<PathBuf>,
    pub(super) sealed: Option<PathBuf>,
    pub(super) key: Option<String>,
    pub(super) anchor: Option<PathBuf>,
    pub(super) predecessor: Option<PathBuf>,
    pub(super) from: Option<u64>,
    pub(super) json: bool,
}

pub(super) fn run(wanted: &Wanted) -> Result<(), Failure> {
    let config = wanted.config.as_deref().map(Config::read).transpose()?;
    let configured = config.as_ref().map(super::store::store_at).transpose()?;
    let store = wanted.store.clone().map(StoreAt::from).or(configured);
    let anchor = wanted
        .anchor
        .clone()
        .or_else(|| config.as_ref().map(|config| config.store.anchor.clone()).filter(|path| path.exists()));
    let store = store.ok_or_else(|| Failure::Value("name the store with --config or --store".into()))?;
    let store = if wanted.sealed.is_some() { store.sealed_in(wanted.sealed.as_deref()) } else { store };
    // What is examined is not written.
    let newest = store.reader().map_err(ServeError::from)?;
    let mut findings = verified(newest.as_ref(), wanted.key.as_deref(), anchor.as_deref(), wanted)?;
    if wanted.key.is_none() && !wanted.json {
        println!(
            "the checkpoint was checked with the key that the log itself names: give the one you kept with --key"
        );
    }
    findings += before(&store, wanted)?;
    if !wanted.json {
        let key = named_by_log(newest.as_ref())?;
        if let Some(next) = next_half_year(key.name()).and_then(|origin| key.of_shard(&origin)) {
            println!(
                "next log {next}   (its name and key from the next half-year on: witnesses must know them)"
            );
        }
    }
    if findings == 0 { Ok(()) } else { Err(Failure::NotVerified(findings)) }
}

/// Verifies the logs before the newest, in its store and before that, as far back as they are at hand, and counts what
/// was found.
fn before(newest: &StoreAt, wanted: &Wanted) -> Result<usize, Failure> {
    let mut findings = 0;
    let mut given = wanted.predecessor.clone();
    let mut store = newest.clone();
    let mut reader = store.reader().map_err(ServeError::from)?;
    while let Some(named) = first_entry(reader.as_ref())?.and_then(|opened| opened.predecessor) {
        let shard = reader.head().map_err(ServeError::from)?.map_or(0, |head| head.shard);
        let key = if shard > 0 { wanted.key.as_deref() } else { None };
        if shard == 0 {
            let beside = || Some(recover::aside(newest, &named)).filter(|at| at.reader().is_ok());
            let named_by_caller = given.take().map(|path| StoreAt::File(path).sealed_in(newest.sealed()));
            let Some(older) = named_by_caller.or_else(beside) else {
                eprintln!(
                    "`{}`, the log before it, is not at hand: give it with --predecessor",
                    named.origin
                );
                break;
            };
            store = older;
        }
        let older = if shard > 0 { store.shard(shard - 1) } else { store.reader() };
        reader = older.map_err(ServeError::from)?;
        findings += verified(reader.as_ref(), key, None, wanted)?;
        findings += link(reader.as_ref(), &store, &named, wanted.json)?;
    }
    Ok(findings)
}

/// Verifies one log, prints what was found, and counts it.
fn verified(
    reader: &dyn Reader,
    key: Option<&str>,
    anchor: Option<&Path>,
    wanted: &Wanted,
) -> Result<usize, Failure> {
    let key: VerifierKey = match key {
        Some(text) => {
            let kept: VerifierKey = text.parse().map_err(|error| Failure::Value(format!("{error}")))?;
            // One key signs for all logs that follow each other in one store.
            let head = reader.head().map_err(ServeError::from)?;
            head.and_then(|head| kept.of_shard(&head.origin)).unwrap_or(kept)
        }
        None => named_by_log(reader)?,
    };
    let anchor = anchor.map(Anchor::open).transpose().map_err(ServeError::from)?;
    let began = Instant::now();
    let started = match wanted.from {
        Some(from) => examine_from(reader, &key, anchor.as_ref(), from),
        None => watched(reader, &key, anchor.as_ref()),
    };
    let Started { report, .. } = started.map_err(ServeError::from)?;
    if wanted.json {
        println!("{}", serde_json::to_string(&report).unwrap_or_default());
        return Ok(report.findings.len());
    }
    print_report(&report);
    let (read, seconds) = (report.size.saturating_sub(report.from), began.elapsed().as_secs_f64());
    println!("{read} entries read in {seconds:.1} s, {:.0} a second", read as f64 / seconds);
    if report.from > 0 {
        println!("of those before entry {}, only what the state is folded from was read", report.from);
    }
    Ok(report.findings.len())
}

/// Examines a whole store, and shows on a terminal how far it came.
fn watched(
    reader: &dyn Reader,
    key: &VerifierKey,
    anchor: Option<&Anchor>,
) -> Result<Started, daypass_broker::log::StartError> {
    let terminal = std::io::stderr().is_terminal();
    let shown = Cell::new(Instant::now());
    let size = reader.head()?.map_or(0, |head| head.size);
    let examined = examine_watched(reader, key, anchor, &|index| {
        if terminal && index % 1_024 == 0 && shown.get().elapsed() > SHOWN_EVERY {
            shown.set(Instant::now());
            drop(write!(std::io::stderr(), "\r{index} of {size} entries"));
        }
    });
    if terminal {
        drop(write!(std::io::stderr(), "\r\x1b[K"));
    }
    examined
}

/// Whether the store at `older` is what the newer log says of it: how many findings there are.
fn link(reader: &dyn Reader, older: &StoreAt, named: &Predecessor, json: bool) -> Result<usize, Failure> {
    let head = reader.head().map_err(ServeError::from)?;
    let found = head.map(|head| {
        let frontier = daypass_evidence::tree::Frontier::from_parts(head.size, head.frontier);
        let root = frontier.map(|frontier| Digest::from_bytes(frontier.root())).ok();
        (head.origin, head.size, root)
    });
    let same = found == Some((named.origin.clone(), named.size, Some(named.root)));
    match (same, json) {
        (true, true) => {}
        (true, false) => println!("the newer log follows `{}` at its size {}", named.origin, named.size),
        (false, _) => eprintln!(
            "WRONG_LOG: the newer log follows `{}` at size {} and root {}, and `{}` is another",
            named.origin, named.size, named.root, older
        ),
    }
    Ok(usize::from(!same))
}

/// The key in the log's first entry.
pub(super) fn named_by_log(reader: &dyn Reader) -> Result<VerifierKey, Failure> {
    let opened = first_entry(reader)?;
    opened.and_then(|opened| opened.key.parse().ok()).ok_or_else(|| {
        Failure::Value("the log's first entry names no key: give the one you kept with --key".into())
    })
}

fn first_entry(reader: &dyn Reader) -> Result<Option<LogOpened>, Failure> {
    let rows = reader.rows(0, 1).map_err(ServeError::from)?;
    Ok(rows.first().and_then(|row| match Entry::read(&row.bytes).ok()?.body {
        Body::LogOpened(opened) => Some(*opened),
        _ => None,
    }))
}
