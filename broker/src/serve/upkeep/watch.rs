//! Signs of life, alarms, and the watch on the clock.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use daypass_core::rotation::{NearEnd, near_end};
use daypass_core::state::{RS256, State, phase};
use daypass_evidence::entry::{Body, BrokerHeartbeat, Entry, Index, KeyChanged, KeyState};
use daypass_verify::ids::Name;
use daypass_verify::time::UnixMs;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::append;
use crate::alarms::Alarms;
use crate::clock::{AGREES_WITHIN_MS, ClockTrust};
use crate::index::Readers;
use crate::issue::Desk;
use crate::log::{CLOCK, ROLLBACK, RecordError};
use crate::refusals::Refusals;
use crate::serve::announce::status;
use crate::trust::TrustEvent;

const HEARTBEAT_EVERY: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_secs(1);
const LOOK_EVERY_MS: i64 = 1_000;

const STORE_FULL: &str = "STORE_FULL";
const SPLIT_VIEW: &str = "SPLIT_VIEW";
const KEY_MISSING: &str = "KEY_MISSING";
const RS256_SUBJECT: &str = "algorithm `RS256`";

/// After how long a cause that is still there was found again.
const INHERITED_FOR: Duration = Duration::from_secs(30);

/// How many new entries are looked at, at once, for those of other brokers.
const LOOKED_AT: u32 = 1_000;

/// What is watched, and who is told.
#[derive(Clone)]
pub(in crate::serve) struct Watched {
    pub(in crate::serve) desk: Desk,
    pub(in crate::serve) readers: Readers,
    pub(in crate::serve) broker: Name,
    pub(in crate::serve) alarms: Alarms,
    pub(in crate::serve) clock_trust: ClockTrust,
}

pub(in crate::serve) fn watch(
    watched: Watched,
    events: mpsc::Receiver<TrustEvent>,
    refusals: &Arc<Refusals>,
) -> Vec<JoinHandle<()>> {
    vec![
        tokio::spawn(beat(watched.clone(), Arc::clone(refusals))),
        tokio::spawn(hear(watched.alarms.clone(), events)),
        tokio::spawn(record(watched.clone())),
        tokio::spawn(watch_store(watched.clone())),
        tokio::spawn(remind(watched.clone())),
        tokio::spawn(watch_clock(watched)),
    ]
}

async fn beat(watched: Watched, refusals: Arc<Refusals>) {
    let desk = &watched.desk;
    let began = desk.clock.boot_ms();
    // The log's own time: what a clock in doubt tells joins up with nothing.
    let mut since = desk.log.published().head.time;
    let mut ticks = interval(HEARTBEAT_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let (counts, latency) = refusals.take_activity();
        let body = BrokerHeartbeat {
            since_ms: since,
            counts: counts.clone(),
            latency_ms: latency,
            clock: status(desk.clock.as_ref(), watched.alarms.raised_at(CLOCK)),
            boot: desk.clock.boot_id(),
            up_ms: u64::try_from(desk.clock.boot_ms() - began).unwrap_or_default(),
        };
        match append(desk, body.into()).await {
            Ok(place) => since = place.time,
            Err(error) => {
                refusals.put_back(counts);
                tracing::error!(%error, "a heartbeat could not be recorded");
            }
        }
    }
}

/// Alarms of issuers' keys.
async fn hear(alarms: Alarms, mut events: mpsc::Receiver<TrustEvent>) {
    while let Some(event) = events.recv().await {
        let issuer = format!("issuer `{}`", event.issuer());
        event.clears().iter().for_each(|code| alarms.clear(code, &issuer));
        if event.clears().is_empty() {
            alarms.raise(event.code(), &issuer, event.detail());
        }
    }
}

/// Writes alarms as soon as the log takes them.
async fn record(watched: Watched) {
    loop {
        // Looked at again without being told: what could not be written is still due.
        drop(timeout(LOOK_EVERY, watched.alarms.changed()).await);
        // After a rollback no entry may follow those that callers hold: such an alarm is in the metrics, and in the log that
        // `recover` opens.
        if watched.desk.log.halt().broken().is_some() {
            continue;
        }
        for (which, alarm) in watched.alarms.due() {
            match append(&watched.desk, alarm.clone().into()).await {
                Ok(place) => watched.alarms.written(&which, &alarm, place.index),
                Err(error) => tracing::warn!(%error, code = alarm.code, "an alarm is not in the log yet"),
            }
        }
    }
}

/// Tells while the store has no room but what is kept for what must be written, and when it went back; and, once this run has looked at all that
/// it looks at, that the alarms of earlier runs are over.
async fn watch_store(watched: Watched) {
    let began = Instant::now();
    let mut inherits = true;
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if watched.desk.log.is_full() {
            watched.alarms.raise(STORE_FULL, "", "nothing is issued until there is room");
        } else {
            watched.alarms.clear(STORE_FULL, "");
        }
        match watched.desk.log.halt().broken().as_deref() {
            Some(error @ RecordError::Rollback(_)) => watched.alarms.raise(ROLLBACK, "", &error.to_string()),
            Some(error @ RecordError::SplitView(_)) => {
                watched.alarms.raise(SPLIT_VIEW, "", &error.to_string())
            }
            _ => {}
        }
        if inherits && began.elapsed() >= INHERITED_FOR {
            watched.alarms.clear_inherited();
            inherits = false;
        }
    }
}

/// Asks operators for what no broker can make, while there is time.
async fn remind(watched: Watched) {
    let mut standing = BTreeSet::new();
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let (state, now) = (watched.desk.log.state(), watched.desk.clock.now());
        let due: BTreeSet<NearEnd> = near_end(state.keys().values(), now).collect();
        for over in standing.difference(&due) {
            watched.alarms.clear(over.code, &subject(over));
        }
        for near in due.difference(&standing) {
            watched.alarms.raise(
                near.code,
                &subject(near),
                &format!("signs until {}: {}", near.at, near.advice),
            );
        }
        standing = due;
        match unsigned(&state, now) {
            Some(task) => watched.alarms.raise(
                KEY_MISSING,
                RS256_SUBJECT,
                &format!(
                    "no key signs what task `{task}` declares: bring one by `daypass-broker import-key`"
                ),
            ),
            None => watched.alarms.clear(KEY_MISSING, RS256_SUBJECT),
        }
    }
}

/// A task whose tokens no key signs, now or soon: RSA keys are brought, and a recovery gives them up.
fn unsigned(state: &State, now: UnixMs) -> Option<Name> {
    let signs = |key: &KeyChanged| {
        key.alg == RS256 && matches!(phase(key, now), KeyState::Prepared | KeyState::Active)
    };
    let mut tasks = state.bundle()?.declared().tasks.iter();
    let (task, _) = tasks.find(|(_, task)| task.alg == RS256)?;
    (!state.keys().values().any(signs)).then(|| task.clone())
}

fn subject(near: &NearEnd) -> String {
    format!("key `{}`", near.key)
}

/// Asks second sources while the clock is in doubt, and tells when it is and when it is no more.
async fn watch_clock(watched: Watched) {
    let watch = watched.desk.log.watch();
    let mut seen = watched.desk.log.published().head.size;
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(why) = watch.trouble() else {
            if watch.has_caught_up() {
                watched.alarms.clear(CLOCK, "");
            }
            continue;
        };
        watched.alarms.raise(CLOCK, "", &why);
        if watch.wants_second_source()
            && let Some(source) = second_source(&watched, &mut seen).await
        {
            tracing::warn!(source, "a second source agrees with the clock");
            watch.confirm();
        }
    }
}

/// Who agrees with the clock.
async fn second_source(watched: &Watched, seen: &mut Index) -> Option<&'static str> {
    let clock = &watched.desk.clock;
    if watched.clock_trust == ClockTrust::Kernel
        && clock.kernel().is_some_and(|kernel| kernel.vouches_for(clock.now()))
    {
        return Some("kernel");
    }
    let from = std::mem::replace(seen, watched.desk.log.published().head.size);
    if *seen <= from {
        return None;
    }
    let rows = watched.readers.run(move |reader| reader.rows(from, LOOKED_AT)).await.ok()?;
    let (now, boot, boot_ms) = (clock.now(), clock.boot_id(), clock.boot_ms());
    let agrees = |entry: &Entry| {
        let Body::BrokerHeartbeat(heartbeat) = &entry.body else { return false };
        let age = now.millis_since(entry.envelope.time);
        // On one machine another broker has the same clock: then it counts by what has passed since boot.
        let aged = match heartbeat.clock.boot_ms.filter(|_| heartbeat.boot == boot) {
            Some(then) => boot_ms - then,
            None => 0,
        };
        entry.envelope.broker != watched.broker
            && heartbeat.clock.alarm.is_none()
            && (-AGREES_WITHIN_MS..=AGREES_WITHIN_MS + LOOK_EVERY_MS).contains(&(age - aged))
    };
    let mut entries = rows.iter().filter_map(|row| Entry::read(&row.bytes).ok());
    entries.any(|entry| agrees(&entry)).then_some("another broker")
}
