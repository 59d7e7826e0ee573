//! The scrubber: reads the whole log again, once a day and no faster than it is told. What it finds, and what any
//! other reader finds, raises an alarm and stops issuance.

mod pass;
mod progress;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use daypass_evidence::checkpoint::Checkpoint;
use daypass_evidence::entry::{Alarm, AlarmState, NewEntry};
use daypass_verify::time::UnixMs;
use tokio::sync::mpsc;

pub use pass::{Damage, Pass, Step};
pub use progress::Progress;

use crate::index::Readers;
use crate::issue::Desk;
use crate::log::Attached;
use crate::store::StoreError;
use crate::telemetry;

/// Entries of one step: a reader is held for no longer.
const STEP: u32 = 512;

/// How often the file is written while a pass is under way.
const NOTE_EVERY: u64 = 65_536;

/// How long to wait after a store that could not be read.
const AGAIN: Duration = Duration::from_secs(10);

/// How often and how fast.
#[derive(Debug, Clone)]
pub struct Schedule {
    /// From the end of a pass to the beginning of the next; zero: never.
    pub every: Duration,
    /// Entries a second at most.
    pub entries_per_s: u32,
    /// Where progress is kept.
    pub file: PathBuf,
}

/// Scrubs for as long as the broker runs; what was changed is told to `damage`.
pub async fn run(desk: Desk, readers: Readers, schedule: Schedule, damage: mpsc::Sender<String>) {
    let origin = desk.log.published().head.origin.clone();
    let mut progress = Progress::read(&schedule.file, &origin);
    if schedule.every.is_zero() {
        return;
    }
    loop {
        if progress.damage.is_none() {
            tokio::time::sleep(until_due(&progress, desk.clock.now(), schedule.every)).await;
        }
        match one_pass(&desk, &readers, &schedule, &mut progress).await {
            Ok(None) => {
                progress.done_ms = Some(desk.clock.now());
                metrics::gauge!(telemetry::SCRUBBED_AT).set(desk.clock.now().seconds() as f64);
                progress.came_to(Pass::new().tree());
                note(&progress, &schedule);
            }
            Ok(Some(Damage(what))) => {
                progress.damage = Some(what.clone());
                progress.came_to(Pass::new().tree());
                note(&progress, &schedule);
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

fn until_due(progress: &Progress, now: UnixMs, every: Duration) -> Duration {
    let Some(done) = progress.done_ms else { return Duration::ZERO };
    let since = Duration::from_millis(u64::try_from(now.millis_since(done)).unwrap_or_default());
    every.saturating_sub(since)
}

/// Reads up to the head as it is now. None where everything is as it was signed.
async fn one_pass(
    desk: &Desk,
    readers: &Readers,
    schedule: &Schedule,
    progress: &mut Progress,
) -> Result<Option<Damage>, StoreError> {
    let head = desk.log.published().head.clone();
    let end = match Checkpoint::open(&head.checkpoint, desk.log.key()) {
        Ok(end) => end,
        Err(error) => return Ok(Some(Damage(format!("the head is not signed by this log's key: {error}")))),
    };
    let (began, mut read) = (Instant::now(), 0_u64);
    let mut pass = Pass::after(progress.tree());
    loop {
        let (end, mut going) = (end.clone(), pass);
        let step;
        (step, pass) = readers.run(move |reader| Ok((going.step(reader, &end, STEP)?, going))).await?;
        match step {
            Step::Done => return Ok(None),
            Step::Damaged(damage) => return Ok(Some(damage)),
            Step::Read(count) => read += count,
        }
        if pass.tree().size() / NOTE_EVERY != progress.tree().size() / NOTE_EVERY {
            progress.came_to(pass.tree());
            note(progress, schedule);
        }
        let rate = f64::from(schedule.entries_per_s.max(1));
        let due = Duration::from_secs_f64(read as f64 / rate);
        tokio::time::sleep(due.saturating_sub(began.elapsed())).await;
        metrics::gauge!(telemetry::SCRUB_RATE).set(read as f64 / began.elapsed().as_secs_f64());
    }
}

fn note(progress: &Progress, schedule: &Schedule) {
    if let Err(error) = progress.write(&schedule.file) {
        tracing::warn!(%error, file = %schedule.file.display(), "the scrubber's progress could not be written");
    }
}

/// Waits for the first thing that any reader found to be changed: stops issuance, and writes the alarm.
pub async fn stop_on_damage(desk: Desk, mut damage: mpsc::Receiver<String>) {
    let Some(what) = damage.recv().await else { return };
    tracing::error!(%what, "the log was changed: nothing is issued any more");
    desk.log.stop_issuing(&format!("the log was changed: {what}; run `daypass-broker verify`"));
    let alarm = Alarm {
        code: "LEAF_MISMATCH".into(),
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
