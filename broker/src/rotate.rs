//! Keys that rotate: the plan of the core, carried out. What one broker makes, all open; of two that act on the same
//! state, the log lets one.

mod import;
mod revoke;
mod step;
mod upstream;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use daypass_core::draft::Mark;
use daypass_core::rotation::{Lifetimes, Next, Order, OrderError, Step, next, order, plan};
use daypass_core::state::State;
use daypass_evidence::entry::By;
use daypass_verify::ids::{KeyId, RequestId};
use daypass_verify::time::UnixMs;
use daypass_verify::upstream::UpstreamError;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use crate::authority::AuthorityError;
use crate::ids::RandomnessFailed;
use crate::index::Readers;
use crate::issue::Desk;
use crate::keyring::{Kek, KekError, KeyringError};
use crate::log::{Attached, Place, RecordError};
use crate::signer::SignError;
use crate::store::{Reader, SealedKey, StoreError};

/// How often the plan is looked at for what is due.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How often an act is decided again when the state moved under it.
const DECIDE_AGAIN: u32 = 8;

/// Why keys were not rotated.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each says what failed in its text")]
pub enum RotateError {
    #[error(transparent)]
    Order(#[from] OrderError),
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    #[error(transparent)]
    Kek(#[from] KekError),
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    #[error(transparent)]
    Sign(#[from] SignError),
    #[error(transparent)]
    NoId(#[from] RandomnessFailed),
    #[error("no root may sign an issuing CA now: none is active, or it ends too soon")]
    NoRoot,
    #[error("key `{0}` is in the log already: bring another")]
    Known(KeyId),
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    #[error(
        "the certificate is of no key that waits for one: run `daypass-broker ca request`, and have that request signed"
    )]
    NotRequested,
    #[error(
        "the chain ends at {0}: expected it to hold for longer, so that the CA can sign when everybody knows its root"
    )]
    TooShort(UnixMs),
}

/// On whose authority keys change.
#[derive(Debug, Clone, Default)]
pub struct Authority {
    /// The operator; none where a broker acts by itself.
    pub by: Option<By>,
    /// Its request.
    pub request: Option<RequestId>,
    /// Why, in words.
    pub reason: Option<String>,
    /// What its proof spends: with the first thing that is written.
    pub marks: Vec<Mark>,
}

/// What an order led to.
pub struct Rotated {
    /// The key that signs next, or from now on; none where none is made here.
    pub next: Option<Next>,
    /// Its first entry; none where what was ordered is on its way already.
    pub place: Option<Place>,
}

/// Looks after the keys of one broker.
pub struct Rotation {
    desk: Desk,
    kek: Arc<Kek>,
    readers: Readers,
    lifetimes: Lifetimes,
    /// One act at a time: a key that was made is in the keyring before it is in the log.
    acting: Mutex<()>,
    /// Compromised keys of which nothing lives any more.
    ended: std::sync::Mutex<BTreeSet<KeyId>>,
}

impl Rotation {
    /// Looks after the keys of `desk`.
    #[must_use]
    pub fn new(desk: Desk, kek: Arc<Kek>, readers: Readers, lifetimes: Lifetimes) -> Self {
        Self { desk, kek, readers, lifetimes, acting: Mutex::default(), ended: Default::default() }
    }

    /// How long keys live.
    #[must_use]
    pub fn lifetimes(&self) -> &Lifetimes {
        &self.lifetimes
    }

    /// Does what is due now. To be called before keys are shown to anybody, and then again and again.
    ///
    /// # Errors
    /// The first thing that could not be done; it takes no other with it, and the next look tries again.
    pub async fn look(&self) -> Result<(), RotateError> {
        let _acting = self.acting.lock().await;
        self.follow(&self.desk.log.state()).await?;
        let mut fault = Ok(());
        for part in 0..4 {
            fault = fault.and(self.look_at(part).await);
        }
        fault
    }

    /// The first look: what could not be done is tried again later, and keeps no broker from serving.
    pub async fn look_at_start(&self) {
        if let Err(error) = self.look().await {
            tracing::error!(%error, "keys could not be looked after at the start; it is tried again");
        }
    }

    async fn look_at(&self, part: usize) -> Result<(), RotateError> {
        for _ in 0..DECIDE_AGAIN {
            let (state, now) = (self.desk.log.state(), self.desk.clock.now());
            let steps = plan(state.keys().values(), &self.lifetimes, now).into_iter().nth(part);
            let Some(steps) = steps.filter(|steps| !steps.is_empty()) else { return Ok(()) };
            match self.carry_out(&state, &steps, now, &mut Authority::default()).await {
                Ok(_) | Err(RotateError::Record(RecordError::StateMoved)) => {}
                Err(error) => return Err(error),
            }
        }
        Err(RecordError::StateMoved.into())
    }

    /// What an order would lead to: nothing is written.
    ///
    /// # Errors
    /// When it cannot be followed.
    pub fn preview(&self, asked: &Order) -> Result<Option<Next>, RotateError> {
        let (state, now) = (self.desk.log.state(), self.desk.clock.now());
        let steps = order(state.keys().values(), asked, &self.lifetimes, now)?;
        Ok(next(state.keys().values(), asked, &steps))
    }

    /// Does what an operator orders. A compromised key is out of trust even where none can be put in its place.
    ///
    /// # Errors
    /// When it cannot be followed or recorded: then no key was changed.
    pub async fn order(&self, asked: &Order, authority: &Authority) -> Result<Rotated, RotateError> {
        let _acting = self.acting.lock().await;
        let mut authority = authority.clone();
        for _ in 0..DECIDE_AGAIN {
            let (state, now) = (self.desk.log.state(), self.desk.clock.now());
            let mut steps = order(state.keys().values(), asked, &self.lifetimes, now)?;
            if steps.is_empty() {
                return Ok(Rotated { next: next(state.keys().values(), asked, &steps), place: None });
            }
            let mut done = self.carry_out(&state, &steps, now, &mut authority).await;
            if let Err(error @ (RotateError::NoRoot | RotateError::Sign(_) | RotateError::Authority(_))) =
                &done
                && asked.compromised.is_some()
            {
                tracing::error!(%error, "no key can be put in the place of a compromised one");
                steps.retain(|step| matches!(step, Step::Compromise { .. }));
                done = self.carry_out(&self.desk.log.state(), &steps, now, &mut authority).await;
            }
            match done {
                Ok(place) => {
                    let state = self.desk.log.state();
                    return Ok(Rotated { next: next(state.keys().values(), asked, &[]), place });
                }
                Err(RotateError::Record(RecordError::StateMoved)) => {}
                Err(error) => return Err(error),
            }
        }
        Err(RecordError::StateMoved.into())
    }

    /// Opens what other brokers made, and lets go of what is destroyed.
    async fn follow(&self, state: &State) -> Result<(), RotateError> {
        if self.desk.keyring.differs_from(state) {
            let sealed = self.sealed().await?;
            self.desk.keyring.follow(&sealed, state, &self.kek)?;
        }
        Ok(())
    }

    async fn sealed(&self) -> Result<Vec<SealedKey>, RotateError> {
        Ok(self.readers.run(|reader: &dyn Reader| reader.keys()).await?)
    }

    async fn carry_out(
        &self,
        state: &State,
        steps: &[Step],
        now: UnixMs,
        authority: &mut Authority,
    ) -> Result<Option<Place>, RotateError> {
        // The blobs in the store are sealed under the newest times: a state that another broker moved is read first.
        let none = Attached { if_state: Some(state.at()), ..Attached::default() };
        self.desk.log.append(Vec::new(), none).await?;
        let written = step::carry_out(self, state, steps, now, authority).await;
        self.follow_or_say().await;
        Ok(written?.into_iter().next())
    }

    /// The state of all that any broker wrote until now.
    async fn newest_state(&self) -> Arc<State> {
        Arc::clone(&self.desk.log.published_at(u64::MAX).await.state)
    }

    /// After an act: what was made and not recorded is let go, and what was recorded is kept.
    async fn follow_or_say(&self) {
        if let Err(error) = self.follow(&self.desk.log.state()).await {
            tracing::error!(%error, "keys could not be opened; it is tried again");
        }
    }
}

/// Goes on for as long as the broker runs: whenever the state changed, and once in a second.
pub fn keep_rotating(rotation: &Arc<Rotation>) -> JoinHandle<()> {
    tokio::spawn(go_on(Arc::clone(rotation)))
}

async fn go_on(rotation: Arc<Rotation>) {
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut changes = rotation.desk.log.state_changes();
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            Ok(()) = changes.changed() => {}
        }
        if let Err(error) = rotation.look().await {
            tracing::error!(%error, "keys could not be rotated; it is tried again");
            ticks.tick().await;
        }
        if let Err(error) = rotation.finish_revocations().await {
            tracing::error!(%error, "not all that a compromised key signed was ended; it is tried again");
            ticks.tick().await;
        }
    }
}
