//! Keys that follow each other: which must be made, given other times or destroyed. A function of the keys in the log,
//! of how long keys live, and of `now`, so every broker comes to the same answer.
//!
//! A verifier may use its copy of the published keys for [`Lifetimes::max_age`]. A key is published for longer than
//! that before it signs, and until nothing that it signed is taken by anybody. Its predecessor signs until it does: one
//! whose time ran out while no broker could write is given more, as it was published all the while.

mod import;
mod order;
#[cfg(test)]
mod tests;
mod upstream;

use daypass_evidence::entry::{KeyChanged, KeyState, KeyUse};
use daypass_verify::ids::KeyId;
use daypass_verify::time::{Seconds, UnixMs};

use crate::decision::lifetime::{CERTIFICATE_TTL_MAX, TOKEN_TTL_MAX, VERIFIERS_LEEWAY};
use crate::state::{DRAIN_MS, phase, rotates};

pub use import::import;
pub use order::{Next, Order, OrderError, next, order};
pub use upstream::{Installed, NearEnd, install, is_requested, is_upstream, near_end, requested};

/// The longest that a copy of the published keys may be used.
const MAX_AGE_MOST: Seconds = Seconds::new(300);

/// How much longer a key is published before it signs than a copy may be used: until every broker shows it, and for
/// clocks that differ by the two seconds at which a broker stops itself.
pub const MARGIN: Seconds = Seconds::new(5);

/// How much earlier than necessary the next key is made: a broker looks once in a second.
const EARLY_MS: i64 = 3_000;

/// What follows its predecessor without being told to.
pub const ROTATING: [KeyUse; 3] = [KeyUse::Token, KeyUse::Svid, KeyUse::Ca];

/// A leaf lives at most a sixth of its CA's life: the last leaf then ends with the sixth part.
const CA_SIGNS_PARTS: i64 = 5;

/// How long keys live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetimes {
    /// How long a key for tokens or JWT-SVIDs signs.
    pub token: Seconds,
    /// How long an issuing CA signs.
    pub ca: Seconds,
    /// How long before it signs a key is published.
    pub ahead: Seconds,
}

impl Default for Lifetimes {
    /// Keys of a month, CAs of a quarter, each known a day ahead.
    fn default() -> Self {
        const DAY_S: u32 = 86_400;
        Self { token: Seconds::new(30 * DAY_S), ca: Seconds::new(90 * DAY_S), ahead: Seconds::new(DAY_S) }
    }
}

impl Lifetimes {
    /// How long a copy of the published keys may be used: what `Cache-Control` and `spiffe_refresh_hint` say.
    #[must_use]
    pub fn max_age(&self) -> Seconds {
        let most = Seconds::new(self.ahead.get().saturating_sub(MARGIN.get()));
        most.min(MAX_AGE_MOST)
    }

    fn of(&self, usage: KeyUse) -> Seconds {
        if usage == KeyUse::Ca { self.ca } else { self.token }
    }

    fn ahead_ms(&self, usage: KeyUse) -> i64 {
        // An issuing CA travels with what it signs: nobody has to know it beforehand.
        if usage == KeyUse::Ca { 0 } else { self.ahead.millis() }
    }
}

/// What a key may be used for when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// Published from.
    pub publish_from: UnixMs,
    /// Signs from.
    pub sign_from: UnixMs,
    /// Signs until.
    pub sign_until: UnixMs,
    /// Published until.
    pub publish_until: UnixMs,
}

impl Times {
    /// The times that an entry says.
    #[must_use]
    pub fn of(key: &KeyChanged) -> Self {
        Self {
            publish_from: key.publish_from_ms,
            sign_from: key.sign_from_ms,
            sign_until: key.sign_until_ms,
            publish_until: key.publish_until_ms,
        }
    }

    /// Those of a key that is published from `now` on and signs from `sign_from`.
    #[must_use]
    pub fn of_next(usage: KeyUse, now: UnixMs, sign_from: UnixMs, lifetimes: &Lifetimes) -> Self {
        let publish_from = now.floor_second();
        let sign_until = sign_from.plus(lifetimes.of(usage));
        Self { publish_from, sign_from, sign_until, publish_until: sign_until }.outlived(usage, lifetimes)
    }

    /// The same for a key that signs until `sign_until`, and is then published until nothing that it signed lives.
    fn until(self, usage: KeyUse, sign_until: UnixMs, lifetimes: &Lifetimes) -> Self {
        Self { sign_until, ..self }.outlived(usage, lifetimes)
    }

    /// No token outlives its key's own time of signing, so the number of keys that are published is bounded.
    fn outlived(self, usage: KeyUse, lifetimes: &Lifetimes) -> Self {
        let drained = self.sign_until.plus_millis(DRAIN_MS);
        let outlives = if usage == KeyUse::Ca {
            let sixth = drained.millis_since(self.publish_from) / CA_SIGNS_PARTS;
            sixth.min(CERTIFICATE_TTL_MAX.millis())
        } else {
            lifetimes.token.min(TOKEN_TTL_MAX).millis()
        };
        let publish_until = drained.plus_millis(outlives).plus(VERIFIERS_LEEWAY).floor_second();
        Self { publish_until, ..self }
    }

    /// The same, ending with what signed the key: an issuing CA never outlives its root.
    #[must_use]
    pub fn within(self, end: UnixMs) -> Self {
        let publish_until = self.publish_until.min(end);
        let sign_until = self.sign_until.min(publish_until.plus_millis(-DRAIN_MS));
        Self { sign_until, publish_until, ..self }
    }

    /// What to record of a key that has these times.
    #[must_use]
    pub fn state(&self, now: UnixMs) -> KeyState {
        if now < self.sign_from { KeyState::Prepared } else { KeyState::Active }
    }
}

/// Something to do to a key. What is planned or ordered together is recorded together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Make one.
    Make {
        /// What for.
        usage: KeyUse,
        /// Its times.
        times: Times,
    },
    /// Give a key other times.
    Retime {
        /// Which.
        key: KeyId,
        /// Its times from now on.
        times: Times,
    },
    /// Nothing that it signed is taken by anybody: its secret goes.
    Destroy {
        /// Which.
        key: KeyId,
    },
    /// Others know its secret: it is unpublished at once.
    Compromise {
        /// Which.
        key: KeyId,
    },
}

/// What must be done to the keys of a log at `now`. Nothing, once it was done. Each list is one transaction: where one
/// cannot be carried out, the others can.
#[must_use]
pub fn plan<'a>(
    keys: impl Iterator<Item = &'a KeyChanged> + Clone,
    lifetimes: &Lifetimes,
    now: UnixMs,
) -> [Vec<Step>; 4] {
    let next = |usage| plan_next(keys.clone(), usage, lifetimes, now);
    let [token, svid, ca] = ROTATING.map(next);
    [token, svid, ca, plan_destroyed(keys.clone(), now).collect()]
}

/// The keys of `usage` that follow each other: the newest of them.
fn newest<'a>(keys: impl Iterator<Item = &'a KeyChanged>, usage: KeyUse) -> Option<&'a KeyChanged> {
    keys.filter(|key| rotates(key, usage)).max_by_key(|key| (key.sign_from_ms, &key.key))
}

fn plan_next<'a>(
    keys: impl Iterator<Item = &'a KeyChanged> + Clone,
    usage: KeyUse,
    lifetimes: &Lifetimes,
    now: UnixMs,
) -> Vec<Step> {
    if usage == KeyUse::Ca && is_upstream(keys.clone()) {
        return Vec::new();
    }
    let Some(newest) = newest(keys, usage) else {
        return vec![Step::Make { usage, times: Times::of_next(usage, now, now.floor_second(), lifetimes) }];
    };
    // A life that was configured shorter holds for the keys that are there.
    let due = newest.sign_until_ms.min(newest.sign_from_ms.plus(lifetimes.of(usage)));
    if now.plus_millis(lifetimes.ahead.millis() + EARLY_MS) < due {
        return Vec::new();
    }
    follow(newest, due.max(earliest(usage, lifetimes, now)), lifetimes, now)
}

/// When a key that is made now may sign.
fn earliest(usage: KeyUse, lifetimes: &Lifetimes, now: UnixMs) -> UnixMs {
    match lifetimes.ahead_ms(usage) {
        0 => now.floor_second(),
        ahead => now.floor_second().plus_millis(ahead + 1_000),
    }
}

/// A key that signs from `sign_from`, when the one before it ends.
fn follow(before: &KeyChanged, sign_from: UnixMs, lifetimes: &Lifetimes, now: UnixMs) -> Vec<Step> {
    let usage = before.usage;
    let mut steps = vec![Step::Make { usage, times: Times::of_next(usage, now, sign_from, lifetimes) }];
    steps.extend(ending(before, sign_from, lifetimes, now));
    steps
}

/// Ends `before` when the next begins. The certificate of a CA says how long it lives: it is never given more. What
/// was signed under the times before may live on under the new ones.
fn ending(before: &KeyChanged, at: UnixMs, lifetimes: &Lifetimes, now: UnixMs) -> Option<Step> {
    let (usage, key, was) = (before.usage, before.key.clone(), Times::of(before));
    if usage == KeyUse::Ca {
        let shorter = at < was.sign_until;
        return shorter.then_some(Step::Retime { key, times: Times { sign_until: at, ..was } });
    }
    let signed_live_until = now.plus(TOKEN_TTL_MAX).plus(VERIFIERS_LEEWAY).min(was.publish_until);
    let times = was.until(usage, at, lifetimes);
    let times = Times { publish_until: times.publish_until.max(signed_live_until), ..times };
    (at != was.sign_until).then_some(Step::Retime { key, times })
}

/// The newest of each kind stays, whatever its times say: it is given more when a broker can write again.
fn plan_destroyed<'a>(
    keys: impl Iterator<Item = &'a KeyChanged> + Clone,
    now: UnixMs,
) -> impl Iterator<Item = Step> {
    let over = keys.clone().filter(move |key| {
        key.usage != KeyUse::Evidence
            && phase(key, now) == KeyState::Retired
            && now >= key.publish_until_ms
            && newest(keys.clone(), key.usage).is_none_or(|newest| newest.key != key.key)
    });
    over.map(|key| Step::Destroy { key: key.key.clone() })
}
