//! The alarms that stand, by the entries that raised them: whoever starts after a broker knows what it left standing.

use std::collections::BTreeMap;

use daypass_evidence::entry::{Alarm, AlarmState, Index};
use daypass_verify::ids::Name;

/// An alarm that nobody cleared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StandingAlarm {
    /// Who raised it.
    pub broker: Name,
    /// Its code.
    pub code: String,
    /// What it is about; empty where the code says it all.
    pub detail: String,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Alarms(BTreeMap<Index, StandingAlarm>);

impl Alarms {
    pub(super) fn follow(&mut self, index: Index, broker: &Name, alarm: &Alarm) {
        match (alarm.state, alarm.raised) {
            (AlarmState::Raised, _) => {
                let (code, detail) = (alarm.code.clone(), alarm.detail.clone().unwrap_or_default());
                self.0.insert(index, StandingAlarm { broker: broker.clone(), code, detail });
            }
            (AlarmState::Cleared, Some(raised)) => drop(self.0.remove(&raised)),
            (AlarmState::Cleared, None) => {}
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Index, &StandingAlarm)> {
        self.0.iter().map(|(index, alarm)| (*index, alarm))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_stands_until_the_entry_that_clears_it() {
        let (mut alarms, broker) = (Alarms::default(), "b1".parse::<Name>().unwrap());
        let alarm = |state, raised| Alarm { code: "STORE_FULL".into(), state, raised, detail: None };
        alarms.follow(7, &broker, &alarm(AlarmState::Raised, None));
        alarms.follow(9, &broker, &alarm(AlarmState::Raised, None));
        alarms.follow(11, &broker, &alarm(AlarmState::Cleared, Some(7)));
        alarms.follow(12, &broker, &alarm(AlarmState::Cleared, None));
        assert_eq!(alarms.iter().map(|(index, _)| index).collect::<Vec<_>>(), [9]);
    }
}
