//! What lives at the target, as far as is known, and what that means for a session. Pure: time is an argument.

use std::collections::BTreeMap;

use daypass_verify::ids::CredentialId;
use daypass_verify::time::UnixMs;

use super::names::{By, Issuers, credential};

/// How long a credential may be in use before the broker has told of it, in milliseconds.
const TOLD_WITHIN_MS: i64 = 10_000;

/// How far the broker's clock and ours are apart at most.
const CLOCKS_DIFFER_MS: i64 = 60_000;

/// How many endings are remembered. What was forgotten is ended too, as unknown.
const ENDED_MAX: usize = 65_536;

/// How a credential ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    Expired,
    Revoked,
    Void,
}

/// A session that showed a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Session {
    /// The number of its process.
    pub(super) pid: i32,
    /// Its role.
    pub(super) role: String,
    /// The certificate's serial number, in decimal.
    pub(super) serial: String,
    /// Who signed it, as the server writes names.
    pub(super) issuer: String,
    /// When it began by the server's clock, which tells it from another with the same number.
    pub(super) began: UnixMs,
    /// The same by our clock.
    pub(super) since: UnixMs,
}

/// What to do with a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is none of ours.
    Others,
    /// Its credential lives.
    Lives(CredentialId),
    /// It is ours and unknown, and it is too early to say that nobody issued it.
    Unclear,
    /// Its credential has ended, at this time as far as is known: end it.
    Ended(CredentialId, How, UnixMs),
    /// Nobody issued its credential for this target, or it ended long ago: end it.
    Unknown(Option<CredentialId>),
}

/// What is known of the target.
#[derive(Debug, Default)]
pub(super) struct Known {
    issuers: Issuers,
    live: BTreeMap<CredentialId, UnixMs>,
    ended: BTreeMap<CredentialId, (How, UnixMs)>,
    /// All that was recorded before this time has been told.
    told_until: Option<UnixMs>,
}

impl Known {
    pub(super) fn issuers(&mut self, issuers: Issuers) {
        self.issuers.extend(issuers);
    }

    /// This lives, and nothing else.
    pub(super) fn only_these_live(&mut self, live: BTreeMap<CredentialId, UnixMs>) {
        self.live = live.into_iter().filter(|(id, _)| !self.ended.contains_key(id)).collect();
    }

    /// A credential lives until `expires_at`.
    pub(super) fn lives(&mut self, id: CredentialId, expires_at: UnixMs) {
        if !self.ended.contains_key(&id) {
            self.live.insert(id, expires_at);
        }
    }

    /// A credential has ended, told at `now`.
    pub(super) fn ended(&mut self, id: CredentialId, how: How, now: UnixMs) {
        let at = match (how, self.live.remove(&id)) {
            (How::Expired, Some(expires_at)) => expires_at,
            _ => now,
        };
        self.ended.entry(id).or_insert((how, at));
        while self.ended.len() > ENDED_MAX {
            self.ended.pop_first();
        }
    }

    /// All that was recorded before `asked_at` has been told.
    pub(super) fn told(&mut self, asked_at: UnixMs) {
        self.told_until = self.told_until.max(Some(asked_at));
    }

    /// How many live, as the broker counts them: until their end is recorded.
    pub(super) fn live(&self) -> u64 {
        self.live.len() as u64
    }

    /// Whether there is anything to go by.
    pub(super) fn is_ready(&self) -> bool {
        self.told_until.is_some() && !self.issuers.is_empty()
    }

    /// Whether a session is by a certificate of somebody else's CA for sure: of a CA that was made a moment ago, it may be
    /// known what it signed before it is known that it is ours.
    pub(super) fn is_of_others(&self, session: &Session) -> bool {
        let is_ours = |id| self.live.contains_key(&id);
        self.issuers.by(&session.issuer) == By::Others && !credential(&session.serial).is_some_and(is_ours)
    }

    /// What to do with a session at `now`.
    pub(super) fn verdict(&self, session: &Session, now: UnixMs) -> Verdict {
        let by = self.issuers.by(&session.issuer);
        if by == By::Others {
            return Verdict::Others;
        }
        let id = credential(&session.serial);
        if let Some(id) = id {
            if let Some((how, at)) = self.ended.get(&id) {
                #[cfg(feature = "sabotage")]
                if *how == How::Revoked && crate::sabotage::breaks("p10-session") {
                    return Verdict::Lives(id);
                }
                return Verdict::Ended(id, *how, *at);
            }
            match self.live.get(&id) {
                Some(expires_at) if now < *expires_at => return Verdict::Lives(id),
                Some(expires_at) => return Verdict::Ended(id, How::Expired, *expires_at),
                None => {}
            }
        }
        if by == By::Perhaps {
            return Verdict::Others;
        }
        match self.told_until {
            Some(until) if is_told(session, id, until) => Verdict::Unknown(id),
            _ => Verdict::Unclear,
        }
    }

    /// Whether asking anew for what was recorded would make an unclear session clear.
    pub(super) fn must_ask(&self, session: &Session, now: UnixMs) -> bool {
        self.verdict(session, now) == Verdict::Unclear && is_told(session, credential(&session.serial), now)
    }
}

/// Whether the credential of a session must be among what was recorded until `until`: it was recorded before it could
/// be used, and so before the session began; by its id it may be older, by the broker's clock.
fn is_told(session: &Session, id: Option<CredentialId>, until: UnixMs) -> bool {
    let drawn = |id: CredentialId| until.millis_since(id.drawn_at()) >= CLOCKS_DIFFER_MS;
    until.millis_since(session.since) >= TOLD_WITHIN_MS || id.is_some_and(drawn)
}

#[cfg(test)]
mod tests;
