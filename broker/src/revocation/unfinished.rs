//! Orders about more than one entry can name, whose broker stopped half way: another goes on with what is left, or the same
//! after its next start.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use daypass_evidence::entry::{CredentialEnded, Entry, Index};
use daypass_verify::ids::CredentialId;
use daypass_verify::time::UnixMs;
use tokio::time::{MissedTickBehavior, interval};

use super::{Authority, LIFE_MAX_MS, Matching, Order, OrderError, Revocation};

/// How often it is looked, and how long an order is left to the broker that was told.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const LEFT_ALONE_MS: i64 = 10_000;

/// Orders, by the id of the first entry of each.
#[derive(Debug, Default)]
pub(super) struct Unfinished(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    open: BTreeMap<CredentialId, (UnixMs, Order)>,
    done: BTreeSet<CredentialId>,
}

impl Unfinished {
    /// An order was given at `since`; `id` is that of its first entry.
    pub(super) fn began(&self, id: CredentialId, since: UnixMs, order: Order) {
        self.with(|inner| {
            if !inner.done.contains(&id) {
                inner.open.insert(id, (since, order));
            }
        });
    }

    /// All that the order ended is ended.
    pub(super) fn finished(&self, id: CredentialId) {
        self.with(|inner| {
            inner.open.remove(&id);
            inner.done.insert(id);
        });
    }

    /// Those that were left alone for long enough, less what can have left nothing alive.
    fn due(&self, now: UnixMs) -> Vec<(CredentialId, Order)> {
        self.with(|inner| {
            inner.open.retain(|_, (since, _)| now.millis_since(*since) < LIFE_MAX_MS);
            inner.done.retain(|id| now.millis_since(id.drawn_at()) < LIFE_MAX_MS);
            let left = inner.open.iter().filter(|(_, (since, _))| now.millis_since(*since) >= LEFT_ALONE_MS);
            left.map(|(id, (_, order))| (*id, order.clone())).collect()
        })
    }

    fn with<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Goes on, for as long as the broker runs, with what one was told and did not finish.
pub(super) async fn keep_finishing(revocation: Arc<Revocation>) {
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        for (id, order) in revocation.unfinished.due(revocation.desk.clock.now()) {
            if let Err(error) = finish(&revocation, id, &order).await {
                tracing::error!(%error, "not all of an order to revoke was carried out; it is tried again");
            }
        }
    }
}

async fn finish(revocation: &Revocation, id: CredentialId, order: &Order) -> Result<(), OrderError> {
    let left = revocation.revoke(order, &Authority::default(), &AtomicU64::default()).await?;
    revocation.unfinished.finished(id);
    if left.count > 0 {
        tracing::warn!(order = %id, revoked = left.count, "what an order to revoke is about was left alive");
    }
    Ok(())
}

/// What an order is about, of which `entry` is the first entry; none where one entry is all of it. A holder's own is told
/// by the identity that it acted as. `at` is its index, where it lies in the log that is written.
pub(super) fn order(entry: &Entry, at: Option<Index>, ended: &CredentialEnded) -> Option<Order> {
    let selector = ended.selector.clone().filter(|it| it.credential.is_none() && ended.ordered.is_none())?;
    // Without this, going on would end what was issued since.
    selector.issued_before_ms?;
    let holder = entry.envelope.by.as_ref().and_then(|by| by.identity.clone());
    let matching = match holder {
        Some(own) => Matching::of(selector, vec![own]),
        None => Matching::new(selector),
    };
    Some(Order {
        matching,
        reason: ended.reason.clone().unwrap_or_default().into(),
        comment: ended.comment.clone(),
        drill: ended.drill.clone(),
        ordered: at,
    })
}
