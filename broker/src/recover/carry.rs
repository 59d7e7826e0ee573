//! What still holds when a log goes on in another: what is declared, since when and how reviewed; what is suspended;
//! what may be alive.

use daypass_core::bundle::Bundle;
use daypass_core::state::{IMPORTED, State, phase};
use daypass_evidence::entry::{
    Alarm, AlarmState, BundleActivated, Change, Gap, KeyChanged, KeyState, NewEntry, RegistryChanged,
};
use daypass_verify::time::UnixMs;

use super::RecoverError;
use crate::ids::{Ids, RandomnessFailed};
use crate::log::{Attached, CLOCK, Log, ROLLBACK};
use crate::store::{Batch, Live, PREDECESSOR, Reader, StoreAt, StoreError};

/// How many characters of an alarm's detail are kept.
const DETAIL_MAX: usize = 512;

/// How much was carried over.
#[derive(Debug, Clone, Copy, Default)]
pub struct Carried {
    /// Declared objects.
    pub objects: usize,
    /// Of those, the ones that were reviewed.
    pub reviewed: usize,
    /// Suspensions.
    pub suspensions: usize,
    /// Credentials whose endings the new log will hold.
    pub live: usize,
    /// Keys that were brought and signed, which no broker can make anew: given up like all others.
    pub imported: usize,
    /// Whether endings wait for a second source that agrees with the clock.
    pub held: bool,
}

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
    let mut carried = Carried::default();
    let mut bodies = Vec::new();
    let mut attached = Attached::default();
    if let Some(bundle) = state.bundle() {
        let register = register(bundle, state);
        carried.objects = register.len();
        carried.reviewed = register.iter().filter(|it| it.next_due_ms.is_some()).count();
        bodies.extend(register.into_iter().map(Into::into));
        bodies.push(
            BundleActivated {
                digest: bundle.digest(),
                previous: None,
                proposed: None,
                decided: Vec::new(),
                bootstrap: true,
            }
            .into(),
        );
        attached.objects.push((bundle.digest(), bundle.to_object()));
    }
    let in_force = state.suspensions().filter(|(_, set)| set.until_ms.is_none_or(|until| now < until));
    let before = bodies.len();
    bodies.extend(in_force.map(|(_, set)| set.clone().into()));
    carried.suspensions = bodies.len() - before;
    let entries: Result<Vec<_>, RandomnessFailed> = bodies
        .into_iter()
        .map(|body| Ok(NewEntry { id: ids.draw(now)?, request: None, by: None, body }))
        .collect();
    log.append(entries?, attached).await?;
    Ok(carried)
}

fn register(bundle: &Bundle, state: &State) -> Vec<RegistryChanged> {
    let changes = bundle.changes_from(None).into_iter();
    let carried = changes.map(|(object, name, _, declared)| {
        let declaration = state.declaration(object, name.as_str());
        RegistryChanged {
            object,
            change: Change::Carried,
            was: None,
            bundle: bundle.digest(),
            declared,
            since_ms: declaration.map(|it| it.since_ms),
            next_due_ms: declaration.and_then(|it| it.next_due_ms),
            name,
        }
    });
    carried.collect()
}

/// What may be alive of the old log ends in the new one.
pub(super) fn carry_live(new: &StoreAt, old: &dyn Reader) -> Result<usize, StoreError> {
    let mut born: Vec<Live> = Vec::new();
    let mut last = None;
    loop {
        let page = old.live_after(last, 1_000)?;
        if page.is_empty() {
            break;
        }
        last = page.last().copied();
        let own = page.into_iter().filter(|live| live.index < PREDECESSOR);
        born.extend(own.map(|live| Live { index: PREDECESSOR + live.index, ..live }));
    }
    let count = born.len();
    let mut store = new.open()?.store;
    let transaction = store.begin()?;
    let head = transaction.head().clone();
    transaction.commit(&Batch { born, ..Batch::default() }, &head)?;
    Ok(count)
}
