//! The scrubber: reads all logs in the store again, once a day and no faster than it is told. What it finds, and what
//! any other reader finds, raises an alarm and stops issuance.

mod closed;
mod pass;
mod progress;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use daypass_evidence::checkpoint::Checkpoint;
use daypass_evidence::entry::{Alarm, AlarmState, NewEntry};
use daypass_evidence::note::VerifierKey;
use daypass_verify::time::UnixMs;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

pub use pass::{Damage, Pass, Step};
pub use progress::Progress;

use crate::index::Readers;
use crate::issue::Desk;
use crate::log::{self, Anchor, Attached, StartError, Started};
use crate::serve::{Settings, append};
use crate::shelf::Shelf;
use crate::store::{Head, Reader, StoreAt, StoreError};
use crate::telemetry;

/// Entries of one step: a reader is held for no longer, and what was read stays near the core that hashes it.
pub const STEP: u32 = 128;

/// The code of alarms about entries that were changed.
pub const LEAF_MISMATCH: &str = "LEAF_MISMATCH";

/// How often the file is written while a pass is under way.
const NOTE_EVERY: u64 = 65_536;

/// How long to wait after a store that could not be read.
const AGAIN: Duration = Duration::from_secs(10);

/// How often and how fast.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    /// From the end of a pass to the beginning of the next; zero: never.
    pub every: Duration,
    /// Entries a second at most.
    pub entries_per_s: u32,
}

impl Default for Schedule {
    fn default() -> Self {
        Self { every: Duration::from_secs(86_400), entries_per_s: 20_000 }
    }
}

/// Examines the newest log of the store at `store` before anything is signed: as [`log::examine_start`], but all of it,
/// and those before it, where one was found to be changed.
///
/// # Errors
/// When the store cannot be read.
pub fn examine(
    store: &StoreAt,
    reader: &dyn Reader,
    key: &VerifierKey,
    anchor: Option<(&Anchor, &Path)>,
) -> Result<Started, StartError> {
    let file = anchor.map(|(_, path)| Progress::file(path));
    let closed = reader.closed()?;
    let progress = file.as_deref().map(|file| Progress::read(file, &origins(&closed, key.name())));
    let anchor = anchor.map(|(anchor, _)| anchor);
    let Some((mut progress, file)) = progress.zip(file).filter(|(progress, _)| progress.damage.is_some())
    else {
        return log::examine_start(reader, key, anchor);
    };
    let mut started = log::examine_store(reader, key, anchor)?;
    closed::examine(store, reader, key, &mut started.report)?;
    if started.report.findings.iter().all(|finding| finding.code.is_of_operation()) {
        progress.damage = None;
        note(&progress, &file);
    }
    Ok(started)
}

/// Starts the scrubber of the logs on `shelf`, the newest of which was found to be as `started` says, and what stops
/// issuance when it, or any reader of the shelf that is given back, finds something changed. Beside that what reads the
/// newest one.
pub fn start(
    desk: &Desk,
    shelf: Shelf,
    started: &Started,
    settings: &Settings,
) -> (Shelf, Readers, [JoinHandle<()>; 2]) {
    let (tell, damage) = mpsc::channel(1);
    let shelf = shelf.telling(&tell);
    let (file, schedule) = (Progress::file(&settings.anchor), settings.scrub);
    let closed: Vec<Head> = shelf.all_closed().map(|closed| closed.head.as_ref().clone()).collect();
    let mut progress = Progress::read(&file, &origins(&closed, &started.head.origin));
    if started.report.from == 0 && closed.is_empty() {
        complete(&mut progress, &file, desk.clock.now());
    }
    let scrubber = Scrubber { desk: desk.clone(), shelf: shelf.clone(), schedule, file, progress };
    let tasks = [tokio::spawn(scrubber.run(tell)), tokio::spawn(stop_on_damage(desk.clone(), damage))];
    let newest = shelf.newest().clone();
    (shelf, newest, tasks)
}

/// All logs in a store, the newest last.
fn origins<'a>(closed: &'a [Head], newest: &'a str) -> Vec<&'a str> {
    closed.iter().map(|head| head.origin.as_str()).chain([newest]).collect()
}

struct Scrubber {
    desk: Desk,
    shelf: Shelf,
    schedule: Schedule,
    file: PathBuf,
    progress: Progress,
}

impl Scrubber {
    /// Scrubs for as long as the broker runs, or until something was changed.
    async fn run(mut self, damage: mpsc::Sender<String>) {
        if self.schedule.every.is_zero() {
            return;
        }
        loop {
            let due = until_due(&self.progress, self.desk.clock.now(), self.schedule.every);
            tokio::time::sleep(due).await;
            match self.one_pass().await {
                Ok(None) => {
                    complete(&mut self.progress, &self.file, self.desk.clock.now());
                    clear_alarms(&self.desk).await;
                }
                Ok(Some(Damage(what))) => {
                    self.progress.damage = Some(what.clone());
                    self.progress.begin_again();
                    note(&self.progress, &self.file);
                    drop(damage.send(what).await);
                    return;
                }
                Err(error) => {
                    tracing::warn!(%error, "the log could not be scrubbed, and is tried again");
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }

    /// Reads each closed log, then the newest up to its head as it is now. None where everything is as it was signed.
    async fn one_pass(&mut self) -> Result<Option<Damage>, StoreError> {
        let closed: Vec<_> = self.shelf.all_closed().cloned().collect();
        let next = closed.iter().skip(1).map(|it| it.readers.clone()).chain([self.shelf.newest().clone()]);
        let done = self.progress.logs_done(closed.iter().map(|it| it.head.origin.as_str()));
        for (log, next) in closed.iter().zip(next).skip(done) {
            let origin = &log.head.origin;
            self.progress.is_in(Some(origin));
            let found = match closed::named_by_next(&next, &log.head).await? {
                None => self.read(&log.readers, &log.head).await?,
                found => found,
            };
            if let Some(Damage(what)) = found {
                return Ok(Some(Damage(format!("`{origin}`: {what}"))));
            }
        }
        self.progress.is_in(None);
        let head = Arc::clone(&self.desk.log.published().head);
        self.read(&self.shelf.newest().clone(), &head).await
    }

    /// Reads one log up to `head`.
    async fn read(&mut self, readers: &Readers, head: &Head) -> Result<Option<Damage>, StoreError> {
        let key = self.desk.log.key().of_shard(&head.origin);
        let end = match key.map(|key| Checkpoint::open(&head.checkpoint, &key)) {
            Some(Ok(end)) => end,
            Some(Err(error)) => {
                return Ok(Some(Damage(format!("the head is not signed by this log's key: {error}"))));
            }
            None => return Ok(Some(Damage("the head names no log".into()))),
        };
        let (began, mut read) = (Instant::now(), 0_u64);
        let mut pass = Pass::after(self.progress.tree());
        loop {
            let (end, mut going) = (end.clone(), pass);
            let step;
            (step, pass) = readers.run(move |reader| Ok((going.step(reader, &end, STEP)?, going))).await?;
            match step {
                Step::Done => return Ok(None),
                Step::Damaged(damage) => return Ok(Some(damage)),
                Step::Read(count) => read += count,
            }
            if pass.tree().size() / NOTE_EVERY != self.progress.tree().size() / NOTE_EVERY {
                self.progress.came_to(pass.tree());
                note(&self.progress, &self.file);
            }
            let rate = f64::from(self.schedule.entries_per_s.max(1));
            let due = Duration::from_secs_f64(read as f64 / rate);
            tokio::time::sleep(due.saturating_sub(began.elapsed())).await;
            metrics::gauge!(telemetry::SCRUB_RATE).set(read as f64 / began.elapsed().as_secs_f64());
        }
    }
}

/// All was read, and is sound.
fn complete(progress: &mut Progress, file: &Path, now: UnixMs) {
    progress.done_ms = Some(now);
    progress.begin_again();
    metrics::gauge!(telemetry::SCRUBBED_AT).set(now.seconds() as f64);
    note(progress, file);
}

/// What was changed when an alarm was raised is as it was signed again.
async fn clear_alarms(desk: &Desk) {
    let state = desk.log.state();
    let standing = state.alarms().filter(|(_, alarm)| alarm.code == LEAF_MISMATCH);
    for (index, _) in standing {
        let alarm = Alarm {
            code: LEAF_MISMATCH.into(),
            state: AlarmState::Cleared,
            raised: Some(index),
            detail: Some("the whole log was read, and is as it was signed".into()),
        };
        if let Err(error) = append(desk, alarm.into()).await {
            tracing::error!(%error, "that an alarm is over could not be recorded");
        }
    }
}

fn until_due(progress: &Progress, now: UnixMs, every: Duration) -> Duration {
    let Some(done) = progress.done_ms else { return Duration::ZERO };
    let since = Duration::from_millis(u64::try_from(now.millis_since(done)).unwrap_or_default());
    every.saturating_sub(since)
}

fn note(progress: &Progress, file: &Path) {
    if let Err(error) = progress.write(file) {
        tracing::warn!(%error, file = %file.display(), "the scrubber's progress could not be written");
    }
}

/// Waits for the first thing that any reader found to be changed: stops issuance, and writes the alarm.
async fn stop_on_damage(desk: Desk, mut damage: mpsc::Receiver<String>) {
    let Some(what) = damage.recv().await else { return };
    tracing::error!(%what, "the log was changed: nothing is issued any more");
    desk.log.stop_issuing(&format!("the log was changed: {what}; run `daypass-broker verify`"));
    let alarm = Alarm {
        code: LEAF_MISMATCH.into(),
        state: AlarmState::Raised,
        raised: None,
        detail: Some(what.chars().take(512).collect()),
    };
    let Ok(id) = desk.ids.draw(desk.clock.now()) else { return };
    let entry = NewEntry { id, request: None, by: None, body: alarm.into() };
    if let Err(error) = desk.log.append(vec![entry], Attached::default()).await {
        tracing::error!(%error, "the alarm could not be recorded");
    }
}
