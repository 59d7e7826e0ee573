//! What is revoked and would otherwise live, in memory, of all brokers of the log: what a start finds in the entries of
//! the longest life of a credential, and what comes after.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use daypass_core::state::SUPERSEDED;
use daypass_evidence::entry::{
    Body, CredentialEnded, CredentialType, EndedHow, Entry, Index, KeyState, Reach, Selector,
};
use daypass_verify::ids::{CredentialId, IdentityName, KeyId, Name};
use daypass_verify::revocations::{ALWAYS, CutOffs};
use daypass_verify::time::UnixMs;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use super::LIFE_MAX_MS;
use super::Order;
use super::shards::Shards;
use super::unfinished::{self, Unfinished};
use crate::index::{self, Readers};
use crate::issue::Desk;
use crate::log::ends_by_order;
use crate::store::{Reader, StoreError, base};

/// How long what ended by its own time is still told of: clocks differ.
const LEEWAY_MS: i64 = 60_000;

/// How many entries are read at once.
const ROWS: u32 = 1_000;

/// How often it is looked whether something is over.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A credential that is revoked, before its own end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevokedCredential {
    /// Its own end.
    pub exp: UnixMs,
    /// Token or certificate.
    pub credential_type: CredentialType,
    /// How its revocation arrives.
    pub reach: Reach,
    /// The key that signed it.
    pub key: KeyId,
    /// Whose it is.
    pub identity: IdentityName,
    /// When it was revoked.
    pub at: UnixMs,
    /// Why (RFC 5280, section 5.3.1).
    pub reason: String,
    /// Whether it ended because it was renewed.
    pub by_renewal: bool,
}

/// All that is revoked.
#[derive(Debug, Default)]
pub struct Ledger {
    inner: RwLock<Inner>,
    /// Up to where the log's entries are in it; 0 before the start has read them.
    covered: watch::Sender<Index>,
}

#[derive(Debug, Default)]
struct Inner {
    credentials: BTreeMap<CredentialId, RevokedCredential>,
    /// Cut-offs, and when the order was given.
    orders: BTreeMap<CutOff, (UnixMs, UnixMs)>,
    /// Grows with each change.
    version: u64,
}

/// What a cut-off is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum CutOff {
    Identity(IdentityName),
    Issuer(Name),
    Key(KeyId),
}

/// What one entry revoked.
struct Found {
    time: UnixMs,
    cut_off: Option<(CutOff, UnixMs)>,
    credentials: Vec<(CredentialId, RevokedCredential)>,
    /// The order, by the id of the entry, where that may not be all of it.
    order: Option<(CredentialId, Order)>,
}

impl Ledger {
    /// A credential, if it is revoked and its own end has not come.
    #[must_use]
    pub fn get(&self, id: &CredentialId) -> Option<RevokedCredential> {
        self.read(|inner| inner.credentials.get(id).cloned())
    }

    /// Waits until entries below `size` are in it, where they are of this log.
    pub async fn covers(&self, size: Index) {
        drop(self.covered.subscribe().wait_for(|covered| *covered >= size).await);
    }

    /// Whether what was revoked before the start is in it.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        *self.covered.borrow() > 0
    }

    /// Tells of each change.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<Index> {
        self.covered.subscribe()
    }

    /// How often it has changed.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.read(|inner| inner.version)
    }

    /// All credentials that are revoked, by id.
    #[must_use]
    pub fn credentials(&self) -> Vec<(CredentialId, RevokedCredential)> {
        self.read(|inner| inner.credentials.iter().map(|(id, it)| (*id, it.clone())).collect())
    }

    /// The cut-offs by which orders revoked, and those of keys that others know.
    #[must_use]
    pub fn cut_offs(&self, desk: &Desk) -> CutOffs {
        let (state, now) = (desk.log.state(), desk.clock.now());
        let mut cut_offs = CutOffs::default();
        let Some(trust_domain) = state.trust_domain() else { return cut_offs };
        self.read(|inner| {
            for (what, (before, _)) in &inner.orders {
                match what {
                    CutOff::Identity(name) => {
                        cut_offs.identities.insert(name.spiffe_id(trust_domain), *before);
                    }
                    CutOff::Issuer(name) => {
                        cut_offs.issuers.insert(name.clone(), *before);
                    }
                    CutOff::Key(key) => {
                        cut_offs.keys.insert(key.clone(), *before);
                    }
                }
            }
        });
        let compromised = state.keys().values().filter(|key| {
            key.state == KeyState::Compromised && now.millis_since(key.publish_until_ms) < LIFE_MAX_MS
        });
        cut_offs.keys.extend(compromised.map(|key| (key.key.clone(), ALWAYS)));
        cut_offs
    }

    fn read<T>(&self, read: impl FnOnce(&Inner) -> T) -> T {
        read(&self.inner.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn take_over(&self, found: Vec<Found>, now: UnixMs) {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        let before = (inner.credentials.len(), inner.orders.len());
        inner.credentials.retain(|_, it| now.millis_since(it.exp) < LEEWAY_MS);
        inner.orders.retain(|_, (_, since)| now.millis_since(*since) < LIFE_MAX_MS);
        let changed = !found.is_empty() || before != (inner.credentials.len(), inner.orders.len());
        for Found { time, cut_off, credentials, .. } in found {
            inner.credentials.extend(credentials);
            if let Some((what, before)) = cut_off {
                let order = inner.orders.entry(what).or_insert((before, time));
                *order = (order.0.max(before), order.1.max(time));
            }
        }
        inner.version += u64::from(changed);
    }
}

/// Goes on for as long as the broker runs.
pub(super) async fn follow(ledger: Arc<Ledger>, unfinished: Arc<Unfinished>, desk: Desk, readers: Readers) {
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut changes = desk.log.revocations().changes();
    let mut heads = desk.log.state_changes();
    // What was noticed before this is read again by the first look.
    let mut places: Vec<Range<Index>> = Vec::new();
    let mut first = true;
    loop {
        // In this order: what is noticed after the head was read is looked at the next time.
        let size = desk.log.published().head.size;
        places.extend(desk.log.revocations().take());
        #[cfg(feature = "sabotage")]
        if crate::sabotage::breaks("p10") {
            places.clear();
        }
        let now = desk.clock.now();
        let (wanted, from_start) = (places.clone(), first);
        let read = readers.run(move |reader: &dyn Reader| {
            let since = now.plus_millis(-LIFE_MAX_MS);
            let all = if from_start { Some(index::first_at(reader, since)?..size) } else { None };
            let wanted = all.into_iter().chain(wanted);
            let mut found = if from_start { scan_before(reader, since, now)? } else { Vec::new() };
            for place in wanted {
                found.extend(scan(reader, place, now)?);
            }
            Ok(found)
        });
        match read.await {
            Ok(found) => {
                for (time, (id, order)) in found.iter().filter_map(|it| Some((it.time, it.order.clone()?))) {
                    unfinished.began(id, time, order);
                }
                (first, places) = (false, Vec::new());
                ledger.take_over(found, now);
                ledger.covered.send_if_modified(|covered| std::mem::replace(covered, size) != size);
            }
            Err(error) => {
                tracing::error!(%error, "revocations could not be read; it is tried again");
                ticks.tick().await;
            }
        }
        tokio::select! {
            _ = ticks.tick() => {}
            Ok(()) = changes.changed() => {}
            Ok(()) = heads.changed() => {}
        }
    }
}

/// What the entries of `place` revoke, less what has ended by its own time since.
fn scan(reader: &dyn Reader, place: Range<Index>, now: UnixMs) -> Result<Vec<Found>, StoreError> {
    let (shards, mut found, mut next) = (Shards::of(reader)?, Vec::new(), place.start);
    while next < place.end {
        let limit = u32::try_from(place.end - next).unwrap_or(ROWS).min(ROWS);
        let rows = reader.rows(next, limit)?;
        let Some(last) = rows.last() else { break };
        next = last.index + 1;
        for row in rows.iter().filter(|row| row.index < place.end && ends_by_order(row)) {
            found.extend(revoked(reader, &shards, None, (row.index, &index::read(row)?), now)?);
        }
    }
    Ok(found)
}

/// What was revoked since `since` in logs before the one that is written.
fn scan_before(reader: &dyn Reader, since: UnixMs, now: UnixMs) -> Result<Vec<Found>, StoreError> {
    let (shards, mut found) = (Shards::of(reader)?, Vec::new());
    for head in shards.before() {
        for index in (0..head.size).rev() {
            let Some(row) = reader.entry_at(base(head.shard) + index)? else { break };
            let entry = index::read(&row)?;
            if entry.envelope.time < since {
                return Ok(found);
            }
            if ends_by_order(&row) {
                found.extend(revoked(reader, &shards, Some(&head.origin), (index, &entry), now)?);
            }
        }
    }
    Ok(found)
}

/// `of` is the origin of the log in which the entry lies, where it is not the one that is written.
fn revoked(
    reader: &dyn Reader,
    shards: &Shards,
    of: Option<&str>,
    (at, entry): (Index, &Entry),
    now: UnixMs,
) -> Result<Option<Found>, StoreError> {
    let Body::CredentialEnded(ended) = &entry.body else { return Ok(None) };
    if ended.how != EndedHow::Revoked {
        return Ok(None);
    }
    let Some(base) = shards.base_of(ended.log.as_deref().or(of)) else { return Ok(None) };
    let time = entry.envelope.time;
    let mut credentials = Vec::with_capacity(ended.ended.len());
    for at in &ended.ended {
        credentials.extend(credential(reader, base + at, time, ended)?);
    }
    credentials.retain(|(_, it)| now.millis_since(it.exp) < LEEWAY_MS);
    let by_operator = entry.envelope.by.as_ref().is_none_or(|by| by.operator.is_some());
    let cut_off = ended.selector.as_ref().and_then(|selector| cut_off(selector, by_operator));
    let cut_off = cut_off.map(|what| {
        let before = ended.selector.as_ref().and_then(|selector| selector.issued_before_ms);
        (what, before.unwrap_or(time))
    });
    let order = unfinished::order(entry, of.is_none().then_some(at), ended);
    let order = order.map(|order| (entry.envelope.id, order));
    Ok(Some(Found { time, cut_off, credentials, order }))
}

fn credential(
    reader: &dyn Reader,
    at: Index,
    time: UnixMs,
    ended: &CredentialEnded,
) -> Result<Option<(CredentialId, RevokedCredential)>, StoreError> {
    let Some(row) = reader.entry_at(at)? else { return Ok(None) };
    let entry = index::read(&row)?;
    let Body::CredentialIssued(issued) = entry.body else { return Ok(None) };
    let reason = ended.reason.clone().unwrap_or_default();
    let made = &issued.credential;
    Ok(Some((
        entry.envelope.id,
        RevokedCredential {
            exp: made.exp_ms,
            credential_type: made.credential_type,
            reach: made.reach,
            key: made.key.clone(),
            identity: issued.identity.name.clone(),
            at: time,
            by_renewal: ended.selector.is_none() && reason == SUPERSEDED,
            reason,
        },
    )))
}

/// What of an order holds for all that it selects, seen by a receiver: a holder's order is about its own alone.
fn cut_off(selector: &Selector, by_operator: bool) -> Option<CutOff> {
    match selector {
        Selector { identity: Some(name), .. } => Some(CutOff::Identity(name.clone())),
        Selector { issuer: Some(name), .. } if by_operator => Some(CutOff::Issuer(name.clone())),
        Selector { key: Some(key), .. } if by_operator => Some(CutOff::Key(key.clone())),
        _ => None,
    }
}
