//! How long: the earliest of every bound.

use daypass_evidence::entry::{CredentialType, KeyChanged, KeyUse, Profile, Reach};
use daypass_verify::time::{Seconds, UnixMs};

use super::resolve::{Destination, Party};
use super::{Outward, Why};
use crate::bundle::object::Settings;
use crate::proof::Principal;

const DAY_MS: i64 = 86_400_000;
pub(crate) const TOKEN_TTL_MAX: Seconds = Seconds::new(3600);
pub(crate) const CERTIFICATE_TTL_MAX: Seconds = Seconds::new(86_400);
/// Where no revocation arrives, nothing lives longer.
const UNREACHED_TTL_MAX: Seconds = Seconds::new(900);
/// A leaf lives at most this part of its CA's life, so that CAs can be replaced in time.
pub(crate) const CA_LIFE_PARTS: i64 = 6;
/// How long after its end a verifier may still take a token: its key is published until then.
pub(crate) const VERIFIERS_LEEWAY: Seconds = Seconds::new(30);

/// From when to when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lifetime {
    pub(super) issued_at: UnixMs,
    pub(super) ttl_s: Seconds,
    pub(super) expires_at: UnixMs,
    pub(super) is_shortened: bool,
}

struct Bound {
    end: UnixMs,
    inner: &'static str,
    outward: Outward,
}

/// The bounds met so far. Times start at the whole second, because that is what a token can say.
pub(super) struct Bounds {
    now: UnixMs,
    start: UnixMs,
    asked: Seconds,
    bounds: Vec<Bound>,
}

impl Bounds {
    pub(super) fn new(now: UnixMs, asked: Seconds) -> Result<Self, Why> {
        if asked.get() == 0 {
            return Err(Why::malformed("ttl", "a lifetime of `0s`: expected at least one second"));
        }
        Ok(Self { now, start: now.floor_second(), asked, bounds: Vec::new() })
    }

    fn until(&mut self, end: UnixMs, inner: &'static str, outward: Outward) {
        self.bounds.push(Bound { end, inner, outward });
    }

    fn at_most(&mut self, ttl: Seconds, inner: &'static str) {
        self.until(self.start.plus(ttl), inner, Outward::NotAllowed);
    }

    pub(super) fn of_task(&mut self, destination: &Destination<'_>, profile: Profile) {
        self.at_most(destination.task.ttl_max_s, "TASK_TTL");
        if let Some(ttl) = destination.target.ttl_max_s {
            self.at_most(ttl, "TARGET_TTL");
        }
        match profile.credential_type() {
            CredentialType::Jwt => self.at_most(TOKEN_TTL_MAX, "TOKEN_TTL"),
            CredentialType::X509 => self.at_most(CERTIFICATE_TTL_MAX, "CERTIFICATE_TTL"),
        }
        if destination.target.reach == Reach::None {
            self.at_most(UNREACHED_TTL_MAX, "UNREACHED_TTL");
        }
    }

    pub(super) fn of_party(&mut self, party: &Party<'_>) {
        self.until(party.identity.expires_ms, "IDENTITY_EXPIRED", Outward::IdentityExpired);
        if let Some((_, supplier)) = party.supplier {
            self.until(supplier.ends_ms, "CONTRACT_ENDED", Outward::ContractEnded);
            if let Some(ttl) = supplier.ttl_max_s {
                self.at_most(ttl, "SUPPLIER_TTL");
            }
        }
    }

    /// An overdue review first shortens, then refuses.
    pub(super) fn of_review(&mut self, party: &Party<'_>, settings: &Settings) -> Result<(), Why> {
        let due = party.declaration.review_due(party.identity.review_days);
        let refuse_from = due.plus_millis(i64::from(settings.overdue_refuse_days) * DAY_MS);
        if self.now >= refuse_from {
            let clause = format!("the review of identity `{}` was due at {due}", party.named.name);
            return Err(Why::new("REVIEW_OVERDUE", Outward::ReviewOverdue, clause));
        }
        if self.now >= due {
            self.until(self.start.plus(settings.overdue_ttl_max_s), "REVIEW_OVERDUE", Outward::ReviewOverdue);
        }
        Ok(())
    }

    pub(super) fn of_proof(&mut self, principal: &Principal) {
        if let Some(end) = principal.cap() {
            self.until(end, "PROOF_ENDS", Outward::ProofRefused);
        }
    }

    pub(super) fn of_key(&mut self, key: &KeyChanged) {
        let ca = key.usage == KeyUse::Ca;
        let leeway = if ca { Seconds::default() } else { VERIFIERS_LEEWAY };
        self.until(key.publish_until_ms.minus(leeway), "KEY_ENDS", Outward::Halted);
        if ca {
            let life = key.publish_until_ms.millis_since(key.publish_from_ms);
            self.until(self.start.plus_millis(life / CA_LIFE_PARTS), "CA_LIFE", Outward::Halted);
        }
    }

    /// The earliest end of all.
    pub(super) fn earliest(self) -> Result<Lifetime, Why> {
        let asked_end = self.start.plus(self.asked);
        let first = self.bounds.into_iter().min_by_key(|bound| bound.end);
        let Some(first) = first.filter(|bound| bound.end < asked_end) else {
            return Ok(lifetime(self.start, self.asked, false));
        };
        match Seconds::floor_from_millis(first.end.millis_since(self.start)) {
            Some(ttl) if ttl.get() > 0 => Ok(lifetime(self.start, ttl, true)),
            _ => {
                let clause = format!("less than a second is left: it ends at {}", first.end);
                Err(Why::new(first.inner, first.outward, clause))
            }
        }
    }
}

fn lifetime(start: UnixMs, ttl_s: Seconds, is_shortened: bool) -> Lifetime {
    Lifetime { issued_at: start, ttl_s, expires_at: start.plus(ttl_s), is_shortened }
}
