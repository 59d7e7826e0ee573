//! The life of each credential: issued once, released or void, ended once.

use std::collections::{BTreeMap, BTreeSet};

use daypass_verify::ids::KeyId;
use daypass_verify::time::UnixMs;

use super::finding::{FindingCode, Findings};
use crate::entry::{
    CredentialEnded, CredentialIssued, CredentialSettled, EndedHow, Index, KeyChanged, KeyState,
};

/// How long after its end a credential may first be called expired: the leeway that verifiers give.
const LEEWAY_MS: i64 = 30_000;
/// How long after its end a credential's ending must be in the log: leeway, and a minute for the sweep.
const ENDING_DUE_MS: i64 = 90_000;
/// How long what ended is remembered after its time is over, for settlements and endings that come late.
const REMEMBERED_MS: i64 = 3_600_000;
/// How far the time of issue may lie after the entry's own time.
const ISSUE_SKEW_MS: i64 = 5_000;
/// How much longer than granted a credential may live, as its end is a whole second.
const ROUNDING_MS: i64 = 1_000;

/// What is remembered of one credential.
#[derive(Debug)]
struct Life {
    recorded: UnixMs,
    exp: UnixMs,
    key: Interned,
    released: bool,
    ended: bool,
}

/// A key, by its place among those that issued.
type Interned = u32;

/// How many credentials had which fate.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Counts {
    pub(super) issued: u64,
    pub(super) expired: u64,
    pub(super) revoked: u64,
    pub(super) void: u64,
}

/// The credentials that are alive or ended a short while ago.
#[derive(Debug, Default)]
pub(super) struct Credentials {
    lives: BTreeMap<Index, Life>,
    /// Those without an ending, by when their time is over.
    open: BTreeSet<(UnixMs, Index)>,
    issued: Bits,
    void: BTreeSet<Index>,
    keys: BTreeMap<KeyId, Interned>,
    /// Keys that others know, and since when.
    compromised: BTreeMap<KeyId, UnixMs>,
    counts: Counts,
    forgotten_at: Option<UnixMs>,
}

impl Credentials {
    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    /// How many have no ending.
    pub(super) fn live(&self) -> u64 {
        let Counts { issued, expired, revoked, void } = self.counts;
        issued.saturating_sub(expired + revoked + void)
    }

    pub(super) fn issued(
        &mut self,
        index: Index,
        time: UnixMs,
        issued: &CredentialIssued,
        findings: &mut Findings,
    ) {
        check_grant(index, time, issued, findings);
        self.forget(time);
        let key = self.interned(&issued.credential.key);
        let life = Life { recorded: time, exp: issued.credential.exp_ms, key, released: false, ended: false };
        self.open.insert((life.exp, index));
        self.lives.insert(index, life);
        self.issued.set(index);
        self.counts.issued += 1;
    }

    fn interned(&mut self, key: &KeyId) -> Interned {
        if let Some(known) = self.keys.get(key) {
            return *known;
        }
        let next = Interned::try_from(self.keys.len()).unwrap_or(Interned::MAX);
        self.keys.insert(key.clone(), next);
        next
    }

    /// Remembers which keys others know.
    pub(super) fn key_changed(&mut self, time: UnixMs, changed: &KeyChanged) {
        match changed.state {
            KeyState::Compromised => drop(self.compromised.insert(changed.key.clone(), time)),
            _ => drop(self.compromised.remove(&changed.key)),
        }
    }

    pub(super) fn settled(&mut self, index: Index, settled: &CredentialSettled, findings: &mut Findings) {
        for (credential, _, released) in &settled.released {
            self.released(index, *credential, *released, findings);
        }
        for (credential, _) in &settled.void {
            if self.lives.get(credential).is_some_and(|life| life.released) {
                let detail = format!("credential {credential} was released, and then called void");
                findings.add(FindingCode::VoidThenUsed, Some(index), detail);
            }
            self.void.insert(*credential);
            if self.end(index, *credential, findings) {
                self.counts.void += 1;
            }
        }
    }

    fn released(&mut self, index: Index, credential: Index, released: UnixMs, findings: &mut Findings) {
        if self.void.contains(&credential) {
            let detail = format!("credential {credential} was called void, and then released");
            findings.add(FindingCode::VoidThenUsed, Some(index), detail);
        }
        match self.lives.get_mut(&credential) {
            Some(life) => {
                life.released = true;
                if released < life.recorded {
                    let detail = format!(
                        "credential {credential} was released at {released}, recorded at {}",
                        life.recorded
                    );
                    findings.add(FindingCode::ReleasedBeforeRecorded, Some(index), detail);
                }
            }
            None if self.issued.has(credential) => {}
            None => {
                let detail = format!("entry {credential} issued no credential that could be released");
                findings.add(FindingCode::SettledWithoutIssuance, Some(index), detail);
            }
        }
    }

    pub(super) fn ended(
        &mut self,
        index: Index,
        time: UnixMs,
        ended: &CredentialEnded,
        findings: &mut Findings,
    ) {
        let of = ended.selector.as_ref().and_then(|selector| selector.key.as_ref());
        for credential in &ended.ended {
            self.check_selected(index, *credential, of, findings);
            if ended.how == EndedHow::Expired {
                self.check_expired(index, time, *credential, findings);
            }
            if self.end(index, *credential, findings) {
                match ended.how {
                    EndedHow::Expired => self.counts.expired += 1,
                    EndedHow::Revoked => self.counts.revoked += 1,
                }
            }
        }
        if let Some(through) = ended.through_ms {
            let why = format!("not named by entry {index}, which says that all until {through} are");
            self.unended_before(through, &why, findings);
        }
    }

    fn check_expired(&self, index: Index, time: UnixMs, credential: Index, findings: &mut Findings) {
        let exp = self.lives.get(&credential).map(|life| life.exp);
        if let Some(exp) = exp.filter(|exp| time < exp.plus_millis(LEEWAY_MS)) {
            let detail =
                format!("credential {credential} was called expired at {time}, it is valid until {exp}");
            findings.add(FindingCode::EndedTooEarly, Some(index), detail);
        }
    }

    /// An order about a key ends what that key signed, and nothing else.
    fn check_selected(&self, index: Index, credential: Index, of: Option<&KeyId>, findings: &mut Findings) {
        let (Some(key), Some(life)) = (of, self.lives.get(&credential)) else { return };
        if self.keys.get(key) != Some(&life.key) {
            let detail = format!("credential {credential} was ended with key `{key}`, which did not sign it");
            findings.add(FindingCode::NotSelected, Some(index), detail);
        }
    }

    /// Ends a credential; whether this was its first ending.
    fn end(&mut self, index: Index, credential: Index, findings: &mut Findings) -> bool {
        match self.lives.get_mut(&credential) {
            Some(life) if !life.ended => {
                life.ended = true;
                self.open.remove(&(life.exp, credential));
                return true;
            }
            None if !self.issued.has(credential) => {
                let detail = format!("entry {credential} issued no credential that could end");
                findings.add(FindingCode::EndingWithoutIssuance, Some(index), detail);
            }
            _ => {
                let detail = format!("credential {credential} had ended before");
                findings.add(FindingCode::TwoEndings, Some(index), detail);
            }
        }
        false
    }

    pub(super) fn observed(&self, index: Index, credential: Index, findings: &mut Findings) {
        if self.void.contains(&credential) {
            let detail = format!("credential {credential}, which was never released, was seen in use");
            findings.add(FindingCode::VoidThenUsed, Some(index), detail);
        }
    }

    /// Names what should have ended by `now`, the time of the log's last entry.
    pub(super) fn finish(&mut self, now: UnixMs, excused: bool, findings: &mut Findings) {
        if !excused {
            let due = now.plus_millis(-ENDING_DUE_MS);
            self.left_alive(due, findings);
            self.unended_before(due, &format!("no ending by {now}"), findings);
        }
    }

    /// Names what lives, and was signed by a key that was called compromised before `due`.
    fn left_alive(&self, due: UnixMs, findings: &mut Findings) {
        for (key, since) in self.compromised.iter().filter(|(_, since)| **since < due) {
            let Some(interned) = self.keys.get(key) else { continue };
            let signed = |index: &Index| self.lives.get(index).is_some_and(|life| life.key == *interned);
            for (_, index) in self.open.iter().filter(|(_, index)| signed(index)) {
                let detail = format!("lives, and its key `{key}` is compromised since {since}");
                findings.add(FindingCode::NoEnding, Some(*index), detail);
            }
        }
    }

    /// Names, once, what was valid until before `end` and has no ending.
    fn unended_before(&mut self, end: UnixMs, why: &str, findings: &mut Findings) {
        while let Some((exp, index)) = self.open.first().copied().filter(|(exp, _)| *exp < end) {
            self.open.pop_first();
            findings.add(FindingCode::NoEnding, Some(index), format!("valid until {exp}, {why}"));
        }
    }

    /// Once in an hour, lets go of what ended more than an hour ago.
    fn forget(&mut self, now: UnixMs) {
        let last = *self.forgotten_at.get_or_insert(now);
        if now.millis_since(last) >= REMEMBERED_MS {
            self.lives.retain(|_, life| !life.ended || now.millis_since(life.exp) < REMEMBERED_MS);
            self.forgotten_at = Some(now);
        }
    }
}

/// What one issuance says of itself: nothing beyond what was asked, and issued when it was recorded.
fn check_grant(index: Index, time: UnixMs, issued: &CredentialIssued, findings: &mut Findings) {
    let (asked, granted, credential) = (&issued.asked, &issued.granted, &issued.credential);
    let mut wider = |detail: &str| findings.add(FindingCode::WiderThanAsked, Some(index), detail);
    if !granted.scope.is_within(&asked.scope) {
        wider("the granted scope goes beyond what was asked");
    }
    if asked.ttl_s.is_some_and(|ttl| granted.ttl_s > ttl) {
        wider("granted for longer than asked");
    }
    if credential.exp_ms.millis_since(credential.iat_ms) > granted.ttl_s.millis() + ROUNDING_MS {
        wider("valid for longer than granted");
    }
    if credential.iat_ms.millis_since(time) > ISSUE_SKEW_MS {
        let detail = format!("issued at {}, recorded at {time}", credential.iat_ms);
        findings.add(FindingCode::IssuedLate, Some(index), detail);
    }
}

/// A set of indexes, one bit each.
#[derive(Debug, Default)]
struct Bits(Vec<u64>);

impl Bits {
    fn set(&mut self, index: Index) {
        let Ok(word) = usize::try_from(index / 64) else { return };
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        if let Some(bits) = self.0.get_mut(word) {
            *bits |= 1 << (index % 64);
        }
    }

    fn has(&self, index: Index) -> bool {
        let word = usize::try_from(index / 64).ok().and_then(|word| self.0.get(word));
        word.is_some_and(|bits| bits & (1 << (index % 64)) != 0)
    }
}
