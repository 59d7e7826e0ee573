//! Whether brokers gave a sign of life each minute, or the log says why not.

use std::collections::{BTreeMap, BTreeSet};

use daypass_verify::ids::Name;
use daypass_verify::time::UnixMs;

use super::finding::{FindingCode, Findings};
use crate::entry::{Alarm, AlarmState, Body, Entry, Index};

/// The longest silence between two heartbeats: one may be lost.
const SILENCE_MAX_MS: i64 = 120_000;
/// How long after a start endings may be late: the sweep catches up.
const START_GRACE_MS: i64 = 60_000;
/// How much later than the last sign of life a heartbeat's counts may begin and still join up with it.
const JOIN_MS: i64 = 5_000;

/// The brokers that run, with their last signs of life.
#[derive(Debug, Default)]
pub(super) struct Uptime {
    running: BTreeMap<Name, UnixMs>,
    last_start: Option<UnixMs>,
    clock_alarms: BTreeSet<Index>,
}

impl Uptime {
    pub(super) fn check(&mut self, index: Index, entry: &Entry, findings: &mut Findings) {
        let (broker, now) = (&entry.envelope.broker, entry.envelope.time);
        match &entry.body {
            Body::BrokerStarted(started) => {
                if started.previous.is_none() {
                    self.check_silence(Some(index), broker, now, findings);
                }
                self.running.insert(broker.clone(), now);
                self.last_start = Some(now);
            }
            Body::BrokerHeartbeat(heartbeat) => {
                let joins = |last: &UnixMs| heartbeat.since_ms <= last.plus_millis(JOIN_MS);
                if !self.running.get(broker).is_some_and(joins) {
                    self.check_silence(Some(index), broker, now, findings);
                }
                self.running.insert(broker.clone(), now);
            }
            Body::BrokerStopped(stopped) => match &stopped.of {
                // The silence of a broker that is gone is told.
                Some(other) if other != broker => drop(self.running.remove(other)),
                _ => {
                    self.check_silence(Some(index), broker, now, findings);
                    self.running.remove(broker);
                }
            },
            Body::Alarm(alarm) if alarm.code == "CLOCK" => self.clock_alarm(index, alarm),
            _ => {}
        }
    }

    fn clock_alarm(&mut self, index: Index, alarm: &Alarm) {
        match (alarm.state, alarm.raised) {
            (AlarmState::Raised, _) => drop(self.clock_alarms.insert(index)),
            (AlarmState::Cleared, Some(raised)) => drop(self.clock_alarms.remove(&raised)),
            (AlarmState::Cleared, None) => self.clock_alarms.clear(),
        }
    }

    fn check_silence(&self, index: Option<Index>, broker: &Name, now: UnixMs, findings: &mut Findings) {
        let silent = self.running.get(broker).map(|last| now.millis_since(*last));
        if let Some(silent) = silent.filter(|silent| *silent > SILENCE_MAX_MS) {
            let detail = format!("broker `{broker}` was silent for {} s", silent / 1000);
            findings.add(FindingCode::HeartbeatGap, index, detail);
        }
    }

    /// Names the brokers that fell silent for good.
    pub(super) fn finish(&self, now: UnixMs, findings: &mut Findings) {
        self.running.keys().for_each(|broker| self.check_silence(None, broker, now, findings));
    }

    /// Whether endings may be late at `now`: a broker has just begun to catch up, or no clock is trusted.
    pub(super) fn excuses_endings(&self, now: UnixMs) -> bool {
        let starting = self.last_start.is_some_and(|start| now.millis_since(start) < START_GRACE_MS);
        starting || !self.clock_alarms.is_empty()
    }
}
