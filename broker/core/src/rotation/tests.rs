use std::collections::{BTreeMap, BTreeSet};

use daypass_verify::ids::Digest;

use super::*;
use crate::state::is_published;

const NOW: UnixMs = UnixMs::new(1_796_083_200_000);

/// Keys of half a minute: copies may be ten seconds old.
const SHORT: Lifetimes =
    Lifetimes { token: Seconds::new(30), ca: Seconds::new(120), ahead: Seconds::new(15) };

/// The keys of a log, as entries would fold to them.
#[derive(Clone, Default)]
struct Keys {
    by_id: BTreeMap<KeyId, KeyChanged>,
    made: u32,
}

impl Keys {
    /// What `init` makes.
    fn first(lifetimes: &Lifetimes, now: UnixMs) -> Self {
        let mut keys = Self::default();
        keys.follow_plan(lifetimes, now);
        keys
    }

    fn plan(&self, lifetimes: &Lifetimes, now: UnixMs) -> Vec<Step> {
        plan(self.by_id.values(), lifetimes, now).concat()
    }

    fn follow_plan(&mut self, lifetimes: &Lifetimes, now: UnixMs) {
        let steps = self.plan(lifetimes, now);
        self.apply(steps, now);
        // With a successor, the one before it may go.
        let more = self.plan(lifetimes, now);
        assert!(more.iter().all(|step| matches!(step, Step::Destroy { .. })), "{more:?}");
        self.apply(more, now);
        assert_eq!(
            self.plan(lifetimes, now),
            [],
            "what was done is not done again, also where the clock stands"
        );
    }

    fn order(&mut self, usage: KeyUse, compromised: Option<KeyId>, lifetimes: &Lifetimes, now: UnixMs) {
        let steps = order(self.by_id.values(), &Order { usage, compromised }, lifetimes, now).unwrap();
        self.apply(steps, now);
    }

    fn apply(&mut self, steps: Vec<Step>, now: UnixMs) {
        for step in steps {
            match step {
                Step::Make { usage, times } => self.make(usage, times, now),
                Step::Retime { key, times } => set(self.by_id.get_mut(&key).unwrap(), times),
                Step::Destroy { key } => self.by_id.get_mut(&key).unwrap().state = KeyState::Destroyed,
                Step::Compromise { key } => {
                    self.by_id.get_mut(&key).unwrap().state = KeyState::Compromised;
                }
            }
        }
    }

    fn make(&mut self, usage: KeyUse, times: Times, now: UnixMs) {
        self.made += 1;
        let public = Digest::of(&self.made.to_be_bytes());
        let key = KeyId::from_thumbprint(*public.as_bytes());
        let mut made = KeyChanged {
            key: key.clone(),
            usage,
            alg: "ES256".into(),
            public,
            state: times.state(now),
            publish_from_ms: times.publish_from,
            sign_from_ms: times.sign_from,
            sign_until_ms: times.sign_until,
            publish_until_ms: times.publish_until,
            certificate: None,
            chain: Vec::new(),
            origin: "generated".into(),
            reason: None,
        };
        set(&mut made, times);
        self.by_id.insert(key, made);
    }

    fn signing(&self, usage: KeyUse, now: UnixMs) -> Vec<&KeyChanged> {
        let of = self.by_id.values().filter(|key| key.usage == usage);
        of.filter(|key| phase(key, now) == KeyState::Active && is_published(key, now)).collect()
    }

    fn published(&self, usage: KeyUse, now: UnixMs) -> BTreeSet<KeyId> {
        crate::state::published(self.by_id.values(), usage, now).map(|key| key.key.clone()).collect()
    }
}

fn set(key: &mut KeyChanged, times: Times) {
    key.publish_from_ms = times.publish_from;
    key.sign_from_ms = times.sign_from;
    key.sign_until_ms = times.sign_until;
    key.publish_until_ms = times.publish_until;
}

/// Pseudo-random numbers that are the same everywhere (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: i64) -> i64 {
        i64::try_from(self.next() % u64::try_from(bound).unwrap()).unwrap()
    }
}

/// What the brokers can do for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Brokers {
    Well,
    /// They answer, and cannot write: the disk is full, the database is away.
    CannotWrite,
    Away,
}

/// A verifier that uses its copy for as long as it may.
struct Verifier {
    copied_at: UnixMs,
    copy: BTreeSet<KeyId>,
}

/// How old the page can be that a broker shows: it follows the log, and its clock differs.
const PAGE_AGE_MOST_MS: i64 = 4_900;
const TOKEN_MS: i64 = 5_000;

struct World {
    random: Random,
    now: UnixMs,
    keys: Keys,
    history: Vec<(UnixMs, Keys)>,
    brokers: Brokers,
    until: UnixMs,
    serving_since: UnixMs,
    verifiers: Vec<Verifier>,
    tokens: Vec<(KeyId, UnixMs)>,
    verified: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let verifiers =
            (0..8).map(|_| Verifier { copied_at: UnixMs::new(0), copy: BTreeSet::new() }).collect();
        let keys = Keys::first(&SHORT, NOW);
        Self {
            random: Random(seed),
            now: NOW,
            history: vec![(NOW, keys.clone())],
            keys,
            brokers: Brokers::Well,
            until: NOW.plus_millis(60_000),
            serving_since: NOW,
            verifiers,
            tokens: Vec::new(),
            verified: 0,
        }
    }

    fn step(&mut self) {
        self.now = self.now.plus_millis(100 + self.random.below(900));
        if self.now >= self.until {
            self.change();
        }
        if self.brokers == Brokers::Well {
            self.rotate();
            self.issue();
        }
        if self.history.len() > 8 {
            self.history.remove(0);
        }
        self.tokens.retain(|(_, exp)| self.now < exp.plus(VERIFIERS_LEEWAY));
        self.verify();
    }

    fn change(&mut self) {
        let were_away = self.brokers == Brokers::Away;
        let lengths = [500, 3_000, 11_000, 14_000, 29_000, 31_000, 120_000, 3_600_000, 40 * 86_400_000_000];
        let outage = lengths[usize::try_from(self.random.below(9)).unwrap()];
        (self.brokers, self.until) = match (self.brokers, self.random.below(2)) {
            (Brokers::Well, 0) => (Brokers::Away, self.now.plus_millis(outage)),
            (Brokers::Well, _) => (Brokers::CannotWrite, self.now.plus_millis(outage)),
            _ => (Brokers::Well, self.now.plus_millis(1_000 + self.random.below(200_000))),
        };
        // Nobody waits through years in small steps.
        if self.brokers != Brokers::Well && outage > 600_000 {
            self.verify();
            self.now = self.until;
        }
        // A broker looks after its keys before it shows them.
        if self.brokers == Brokers::Well && were_away {
            self.rotate();
            self.serving_since = self.now;
        }
    }

    /// One look of a broker, which may be killed before its transaction is in the store.
    fn rotate(&mut self) {
        let steps = self.keys.plan(&SHORT, self.now);
        if !steps.is_empty() && self.random.below(3) == 0 {
            (self.brokers, self.until) = (Brokers::Away, self.now.plus_millis(self.random.below(20_000)));
            return;
        }
        if self.random.below(2_000) == 0 {
            self.keys.order(ROTATING[usize::try_from(self.random.below(3)).unwrap()], None, &SHORT, self.now);
        }
        self.keys.follow_plan(&SHORT, self.now);
        for usage in ROTATING {
            assert_eq!(self.keys.signing(usage, self.now).len(), 1, "{} at {}", usage.as_str(), self.now);
        }
        if !steps.is_empty() {
            self.keys.by_id.retain(|_, key| {
                self.now.millis_since(key.publish_until_ms) < 600_000 || key.state != KeyState::Destroyed
            });
            self.history.push((self.now, self.keys.clone()));
        }
    }

    fn issue(&mut self) {
        if self.brokers != Brokers::Well {
            return;
        }
        let key = self.keys.signing(KeyUse::Token, self.now)[0];
        let end = self.now.plus_millis(TOKEN_MS);
        assert!(end <= key.publish_until_ms.minus(VERIFIERS_LEEWAY), "no token is shortened by its key");
        self.tokens.push((key.key.clone(), end));
    }

    /// What a broker shows that lags behind.
    fn page(&mut self) -> BTreeSet<KeyId> {
        let at = self.now.plus_millis(-self.random.below(PAGE_AGE_MOST_MS)).max(self.serving_since);
        let seen = self.history.iter().rev().find(|(then, _)| *then <= at).or(self.history.first());
        seen.map_or(&self.keys, |(_, keys)| keys).published(KeyUse::Token, at)
    }

    fn verify(&mut self) {
        for at in 0..self.verifiers.len() {
            let age = self.now.millis_since(self.verifiers[at].copied_at);
            if age > SHORT.max_age().millis() {
                if self.brokers == Brokers::Away {
                    continue;
                }
                let copy = self.page();
                self.verifiers[at] = Verifier { copied_at: self.now, copy };
            }
            for (key, exp) in &self.tokens {
                assert!(
                    self.verifiers[at].copy.contains(key),
                    "a token until {exp} by {key} at {}",
                    self.now
                );
                self.verified += 1;
            }
        }
    }
}

#[test]
fn a_verifier_that_refreshes_as_it_is_told_never_meets_an_unknown_key() {
    for seed in 0..3 {
        let mut world = World::new(seed);
        while world.keys.made < 300 {
            world.step();
        }
        assert!(world.verified > 10_000, "seed {seed} verified {} tokens", world.verified);
    }
}

#[test]
fn a_key_that_is_published_too_late_is_noticed_by_that_simulation() {
    let caught = std::panic::catch_unwind(|| {
        let mut world = World::new(1);
        for _ in 0..2_000 {
            world.step();
            // Sabotage: whatever is prepared signs five seconds after it was published.
            for key in world.keys.by_id.values_mut().filter(|key| key.usage == KeyUse::Token) {
                key.sign_from_ms = key.sign_from_ms.min(key.publish_from_ms.plus_millis(5_000));
            }
        }
    });
    assert!(caught.is_err());
}

#[test]
fn keys_follow_each_other_without_a_gap_and_are_destroyed_in_the_end() {
    let mut keys = Keys::first(&SHORT, NOW);
    for second in 0..3_600 {
        let now = NOW.plus_millis(second * 1_000);
        keys.follow_plan(&SHORT, now);
        for usage in ROTATING {
            assert_eq!(keys.signing(usage, now).len(), 1);
            assert!(keys.published(usage, now).len() <= 5, "{:?}", keys.published(usage, now));
        }
    }
    let tokens = keys.by_id.values().filter(|key| key.usage == KeyUse::Token);
    let (gone, left): (Vec<_>, Vec<_>) = tokens.partition(|key| key.state == KeyState::Destroyed);
    assert_eq!(
        (gone.len() + left.len(), left.len() <= 5),
        (121, true),
        "a key each half minute: {}",
        left.len()
    );
    for key in gone.iter().chain(&left) {
        assert_eq!(key.sign_until_ms.millis_since(key.sign_from_ms), 30_000, "in time, none is given more");
    }
}

#[test]
fn a_life_that_is_configured_shorter_holds_for_the_keys_that_are_there() {
    let mut keys = Keys::first(&Lifetimes::default(), NOW);
    let later = NOW.plus_millis(86_400_000);
    keys.follow_plan(&SHORT, later);
    let old = keys.signing(KeyUse::Token, later)[0].clone();
    assert_eq!(old.sign_until_ms, later.plus_millis(16_000), "as soon as the next can be known");
    let hour = later.plus(TOKEN_TTL_MAX).plus(VERIFIERS_LEEWAY);
    assert_eq!(old.publish_until_ms, hour, "what it signed an instant ago may live for an hour");
}

#[test]
fn after_an_outage_the_last_key_goes_on_until_its_successor_is_known() {
    let mut keys = Keys::first(&SHORT, NOW);
    let back = NOW.plus_millis(1_000_000_500);
    assert_eq!(keys.signing(KeyUse::Token, back), Vec::<&KeyChanged>::new());
    let before = keys.published(KeyUse::Token, back);
    keys.follow_plan(&SHORT, back);
    let signing = keys.signing(KeyUse::Token, back)[0].clone();
    assert!(before.contains(&signing.key));
    assert_eq!(keys.published(KeyUse::Token, back).len(), 2);
    let next = back.floor_second().plus_millis(16_000);
    assert_eq!(signing.sign_until_ms, next);
    assert_ne!(keys.signing(KeyUse::Token, next)[0].key, signing.key);
}

#[test]
fn an_ordered_change_begins_when_everybody_can_know_the_key() {
    for usage in ROTATING {
        let mut keys = Keys::first(&Lifetimes::default(), NOW);
        let old = keys.signing(usage, NOW)[0].key.clone();
        let now = NOW.plus_millis(1_000);
        keys.order(usage, None, &Lifetimes::default(), now);
        let begins = if usage == KeyUse::Ca { now } else { now.plus_millis(86_401_000) };
        assert_ne!(keys.signing(usage, begins)[0].key, old, "{}", usage.as_str());
        if begins > now {
            assert_eq!(keys.signing(usage, begins.plus_millis(-1))[0].key, old);
        }
        assert_eq!(keys.plan(&Lifetimes::default(), now), []);
        let again =
            order(keys.by_id.values(), &Order { usage, compromised: None }, &Lifetimes::default(), now);
        if usage != KeyUse::Ca {
            assert_eq!(again, Ok(Vec::new()), "the next is on its way already");
        }
    }
}

#[test]
fn a_compromised_key_is_gone_at_once_and_another_signs() {
    for (usage, prepared) in ROTATING.into_iter().flat_map(|usage| [(usage, false), (usage, true)]) {
        let mut keys = Keys::first(&SHORT, NOW);
        let now = NOW.plus_millis(if prepared { 28_000 } else { 1_000 });
        keys.follow_plan(&SHORT, now);
        let old = keys.signing(usage, now)[0].key.clone();
        let known = keys.published(usage, now);
        keys.order(usage, Some(old.clone()), &SHORT, now);
        keys.follow_plan(&SHORT, now);
        let signing = keys.signing(usage, now);
        assert_eq!(signing.len(), 1);
        assert_ne!(signing[0].key, old);
        assert!(!keys.published(usage, now).contains(&old));
        if prepared && usage != KeyUse::Ca {
            assert!(known.contains(&signing[0].key), "one that verifiers know already comes first");
        }
        let again = order(keys.by_id.values(), &Order { usage, compromised: Some(old.clone()) }, &SHORT, now);
        assert_eq!(again, Err(OrderError::Unknown(old, usage.as_str())));
    }
}

#[test]
fn what_is_no_order_is_refused() {
    let keys = Keys::first(&SHORT, NOW);
    let stranger = KeyId::from_thumbprint([9; 32]);
    for (usage, compromised) in [
        (KeyUse::Evidence, None),
        (KeyUse::Root, None),
        (KeyUse::Token, Some(stranger)),
        (KeyUse::Svid, Some(keys.signing(KeyUse::Token, NOW)[0].key.clone())),
    ] {
        let asked = Order { usage, compromised };
        assert!(order(keys.by_id.values(), &asked, &SHORT, NOW).is_err(), "{asked:?}");
    }
}

#[test]
fn copies_are_used_for_less_time_than_a_key_is_known_beforehand() {
    for ahead in [5, 6, 15, 300, 86_400] {
        let lifetimes = Lifetimes { ahead: Seconds::new(ahead), ..SHORT };
        assert!(lifetimes.max_age().get() + MARGIN.get() <= ahead);
        assert!(lifetimes.max_age().get() <= 300);
    }
}
