//! Issuing CAs that the organisation's own CA signs, and what must be asked of operators before something ends.

use daypass_evidence::entry::{KeyChanged, KeyState, KeyUse};
use daypass_verify::ids::KeyId;
use daypass_verify::time::{Seconds, UnixMs};

use super::{CA_SIGNS_PARTS, Lifetimes, Step, Times, ending};
use crate::decision::lifetime::{CERTIFICATE_TTL_MAX, VERIFIERS_LEEWAY};
use crate::state::{DRAIN_MS, IMPORTED, UPSTREAM, is_published, phase};

/// How long a request waits for its certificate.
const REQUEST_WAITS: Seconds = Seconds::new(90 * 86_400);

/// How long before the end of what does not rotate an operator is asked for the next: a third of its life, and no more
/// than this.
const ASKED_AHEAD: Seconds = Seconds::new(30 * 86_400);

/// The same for the root: what trusts it has to be changed everywhere.
const ROOT_ASKED_AHEAD: Seconds = Seconds::new(365 * 86_400);

/// The times of a key that waits for its certificate: it never signs by them.
#[must_use]
pub fn requested(now: UnixMs) -> Times {
    let (from, until) = (now.floor_second(), now.floor_second().plus(REQUEST_WAITS));
    Times { publish_from: from, sign_from: until, sign_until: until, publish_until: until }
}

/// Whether `key` waits for its certificate.
#[must_use]
pub fn is_requested(key: &KeyChanged, now: UnixMs) -> bool {
    key.usage == KeyUse::Ca
        && key.origin == UPSTREAM
        && key.certificate.is_none()
        && phase(key, now) == KeyState::Prepared
}

/// Whether issuing CAs come from the organisation's own CA: those are never made here.
#[must_use]
pub fn is_upstream<'a>(keys: impl Iterator<Item = &'a KeyChanged>) -> bool {
    let certified = keys.filter(|key| key.usage == KeyUse::Ca && key.certificate.is_some());
    let newest = certified.max_by_key(|key| (key.sign_from_ms, &key.key));
    newest.is_some_and(|key| key.origin == UPSTREAM)
}

/// What the certificate of an issuing CA leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// The times of the issuing CA.
    pub ca: Times,
    /// The times of the root above it. It is published, and signs nothing here.
    pub root: Times,
    /// What becomes of the CAs before it, and of the deployment's own root.
    pub steps: Vec<Step>,
}

/// Puts an issuing CA in force whose path leads to the key `root` and ends at `not_after`. It signs as soon as everybody can
/// know that root; those before it sign until then, and their roots are published for as long as what they signed lives.
#[must_use]
pub fn install<'a>(
    keys: impl Iterator<Item = &'a KeyChanged> + Clone,
    root: &KeyId,
    not_after: UnixMs,
    lifetimes: &Lifetimes,
    now: UnixMs,
) -> Installed {
    let from = now.floor_second();
    let known =
        keys.clone().find(|key| key.key == *root && key.usage == KeyUse::Root && is_published(key, now));
    let published_from = known.map_or(from, |key| key.publish_from_ms);
    let sign_from = published_from.plus_millis(lifetimes.ahead.millis() + 1_000).max(from);
    let ca = Times { publish_from: from, sign_from, sign_until: sign_from, publish_until: not_after };
    let ca = ca.of_certificate();
    let until = known.map_or(not_after, |key| key.publish_until_ms.max(not_after));
    let root_times =
        Times { publish_from: published_from, sign_from: until, sign_until: until, publish_until: until };
    let others = keys.clone().filter(|key| {
        let signs = matches!(phase(key, now), KeyState::Active | KeyState::Prepared);
        key.usage == KeyUse::Ca && key.certificate.is_some() && signs
    });
    let mut steps: Vec<Step> = others.filter_map(|key| ending(key, sign_from, lifetimes, now)).collect();
    steps.extend(own_roots_end(keys, sign_from));
    Installed { ca, root: root_times, steps }
}

impl Times {
    /// The same for a CA whose certificate ends with `publish_until`: it signs until the last leaf can still live out its time.
    fn of_certificate(self) -> Self {
        let life = self.publish_until.millis_since(self.publish_from);
        let leaf = (life / (CA_SIGNS_PARTS + 1)).min(CERTIFICATE_TTL_MAX.millis());
        let sign_until = self.publish_until.plus_millis(-leaf - DRAIN_MS).minus(VERIFIERS_LEEWAY);
        Self { sign_until: sign_until.max(self.sign_from), ..self }
    }
}

/// The deployment's own roots sign nothing more, and go when the last CA below them is over.
fn own_roots_end<'a>(
    keys: impl Iterator<Item = &'a KeyChanged> + Clone,
    at: UnixMs,
) -> impl Iterator<Item = Step> {
    let gone = |key: &KeyChanged| matches!(key.state, KeyState::Compromised | KeyState::Destroyed);
    let below =
        keys.clone().filter(move |key| key.usage == KeyUse::Ca && key.origin != UPSTREAM && !gone(key));
    let last = below.map(|key| key.publish_until_ms).max().unwrap_or(at).max(at.plus_millis(DRAIN_MS));
    let roots = keys.filter(move |key| {
        key.usage == KeyUse::Root && key.origin != UPSTREAM && !gone(key) && key.publish_until_ms > last
    });
    roots.map(move |key| Step::Retime {
        key: key.key.clone(),
        times: Times { sign_until: at, publish_until: last, ..Times::of(key) },
    })
}

/// Something that ends soon and that no broker can make.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NearEnd {
    /// The code of its alarm.
    pub code: &'static str,
    /// The key.
    pub key: KeyId,
    /// When it signs no more, or ends.
    pub at: UnixMs,
    /// What to do.
    pub advice: &'static str,
}

/// What operators must be asked for at `now`.
pub fn near_end<'a>(
    keys: impl Iterator<Item = &'a KeyChanged> + Clone,
    now: UnixMs,
) -> impl Iterator<Item = NearEnd> {
    let upstream = is_upstream(keys.clone());
    keys.clone().filter_map(move |key| {
        let (code, advice) = asked(key, upstream)?;
        let ahead = match code {
            ROOT_ENDING => ROOT_ASKED_AHEAD.millis(),
            _ => (key.sign_until_ms.millis_since(key.sign_from_ms) / 3).min(ASKED_AHEAD.millis()),
        };
        let near = now >= key.sign_until_ms.plus_millis(-ahead) && now >= key.sign_from_ms;
        let mut others = keys.clone();
        let followed = others.any(|other| follows(other, key, now));
        let at = key.sign_until_ms;
        (near && !followed).then(|| NearEnd { code, key: key.key.clone(), at, advice })
    })
}

const CA_ENDING: &str = "CA_ENDING";
const ROOT_ENDING: &str = "ROOT_ENDING";
const KEY_ENDING: &str = "KEY_ENDING";

fn asked(key: &KeyChanged, upstream: bool) -> Option<(&'static str, &'static str)> {
    match (key.usage, key.origin.as_str()) {
        // Where the last of them is gone, it is missed until the next is there.
        (KeyUse::Ca, UPSTREAM) if key.certificate.is_some() => {
            Some((CA_ENDING, "run `daypass-broker ca request`, have it signed, and run `ca install`"))
        }
        _ if matches!(key.state, KeyState::Compromised | KeyState::Destroyed) => None,
        (KeyUse::Root, origin) if origin != UPSTREAM && !upstream => {
            Some((ROOT_ENDING, "issuing CAs end with it: prepare another deployment, or an upstream CA"))
        }
        (_, IMPORTED) => Some((KEY_ENDING, "bring the next by `daypass-broker import-key`")),
        _ => None,
    }
}

/// Whether `other` signs when `key` does no more.
fn follows(other: &KeyChanged, key: &KeyChanged, now: UnixMs) -> bool {
    let signs = matches!(phase(other, now), KeyState::Prepared | KeyState::Active);
    let alike = (other.usage, &other.alg) == (key.usage, &key.alg)
        && other.certificate.is_some() == key.certificate.is_some();
    signs
        && alike
        && other.key != key.key
        && other.sign_until_ms > key.sign_until_ms
        && other.sign_from_ms < other.sign_until_ms
}

#[cfg(test)]
mod tests {
    use daypass_verify::ids::Digest;

    use super::*;

    const NOW: UnixMs = UnixMs::new(1_796_083_200_000);
    const DAY: Seconds = Seconds::new(86_400);

    fn key(id: u8, usage: KeyUse, origin: &str, times: Times) -> KeyChanged {
        KeyChanged {
            key: KeyId::from_thumbprint([id; 32]),
            usage,
            alg: "ES256".into(),
            public: Digest::of(&[id]),
            state: times.state(NOW),
            publish_from_ms: times.publish_from,
            sign_from_ms: times.sign_from,
            sign_until_ms: times.sign_until,
            publish_until_ms: times.publish_until,
            certificate: Some(Digest::of(&[id])),
            chain: Vec::new(),
            origin: origin.into(),
            reason: None,
        }
    }

    fn times(days: [u32; 4]) -> Times {
        let [publish_from, sign_from, sign_until, publish_until] =
            days.map(|days| NOW.plus(Seconds::new(days * DAY.get())));
        Times { publish_from, sign_from, sign_until, publish_until }
    }

    fn retimed<'a>(installed: &'a Installed, of: &KeyChanged) -> &'a Times {
        let found = installed.steps.iter().find_map(|step| match step {
            Step::Retime { key, times } if *key == of.key => Some(times),
            _ => None,
        });
        found.unwrap()
    }

    #[test]
    fn a_new_root_is_known_to_everybody_before_what_is_below_it_signs() {
        let lifetimes = Lifetimes::default();
        let own_root = key(1, KeyUse::Root, "generated", times([0, 0, 3650, 4000]));
        let own_ca = key(2, KeyUse::Ca, "generated", times([0, 0, 75, 90]));
        let (root, end) = (KeyId::from_thumbprint([9; 32]), NOW.plus(Seconds::new(60 * DAY.get())));
        let installed = install([&own_root, &own_ca].into_iter(), &root, end, &lifetimes, NOW);
        let ca = installed.ca;
        assert_eq!(ca.sign_from, NOW.plus(lifetimes.ahead).plus_millis(1_000));
        assert_eq!((ca.publish_until, installed.root.publish_until), (end, end));
        let last_leaf = ca.sign_until.plus_millis(DRAIN_MS).plus(CERTIFICATE_TTL_MAX).plus(VERIFIERS_LEEWAY);
        assert_eq!(last_leaf, end, "what it signs last lives out its time");
        assert_eq!(retimed(&installed, &own_ca).sign_until, ca.sign_from);
        let own = retimed(&installed, &own_root);
        assert_eq!((own.sign_until, own.publish_until), (ca.sign_from, own_ca.publish_until_ms));

        let known = key(9, KeyUse::Root, UPSTREAM, installed.root);
        let later = NOW.plus(Seconds::new(2 * DAY.get()));
        let renewed = install([&known, &own_ca].into_iter(), &root, end.plus(DAY), &lifetimes, later);
        assert_eq!(renewed.ca.sign_from, later, "its root is known already");
        assert_eq!(renewed.root.publish_from, known.publish_from_ms);
        assert_eq!(renewed.root.publish_until, end.plus(DAY));
    }

    #[test]
    fn a_key_that_waits_for_its_certificate_never_signs_and_stops_no_rotation() {
        let waiting = KeyChanged { certificate: None, ..key(3, KeyUse::Ca, UPSTREAM, requested(NOW)) };
        assert!(is_requested(&waiting, NOW) && !is_upstream([&waiting].into_iter()));
        for days in [0, 45, 89, 90, 91, 400] {
            let now = NOW.plus(Seconds::new(days * DAY.get()));
            assert_ne!(phase(&waiting, now), KeyState::Active, "{days}");
            assert_eq!(is_requested(&waiting, now), days < 90);
        }
    }

    #[test]
    fn operators_are_asked_in_time_and_no_more_once_the_next_is_there() {
        let ca = key(1, KeyUse::Ca, UPSTREAM, times([0, 0, 60, 61]));
        let next = key(2, KeyUse::Ca, UPSTREAM, times([45, 46, 120, 121]));
        let imported =
            KeyChanged { certificate: None, ..key(3, KeyUse::Token, IMPORTED, times([0, 1, 365, 366])) };
        let own_root = key(4, KeyUse::Root, "generated", times([0, 0, 3650, 4000]));
        let stolen = KeyChanged { state: KeyState::Compromised, ..ca.clone() };
        let asked = |keys: &[&KeyChanged], day: u32| {
            let now = NOW.plus(Seconds::new(day * DAY.get()));
            near_end(keys.iter().copied(), now).map(|near| near.code).collect::<Vec<_>>()
        };
        for (keys, day, expected) in [
            (&[&ca][..], 39, &[][..]),
            (&[&ca], 41, &[CA_ENDING]),
            (&[&ca], 400, &[CA_ENDING]),
            (&[&ca, &next], 46, &[]),
            (&[&ca, &next], 100, &[CA_ENDING]),
            (&[&stolen], 41, &[CA_ENDING]),
            (&[&imported], 334, &[]),
            (&[&imported], 336, &[KEY_ENDING]),
            (&[&own_root], 3284, &[]),
            (&[&own_root], 3286, &[ROOT_ENDING]),
            (&[&own_root, &ca], 3286, &[CA_ENDING]),
        ] {
            assert_eq!(asked(keys, day), expected, "day {day}: {keys:?}");
        }
    }
}
