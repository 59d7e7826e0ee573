//! What a broker does by the clock: endings, settlements, refusals, documents; heartbeats and alarms.

mod watch;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use daypass_core::rotation::Lifetimes;
use daypass_evidence::entry::{Body, NewEntry};
use futures::future::join_all;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

pub(super) use watch::{Watched, watch};

use super::documents;
use crate::alarms::Alarms;
use crate::issue::Desk;
use crate::log::{Attached, Place, RecordError, Turns, next_origin};
use crate::refusals::Refusals;
use crate::telemetry::{TelemetryError, start_metrics};
use crate::trust::Trust;
use crate::web::{IssuerUrl, Site};

const FLUSH_EVERY: Duration = Duration::from_millis(100);
const FOLLOW_EVERY: Duration = Duration::from_millis(250);
const SWEEP_EVERY: Duration = Duration::from_secs(1);
const TURN_AGAIN_MOST: Duration = Duration::from_secs(300);

/// The log is due to be closed, and could not be.
const LOG_NOT_CLOSED: &str = "LOG_NOT_CLOSED";

const REFUSALS_AT_ONCE: usize = 64;

/// The metrics of this process, counted from the first call on.
pub(super) fn metrics() -> Result<PrometheusHandle, TelemetryError> {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    match HANDLE.get() {
        Some(handle) => Ok(handle.clone()),
        None => Ok(HANDLE.get_or_init(|| start_metrics().unwrap_or_else(|_| detached())).clone()),
    }
}

/// A handle of its own, where another part of the process counts already.
fn detached() -> PrometheusHandle {
    metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder().handle()
}

/// What is shown to verifiers, and how.
pub(super) struct Shown {
    pub(super) site: Arc<Site>,
    pub(super) issuer: IssuerUrl,
    pub(super) lifetimes: Lifetimes,
}

pub(super) fn start(
    desk: &Desk,
    trust: &Trust,
    refusals: &Arc<Refusals>,
    shown: Shown,
) -> Vec<JoinHandle<()>> {
    vec![
        tokio::spawn(settle(desk.clone())),
        tokio::spawn(follow(desk.clone())),
        tokio::spawn(sweep(desk.clone(), Arc::clone(refusals))),
        tokio::spawn(republish(desk.clone(), trust.clone(), shown)),
    ]
}

async fn settle(desk: Desk) {
    let mut ticks = interval(FLUSH_EVERY);
    loop {
        ticks.tick().await;
        desk.log.flush();
    }
}

/// Closes the log where its half-year is over, or it has as many entries as it may have: not by a clock in doubt, and not
/// while something found in it stopped issuance. Where it cannot be closed it goes on as it is; that is an alarm, and it is
/// tried again, ever later.
pub(super) async fn turn_when_due(desk: Desk, alarms: Alarms, turns: Turns) {
    let mut wait = SWEEP_EVERY;
    loop {
        tokio::time::sleep(wait).await;
        let (log, now) = (&desk.log, desk.clock.now());
        let is_sure = log.watch().trouble().is_none() && !log.watch().holds_endings() && !log.is_stopped();
        let Some(origin) = next_origin(&log.published(), now, turns).filter(|_| is_sure) else {
            alarms.clear(LOG_NOT_CLOSED, "");
            wait = SWEEP_EVERY;
            continue;
        };
        match log.turn(origin).await {
            Ok(()) | Err(RecordError::Turned) => return,
            Err(error) => {
                alarms.raise(LOG_NOT_CLOSED, "", &format!("{error}; it goes on as it is"));
                wait = (wait * 2).min(TURN_AGAIN_MOST);
            }
        }
    }
}

/// What other brokers write is in force here too, whether this one writes or not.
async fn follow(desk: Desk) {
    let mut ticks = interval(FOLLOW_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        desk.log.follow();
    }
}

/// Once a second: what expired is ended, and refusals that are due are written.
async fn sweep(desk: Desk, refusals: Arc<Refusals>) {
    let mut ticks = interval(SWEEP_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        desk.log.sweep();
        if desk.log.is_full() {
            // They wait: the room that is left is for what must be written.
            continue;
        }
        for entries in refusals.due(desk.clock.now(), &desk.ids, false).chunks(REFUSALS_AT_ONCE) {
            record_refusals(&desk, &refusals, entries).await;
        }
    }
}

/// Each entry has its own outcome: one that cannot be written takes no other with it, and is counted again.
async fn record_refusals(desk: &Desk, refusals: &Refusals, entries: &[NewEntry]) {
    let writing = entries.iter().map(|entry| async move {
        let written = desk.log.append(vec![entry.clone()], Attached::default()).await;
        written.inspect_err(|_| refusals.count_again(entry)).err()
    });
    if let Some(error) = join_all(writing).await.into_iter().flatten().next() {
        tracing::error!(%error, "refusals could not be recorded, and are tried again");
    }
}

pub(crate) async fn append(desk: &Desk, body: Body) -> Result<Place, RecordError> {
    let failed = |detail: String| RecordError::Unavailable(detail);
    let id = desk.ids.draw(desk.clock.now()).map_err(|error| failed(error.to_string()))?;
    let written =
        desk.log.append(vec![NewEntry { id, request: None, by: None, body }], Attached::default()).await?;
    written.into_iter().next().ok_or_else(|| failed("nothing was written".into()))
}

/// Keeps what is published in step with the state, and trust with the bundle in force.
async fn republish(desk: Desk, trust: Trust, shown: Shown) {
    let mut ticks = interval(SWEEP_EVERY);
    let mut changes = desk.log.state_changes();
    let mut followed = desk.log.state().bundle().map(|bundle| bundle.digest());
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            Ok(()) = changes.changed() => {}
        }
        let Shown { site, issuer, lifetimes } = &shown;
        site.documents.store(Arc::new(documents::current(&desk, issuer, lifetimes)));
        let state = desk.log.state();
        if let Some(bundle) = state.bundle()
            && followed != Some(bundle.digest())
        {
            trust.follow(bundle);
            followed = Some(bundle.digest());
        }
    }
}
