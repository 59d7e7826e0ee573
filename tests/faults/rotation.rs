//! A broker that is killed while its keys follow each other: by themselves, by order, or because one is compromised.

mod verifier;

use std::time::{Duration, Instant};

use daypass_broker::dev::caller::{Caller, possession};
use daypass_broker::keyring::Kek;
use daypass_evidence::entry::{Body, Entry, KeyChanged, KeyState, KeyUse};
use daypass_proto::v1 as pb;
use daypass_tests::harness::{Deployment, SECURITY, STAFF, nightly};
use daypass_verify::ids::KeyId;
use daypass_verify::time::UnixMs;

use super::child::{Child, Files};
use super::report::stood;
use super::tracer::{Place, Tracer, places};
use crate::e2e::published::both_kinds;
use crate::simulation::op::Random;
use verifier::Verifier;

/// How long what follows from an order is waited for before a kill is given up.
const SETTLED: Duration = Duration::from_millis(200);

/// How long a broker is left to itself until it does something to its keys.
const ROTATES_WITHIN: Duration = Duration::from_secs(15);

const USES: [(KeyUse, pb::KeyUse); 3] =
    [(KeyUse::Token, pb::KeyUse::Token), (KeyUse::Svid, pb::KeyUse::Svid), (KeyUse::Ca, pb::KeyUse::Ca)];

/// A deployment whose keys live for as long as its configuration says.
struct Keys {
    deployment: Deployment,
    files: Files,
    max_age_ms: i64,
}

impl Keys {
    async fn living(token_s: i64, ca_s: i64, ahead_s: i64) -> Self {
        let deployment = Deployment::stopped(both_kinds()).await;
        let files = Files::of(&deployment);
        let text = std::fs::read_to_string(&files.config).unwrap();
        let lives = format!("[keys]\ntoken_life_s = {token_s}\nca_life_s = {ca_s}\nahead_s = {ahead_s}\n");
        std::fs::write(&files.config, text.replace("[keys]\n", &lives)).unwrap();
        Self { deployment, files, max_age_ms: (ahead_s - 5) * 1_000 }
    }

    /// Orders another key of a use, or gives one up; nothing where the broker did not answer.
    async fn order(&self, usage: pb::KeyUse, compromised: Option<&KeyId>, dry: bool) -> Option<()> {
        let token = self.deployment.organisation.token(STAFF, SECURITY).unwrap();
        let certificate = possession().unwrap();
        let connected =
            Caller::connect(self.files.api, &self.deployment.listener_ca, Some(&certificate)).await;
        let caller = connected.ok()?.with_token(token);
        let order = pb::RotateKeyRequest {
            r#use: usage.into(),
            compromised_key_id: compromised.map(ToString::to_string).unwrap_or_default(),
            validate_only: dry,
            ..Default::default()
        };
        caller.governance().rotate_key(caller.request(order).unwrap()).await.ok().map(drop)
    }

    /// Starts the broker, and waits until it takes orders.
    async fn start(&self) -> Child {
        let child = Child::start(&self.files, &[]).await;
        let began = Instant::now();
        while self.order(pb::KeyUse::Token, None, true).await.is_none() {
            assert!(began.elapsed() < Duration::from_secs(20), "it takes no orders: {}", self.files.output());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        child
    }

    /// The key of a use that an order would follow: the newest.
    fn newest(&self, usage: KeyUse) -> KeyChanged {
        let rotating = told(&self.files.entries()).into_iter().filter(|key| {
            key.usage == usage && !matches!(key.state, KeyState::Compromised | KeyState::Destroyed)
        });
        rotating.max_by_key(|key| key.sign_from_ms).unwrap()
    }

    /// No key is lost, none that is given up is left, and none signed before everybody could know it.
    fn check(&self) {
        self.files.check(&self.deployment).unwrap();
        let entries = self.files.entries();
        let (kek, sealed) =
            (Kek::read(&self.deployment.settings.kek).unwrap(), self.files.reader().keys().unwrap());
        for key in told(&entries).iter().filter(|key| key.usage != KeyUse::Evidence) {
            let blob =
                sealed.iter().find(|blob| blob.key == key.key).map_or(&[][..], |blob| &blob.sealed[..]);
            if matches!(key.state, KeyState::Compromised | KeyState::Destroyed) {
                assert!(blob.is_empty(), "{} is {:?}, and still there", key.key, key.state);
            } else if let Err(error) = kek.unseal(blob, key) {
                panic!("{} is {:?}, and lost: {error}", key.key, key.state);
            }
        }
        check_known(&entries, self.max_age_ms);
    }
}

/// What the newest entry of each key says.
fn told(entries: &[Entry]) -> Vec<KeyChanged> {
    let mut keys: Vec<KeyChanged> = Vec::new();
    for entry in entries {
        if let Body::KeyChanged(changed) = &entry.body {
            keys.retain(|key| key.key != changed.key);
            keys.push((**changed).clone());
        }
    }
    keys
}

/// A key that is nobody's first, and takes nobody's place who is compromised, was in the log for as long as a copy of
/// the published keys may be used before it signed.
fn check_known(entries: &[Entry], max_age_ms: i64) {
    let mut known: Vec<(KeyId, UnixMs, bool)> = Vec::new();
    let (mut given_up, mut used) = (Vec::new(), Vec::new());
    for entry in entries {
        let time = entry.envelope.time;
        match &entry.body {
            Body::KeyChanged(key) if key.state == KeyState::Compromised => given_up.push((key.usage, time)),
            Body::KeyChanged(key) => {
                // The first of a use, and what takes a compromised key's place, signs at once.
                let at_once = !used.contains(&key.usage)
                    || key.usage == KeyUse::Ca
                    || given_up.contains(&(key.usage, time));
                used.push(key.usage);
                match known.iter_mut().find(|(known, ..)| *known == key.key) {
                    Some((.., already)) => *already |= at_once,
                    None => known.push((key.key.clone(), time, at_once)),
                }
            }
            Body::CredentialIssued(issued) => {
                let signed = &issued.credential.key;
                let (_, since, at_once) = known.iter().find(|(known, ..)| known == signed).unwrap();
                let early = time.millis_since(*since) < max_age_ms && !at_once;
                assert!(!early, "{signed} signed {} ms after it was made", time.millis_since(*since));
            }
            _ => {}
        }
    }
}

/// The writes and syncs that an order leads to, of which a few are spoilt.
async fn places_of(keys: &Keys, child: &Child, usage: pb::KeyUse, compromised: Option<&KeyId>) -> Vec<Place> {
    let trace = keys.deployment.folder().join("calls");
    let tracer = Tracer::recording(child, &keys.files, &trace);
    keys.order(usage, compromised, false).await.unwrap();
    tokio::time::sleep(SETTLED).await;
    tracer.detach();
    places(&trace).into_iter().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_killed_anywhere_in_a_rotation_loses_no_key_and_signs_with_none_too_early() {
    let keys = Keys::living(3_600, 7_200, 8).await;
    let mut verifier = Verifier::of(&keys.deployment, keys.files.api);
    let mut child = keys.start().await;
    verifier.meets_all().await;
    let (few, mut kills) = (if nightly() { 100 } else { 2 }, 0);
    for (usage, asked) in USES {
        let orderly = places_of(&keys, &child, asked, None).await;
        let made = keys.newest(usage).key;
        let given_up = places_of(&keys, &child, asked, Some(&made)).await;
        verifier.forget(&made);
        for at in 0..few.min(orderly.len()).min(given_up.len()) {
            for (places, compromise) in [(&orderly, false), (&given_up, true)] {
                // Spread over all: the first, the last, and at night each.
                let place = &places[if at + 1 == few { places.len() - 1 } else { at }];
                let key = compromise.then(|| keys.newest(usage).key);
                let trace = keys.deployment.folder().join("spoilt");
                let tracer = Tracer::spoiling(&child, place, "signal=KILL", &trace);
                let answered = keys.order(asked, key.as_ref(), false).await;
                tokio::time::sleep(SETTLED).await;
                tracer.detach();
                kills += usize::from(child.is_gone());
                child.kill();
                let is_given_up = |key: &KeyId| keys.newest(usage).key != *key;
                if let Some(key) = key.filter(is_given_up) {
                    verifier.forget(&key);
                } else {
                    assert!(!compromise || answered.is_none(), "an order that was answered is lost");
                }
                keys.check();
                child = keys.start().await;
                verifier.meets_all().await;
            }
        }
    }
    child.stop().await;
    keys.check();
    assert!(kills >= 4, "only {kills} kills came");
    stood("P9", "SIGKILL at a write or sync of an order for another key, or of a compromise", kills);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_killed_again_and_again_while_keys_rotate_by_themselves_is_never_met_by_an_unknown_key()
 {
    let keys = Keys::living(6, 12, 6).await;
    let mut verifier = Verifier::of(&keys.deployment, keys.files.api);
    let (mut random, mut killed, kills) = (Random::new(5), 0, if nightly() { 60 } else { 3 });
    let mut child = keys.start().await;
    verifier.meets_all().await;
    while killed < kills {
        let trace = keys.deployment.folder().join("spoilt");
        let [_, wal, _] = keys.files.durable();
        let place = Place::nth("pwrite64", wal, 1 + random.below(24));
        let (tracer, began) = (Tracer::spoiling(&child, &place, "signal=KILL", &trace), Instant::now());
        // Nobody asks for anything: what is written is the broker's own, and of its keys.
        while !child.is_gone() && began.elapsed() < ROTATES_WITHIN {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        tracer.detach();
        killed += usize::from(child.is_gone());
        child.kill();
        keys.check();
        child = keys.start().await;
        verifier.meets_all().await;
    }
    // Left alone, they go on.
    let last = keys.newest(KeyUse::Token).key;
    let began = Instant::now();
    while keys.newest(KeyUse::Token).key == last {
        assert!(began.elapsed() < ROTATES_WITHIN, "no key follows");
        verifier.meets_all().await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    child.stop().await;
    keys.check();
    stood("P9", "SIGKILL while keys rotate by themselves", killed);
}
