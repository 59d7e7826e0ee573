//! Keys that are brought from outside.

use daypass_evidence::entry::{KeyChanged, KeyState, KeyUse};
use daypass_verify::time::{Seconds, UnixMs};

use super::{Lifetimes, Step, Times, earliest, ending};
use crate::state::{IMPORTED, phase};

/// The times of a key for `usage` and `alg` that is brought at `now` and is to sign for `life`, and what becomes of the one
/// that was brought before it: it signs until everybody can know the new one.
#[must_use]
pub fn import<'a>(
    keys: impl Iterator<Item = &'a KeyChanged>,
    usage: KeyUse,
    alg: &str,
    life: Seconds,
    lifetimes: &Lifetimes,
    now: UnixMs,
) -> (Times, Vec<Step>) {
    let sign_from = earliest(usage, lifetimes, now);
    let times = Times::of_next(usage, now, sign_from, lifetimes);
    let times = times.until(usage, sign_from.plus(life), lifetimes);
    let before = keys.filter(|key| {
        let signs = matches!(phase(key, now), KeyState::Active | KeyState::Prepared);
        key.usage == usage
            && key.alg == alg
            && key.origin == IMPORTED
            && signs
            && key.sign_until_ms > sign_from
    });
    (times, before.filter_map(|key| ending(key, sign_from, lifetimes, now)).collect())
}
