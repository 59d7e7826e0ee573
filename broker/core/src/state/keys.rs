//! What a key may do at a moment: a function of its recorded times, the same on every broker.

use daypass_evidence::entry::{KeyChanged, KeyState, KeyUse};
use daypass_verify::ids::KeyId;
use daypass_verify::time::UnixMs;

/// How long a key that no longer takes drafts still signs those that name it, in ms.
pub const DRAIN_MS: i64 = 10_000;

/// What `key` is at `now`. What was done to it counts only where times cannot say it: destroyed, compromised.
#[must_use]
pub fn phase(key: &KeyChanged, now: UnixMs) -> KeyState {
    match key.state {
        KeyState::Compromised => KeyState::Compromised,
        KeyState::Destroyed => KeyState::Destroyed,
        _ if now < key.sign_from_ms => KeyState::Prepared,
        _ if now < key.sign_until_ms => KeyState::Active,
        _ if now < key.sign_until_ms.plus_millis(DRAIN_MS) => KeyState::Draining,
        _ => KeyState::Retired,
    }
}

/// Whether verifiers must know `key` at `now` by its own times. A destroyed key is published until they end.
#[must_use]
pub fn is_published(key: &KeyChanged, now: UnixMs) -> bool {
    key.state != KeyState::Compromised && (key.publish_from_ms..key.publish_until_ms).contains(&now)
}

/// The keys of `usage` that verifiers must know at `now`. Where none signs, the one that signed last stays: nobody can
/// have forgotten it when it is given more time, however long no broker could write.
pub(crate) fn published<'a>(
    keys: impl Iterator<Item = &'a KeyChanged> + Clone,
    usage: KeyUse,
    now: UnixMs,
) -> impl Iterator<Item = &'a KeyChanged> {
    let kept = left_over(keys.clone(), usage, now);
    keys.filter(move |key| key.usage == usage && (is_published(key, now) || kept == Some(&key.key)))
}

/// The key that signed last, where none of its kind signs at `now`.
fn left_over<'a>(
    keys: impl Iterator<Item = &'a KeyChanged> + Clone,
    usage: KeyUse,
    now: UnixMs,
) -> Option<&'a KeyId> {
    let from_upstream =
        |key: &KeyChanged| key.usage == usage && key.origin == UPSTREAM && is_published(key, now);
    if keys.clone().any(from_upstream) {
        return None;
    }
    let mut rotating = keys.filter(move |key| rotates(key, usage));
    if rotating.clone().any(|key| phase(key, now) == KeyState::Active) {
        return None;
    }
    let begun = rotating.by_ref().filter(|key| key.sign_from_ms <= now);
    begun.max_by_key(|key| (key.sign_from_ms, &key.key)).map(|key| &key.key)
}

/// Whether `key` is one of the generated keys of `usage`, which follow each other, and is still to be trusted.
pub(crate) fn rotates(key: &KeyChanged, usage: KeyUse) -> bool {
    let gone = matches!(key.state, KeyState::Compromised | KeyState::Destroyed);
    key.usage == usage && key.origin == GENERATED && !gone
}

/// The `origin` of keys that brokers make.
const GENERATED: &str = "generated";

/// The `origin` of an issuing CA that the organisation's own CA signs, and of the root above it.
pub const UPSTREAM: &str = "upstream";

/// The `origin` of keys that operators bring.
pub const IMPORTED: &str = "imported";

/// RSASSA-PKCS1-v1_5 with SHA-256, for receivers that take nothing else. No broker makes such keys.
pub const RS256: &str = "RS256";

pub(super) fn signing<'a>(
    keys: impl Iterator<Item = &'a KeyChanged>,
    usage: KeyUse,
    alg: &str,
    now: UnixMs,
) -> Option<&'a KeyChanged> {
    keys.filter(|key| key.usage == usage && key.alg == alg)
        .filter(|key| phase(key, now) == KeyState::Active && is_published(key, now))
        .max_by_key(|key| (key.sign_from_ms, &key.key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use daypass_verify::ids::Digest;

    const ES256: &str = "ES256";

    fn key(id: u8, state: KeyState, times: [i64; 4]) -> KeyChanged {
        let [publish_from, sign_from, sign_until, publish_until] = times.map(UnixMs::new);
        KeyChanged {
            key: KeyId::from_thumbprint([id; 32]),
            usage: KeyUse::Token,
            alg: "ES256".into(),
            public: Digest::of(&[id]),
            state,
            publish_from_ms: publish_from,
            sign_from_ms: sign_from,
            sign_until_ms: sign_until,
            publish_until_ms: publish_until,
            certificate: None,
            chain: Vec::new(),
            origin: "generated".into(),
            reason: None,
        }
    }

    #[test]
    fn the_phase_of_a_key_follows_from_its_times() {
        let it = key(1, KeyState::Prepared, [0, 100, 200, 50_000]);
        for (now, phase_then, published) in [
            (-1, KeyState::Prepared, false),
            (0, KeyState::Prepared, true),
            (99, KeyState::Prepared, true),
            (100, KeyState::Active, true),
            (199, KeyState::Active, true),
            (200, KeyState::Draining, true),
            (10_199, KeyState::Draining, true),
            (10_200, KeyState::Retired, true),
            (50_000, KeyState::Retired, false),
        ] {
            let now = UnixMs::new(now);
            assert_eq!((phase(&it, now), is_published(&it, now)), (phase_then, published), "{now:?}");
        }
    }

    #[test]
    fn a_compromised_key_neither_signs_nor_is_published() {
        let it = key(1, KeyState::Compromised, [0, 0, 1000, 1000]);
        assert!(!is_published(&it, UnixMs::new(5)));
        assert!(signing([&it].into_iter(), KeyUse::Token, ES256, UnixMs::new(5)).is_none());
    }

    #[test]
    fn of_two_active_keys_the_newer_signs() {
        let old = key(1, KeyState::Active, [0, 0, 1000, 2000]);
        let new = key(2, KeyState::Prepared, [0, 500, 1500, 2000]);
        let at =
            |now| signing([&old, &new].into_iter(), KeyUse::Token, ES256, UnixMs::new(now)).map(|it| &it.key);
        assert_eq!((at(499), at(500), at(1200)), (Some(&old.key), Some(&new.key), Some(&new.key)));
        assert_eq!(at(1500), None);
        assert!(signing([&old].into_iter(), KeyUse::Svid, ES256, UnixMs::new(5)).is_none());
    }

    #[test]
    fn the_last_key_that_signed_stays_published_until_another_signs() {
        let old = key(1, KeyState::Active, [0, 0, 1000, 2000]);
        let known = |keys: &[&KeyChanged], now| {
            let found = published(keys.iter().copied(), KeyUse::Token, UnixMs::new(now));
            found.map(|it| it.key.clone()).collect::<Vec<_>>()
        };
        assert_eq!(
            known(&[&old], 1_000_000),
            std::slice::from_ref(&old.key),
            "however long nobody could write"
        );
        let next = key(2, KeyState::Prepared, [900, 5000, 6000, 7000]);
        assert_eq!(known(&[&old, &next], 4999), [old.key.clone(), next.key.clone()]);
        assert_eq!(known(&[&old, &next], 5000), std::slice::from_ref(&next.key));
        let compromised = KeyChanged { state: KeyState::Compromised, ..old.clone() };
        assert!(known(&[&compromised], 500).is_empty());
    }

    #[test]
    fn a_key_signs_for_its_own_algorithm_alone() {
        let imported = KeyChanged { alg: "RS256".into(), ..key(1, KeyState::Active, [0, 0, 1000, 2000]) };
        let at = |alg| signing([&imported].into_iter(), KeyUse::Token, alg, UnixMs::new(5));
        assert_eq!((at("RS256"), at(ES256)), (Some(&imported), None));
    }
}
