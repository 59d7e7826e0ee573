//! What is carried into the log that is opened after a loss.

use std::sync::Arc;

use daypass_core::state::{IMPORTED, State, phase};
use daypass_evidence::entry::{Alarm, AlarmState, Gap, KeyChanged, KeyState, NewEntry};
use daypass_verify::time::UnixMs;

use super::RecoverError;
use crate::ids::{Ids, RandomnessFailed};
use crate::log::{self, Attached, CLOCK, Carried, Log, ROLLBACK, Shards};
use crate::store::{Batch, Live, PREDECESSOR, Reader, StoreAt, StoreError, base, place};

/// How many characters of an alarm's detail are kept.
const DETAIL_MAX: usize = 512;

/// The alarm that the log could not take any more when it went back; and that it is over.
pub(super) async fn tell_of_rollback(
    log: &Log,
    ids: &Ids,
    now: UnixMs,
    gap: &Gap,
) -> Result<(), RecoverError> {
    let mut raised = None;
    for (state, detail) in
        [(AlarmState::Raised, gap.note.as_str()), (AlarmState::Cleared, "a new log goes on")]
    {
        let detail = Some(detail.chars().take(DETAIL_MAX).collect());
        let body = Alarm { code: ROLLBACK.into(), state, raised, detail }.into();
        let entry = NewEntry { id: ids.draw(now)?, request: None, by: None, body };
        let places = log.append(vec![entry], Attached::default()).await?;
        raised = places.first().map(|place| place.index);
    }
    Ok(())
}

/// What held endings in the log before holds them in this one: nothing told meanwhile that the clock is right.
pub(super) async fn tell_of_clock(
    log: &Log,
    ids: &Ids,
    now: UnixMs,
    doubt: Option<&str>,
) -> Result<(), RecoverError> {
    let Some(why) = doubt else { return Ok(()) };
    let alarm = Alarm {
        code: CLOCK.into(),
        state: AlarmState::Raised,
        raised: None,
        detail: Some(format!("{why}: endings wait until a second source agrees with the clock")),
    };
    let entry = NewEntry { id: ids.draw(now)?, request: None, by: None, body: alarm.into() };
    log.append(vec![entry], Attached::default()).await?;
    Ok(())
}

/// Keys that were brought, and sign or are to sign.
pub(super) fn imported(state: &State, now: UnixMs) -> usize {
    let signs = |key: &&KeyChanged| matches!(phase(key, now), KeyState::Prepared | KeyState::Active);
    state.keys().values().filter(|key| key.origin == IMPORTED).filter(signs).count()
}

/// The bundle in force with all that it declares, and the suspensions.
pub(super) async fn carry(log: &Log, ids: &Ids, now: UnixMs, state: &State) -> Result<Carried, RecoverError> {
    let (carried, bodies) = log::carried(now, state);
    let entries: Result<Vec<_>, RandomnessFailed> = bodies
        .into_iter()
        .map(|body| Ok(NewEntry { id: ids.draw(now)?, request: None, by: None, body }))
        .collect();
    let objects = state.bundle().map(|bundle| (bundle.digest(), bundle.to_object())).into_iter().collect();
    log.append(entries?, Attached { objects, ..Attached::default() }).await?;
    Ok(carried)
}

/// What may be alive of the old log, and of those before it: it ends in the new one.
pub(super) struct Living {
    born: Vec<Live>,
    /// The origins of the logs before the old one.
    pub(super) earlier: Vec<String>,
}

impl Living {
    /// What may be alive in a store.
    pub(super) fn of(old: &dyn Reader) -> Result<Self, StoreError> {
        let own = old.head()?.map_or(0, |head| head.shard);
        let shards = Shards::of(old, Arc::new(Ids::system()))?;
        let (mut born, mut earlier, mut last): (Vec<Live>, Vec<String>, _) = (Vec::new(), Vec::new(), None);
        loop {
            let page = old.live_after(last, 1_000)?;
            last = page.last().copied();
            if last.is_none() {
                return Ok(Self { born, earlier });
            }
            for live in page {
                let (shard, index) = place(live.index);
                let log = match shards.log_of(shard, own) {
                    Some(origin) => 1 + position(&mut earlier, origin),
                    None => 0,
                };
                born.push(Live { index: PREDECESSOR + base(log) + index, ..live });
            }
        }
    }

    /// Has it live in the new store.
    pub(super) fn carry(self, new: &StoreAt) -> Result<usize, StoreError> {
        let count = self.born.len();
        let mut store = new.open()?.store;
        let transaction = store.begin()?;
        let head = transaction.head().clone();
        transaction.commit(&Batch { born: self.born, ..Batch::default() }, &head)?;
        Ok(count)
    }
}

/// Where `origin` is among `all`, to which it is added.
fn position(all: &mut Vec<String>, origin: String) -> u32 {
    let at = all.iter().position(|it| *it == origin).unwrap_or_else(|| {
        all.push(origin);
        all.len() - 1
    });
    u32::try_from(at).unwrap_or(u32::MAX)
}
