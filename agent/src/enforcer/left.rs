//! What is left over at the server: sessions of roles that credentials open, by anything else than a credential.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use daypass_verify::time::UnixMs;
use tracing::{error, warn};

use super::database::{Database, Failed};
use super::known::Session;
use crate::config::LeftOver;

/// How often is looked.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How often it is told of one role, in milliseconds: the first at once.
const TELL_EVERY_MS: i64 = 3_600_000;

/// The roles that credentials open, and who came as one of them without any.
#[derive(Debug)]
pub(super) struct Left {
    asked: LeftOver,
    /// Roles that were seen with a credential.
    learned: BTreeSet<String>,
    looked: Option<Instant>,
    of: BTreeMap<String, Strays>,
}

/// Of one role, since it was told of last.
#[derive(Debug, Default)]
struct Strays {
    sessions: BTreeSet<(i32, UnixMs)>,
    told_at: Option<UnixMs>,
}

impl Left {
    pub(super) fn new(asked: LeftOver) -> Self {
        let (learned, of) = (BTreeSet::new(), BTreeMap::new());
        Self { asked, learned, looked: None, of }
    }

    /// A credential opens this role.
    pub(super) fn learn(&mut self, role: &str) {
        if !self.learned.contains(role) {
            self.learned.insert(role.to_owned());
        }
    }

    /// What is to be told at `now`, in words and how many. `others` are the sessions by certificates of other CAs.
    pub(super) async fn look(
        &mut self,
        database: &Database,
        others: Vec<Session>,
        now: UnixMs,
    ) -> Result<Vec<(String, u64)>, Failed> {
        if self.looked.is_some_and(|at| at.elapsed() < LOOK_EVERY) {
            return Ok(Vec::new());
        }
        self.looked = Some(Instant::now());
        let roles: Vec<&str> = self.asked.roles.union(&self.learned).map(String::as_str).collect();
        let mut strays = database.without(&roles).await?;
        strays.extend(others.into_iter().filter(|it| roles.contains(&it.role.as_str())));
        for stray in strays.iter().filter(|it| self.ends(&it.role)) {
            if let Err(failed) = database.end_stray(stray).await {
                let Session { pid, role, .. } = stray;
                error!("the session {pid} of `{role}`, without a credential, cannot be ended: {failed}");
            }
        }
        Ok(self.due(now, &strays))
    }

    /// A role that somebody wrote down: what was only seen may be anybody's.
    fn ends(&self, role: &str) -> bool {
        self.asked.ends && self.asked.roles.contains(role)
    }

    fn due(&mut self, now: UnixMs, strays: &[Session]) -> Vec<(String, u64)> {
        for stray in strays {
            let seen = self.of.entry(stray.role.clone()).or_default();
            seen.sessions.insert((stray.pid, stray.began));
        }
        let mut told = Vec::new();
        for (role, seen) in &mut self.of {
            let due = seen.told_at.is_none_or(|at| now.millis_since(at) >= TELL_EVERY_MS);
            let count = seen.sessions.len() as u64;
            if due && count > 0 {
                (seen.told_at, seen.sessions) = (Some(now), BTreeSet::new());
                told.push((role.clone(), count));
            }
        }
        told.into_iter().map(|(role, count)| (self.words(&role, count), count)).collect()
    }

    fn words(&self, role: &str, count: u64) -> String {
        let ended = if self.ends(role) { ", told to end" } else { "" };
        warn!("sessions of `{role}` without a credential: {count}{ended}");
        format!("role without a credential: `{role}`{ended}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stray(role: &str, pid: i32) -> Session {
        let began = UnixMs::from_seconds(1_795_310_000);
        let (serial, issuer) = (String::new(), String::new());
        Session { pid, role: role.to_owned(), serial, issuer, began, since: began }
    }

    #[test]
    fn a_role_is_told_of_at_once_and_then_once_an_hour_with_how_many_sessions_there_were() {
        let asked = LeftOver { roles: ["a".to_owned()].into(), ends: true };
        let mut left = Left::new(asked);
        left.learn("b");
        let start = UnixMs::from_seconds(1_795_310_100);
        let told = left.due(start, &[stray("a", 1), stray("a", 2), stray("b", 3)]);
        let role = |name: &str| format!("role without a credential: `{name}`");
        assert_eq!(
            told,
            [(role("a") + ", told to end", 2), (role("b"), 1)],
            "what was only seen is not ended"
        );
        let later = |ms: i64| start.plus_millis(ms);
        assert_eq!(left.due(later(5_000), &[stray("b", 3), stray("b", 4)]), []);
        assert_eq!(left.due(later(TELL_EVERY_MS - 1), &[stray("b", 3)]), []);
        assert_eq!(left.due(later(TELL_EVERY_MS), &[]), [(role("b"), 2)], "each session once");
        assert_eq!(left.due(later(3 * TELL_EVERY_MS), &[]), [], "and nothing of nobody");
    }
}
