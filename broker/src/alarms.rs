//! What a person must look at. Raised once and cleared once: in the metrics at once, in the log as soon as it takes it.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use daypass_core::state::StandingAlarm;
use daypass_evidence::entry::{Alarm, AlarmState, Index};
use tokio::sync::Notify;

use crate::telemetry;

/// How many characters of a detail are kept.
const DETAIL_MAX: usize = 512;

/// Which alarm: its stable code, and what it is about where there can be several.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Which {
    code: Cow<'static, str>,
    subject: String,
}

impl Which {
    fn new(code: &'static str, subject: &str) -> Self {
        Self { code: Cow::Borrowed(code), subject: subject.into() }
    }
}

/// What a detail that was written begins with, where it is about one thing: that is named in backticks.
fn subject(detail: &str) -> &str {
    let (first, _) = detail.split_once(": ").unwrap_or((detail, ""));
    if first.ends_with('`') { first } else { "" }
}

/// What is known of one alarm.
#[derive(Debug, Default)]
struct Standing {
    /// It is to be written that it stands, and why.
    to_raise: Option<String>,
    /// The entry that says that it stands.
    raised: Option<Index>,
    /// It is to be written that it is over.
    to_clear: bool,
    /// An earlier run raised it, and this one has not found yet that its cause is still there.
    inherited: bool,
}

impl Standing {
    fn stands(&self) -> bool {
        (self.to_raise.is_some() || self.raised.is_some()) && !self.to_clear
    }
}

/// The alarms of one broker; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Alarms(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    known: Mutex<BTreeMap<Which, Standing>>,
    changed: Notify,
}

impl Alarms {
    /// Raises an alarm, unless it stands. `subject` is what it is about; empty where the code says it all.
    pub fn raise(&self, code: &'static str, subject: &str, detail: &str) {
        let mut known = self.lock();
        let standing = known.entry(Which::new(code, subject)).or_default();
        standing.inherited = false;
        if standing.stands() {
            return;
        }
        standing.to_clear = false;
        if standing.raised.is_none() {
            let parts = [subject, detail].map(str::trim).into_iter().filter(|part| !part.is_empty());
            let text = parts.collect::<Vec<_>>().join(": ");
            tracing::error!(code, detail = text, "alarm");
            standing.to_raise = Some(text.chars().take(DETAIL_MAX).collect());
        }
        self.told(known);
    }

    /// Says that an alarm is over, if it stands.
    pub fn clear(&self, code: &'static str, subject: &str) {
        let mut known = self.lock();
        let which = Which::new(code, subject);
        if let Some(standing) = known.get_mut(&which).filter(|standing| standing.stands()) {
            tracing::info!(code, subject, "alarm over");
            standing.to_clear = true;
            self.told(known);
        }
    }

    /// Takes over an alarm that is in the log as raised by the entry at `raised`.
    pub fn adopt(&self, code: &'static str, raised: Index) {
        let mut known = self.lock();
        known.insert(Which::new(code, ""), Standing { raised: Some(raised), ..Standing::default() });
        self.told(known);
    }

    /// Takes over an alarm that an earlier run of this broker raised, by the entry at `raised`.
    pub fn inherit(&self, alarm: &StandingAlarm, raised: Index) {
        let mut known = self.lock();
        let which = Which { code: alarm.code.clone().into(), subject: subject(&alarm.detail).into() };
        let inherited = Standing { raised: Some(raised), inherited: true, ..Standing::default() };
        known.entry(which).or_insert(inherited);
        self.told(known);
    }

    /// Says of all that earlier runs raised, and this one did not raise again, that it is over.
    pub fn clear_inherited(&self) {
        let mut known = self.lock();
        for (which, standing) in known.iter_mut().filter(|(_, standing)| standing.inherited) {
            tracing::info!(code = %which.code, subject = which.subject, "the alarm of an earlier run is over");
            (standing.inherited, standing.to_clear) = (false, true);
        }
        self.told(known);
    }

    /// The entry that raised an alarm without a subject, while it stands.
    #[must_use]
    pub fn raised_at(&self, code: &'static str) -> Option<Index> {
        self.lock().get(&Which::new(code, "")).and_then(|standing| standing.raised)
    }

    /// Whether any alarm with this code stands.
    #[must_use]
    pub fn stands(&self, code: &str) -> bool {
        self.lock().iter().any(|(which, standing)| which.code == code && standing.stands())
    }

    /// Returns once something may have to be written.
    pub async fn changed(&self) {
        self.0.changed.notified().await;
    }

    /// What is to be written: for each alarm one entry, that it stands before that it is over.
    #[must_use]
    pub fn due(&self) -> Vec<(Which, Alarm)> {
        let known = self.lock();
        let due = known.iter().filter_map(|(which, standing)| {
            let code = which.code.clone().into_owned();
            let alarm = match (&standing.to_raise, standing.raised, standing.to_clear) {
                (Some(detail), None, _) => {
                    let detail = Some(detail.clone()).filter(|it| !it.is_empty());
                    Alarm { code, state: AlarmState::Raised, raised: None, detail }
                }
                (_, Some(raised), true) => {
                    let detail = Some(which.subject.clone()).filter(|it| !it.is_empty());
                    Alarm { code, state: AlarmState::Cleared, raised: Some(raised), detail }
                }
                _ => return None,
            };
            Some((which.clone(), alarm))
        });
        due.collect()
    }

    /// `alarm`, which was due, is in the log at `index`.
    pub fn written(&self, which: &Which, alarm: &Alarm, index: Index) {
        let mut known = self.lock();
        let Some(standing) = known.get_mut(which) else { return };
        match alarm.state {
            AlarmState::Raised => {
                (standing.to_raise, standing.raised) = (None, Some(index));
                if standing.to_clear {
                    self.0.changed.notify_one();
                }
            }
            AlarmState::Cleared if standing.to_clear => drop(known.remove(which)),
            // It stands again since: the entry that says so is still to be written.
            AlarmState::Cleared => {
                *standing = Standing { to_raise: Some(String::new()), ..Standing::default() }
            }
        }
    }

    /// Tells the metrics, and who writes.
    fn told(&self, known: MutexGuard<'_, BTreeMap<Which, Standing>>) {
        let codes: BTreeSet<_> = known.keys().map(|which| which.code.clone()).collect();
        for code in codes {
            let standing = known.iter().filter(|(which, it)| which.code == code && it.stands()).count();
            metrics::gauge!(telemetry::ALARMS, "code" => code.into_owned()).set(standing as f64);
        }
        self.0.changed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Which, Standing>> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes what is due, at indexes from `next` on.
    fn write(alarms: &Alarms, next: &mut Index) -> Vec<(AlarmState, Option<Index>)> {
        let mut written = Vec::new();
        for (which, alarm) in alarms.due() {
            alarms.written(&which, &alarm, *next);
            *next += 1;
            written.push((alarm.state, alarm.raised));
        }
        written
    }

    #[test]
    fn an_alarm_is_raised_once_and_cleared_once_by_the_entry_that_names_it() {
        let (alarms, mut next) = (Alarms::default(), 10);
        alarms.raise("CLOCK", "", "it went back");
        alarms.raise("CLOCK", "", "it went back further");
        assert_eq!(write(&alarms, &mut next), [(AlarmState::Raised, None)]);
        alarms.raise("CLOCK", "", "still");
        assert_eq!(write(&alarms, &mut next), []);
        assert_eq!(alarms.raised_at("CLOCK"), Some(10));
        alarms.clear("CLOCK", "");
        assert!(!alarms.stands("CLOCK"));
        assert_eq!(write(&alarms, &mut next), [(AlarmState::Cleared, Some(10))]);
        alarms.clear("CLOCK", "");
        assert_eq!(write(&alarms, &mut next), []);
    }

    #[test]
    fn an_alarm_that_was_over_before_the_log_took_it_is_still_told_whole() {
        let (alarms, mut next) = (Alarms::default(), 10);
        alarms.raise("STORE_FULL", "", "no room");
        alarms.clear("STORE_FULL", "");
        assert_eq!(write(&alarms, &mut next), [(AlarmState::Raised, None)]);
        assert_eq!(write(&alarms, &mut next), [(AlarmState::Cleared, Some(10))]);
        assert_eq!(write(&alarms, &mut next), []);
    }

    #[test]
    fn what_an_earlier_run_raised_stands_once_and_is_over_when_its_cause_is_gone() {
        let (alarms, mut next) = (Alarms::default(), 10);
        let standing = |code: &str, detail: &str| StandingAlarm {
            broker: "b1".parse().unwrap(),
            code: code.into(),
            detail: detail.into(),
        };
        alarms.inherit(&standing("KEYSET_REFUSED", "issuer `a`: no"), 3);
        alarms.inherit(&standing("KEYSET_REFUSED", "issuer `b`"), 4);
        alarms.inherit(&standing("STORE_FULL", "no room: none"), 5);
        assert_eq!(write(&alarms, &mut next), []);
        assert_eq!(alarms.raised_at("STORE_FULL"), Some(5));
        alarms.raise("KEYSET_REFUSED", "issuer `a`", "still no");
        assert_eq!(write(&alarms, &mut next), []);
        alarms.clear_inherited();
        assert_eq!(
            write(&alarms, &mut next),
            [(AlarmState::Cleared, Some(4)), (AlarmState::Cleared, Some(5))]
        );
        alarms.clear("KEYSET_REFUSED", "issuer `a`");
        assert_eq!(write(&alarms, &mut next), [(AlarmState::Cleared, Some(3))]);
    }

    #[test]
    fn alarms_of_several_issuers_stand_apart() {
        let (alarms, mut next) = (Alarms::default(), 10);
        alarms.raise("KEYSET_REFUSED", "issuer `a`", "no");
        alarms.raise("KEYSET_REFUSED", "issuer `b`", "no");
        assert_eq!(write(&alarms, &mut next).len(), 2);
        alarms.clear("KEYSET_REFUSED", "issuer `a`");
        assert!(alarms.stands("KEYSET_REFUSED"));
        assert_eq!(write(&alarms, &mut next), [(AlarmState::Cleared, Some(10))]);
    }
}
