//! A key that somebody orders, before its time.

use daypass_evidence::entry::{KeyChanged, KeyState, KeyUse};
use daypass_verify::ids::KeyId;
use daypass_verify::time::UnixMs;

use super::{Lifetimes, Step, Times, earliest, ending, follow, is_upstream, newest};
use crate::state::{phase, rotates};

/// What an operator orders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Of which use.
    pub usage: KeyUse,
    /// The key whose secret others know; none for an orderly change.
    pub compromised: Option<KeyId>,
}

/// Why an order cannot be followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// Keys of this use are not changed by order.
    #[error("keys for `{0}` are not changed by order: expected token, svid or ca")]
    Use(&'static str),
    /// There is no such key.
    #[error("`{0}` names no key for `{1}` that could be compromised")]
    Unknown(KeyId, &'static str),
    /// The organisation's own CA makes them.
    #[error("issuing CAs are signed upstream here: run `daypass-broker ca request` and `ca install`")]
    Upstream,
}

/// The steps that follow `order` at `now`. An orderly change begins as soon as everybody can know the key; one after a
/// compromise at once, with a key that is published already where there is one.
///
/// # Errors
/// When it cannot be followed.
pub fn order<'a>(
    keys: impl Iterator<Item = &'a KeyChanged> + Clone,
    order: &Order,
    lifetimes: &Lifetimes,
    now: UnixMs,
) -> Result<Vec<Step>, OrderError> {
    let usage = order.usage;
    if !super::ROTATING.contains(&usage) {
        return Err(OrderError::Use(usage.as_str()));
    }
    let Some(compromised) = &order.compromised else { return orderly(keys, usage, lifetimes, now) };
    let known = keys.clone().find(|key| key.key == *compromised && key.usage == usage);
    if known.is_none_or(|key| key.state == KeyState::Compromised) {
        return Err(OrderError::Unknown(compromised.clone(), usage.as_str()));
    }
    let others = keys.clone().filter(|key| key.key != *compromised);
    let mut steps = vec![Step::Compromise { key: compromised.clone() }];
    if !(usage == KeyUse::Ca && is_upstream(keys)) {
        steps.extend(at_once(others, usage, lifetimes, now));
    }
    Ok(steps)
}

/// The key of a use that signs next, or from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Next {
    /// Which; none for one that is not made yet.
    pub key: Option<KeyId>,
    /// From when it signs.
    pub signs_from: UnixMs,
}

/// Where `steps`, taken for `order`, lead to. None where no key of this use is left.
#[must_use]
pub fn next<'a>(keys: impl Iterator<Item = &'a KeyChanged>, order: &Order, steps: &[Step]) -> Option<Next> {
    let of_step = steps.iter().find_map(|step| match step {
        Step::Make { times, .. } => Some(Next { key: None, signs_from: times.sign_from }),
        Step::Retime { key, times } => Some(Next { key: Some(key.clone()), signs_from: times.sign_from }),
        _ => None,
    });
    let left = keys.filter(|key| order.compromised.as_ref() != Some(&key.key));
    of_step.or_else(|| {
        newest(left, order.usage).map(|key| Next { key: Some(key.key.clone()), signs_from: key.sign_from_ms })
    })
}

fn orderly<'a>(
    keys: impl Iterator<Item = &'a KeyChanged> + Clone,
    usage: KeyUse,
    lifetimes: &Lifetimes,
    now: UnixMs,
) -> Result<Vec<Step>, OrderError> {
    if usage == KeyUse::Ca && is_upstream(keys.clone()) {
        return Err(OrderError::Upstream);
    }
    let Some(newest) = newest(keys.clone(), usage) else { return Ok(at_once(keys, usage, lifetimes, now)) };
    if phase(newest, now) != KeyState::Prepared {
        return Ok(follow(newest, earliest(usage, lifetimes, now), lifetimes, now));
    }
    let known_by = newest.publish_from_ms.plus_millis(lifetimes.ahead_ms(usage) + 1_000);
    let sign_from = known_by.max(now.floor_second());
    if sign_from >= newest.sign_from_ms {
        return Ok(Vec::new());
    }
    let before = keys.filter(|key| rotates(key, usage) && phase(key, now) == KeyState::Active);
    let mut steps = vec![earlier(newest, sign_from)];
    steps.extend(before.filter_map(|key| ending(key, sign_from, lifetimes, now)));
    Ok(steps)
}

/// One key signs now: the one that does, or one that was made already, or a new one.
fn at_once<'a>(
    keys: impl Iterator<Item = &'a KeyChanged> + Clone,
    usage: KeyUse,
    lifetimes: &Lifetimes,
    now: UnixMs,
) -> Vec<Step> {
    let mut rotating = keys.clone().filter(|key| rotates(key, usage));
    if rotating.clone().any(|key| phase(key, now) == KeyState::Active) {
        return Vec::new();
    }
    let sign_from = now.floor_second();
    match rotating
        .by_ref()
        .filter(|key| phase(key, now) == KeyState::Prepared)
        .min_by_key(|key| key.sign_from_ms)
    {
        Some(prepared) => vec![earlier(prepared, sign_from)],
        None => vec![Step::Make { usage, times: Times::of_next(usage, now, sign_from, lifetimes) }],
    }
}

fn earlier(key: &KeyChanged, sign_from: UnixMs) -> Step {
    Step::Retime { key: key.key.clone(), times: Times { sign_from, ..Times::of(key) } }
}
