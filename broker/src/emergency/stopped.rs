//! An operator's word that another broker is gone for good: one that was killed cannot say so itself.

use daypass_evidence::entry::{Alarm, AlarmState, BrokerStopped, Entry, Index, NewEntry};
use daypass_verify::ids::Name;
use daypass_verify::time::UnixMs;

use super::{OrderError, Switches};
use crate::log::{Attached, CLOCK, RecordError};
use crate::store::{Reader, StoreError};

/// A broker is heard each minute: after two it is silent.
const SILENT_MS: i64 = 120_000;

const PAGE: u64 = 1_000;

impl Switches {
    /// Records that a broker that is silent was stopped. Where it wakes, its next heartbeat says so.
    pub(super) async fn note_stopped(&self, order: &str) -> Result<String, OrderError> {
        let (name, reason) = order.split_once(' ').unwrap_or((order, ""));
        let broker: Name = name
            .parse()
            .map_err(|error| OrderError::Refused(format!("`{name}` is no broker's name: {error}")))?;
        let published = self.desk.log.published_at(u64::MAX).await;
        let run = published.state.run_of(&broker).filter(|run| run.stopped.is_none());
        let Some(run) = run.filter(|_| broker != self.broker) else {
            return Err(OrderError::Refused(format!("`{broker}` is not a broker that fell silent")));
        };
        let (size, silent) = (published.head.size, broker.clone());
        let heard = self.readers.run(move |reader| heard(reader, run.started, size, &silent)).await?;
        let silence = heard.map(|heard| self.desk.clock.now().millis_since(heard));
        if silence.is_some_and(|silence| silence <= SILENT_MS) {
            return Err(OrderError::Refused(format!(
                "`{broker}` was heard within two minutes: stop it first"
            )));
        }
        let reason = format!("an operator's word: {reason}").trim_end_matches(": ").to_owned();
        let mut bodies = vec![BrokerStopped { reason, of: Some(broker.clone()) }.into()];
        // Who is gone for good clears nothing: its alarm would excuse late endings for ever.
        let standing = published.state.alarms().filter(|(_, it)| it.broker == broker && it.code == CLOCK);
        bodies.extend(standing.map(|(raised, _)| ended(raised, &broker).into()));
        let now = self.desk.clock.now();
        let draw = |body| self.desk.ids.draw(now).map(|id| NewEntry { id, request: None, by: None, body });
        let entries: Result<Vec<_>, _> = bodies.into_iter().map(draw).collect();
        let entries = entries.map_err(|error| RecordError::Unavailable(error.to_string()))?;
        let places = self.desk.log.append(entries, Attached::default()).await?;
        let at = places.first().map_or(0, |place| place.index);
        Ok(format!("entry {at} says that `{broker}` is stopped"))
    }
}

/// The end of an alarm about the clock of a broker that is gone.
fn ended(raised: Index, broker: &Name) -> Alarm {
    let detail = Some(format!("broker `{broker}` is stopped, by an operator's word"));
    Alarm { code: CLOCK.into(), state: AlarmState::Cleared, raised: Some(raised), detail }
}

/// When a broker wrote its newest entry, searched from the end of the log back to where its run began.
fn heard(reader: &dyn Reader, from: Index, size: u64, broker: &Name) -> Result<Option<UnixMs>, StoreError> {
    let mut end = size;
    while end > from {
        let start = end.saturating_sub(PAGE).max(from);
        let rows = reader.rows(start, u32::try_from(end - start).unwrap_or(u32::MAX))?;
        let entries = rows.iter().rev().filter_map(|row| Entry::read(&row.bytes).ok());
        let mut own = entries.filter(|entry| entry.envelope.broker == *broker);
        if let Some(entry) = own.next() {
            return Ok(Some(entry.envelope.time));
        }
        end = start;
    }
    Ok(None)
}
