//! What a broker does by the clock: endings, settlements, refusals, heartbeats, alarms, documents.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use daypass_evidence::entry::{Alarm, AlarmState, Body, BrokerHeartbeat, ClockStatus, Index, NewEntry};
use daypass_verify::ids::Name;
use futures::future::join_all;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use super::documents;
use crate::issue::Desk;
use crate::log::{Attached, Place, RecordError};
use crate::refusals::Refusals;
use crate::telemetry::{TelemetryError, start_metrics};
use crate::trust::{Trust, TrustEvent};
use crate::web::{IssuerUrl, Site};

const FLUSH_EVERY: Duration = Duration::from_millis(100);
const FOLLOW_EVERY: Duration = Duration::from_millis(250);
const SWEEP_EVERY: Duration = Duration::from_secs(1);
const HEARTBEAT_EVERY: Duration = Duration::from_secs(60);
const REFUSALS_AT_ONCE: usize = 64;

/// The kernel's boot id: the same until the machine boots again.
pub(super) fn boot_id() -> Option<String> {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok().map(|id| id.trim().to_owned())
}

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

pub(super) fn start(
    desk: &Desk,
    trust: &Trust,
    refusals: &Arc<Refusals>,
    alarms: mpsc::Receiver<TrustEvent>,
    site: Arc<Site>,
    issuer: IssuerUrl,
) -> Vec<JoinHandle<()>> {
    vec![
        tokio::spawn(settle(desk.clone())),
        tokio::spawn(follow(desk.clone())),
        tokio::spawn(sweep(desk.clone(), Arc::clone(refusals))),
        tokio::spawn(beat(desk.clone(), Arc::clone(refusals))),
        tokio::spawn(raise(desk.clone(), alarms)),
        tokio::spawn(republish(desk.clone(), trust.clone(), site, issuer)),
    ]
}

async fn settle(desk: Desk) {
    let mut ticks = interval(FLUSH_EVERY);
    loop {
        ticks.tick().await;
        desk.log.flush();
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

async fn beat(desk: Desk, refusals: Arc<Refusals>) {
    let began = desk.clock.boot_ms();
    let mut since = desk.clock.now();
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
            clock: ClockStatus::default(),
            boot: boot_id(),
            up_ms: u64::try_from(desk.clock.boot_ms() - began).unwrap_or_default(),
        };
        let now = desk.clock.now();
        match append(&desk, body.into()).await {
            Ok(_) => since = now,
            Err(error) => {
                refusals.put_back(counts);
                tracing::error!(%error, "a heartbeat could not be recorded");
            }
        }
    }
}

/// Alarms of issuers' keys become entries: raised once, cleared once.
async fn raise(desk: Desk, mut events: mpsc::Receiver<TrustEvent>) {
    let mut standing: HashMap<(Name, &'static str), Index> = HashMap::new();
    while let Some(event) = events.recv().await {
        let issuer = event.issuer().clone();
        for code in event.clears() {
            if let Some(raised) = standing.remove(&(issuer.clone(), *code)) {
                record(&desk, alarm(code, AlarmState::Cleared, Some(raised), &issuer, "")).await;
            }
        }
        let key = (issuer.clone(), event.code());
        if event.clears().is_empty() && !standing.contains_key(&key) {
            let raised =
                record(&desk, alarm(event.code(), AlarmState::Raised, None, &issuer, event.detail())).await;
            standing.extend(raised.map(|place| (key, place.index)));
        }
    }
}

fn alarm(code: &str, state: AlarmState, raised: Option<Index>, issuer: &Name, detail: &str) -> Alarm {
    let detail: String = format!("issuer `{issuer}`: {detail}").chars().take(512).collect();
    let detail = detail.trim_end_matches(": ").to_owned();
    Alarm { code: code.into(), state, raised, detail: Some(detail) }
}

async fn record(desk: &Desk, alarm: Alarm) -> Option<Place> {
    let written = append(desk, alarm.into()).await;
    written.inspect_err(|error| tracing::error!(%error, "an alarm could not be recorded")).ok()
}

async fn append(desk: &Desk, body: Body) -> Result<Place, RecordError> {
    let failed = |detail: String| RecordError::Unavailable(detail);
    let id = desk.ids.draw(desk.clock.now()).map_err(|error| failed(error.to_string()))?;
    let written =
        desk.log.append(vec![NewEntry { id, request: None, by: None, body }], Attached::default()).await?;
    written.into_iter().next().ok_or_else(|| failed("nothing was written".into()))
}

/// Keeps what is published in step with the state, and trust with the bundle in force.
async fn republish(desk: Desk, trust: Trust, site: Arc<Site>, issuer: IssuerUrl) {
    let mut ticks = interval(SWEEP_EVERY);
    let mut changes = desk.log.state_changes();
    let mut followed = desk.log.state().bundle().map(|bundle| bundle.digest());
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            Ok(()) = changes.changed() => {}
        }
        site.documents.store(Arc::new(documents::current(&desk, &issuer)));
        let state = desk.log.state();
        if let Some(bundle) = state.bundle()
            && followed != Some(bundle.digest())
        {
            trust.follow(bundle);
            followed = Some(bundle.digest());
        }
    }
}
