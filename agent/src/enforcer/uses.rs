//! Which credentials were seen in use, told now and then. Pure: time is an argument.

use std::collections::{BTreeMap, BTreeSet};

use daypass_verify::ids::CredentialId;
use daypass_verify::time::UnixMs;

use super::known::Session;

/// How often the use of one credential is told, in milliseconds: the first at once.
const TELL_EVERY_MS: i64 = 60_000;

/// Sessions that were seen, and those that nobody was told of yet.
#[derive(Debug, Default)]
pub(super) struct Uses {
    there: BTreeSet<(i32, UnixMs)>,
    of: BTreeMap<CredentialId, Use>,
}

#[derive(Debug)]
struct Use {
    untold: u64,
    role: String,
    told_at: Option<UnixMs>,
}

impl Uses {
    /// These sessions are there now, each by a credential that lives; what is to be told of them: the credential, its
    /// role, how many sessions.
    pub(super) fn seen(
        &mut self,
        now: UnixMs,
        sessions: &[(CredentialId, Session)],
    ) -> Vec<(CredentialId, String, u64)> {
        let there: BTreeSet<_> = sessions.iter().map(|(_, session)| (session.pid, session.began)).collect();
        for (id, session) in sessions.iter().filter(|(_, it)| !self.there.contains(&(it.pid, it.began))) {
            let fresh = || Use { untold: 0, role: session.role.clone(), told_at: None };
            self.of.entry(*id).or_insert_with(fresh).untold += 1;
        }
        self.there = there;
        let due = |told_at: Option<UnixMs>| told_at.is_none_or(|at| now.millis_since(at) >= TELL_EVERY_MS);
        let mut told = Vec::new();
        for (id, used) in &mut self.of {
            if used.untold > 0 && due(used.told_at) {
                told.push((*id, used.role.clone(), std::mem::take(&mut used.untold)));
                used.told_at = Some(now);
            }
        }
        self.of.retain(|_, used| used.untold > 0 || !due(used.told_at));
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_use_is_told_at_once_and_further_ones_together_each_session_once() {
        let start = UnixMs::from_seconds(1_795_310_000);
        let id = CredentialId::new(start, [1; 10]);
        let session = |pid: i32| {
            let (role, serial, issuer) = ("r".to_owned(), String::new(), String::new());
            (id, Session { pid, role, serial, issuer, began: start, since: start })
        };
        let mut uses = Uses::default();
        let told =
            |it: Vec<(CredentialId, String, u64)>| it.iter().map(|(_, _, count)| *count).collect::<Vec<_>>();
        assert_eq!(told(uses.seen(start, &[session(1), session(2)])), [2]);
        let later = start.plus_millis(500);
        assert_eq!(told(uses.seen(later, &[session(1), session(3)])), [0; 0]);
        assert_eq!(told(uses.seen(later, &[session(4)])), [0; 0]);
        assert_eq!(told(uses.seen(start.plus_millis(TELL_EVERY_MS), &[session(4)])), [2]);
        assert_eq!(told(uses.seen(start.plus_millis(3 * TELL_EVERY_MS), &[])), [0; 0]);
        assert!(uses.of.is_empty() && uses.there.is_empty(), "what is over is forgotten");
    }
}
