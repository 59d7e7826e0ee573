//! Revocations: who is meant, that they end once, and what is told of it until nobody could be shown them any more.

mod identify;
mod ledger;
mod matching;
mod publish;
mod shards;
mod unfinished;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use daypass_core::draft::Mark;
use daypass_evidence::entry::{Body, By, CredentialEnded, EndedHow, Index, NewEntry, Reach};
use daypass_verify::ids::{CredentialId, RequestId};
use daypass_verify::time::UnixMs;
use tokio::task::JoinHandle;
use tokio::time::timeout;

pub use identify::{What, identify};
pub use ledger::{Ledger, RevokedCredential};
pub(crate) use matching::holds;
pub use matching::{Matching, Page, Selected};
use shards::Shards;
use unfinished::Unfinished;

use crate::ids::RandomnessFailed;
use crate::index::{self, Readers};
use crate::issue::Desk;
use crate::log::{Attached, Ends, Place, RecordError};
use crate::store::{Live, Reader, StoreError};
use crate::web::Site;

/// How many of what an order is about are named in its answer.
pub const NAMED_MAX: usize = 1_000;

/// How long a credential lives at most, and a little.
const LIFE_MAX_MS: i64 = 25 * 3_600_000;

/// How long the answer to an order waits until this broker itself tells others of it.
const TOLD_WITHIN: Duration = Duration::from_secs(1);

/// An order to revoke.
#[derive(Debug, Clone)]
pub struct Order {
    /// What it is about.
    pub matching: Matching,
    /// Why: a reason of RFC 5280, section 5.3.1.
    pub reason: Cow<'static, str>,
    /// In words.
    pub comment: Option<String>,
    /// The exercise that it belongs to.
    pub drill: Option<String>,
    /// The entry that ordered it, where that is not the first that ends any of it.
    pub ordered: Option<Index>,
}

impl Order {
    /// To revoke what `matching` selects, for `reason` (RFC 5280, section 5.3.1), with no words.
    #[must_use]
    pub fn new(matching: Matching, reason: &'static str) -> Self {
        Self { matching, reason: reason.into(), comment: None, drill: None, ordered: None }
    }
}

/// On whose authority.
#[derive(Debug, Clone, Default)]
pub struct Authority {
    /// Operator or holder; none where a broker goes on with what another was told.
    pub by: Option<By>,
    /// The request.
    pub request: Option<RequestId>,
    /// What its proof spends: with the first thing that is written.
    pub marks: Vec<Mark>,
}

/// What an order led to, or would.
#[derive(Debug, Default)]
pub struct Outcome {
    /// How many credentials.
    pub count: u64,
    /// The first [`NAMED_MAX`] of them.
    pub named: Vec<CredentialId>,
    /// How many by the reach of their targets: where it is none, they live until their own end.
    pub reach: BTreeMap<Reach, u64>,
    /// The first entry of the order; none where nothing was written.
    pub place: Option<Place>,
    /// Its id.
    first: Option<CredentialId>,
}

/// Why an order was not carried out, or not to its end.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each says what failed in its text")]
pub enum OrderError {
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    NoId(#[from] RandomnessFailed),
}

/// Revokes, and knows what is revoked.
pub struct Revocation {
    desk: Desk,
    readers: Readers,
    ledger: Arc<Ledger>,
    unfinished: Arc<Unfinished>,
}

impl Revocation {
    /// For the log of `desk`. The task keeps what is known of revocations up to date, of all brokers, and goes on with what
    /// one of them did not finish.
    #[must_use]
    pub fn start(desk: Desk, readers: Readers) -> (Arc<Self>, JoinHandle<()>) {
        let (ledger, unfinished) = (Arc::new(Ledger::default()), Arc::new(Unfinished::default()));
        let begun = Arc::clone(&unfinished);
        let following = ledger::follow(Arc::clone(&ledger), begun, desk.clone(), readers.clone());
        let revocation = Arc::new(Self { desk, readers, ledger, unfinished });
        let finishing = unfinished::keep_finishing(Arc::clone(&revocation));
        let task = tokio::spawn(async {
            tokio::join!(following, finishing);
        });
        (revocation, task)
    }

    /// Keeps telling of what is revoked, on `site`.
    #[must_use]
    pub fn publish(&self, site: Arc<Site>) -> JoinHandle<()> {
        tokio::spawn(publish::publish(self.desk.clone(), Arc::clone(&self.ledger), site))
    }

    /// What is revoked and would otherwise live.
    #[must_use]
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// Whether a credential was revoked for another reason than that it was renewed.
    #[must_use]
    pub fn forbids_renewal(&self, id: &CredentialId) -> bool {
        self.ledger.get(id).is_some_and(|revoked| !revoked.by_renewal)
    }

    /// What an order would end: nothing is written.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn preview(&self, order: &Order) -> Result<Outcome, OrderError> {
        let (mut outcome, mut matching, mut after) = (Outcome::default(), order.matching.clone(), None);
        loop {
            let (back, page) = self.page(matching, after).await?;
            page.found.iter().for_each(|one| outcome.add(one));
            (matching, after) = (back, page.next);
            if after.is_none() {
                return Ok(outcome);
            }
        }
    }

    /// Ends all that an order is about: durable on return, and known to this broker's own feed. `ended` counts along.
    ///
    /// # Errors
    /// When something could not be written; asked again, it goes on with what is left.
    pub async fn revoke(
        &self,
        order: &Order,
        authority: &Authority,
        ended: &AtomicU64,
    ) -> Result<Outcome, OrderError> {
        let mut outcome = Outcome::default();
        let (mut matching, mut after, mut marks) = (order.matching.clone(), None, authority.marks.clone());
        loop {
            let (back, page) = self.page(matching, after).await?;
            (matching, after) = (back, page.next);
            for chunk in page.found.chunks(Ends::MOST).filter(|chunk| !chunk.is_empty()) {
                let spends = std::mem::take(&mut marks);
                self.end(order, authority, chunk, spends, &mut outcome).await?;
                ended.store(outcome.count, Ordering::Relaxed);
            }
            if after.is_none() {
                break;
            }
        }
        if let Some(first) = outcome.first {
            self.unfinished.finished(first);
            // Nobody who was told of it finds this broker saying otherwise.
            let told = self.ledger.covers(self.desk.log.published().head.size);
            drop(timeout(TOLD_WITHIN, told).await);
        }
        Ok(outcome)
    }

    async fn end(
        &self,
        order: &Order,
        authority: &Authority,
        chunk: &[Selected],
        marks: Vec<Mark>,
        outcome: &mut Outcome,
    ) -> Result<(), OrderError> {
        let body = CredentialEnded {
            how: EndedHow::Revoked,
            ended: Vec::new(),
            log: None,
            through_ms: None,
            selector: Some(order.matching.selector().clone()),
            reason: Some(order.reason.clone().into_owned()),
            comment: order.comment.clone(),
            drill: order.drill.clone(),
            ordered: order.ordered.or(outcome.place.as_ref().map(|place| place.index)),
            reach: BTreeMap::new(),
        };
        let id = self.desk.ids.draw(self.desk.clock.now())?;
        let (request, by) = (authority.request, authority.by.clone());
        let entry = NewEntry { id, request, by, body: body.into() };
        let live = chunk.iter().map(|one| (one.live, one.reach)).collect();
        let attached = Attached { marks, ends: Some(Box::new(Ends { entry, live })), ..Attached::default() };
        let places = self.desk.log.append(Vec::new(), attached).await?;
        // One entry for each log that issued any of it.
        let (count, Some(place)) = (places.len(), places.into_iter().next()) else { return Ok(()) };
        let at = place.index;
        let read = move |reader: &dyn Reader| named_by(reader, at, u32::try_from(count).unwrap_or(u32::MAX));
        let named = self.readers.run(read).await?;
        chunk.iter().filter(|one| named.contains(&one.live.index)).for_each(|one| outcome.add(one));
        outcome.place.get_or_insert(place);
        outcome.first.get_or_insert(id);
        Ok(())
    }

    async fn page(&self, matching: Matching, after: Option<Live>) -> Result<(Matching, Page), OrderError> {
        let read = move |reader: &dyn Reader| {
            let mut matching = matching;
            let page = matching.page(reader, after)?;
            Ok((matching, page))
        };
        Ok(self.readers.run(read).await?)
    }

    /// The moment before which something must have been issued to be in the log already: every id in it is earlier.
    pub async fn from_now_on(&self) -> UnixMs {
        let head = self.desk.log.published_at(u64::MAX).await.head.time;
        self.desk.clock.now().max(head).plus_millis(1)
    }
}

impl Outcome {
    fn add(&mut self, one: &Selected) {
        self.count += 1;
        *self.reach.entry(one.reach).or_default() += 1;
        if self.named.len() < NAMED_MAX {
            self.named.push(one.id);
        }
    }
}

/// Where the issuances lie of what the entries from `at` on end.
fn named_by(reader: &dyn Reader, at: Index, count: u32) -> Result<BTreeSet<Index>, StoreError> {
    let mut named = BTreeSet::new();
    let shards = Shards::of(reader)?;
    for row in reader.rows(at, count)? {
        if let Body::CredentialEnded(ended) = index::read(&row)?.body
            && let Some(base) = shards.base_of(ended.log.as_deref())
        {
            named.extend(ended.ended.iter().map(|index| base + index));
        }
    }
    Ok(named)
}
