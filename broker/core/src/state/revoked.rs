//! What was revoked a moment ago: a draft that was decided before a revocation and would be recorded after it is decided
//! again where the order is about it. Nothing here outlives the longest time that a draft may take.

use std::collections::BTreeMap;

use daypass_evidence::entry::{CredentialEnded, CredentialIssued, EndedHow, Index, ObjectType, Selector};
use daypass_verify::ids::CredentialId;
use daypass_verify::time::UnixMs;

use super::State;

/// The reason (RFC 5280, section 5.3.1) with which a renewal ends what it renews, where its task says so.
pub const SUPERSEDED: &str = "superseded";

/// How long a revocation is remembered: drafts are decided again long before.
const REMEMBERED_MS: i64 = 15_000;

/// Revocations of the last seconds, of all brokers.
#[derive(Debug, Clone, Default)]
pub(super) struct Revocations {
    /// What was selected, and before when it must have been issued.
    orders: Vec<(Selector, UnixMs)>,
    /// Single credentials, and when they were ended.
    ended: BTreeMap<Index, UnixMs>,
}

impl Revocations {
    fn is_empty(&self) -> bool {
        self.orders.is_empty() && self.ended.is_empty()
    }

    fn forget(&mut self, now: UnixMs) {
        let recent = |at: UnixMs| now.millis_since(at) < REMEMBERED_MS;
        self.orders.retain(|(_, before)| recent(*before));
        self.ended.retain(|_, at| recent(*at));
    }

    fn order(&mut self, selector: Selector, before: UnixMs) {
        let order = (selector, before);
        if !self.orders.contains(&order) {
            self.orders.push(order);
        }
    }
}

impl State {
    /// Folds in that credentials were revoked at `time`. It changes nothing that a decision is made under.
    pub fn follow_revocation(&mut self, time: UnixMs, ended: &CredentialEnded) {
        if ended.how != EndedHow::Revoked {
            return;
        }
        let revocations = std::sync::Arc::make_mut(&mut self.revocations);
        revocations.forget(time);
        // What ended with its renewal may be renewed once more: its holder may not have had the answer.
        let renewed = ended.selector.is_none() && ended.reason.as_deref() == Some(SUPERSEDED);
        if !renewed && ended.log.is_none() {
            revocations.ended.extend(ended.ended.iter().map(|index| (*index, time)));
        }
        if let Some(selector) = ended.selector.as_ref().filter(|selector| selector.credential.is_none()) {
            let before = selector.issued_before_ms.unwrap_or(time);
            revocations.order(selector.clone(), before);
        }
    }

    /// Folds in that something may have been revoked by `time` that was not looked at.
    pub fn pass_over_revocations(&mut self, time: UnixMs) {
        let everything = Selector { everything: true, ..Selector::default() };
        std::sync::Arc::make_mut(&mut self.revocations).order(everything, time);
    }

    /// Whether an order of a moment ago is about a draft that was decided under this state: it must be decided again.
    #[must_use]
    pub fn was_revoked_meanwhile(&self, id: CredentialId, issued: &CredentialIssued) -> bool {
        let about = |(selector, before): &(Selector, UnixMs)| {
            id.drawn_at() < *before && self.selects(selector, issued)
        };
        !self.revocations.is_empty() && self.revocations.orders.iter().any(about)
    }

    /// Whether the issuance at `index` was revoked a moment ago: nothing renews it.
    #[must_use]
    pub fn ended_meanwhile(&self, index: Index) -> bool {
        self.revocations.ended.contains_key(&index)
    }

    /// Whether `selector` selects an issuance under the declarations of this state, whenever it was.
    fn selects(&self, selector: &Selector, issued: &CredentialIssued) -> bool {
        let supplier = || self.bundle()?.declared().identities.get(&issued.identity.name)?.supplier.as_ref();
        let issuer = |name: &daypass_verify::ids::Name| {
            self.declared_at(ObjectType::Issuer, name.as_str()) == Some(issued.proof.at)
        };
        selector.everything
            || selector.identity.as_ref() == Some(&issued.identity.name)
            || selector.task.as_ref() == Some(&issued.task.name)
            || selector.target.as_ref() == Some(&issued.target.name)
            || selector.key.as_ref() == Some(&issued.credential.key)
            || (selector.instance.is_some() && selector.instance == issued.proof.instance)
            || (selector.supplier.is_some() && selector.supplier.as_ref() == supplier())
            || selector.issuer.as_ref().is_some_and(issuer)
    }
}
