//! Suspensions: from one entry on nothing is issued for what is selected, on any broker; and where that was ordered, what
//! lives of it is revoked, by whichever broker is left.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use daypass_evidence::entry::{Body, Index, NewEntry, Selector, SuspensionLifted, SuspensionSet};
use daypass_verify::ids::CredentialId;
use daypass_verify::time::UnixMs;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::index::{self, Readers};
use crate::issue::Desk;
use crate::log::{Attached, Place, RecordError};
use crate::revocation::{Authority, Matching, Order, OrderError, Outcome, Revocation};
use crate::store::{Reader, StoreError};

/// How long an order waits to be counted: to suspend is more urgent.
const COUNTED_WITHIN: Duration = Duration::from_secs(1);

/// How often it is looked for what a broker was told and did not finish; how long that is left to it; and after how
/// long nothing can live that was issued before a suspension.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const LEFT_ALONE_MS: i64 = 10_000;
const OVER_MS: i64 = 25 * 3_600_000;

/// How often an act is decided again when the state moved under it.
const DECIDE_AGAIN: u32 = 8;

/// The reason of RFC 5280, section 5.3.1.
const PRIVILEGE_WITHDRAWN: &str = "privilegeWithdrawn";

/// A suspension that was set.
#[derive(Debug)]
pub struct Suspended {
    /// The id of its entry.
    pub id: CredentialId,
    /// Where it is recorded.
    pub place: Place,
    /// How many credentials were found live.
    pub live: u64,
}

/// Why a suspension was not lifted.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each says what failed in its text")]
pub enum LiftError {
    #[error(
        "no suspension stands by this id: expected the one that it was set with, or the index of its entry"
    )]
    Unknown,
    #[error("a broker was halted on its own host: `daypass-broker emergency resume` there lifts it")]
    Switch,
    #[error(transparent)]
    Failed(#[from] OrderError),
}

/// Sets and lifts suspensions.
pub struct Suspensions {
    desk: Desk,
    readers: Readers,
    revocation: Arc<Revocation>,
    /// Those whose revocations are carried out.
    done: Mutex<BTreeSet<Index>>,
}

impl Suspensions {
    /// On the log of `desk`, with the task that goes on with what a broker was told and did not finish.
    #[must_use]
    pub fn start(desk: Desk, readers: Readers, revocation: Arc<Revocation>) -> (Arc<Self>, JoinHandle<()>) {
        let suspensions = Arc::new(Self { desk, readers, revocation, done: Mutex::default() });
        let finishing = Arc::clone(&suspensions).keep_finishing();
        (suspensions, tokio::spawn(finishing))
    }

    /// What lives of what `selector` selects: nothing is written.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn preview(&self, selector: &Selector) -> Result<Outcome, OrderError> {
        self.revocation.preview(&Order::new(Matching::new(selector.clone()), PRIVILEGE_WITHDRAWN)).await
    }

    /// Suspends: durable on return, and in force on every broker from its entry on.
    ///
    /// # Errors
    /// When nothing was written.
    pub async fn set(&self, set: SuspensionSet, authority: &Authority) -> Result<Suspended, OrderError> {
        let found = timeout(COUNTED_WITHIN, self.preview(&set.selector)).await;
        let live = match found {
            Ok(Ok(found)) => found.count,
            // As many as there are at all are no fewer.
            _ => self.readers.run(|reader: &dyn Reader| reader.live()).await.unwrap_or_default(),
        };
        let set = SuspensionSet { live, revoked: if set.revokes { live } else { 0 }, ..set };
        let id = self.desk.ids.draw(self.desk.clock.now())?;
        let place = self.append(id, set.into(), authority, None).await?;
        Ok(Suspended { id, place, live })
    }

    /// Revokes what lived when the suspension `at` was set. `ended` counts along.
    ///
    /// # Errors
    /// When something could not be written: it is tried again, by this broker or another.
    pub async fn revoke(
        &self,
        at: Index,
        set: &SuspensionSet,
        authority: &Authority,
        ended: &AtomicU64,
    ) -> Result<Outcome, OrderError> {
        let order = Order {
            comment: Some(set.reason.clone()),
            drill: set.drill.clone(),
            ordered: Some(at),
            ..Order::new(Matching::new(set.selector.clone()), PRIVILEGE_WITHDRAWN)
        };
        // The proof was spent by the suspension itself.
        let authority = Authority { marks: Vec::new(), ..authority.clone() };
        let outcome = self.revocation.revoke(&order, &authority, ended).await?;
        self.done().insert(at);
        Ok(outcome)
    }

    /// Lifts the suspension that `named` names, by its id or by the index of its entry.
    ///
    /// # Errors
    /// When there is none, or nothing was written.
    pub async fn lift(&self, named: &str, reason: &str, authority: &Authority) -> Result<Place, LiftError> {
        for _ in 0..DECIDE_AGAIN {
            let at = self.named(named).await?.ok_or(LiftError::Unknown)?;
            let state = self.desk.log.published_at(at + 1).await.state.clone();
            let found = state.suspensions().find(|(index, _)| *index == at);
            let (_, set) = found.ok_or(LiftError::Unknown)?;
            if crate::emergency::is_by_switch(set) {
                return Err(LiftError::Switch);
            }
            let lifted = SuspensionLifted { suspension: at, reason: reason.to_owned(), approval: None };
            let id = self.desk.ids.draw(self.desk.clock.now()).map_err(OrderError::from)?;
            match self.append(id, lifted.into(), authority, Some(state.at())).await {
                Err(OrderError::Record(RecordError::StateMoved)) => {}
                done => return Ok(done?),
            }
        }
        Err(OrderError::from(RecordError::StateMoved).into())
    }

    async fn named(&self, named: &str) -> Result<Option<Index>, LiftError> {
        if let Ok(index) = named.parse() {
            return Ok(Some(index));
        }
        let Ok(id) = named.parse::<CredentialId>() else { return Ok(None) };
        let find = move |reader: &dyn Reader| index::find(reader, &id);
        let found = self.readers.run(find).await.map_err(OrderError::from)?;
        Ok(found.map(|row| row.index))
    }

    async fn append(
        &self,
        id: CredentialId,
        body: Body,
        authority: &Authority,
        if_state: Option<Index>,
    ) -> Result<Place, OrderError> {
        let entry = NewEntry { id, request: authority.request, by: authority.by.clone(), body };
        let attached = Attached { marks: authority.marks.clone(), if_state, ..Attached::default() };
        let places = self.desk.log.append(vec![entry], attached).await?;
        let missing = || RecordError::Unavailable("the place of an entry was lost".into());
        Ok(places.into_iter().next().ok_or_else(missing)?)
    }

    /// Goes on, for as long as the broker runs, with what one was told and did not finish: another, or itself after its
    /// next start.
    async fn keep_finishing(self: Arc<Self>) {
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if let Err(error) = self.finish().await {
                tracing::error!(%error, "not all that a suspension revokes was ended; it is tried again");
            }
        }
    }

    async fn finish(&self) -> Result<(), OrderError> {
        let (state, now) = (self.desk.log.state(), self.desk.clock.now());
        let done = self.done().clone();
        let open = state.suspensions().filter(|(at, set)| set.revokes && !done.contains(at));
        for (at, set) in open {
            let time = self.readers.run(move |reader: &dyn Reader| time_of(reader, at)).await?;
            let since = time.map_or(OVER_MS, |time| now.millis_since(time));
            if since >= OVER_MS {
                self.done().insert(at);
            } else if since >= LEFT_ALONE_MS {
                let left = self.revoke(at, set, &Authority::default(), &AtomicU64::default()).await?;
                if left.count > 0 {
                    tracing::warn!(
                        suspension = at,
                        revoked = left.count,
                        "what a suspension revokes was left alive"
                    );
                }
            }
        }
        Ok(())
    }

    fn done(&self) -> MutexGuard<'_, BTreeSet<Index>> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn time_of(reader: &dyn Reader, at: Index) -> Result<Option<UnixMs>, StoreError> {
    let rows = reader.rows(at, 1)?;
    Ok(rows.first().map(index::read).transpose()?.map(|entry| entry.envelope.time))
}
