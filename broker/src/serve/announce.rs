//! The first entry of a run, and what this broker's last one tells of its clock.

use daypass_core::state::{Run, State};
use daypass_evidence::entry::{
    Alarm, AlarmState, Body, BrokerStarted, ClockStatus, Entry, Index, KINDS, NewEntry, PreviousRun,
};
use daypass_verify::ids::Name;
use daypass_verify::time::UnixMs;

use super::{ServeError, Settings};
use crate::alarms::Alarms;
use crate::clock::{AGREES_WITHIN_MS, Clock, ClockTrust};
use crate::index::{Readers, opened_at};
use crate::issue::Desk;
use crate::log::{Attached, CLOCK, RecordError};
use crate::scrub::LEAF_MISMATCH;
use crate::store::{About, Reader, StoreError};

const HELD: &str = "the machine booted, or its clock was in doubt, since this broker last ran, and no second source agrees with the clock yet: endings wait for a time service, another broker, or `daypass-broker emergency clock-ok`";

const PAGE: u64 = 1_000;

/// Alarms of an earlier run that are ended by who knows that their cause is gone.
const ENDED_ELSEWHERE: [&str; 2] = [CLOCK, LEAF_MISMATCH];

/// `broker.started`: who serves from here on, and how the run before ended. With it, what becomes of the alarm about
/// this broker's clock.
pub(super) async fn announce(
    desk: &Desk,
    settings: &Settings,
    about: About,
    readers: &Readers,
    alarms: &Alarms,
) -> Result<(), ServeError> {
    tracing::info!(store = about.kind, durability = %about.durability, schema = about.schema, "the store");
    let published = desk.log.published();
    let run = published.state.run_of(&settings.broker);
    let (size, from, broker) =
        (published.head.size, run.map_or(published.head.size, |run| run.started), settings.broker.clone());
    let before = readers.run(move |reader| sign_of_life(reader, from, size, &broker)).await?;
    let opened = readers.run(opened_at).await?;
    let standing = clock_alarm(&published.state, &settings.broker);
    judge_clock(desk, settings, before.as_ref(), (opened, standing), published.head.time);
    let mut bodies: Vec<Body> = vec![started(settings, about, run).into()];
    let alarm = |state, raised, detail| Alarm { code: CLOCK.into(), state, raised, detail };
    if let Some(raised) = standing {
        bodies.push(alarm(AlarmState::Cleared, Some(raised), Some("another run begins".into())).into());
    }
    let trouble = desk.log.watch().trouble();
    bodies.extend(trouble.clone().map(|why| alarm(AlarmState::Raised, None, Some(why)).into()));
    let now = desk.clock.now();
    let draw = |body| desk.ids.draw(now).map(|id| NewEntry { id, request: None, by: None, body });
    let entries: Result<Vec<NewEntry>, _> = bodies.into_iter().map(draw).collect();
    let entries = entries.map_err(|error| RecordError::Unavailable(error.to_string()))?;
    for (index, alarm) in published.state.alarms().filter(|(_, alarm)| alarm.broker == settings.broker) {
        if !ENDED_ELSEWHERE.iter().any(|code| alarm.code == *code) && !alarm.detail.starts_with("witness `") {
            alarms.inherit(alarm, index);
        }
    }
    let places = desk.log.append(entries, Attached::default()).await?;
    if let (Some(_), Some(raised)) = (trouble, places.last()) {
        alarms.adopt(CLOCK, raised.index);
    }
    Ok(())
}

fn started(settings: &Settings, about: About, run: Option<Run>) -> BrokerStarted {
    let previous = run
        .map(|run| PreviousRun { index: run.stopped.unwrap_or(run.started), clean: run.stopped.is_some() });
    BrokerStarted {
        version: env!("CARGO_PKG_VERSION").into(),
        build: None,
        config: settings.config,
        mode: settings.mode,
        store: about.kind.into(),
        durability: about.durability,
        schema: about.schema,
        boot: settings.clock.boot_id(),
        clock: status(settings.clock.as_ref(), None),
        previous,
        reads: KINDS.iter().map(|(kind, version)| ((*kind).to_owned(), *version)).collect(),
    }
}

/// What is known of the clock.
pub(super) fn status(clock: &dyn Clock, alarm: Option<Index>) -> ClockStatus {
    let kernel = clock.kernel();
    ClockStatus {
        synchronised: kernel.is_some_and(|kernel| kernel.vouches_for(clock.now())),
        max_error_ms: kernel.map(|kernel| kernel.max_error_ms),
        offset_ms: kernel.filter(|kernel| kernel.synchronised).map(|kernel| kernel.offset_ms),
        boot_ms: Some(clock.boot_ms()),
        alarm,
    }
}

/// The alarm of a broker about its clock that nobody cleared.
fn clock_alarm(state: &State, broker: &Name) -> Option<Index> {
    let mut alarms = state.alarms();
    alarms.find(|(_, alarm)| alarm.broker == *broker && alarm.code == CLOCK).map(|(index, _)| index)
}

/// Why the clock of a broker was not to be trusted when it last wrote, or may not be since: what held its endings holds
/// them in a log that follows this one too.
///
/// # Errors
/// When the store cannot be read.
pub(crate) fn clock_in_doubt(
    reader: &dyn Reader,
    state: &State,
    size: u64,
    broker: &Name,
    clock: &dyn Clock,
) -> Result<Option<&'static str>, StoreError> {
    if state.alarms().any(|(_, alarm)| alarm.code == CLOCK) {
        return Ok(Some("the clock was in doubt when the log before this one was written"));
    }
    let from = state.run_of(broker).map_or(size, |run| run.started);
    let before = sign_of_life(reader, from, size, broker)?;
    let same_boot = before.is_some_and(|before| before.boot.is_some() && before.boot == clock.boot_id());
    Ok((!same_boot).then_some("the log before this one was not written since this machine booted"))
}

/// The newest `broker.started` or `broker.heartbeat` of a broker, and the alarm about its clock that stood last.
struct SignOfLife {
    at: UnixMs,
    boot: Option<String>,
    boot_ms: Option<i64>,
    alarm: Option<Index>,
}

/// Searched from the end of the log back to `from`, where its run began.
fn sign_of_life(
    reader: &dyn Reader,
    from: Index,
    size: u64,
    broker: &Name,
) -> Result<Option<SignOfLife>, StoreError> {
    let (mut end, mut alarm) = (size, None);
    while end > from {
        let start = end.saturating_sub(PAGE).max(from);
        let rows = reader.rows(start, u32::try_from(end - start).unwrap_or(u32::MAX))?;
        for row in rows.iter().rev() {
            let Ok(entry) = Entry::read(&row.bytes) else { continue };
            if entry.envelope.broker != *broker {
                continue;
            }
            let (boot, clock) = match entry.body {
                Body::Alarm(found) if found.code == CLOCK && alarm.is_none() => {
                    alarm = Some(Some(row.index).filter(|_| found.state == AlarmState::Raised));
                    continue;
                }
                Body::BrokerStarted(it) => (it.boot, it.clock),
                Body::BrokerHeartbeat(it) => (it.boot, it.clock),
                _ => continue,
            };
            let alarm = alarm.unwrap_or(clock.alarm);
            let (at, boot_ms) = (entry.envelope.time, clock.boot_ms);
            return Ok(Some(SignOfLife { at, boot, boot_ms, alarm }));
        }
        end = start;
    }
    Ok(None)
}

/// Within one boot the clock is held against the time since boot from this broker's last sign of life on. After a
/// reboot nothing tells how long the machine was off: endings wait for a second source, and so does everything else where
/// it must have been off for long. Endings wait also where the clock was in doubt when the broker last ran.
fn judge_clock(
    desk: &Desk,
    settings: &Settings,
    before: Option<&SignOfLife>,
    (opened, standing): (Option<UnixMs>, Option<Index>),
    newest: UnixMs,
) {
    let (clock, watch) = (settings.clock.as_ref(), desk.log.watch());
    if settings.clock_trust == ClockTrust::Own {
        return;
    }
    let boot = clock.boot_id();
    let same_boot = before.filter(|before| boot.is_some() && before.boot == boot);
    match (same_boot, before) {
        (Some(before), _) => {
            before.boot_ms.into_iter().for_each(|boot_ms| watch.believed_at(before.at, boot_ms))
        }
        (None, Some(before)) => watch.believed_at_least(before.at, 0),
        (None, None) => watch.believed_at_least(newest, clock.boot_ms()),
    }
    let booted = clock.now().plus_millis(-clock.boot_ms() - AGREES_WITHIN_MS);
    let trusted = match before {
        Some(before) => same_boot.is_some() && before.alarm.is_none(),
        None => opened.is_some_and(|opened| opened >= booted),
    };
    if !trusted || standing.is_some() {
        watch.hold(HELD);
    }
}
