//! What operators do.

use std::sync::Arc;

use daypass_broker::activate;
use daypass_broker::log::{self, Attached, Log};
use daypass_evidence::entry::{
    Alarm, AlarmState, Body, Index, NewEntry, Selector, SuspensionLifted, SuspensionSet,
};

use super::check::HALF;
use super::faults::FaultyStore;
use super::op::Whom;
use super::people::PEOPLE;
use super::world::World;

impl World {
    pub(super) async fn append(&self, body: Body) -> Option<Index> {
        let entry = NewEntry { id: self.ids.draw(self.now()).unwrap(), request: None, by: None, body };
        let places = self.desk().log.append(vec![entry], Attached::default()).await.ok()?;
        places.first().map(|place| place.index)
    }

    /// An append is all or nothing: the first of these two entries must not be there alone.
    pub(super) async fn append_half(&mut self) -> Result<(), String> {
        let entry = |detail: String| NewEntry {
            id: self.ids.draw(self.now()).unwrap(),
            request: None,
            by: None,
            body: Alarm { code: HALF.into(), state: AlarmState::Raised, raised: None, detail: Some(detail) }
                .into(),
        };
        let entries = vec![entry("fits".into()), entry("x".repeat(20_000))];
        match self.desk().log.append(entries, Attached::default()).await {
            Ok(_) => Err("an entry of 20,000 bytes was written".into()),
            Err(_) => Ok(()),
        }
    }

    pub(super) async fn suspend(&mut self, whom: Whom) {
        let selector = match whom {
            Whom::Nightly => {
                Selector { identity: Some("prod/billing/nightly".parse().unwrap()), ..Default::default() }
            }
            Whom::Mesh => Selector { task: Some("mesh-identity".parse().unwrap()), ..Default::default() },
            Whom::Everything => Selector { everything: true, ..Default::default() },
        };
        let reason = "a drill".to_owned();
        let set = SuspensionSet {
            selector,
            reason,
            until_ms: None,
            revoked: 0,
            live: 0,
            drill: None,
            revokes: false,
        };
        self.suspended.extend(self.append(set.into()).await);
    }

    pub(super) async fn lift(&mut self) {
        let Some(suspension) = self.suspended.first().copied() else { return };
        let lifted = SuspensionLifted { suspension, reason: "it is over".into(), approval: None };
        if self.append(lifted.into()).await.is_some() {
            self.suspended.remove(0);
        }
    }

    pub(super) async fn activate(&mut self) {
        self.activate_in(&self.desk().log).await;
    }

    /// Another broker on the same store brings the other bundle into force.
    pub(super) async fn activate_elsewhere(&mut self) {
        let inner = self.ground.open().unwrap();
        let store = FaultyStore { inner, faults: Arc::default(), _held: Arc::default() };
        let reader = store.inner.reader().unwrap();
        let settings = self.log_settings("b9", &self.seat().clock, reader.as_ref(), None);
        let log = log::open(Box::new(store), settings).unwrap();
        self.activate_in(&log).await;
    }

    async fn activate_in(&self, log: &Log) {
        let state = log.state();
        let [first, second] = &PEOPLE.bundles;
        let in_force = state.bundle().is_some_and(|bundle| bundle.digest() == first.digest());
        let next = if in_force { second } else { first };
        drop(activate::bootstrap(log, &self.ids, next, self.now()).await);
    }
}
