//! The runtime state: a fold over the log's entries. Every decision names the entry up to which it had folded,
//! and a record made under an older state is refused by the log's writer.

mod alarms;
mod brokers;
mod keys;
mod register;
mod revoked;
mod suspensions;

use std::collections::BTreeMap;
use std::sync::Arc;

use daypass_evidence::entry::{
    Body, BundleActivated, Index, KeyChanged, KeyUse, LogOpened, ObjectType, OpenReason, RegistryChanged,
};
use daypass_verify::ids::{Digest, KeyId, Name, TrustDomain};
use daypass_verify::time::UnixMs;

pub use alarms::StandingAlarm;
pub use brokers::Run;
#[cfg(test)]
pub(crate) use keys::published;
pub(crate) use keys::rotates;
pub use keys::{DRAIN_MS, IMPORTED, RS256, UPSTREAM, is_published, phase};
pub use register::Declaration;
pub use revoked::SUPERSEDED;
pub use suspensions::Selected;

use crate::bundle::Bundle;
use alarms::Alarms;
use brokers::Brokers;
use register::{Register, Review};
use revoked::Revocations;
use suspensions::Suspensions;

/// What decisions are made under. Cheap to clone: its maps are shared until one changes.
#[derive(Clone, Default)]
pub struct State {
    at: Option<Index>,
    origin: Option<Arc<str>>,
    trust_domain: Option<TrustDomain>,
    bundle: Option<Arc<Bundle>>,
    register: Arc<Register>,
    pending: Arc<Vec<(Index, UnixMs, RegistryChanged)>>,
    keys: Arc<BTreeMap<KeyId, KeyChanged>>,
    suspensions: Arc<Suspensions>,
    brokers: Arc<Brokers>,
    alarms: Arc<Alarms>,
    revocations: Arc<Revocations>,
    proofs_from: Option<UnixMs>,
}

/// Proofs made up to this long after a recovery are as those before it, as clocks differ.
const RECOVERY_LEEWAY_MS: i64 = 30_000;

/// Why an entry does not fit the state before it: the log is damaged, or its objects are missing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// An entry that stands at or before the newest one folded.
    #[error("entry {index} does not follow entry {at}: expected the log's entries in order")]
    Order {
        /// Its index.
        index: Index,
        /// The newest state entry.
        at: Index,
    },
    /// The bundle that an activation names is not at hand, or what lies in its place is another.
    #[error(
        "the bundle `{0}` that came into force is not in the store, or was changed there: restore it before starting"
    )]
    UnknownBundle(Digest),
    /// A change that belongs to another bundle than the one that is activated with it.
    #[error(
        "entry {index} changes the register for `{found}`: expected `{expected}`, which is activated with it"
    )]
    ForeignChange {
        /// The `registry.changed`.
        index: Index,
        /// The bundle that it names.
        found: Digest,
        /// The bundle that is activated.
        expected: Digest,
    },
    /// A log origin that does not begin with a trust domain.
    #[error("`{0}` is no log origin: expected `TRUST-DOMAIN/evidence/SHARD`")]
    Origin(String),
    /// A review whose fields cannot be read.
    #[error("entry {0} is no review that this version can read: update the broker")]
    Review(Index),
}

impl State {
    /// The state before the first entry: nothing declared, no key, no bundle.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    /// Folds one entry in. Entries that change no state may be left out by the caller, except
    /// `registry.changed`, which takes effect with the `bundle.activated` that follows it.
    ///
    /// # Errors
    /// When the entry does not fit what was folded before it; the state is then unchanged.
    pub fn apply(
        &mut self,
        index: Index,
        time: UnixMs,
        body: &Body,
        bundles: &dyn Fn(&Digest) -> Option<Arc<Bundle>>,
    ) -> Result<(), StateError> {
        if let Some(at) = self.at.filter(|at| index <= *at) {
            return Err(StateError::Order { index, at });
        }
        match body {
            Body::LogOpened(opened) => self.open(time, opened)?,
            Body::RegistryChanged(change) => {
                Arc::make_mut(&mut self.pending).push((index, time, change.as_ref().clone()));
            }
            Body::BundleActivated(activated) => self.activate(activated, bundles)?,
            Body::KeyChanged(key) => {
                Arc::make_mut(&mut self.keys).insert(key.key.clone(), key.as_ref().clone());
            }
            Body::SuspensionSet(set) => Arc::make_mut(&mut self.suspensions).set(index, set),
            Body::SuspensionLifted(lifted) => Arc::make_mut(&mut self.suspensions).lift(lifted.suspension),
            Body::Unknown(fields) => {
                if let Some(review) = Review::read(index, fields)? {
                    Arc::make_mut(&mut self.register).review(&review);
                }
            }
            _ => {}
        }
        if body.changes_state() {
            self.at = Some(index);
        }
        Ok(())
    }

    /// Folds in that a broker started, stopped, or raised or cleared an alarm. It changes nothing that a decision is made
    /// under.
    pub fn follow_broker(&mut self, index: Index, name: &Name, body: &Body) {
        match body {
            Body::BrokerStarted(_) | Body::BrokerStopped(_) => {
                Arc::make_mut(&mut self.brokers).follow(index, name, body);
            }
            Body::Alarm(alarm) => Arc::make_mut(&mut self.alarms).follow(index, name, alarm),
            _ => {}
        }
    }

    /// The alarms that stand, of all brokers, by the entries that raised them.
    pub fn alarms(&self) -> impl Iterator<Item = (Index, &StandingAlarm)> {
        self.alarms.iter()
    }

    fn open(&mut self, time: UnixMs, opened: &LogOpened) -> Result<(), StateError> {
        let refuse = || StateError::Origin(opened.origin.clone());
        let (domain, _) = opened.origin.split_once('/').ok_or_else(refuse)?;
        self.trust_domain = Some(domain.parse().map_err(|_| refuse())?);
        self.origin = Some(opened.origin.as_str().into());
        if opened.reason == OpenReason::Recovered {
            self.proofs_from = Some(time.plus_millis(RECOVERY_LEEWAY_MS));
        }
        Ok(())
    }

    fn activate(
        &mut self,
        activated: &BundleActivated,
        bundles: &dyn Fn(&Digest) -> Option<Arc<Bundle>>,
    ) -> Result<(), StateError> {
        let expected = activated.digest;
        if let Some((index, _, change)) = self.pending.iter().find(|(.., change)| change.bundle != expected) {
            return Err(StateError::ForeignChange { index: *index, found: change.bundle, expected });
        }
        let bundle = bundles(&expected).filter(|bundle| bundle.digest() == expected);
        let bundle = bundle.ok_or(StateError::UnknownBundle(expected))?;
        let register = Arc::make_mut(&mut self.register);
        for (index, time, change) in self.pending.iter() {
            register.change(*index, *time, change);
        }
        self.pending = Arc::default();
        self.bundle = Some(bundle);
        Ok(())
    }

    /// The index of the newest entry that changed the state; 0 before any did.
    #[must_use]
    pub fn at(&self) -> Index {
        self.at.unwrap_or_default()
    }

    /// The origin of the log that was folded: `<td>/evidence/<shard>`.
    #[must_use]
    pub fn origin(&self) -> Option<&str> {
        self.origin.as_deref()
    }

    /// Where a log was opened after a loss: a proof that buys one credential may have bought it in the part that is
    /// lost, unless it was made from here on.
    #[must_use]
    pub fn proofs_from(&self) -> Option<UnixMs> {
        self.proofs_from
    }

    /// The trust domain of the log.
    #[must_use]
    pub fn trust_domain(&self) -> Option<&TrustDomain> {
        self.trust_domain.as_ref()
    }

    /// The bundle in force.
    #[must_use]
    pub fn bundle(&self) -> Option<&Arc<Bundle>> {
        self.bundle.as_ref()
    }

    /// The newest `registry.changed` of an object that is declared now.
    #[must_use]
    pub fn declared_at(&self, object: ObjectType, name: &str) -> Option<Index> {
        self.register.of(object, name).map(|declaration| declaration.at)
    }

    /// Since when an object is declared, and when it was reviewed.
    #[must_use]
    pub fn declaration(&self, object: ObjectType, name: &str) -> Option<&Declaration> {
        self.register.of(object, name)
    }

    /// The newest run of the broker of this name.
    #[must_use]
    pub fn run_of(&self, broker: &Name) -> Option<Run> {
        self.brokers.run(broker)
    }

    /// All keys of the log, by id.
    #[must_use]
    pub fn keys(&self) -> &BTreeMap<KeyId, KeyChanged> {
        &self.keys
    }

    /// The key that signs new drafts of this use by `ES256` at `now`: of several, the one that began last.
    #[must_use]
    pub fn signing_key(&self, usage: KeyUse, now: UnixMs) -> Option<&KeyChanged> {
        self.signing_key_by(usage, "ES256", now)
    }

    /// The same by any algorithm.
    #[must_use]
    pub fn signing_key_by(&self, usage: KeyUse, alg: &str, now: UnixMs) -> Option<&KeyChanged> {
        keys::signing(self.keys.values(), usage, alg, now)
    }

    /// The keys of this use that verifiers must know at `now`.
    pub fn published_keys(&self, usage: KeyUse, now: UnixMs) -> impl Iterator<Item = &KeyChanged> {
        keys::published(self.keys.values(), usage, now)
    }

    /// The first suspension in force at `now` that covers any part of `selected`.
    #[must_use]
    pub fn suspension_of(&self, selected: &Selected<'_>, now: UnixMs) -> Option<Index> {
        self.suspensions.covering(selected, now)
    }

    /// The suspensions that are not lifted, oldest first, those whose time is over included.
    pub fn suspensions(&self) -> impl Iterator<Item = (Index, &daypass_evidence::entry::SuspensionSet)> {
        self.suspensions.iter()
    }
}

#[cfg(test)]
mod tests;
