//! What one batch does: drafts are recorded, entries appended, credentials settled and ended.

use std::collections::{BTreeMap, BTreeSet};

use daypass_core::draft::{Draft, MarkKind};
use daypass_core::request::Renewed;
use daypass_core::state::{SUPERSEDED, State};
use daypass_evidence::checkpoint::Checkpoint;
use daypass_evidence::entry::{Body, CredentialEnded, EndedHow, Index, NewEntry, Reach};
use daypass_verify::time::UnixMs;

use super::batch::{Assembly, BatchError};
use super::past::Past;
use super::settlement::Waiting;
use super::turn::Shards;
use super::{Attached, Command, Ends, RecordError};
use crate::ids::Ids;
use crate::store::{Head, Live, StoreError, Transaction, base, place};

/// Endings wait out the leeway that receivers may give.
const LEEWAY_MS: i64 = 30_000;

/// How many credentials one entry names within 16 KiB.
pub(super) const ENDED_PER_ENTRY: usize = 1_000;

/// How many one batch of a sweep ends: whoever waits for a credential in that batch waits for these too.
const SWEEP: u32 = 500;

/// How old a draft may be when it is recorded: older ones are decided again.
const DRAFT_AGE_MS: i64 = 5_000;

/// A draft that is recorded is signed while its key still drains.
const _: () = assert!(DRAFT_AGE_MS < daypass_core::state::DRAIN_MS);

/// What became of each command of a batch, before anything is committed.
pub(super) enum Fate {
    Ready,
    Recorded(Index),
    Stale,
    Refused(RecordError),
    Appended(Vec<Index>),
    Nothing,
}

impl Fate {
    /// A store that went back must not be written any further.
    pub(super) fn halts(&self) -> Option<RecordError> {
        match self {
            Self::Refused(error) if error.is_fatal() => Some(error.clone()),
            _ => None,
        }
    }
}

/// Under what the drafts of a batch are recorded.
pub(super) struct Ground<'a> {
    pub(super) state: &'a State,
    pub(super) ids: &'a Ids,
    pub(super) time: UnixMs,
    /// Whether there is room for more than what must be written.
    pub(super) room: bool,
    /// What the log was at earlier sizes.
    pub(super) past: &'a Past,
    /// The logs before it.
    pub(super) shards: &'a Shards,
}

/// Records the drafts of a batch, before anything in it can change the state they were decided under: so a draft
/// is stale or not by the head alone, and the proof of a stale one is not spent.
pub(super) fn record_all(
    assembly: &mut Assembly<'_>,
    transaction: &mut dyn Transaction,
    commands: &[Command],
    ground: &Ground<'_>,
) -> Result<Vec<Fate>, RecordError> {
    let head = transaction.head().clone();
    let mut fates: Vec<Fate> =
        commands.iter().map(|command| before_spending(command, &head, ground)).collect();
    let ready = commands.iter().zip(&fates).filter_map(|(command, fate)| match (command, fate) {
        (Command::Record { draft, .. }, Fate::Ready) => Some(draft.marks()),
        _ => None,
    });
    let marks: Vec<_> = ready.collect();
    let mut fresh = transaction.spend_all(&marks).map_err(unavailable)?.into_iter();
    for (command, fate) in commands.iter().zip(&mut fates) {
        if let (Command::Record { draft, .. }, Fate::Ready) = (command, &fate) {
            *fate = record_one(assembly, draft, fresh.next().unwrap_or_default());
        }
    }
    let recorded = commands.iter().zip(&fates).filter_map(|(command, fate)| match (command, fate) {
        (Command::Record { draft, .. }, Fate::Recorded(_)) => draft.grant().replaces(),
        _ => None,
    });
    end_replaced(assembly, transaction, recorded.collect(), ground)?;
    Ok(fates)
}

fn before_spending(command: &Command, head: &Head, ground: &Ground<'_>) -> Fate {
    let Command::Record { draft, known, .. } = command else { return Fate::Nothing };
    if let Some(error) = known.as_ref().and_then(|known| contradicts(known, head, ground.past, ground.shards))
    {
        return Fate::Refused(error);
    }
    if !ground.room {
        return Fate::Refused(RecordError::Full);
    }
    let (time, state) = (ground.time, ground.state);
    let aged = time.millis_since(draft.grant().issued_at()).abs() > DRAFT_AGE_MS || time >= draft.exp();
    if aged || draft.state() != head.state {
        return Fate::Stale;
    }
    let Body::CredentialIssued(issued) = &draft.entry().body else { return Fate::Stale };
    if issued.credential.supersedes.is_some_and(|renewed| state.ended_meanwhile(renewed)) {
        return Fate::Refused(RecordError::Revoked);
    }
    if state.was_revoked_meanwhile(draft.id(), issued) { Fate::Stale } else { Fate::Ready }
}

/// Each draft has its own outcome: a replay fails alone, never the batch, and spends nothing else of its own.
fn record_one(assembly: &mut Assembly<'_>, draft: &Draft, fresh: Vec<bool>) -> Fate {
    let spent = draft.marks().iter().zip(fresh).filter(|(_, fresh)| !fresh).map(|(mark, _)| mark.kind);
    let spent: Vec<MarkKind> = spent.collect();
    match spent.as_slice() {
        [MarkKind::Request, ..] => Fate::Refused(RecordError::AlreadyIssued),
        [MarkKind::Proof, ..] => Fate::Refused(RecordError::Replayed),
        // Asked again for the same new key, by who never had the answer: as good as the first time.
        [MarkKind::Superseded] => Fate::Refused(RecordError::Superseded),
        _ => match assembly.push(draft.entry()) {
            Ok(index) => {
                assembly.adds.born.push(Live { exp: draft.exp(), index: base(assembly.shard()) + index });
                Fate::Recorded(index)
            }
            Err(error) => Fate::Refused(assembly_failed(error)),
        },
    }
}

/// Where a task says so, the record of a renewal is the end of what it renews: by one entry for all of a batch.
fn end_replaced(
    assembly: &mut Assembly<'_>,
    transaction: &mut dyn Transaction,
    replaced: Vec<Renewed>,
    ground: &Ground<'_>,
) -> Result<(), RecordError> {
    if replaced.is_empty() {
        return Ok(());
    }
    let named: BTreeMap<Index, Renewed> = replaced.into_iter().map(|it| (it.index, it)).collect();
    let own = transaction.head().shard;
    let at = |index| base(own) + index;
    let live = named.values().map(|it| (Live { exp: it.exp, index: at(it.index) }, it.reach)).collect();
    let id = ground.ids.draw(ground.time).map_err(|error| RecordError::Unavailable(error.to_string()))?;
    let body = CredentialEnded { reason: Some(SUPERSEDED.into()), ..ended_how(EndedHow::Revoked) }.into();
    let ends = Ends { entry: NewEntry { id, request: None, by: None, body }, live };
    let ending = still_live(assembly, transaction, &ends)?;
    for entry in ended(&ends, &ending, own, ground.shards) {
        assembly.push(&entry).map_err(assembly_failed)?;
    }
    assembly.adds.ended.extend(ending.iter().map(|(live, _)| *live));
    Ok(())
}

/// What a checkpoint in a caller's hand says against the head, if anything. It was ahead of what this broker saw when
/// it was shown: what others wrote since is in memory by now.
fn contradicts(known: &Checkpoint, head: &Head, past: &Past, shards: &Shards) -> Option<RecordError> {
    if known.origin != head.origin {
        // Our own key signed it, for a log that follows this one, and this store does not have it.
        let detail =
            || format!("a caller holds a checkpoint of `{}`, which the store does not know", known.origin);
        return shards.closed(&known.origin).is_none().then(|| RecordError::Rollback(detail()));
    }
    if known.size > head.size {
        let detail =
            format!("a caller holds a checkpoint of size {}, and the store has {}", known.size, head.size);
        return Some(RecordError::Rollback(detail));
    }
    match past.root_at(known.size) {
        Some(root) if root == known.root => None,
        Some(_) => Some(RecordError::SplitView(format!(
            "a caller holds another checkpoint of size {}, signed by this log",
            known.size
        ))),
        // So many were written since that they were not read: asked again, it is compared with the store.
        None => Some(RecordError::StateMoved),
    }
}

/// Appends all of a command's entries or none: half a bundle's changes would belong to no activation.
pub(super) fn append(
    assembly: &mut Assembly<'_>,
    transaction: &mut dyn Transaction,
    entries: &[NewEntry],
    attached: &Attached,
    room: bool,
    shards: &Shards,
) -> Result<Fate, RecordError> {
    // Bundles are large, and can wait.
    if !room && !attached.objects.is_empty() {
        return Ok(Fate::Refused(RecordError::Full));
    }
    if attached.if_state.is_some_and(|state| state != assembly.state()) {
        return Ok(Fate::Refused(RecordError::StateMoved));
    }
    let ending = match &attached.ends {
        Some(ends) => still_live(assembly, transaction, ends)?,
        None => Vec::new(),
    };
    let ended =
        attached.ends.as_ref().map_or_else(Vec::new, |ends| ended(ends, &ending, assembly.shard(), shards));
    let entries = || entries.iter().chain(&ended);
    if let Err(error) = entries().try_for_each(|entry| assembly.check(entry)) {
        return Ok(Fate::Refused(assembly_failed(error)));
    }
    let marks = attached.marks.as_slice();
    if !marks.is_empty() && transaction.spend(marks).map_err(unavailable)?.contains(&false) {
        return Ok(Fate::Refused(RecordError::Replayed));
    }
    assembly.adds.objects.extend(attached.objects.iter().cloned());
    assembly.adds.keys.extend(attached.keys.iter().cloned());
    assembly.adds.ended.extend(ending.iter().map(|(live, _)| *live));
    Ok(match entries().map(|entry| assembly.push(entry)).collect() {
        Ok(indexes) => Fate::Appended(indexes),
        Err(error) => Fate::Refused(assembly_failed(error)),
    })
}

/// Those of an order that have not ended, in the store or by this batch.
fn still_live(
    assembly: &Assembly<'_>,
    transaction: &mut dyn Transaction,
    ends: &Ends,
) -> Result<Vec<(Live, Reach)>, RecordError> {
    let named: Vec<Live> = ends.live.iter().map(|(live, _)| *live).collect();
    let live = transaction.are_live(&named).map_err(unavailable)?;
    let by_this_batch: BTreeSet<Live> = assembly.adds.ended.iter().copied().collect();
    let left = ends.live.iter().zip(live).filter(|((it, _), live)| *live && !by_this_batch.contains(it));
    Ok(left.map(|(it, _)| *it).collect())
}

/// The entries that name what an order ends, one for each log that issued any of it.
fn ended(ends: &Ends, ending: &[(Live, Reach)], own: u32, shards: &Shards) -> Vec<NewEntry> {
    let Body::CredentialEnded(template) = &ends.entry.body else { return Vec::new() };
    let mut by_log: BTreeMap<Index, CredentialEnded> = BTreeMap::new();
    for (live, reach) in ending {
        let (shard, index) = place(live.index);
        let body = by_log.entry(shard).or_insert_with(|| CredentialEnded {
            log: shards.log_of(shard, own),
            ..template.as_ref().clone()
        });
        body.ended.push(index);
        *body.reach.entry(reach.as_str().to_owned()).or_default() += 1;
    }
    let entry = |(at, mut body): (usize, CredentialEnded)| {
        body.ended.sort_unstable();
        // Each entry has an id of its own: the first keeps the one that was drawn for it.
        let id = if at == 0 { Some(ends.entry.id) } else { shards.draw_beside(&ends.entry.id) };
        id.map(|id| NewEntry { id, body: body.into(), ..ends.entry.clone() })
    };
    by_log.into_values().enumerate().filter_map(entry).collect()
}

/// Settles what was handed out and what was not. A credential that was revoked before it could be called void has its
/// ending.
pub(super) fn settle(
    assembly: &mut Assembly<'_>,
    transaction: &mut dyn Transaction,
    settling: &mut Waiting,
    ids: &Ids,
    time: UnixMs,
    shards: &Shards,
) -> Result<(), RecordError> {
    settling.forget_ended(time.plus_millis(-LEEWAY_MS));
    if !settling.void.is_empty() {
        let void: Vec<Live> = settling.void.iter().map(|voided| voided.live).collect();
        let mut live = transaction.are_live(&void).map_err(unavailable)?.into_iter();
        settling.void.retain(|_| live.next().unwrap_or_default());
    }
    let own = assembly.shard();
    for settled in settling.entries(|shard| shards.log_of(shard, own)) {
        push(assembly, ids, time, settled.into())?;
    }
    assembly.adds.ended.extend(settling.void.iter().map(|voided| voided.live));
    Ok(())
}

/// Ends what expired; whether that was all.
pub(super) fn sweep(
    assembly: &mut Assembly<'_>,
    transaction: &mut dyn Transaction,
    ids: &Ids,
    time: UnixMs,
    shards: &Shards,
) -> Result<bool, RecordError> {
    let through = time.plus_millis(-LEEWAY_MS);
    #[cfg(feature = "sabotage")]
    let through = if crate::sabotage::breaks("p2") { time } else { through };
    #[cfg(feature = "sabotage")]
    let through = if crate::sabotage::breaks("p2-late") { through.plus_millis(-120_000) } else { through };
    let expired = transaction.expired(through, SWEEP).map_err(unavailable)?;
    let whole = expired.len() < SWEEP as usize;
    let expired: Vec<Live> = expired.into_iter().filter(|live| !assembly.adds.ended.contains(live)).collect();
    let is_own = |live: &&Live| place(live.index).0 == Index::from(assembly.shard());
    let (own, before): (Vec<Live>, Vec<Live>) = expired.iter().partition(is_own);
    let mut by_log: BTreeMap<Index, Vec<Index>> = BTreeMap::new();
    before
        .iter()
        .map(|live| place(live.index))
        .for_each(|(shard, at)| by_log.entry(shard).or_default().push(at));
    for (shard, ended) in by_log {
        let log = shards.log_of(shard, assembly.shard());
        for chunk in ended.chunks(ENDED_PER_ENTRY) {
            push(assembly, ids, time, expired_of(chunk.to_vec(), log.as_deref(), None).into())?;
        }
    }
    for chunk in own.chunks(ENDED_PER_ENTRY) {
        let indexes = chunk.iter().map(|live| place(live.index).1).collect();
        let complete = whole && chunk.last() == own.last();
        // They come by their end: when one is named, all that ended before it are.
        let all_before = chunk.last().map(|live| live.exp.plus_millis(-1));
        let named_through = if complete { Some(through) } else { all_before };
        push(assembly, ids, time, expired_of(indexes, None, named_through).into())?;
    }
    #[cfg(feature = "sabotage")]
    let expired = if crate::sabotage::breaks("p2-twice") { Vec::new() } else { expired };
    assembly.adds.ended.extend(expired);
    Ok(whole)
}

/// The ending of what expired: of this log, or of the one before it.
fn expired_of(mut ended: Vec<Index>, log: Option<&str>, through_ms: Option<UnixMs>) -> CredentialEnded {
    ended.sort_unstable();
    CredentialEnded { ended, log: log.map(str::to_owned), through_ms, ..ended_how(EndedHow::Expired) }
}

fn ended_how(how: EndedHow) -> CredentialEnded {
    CredentialEnded {
        how,
        ended: Vec::new(),
        log: None,
        through_ms: None,
        selector: None,
        reason: None,
        comment: None,
        drill: None,
        ordered: None,
        reach: BTreeMap::new(),
    }
}

pub(super) fn push(
    assembly: &mut Assembly<'_>,
    ids: &Ids,
    time: UnixMs,
    body: Body,
) -> Result<Index, RecordError> {
    let id = ids.draw(time).map_err(|error| RecordError::Unavailable(error.to_string()))?;
    assembly.push(&NewEntry { id, request: None, by: None, body }).map_err(assembly_failed)
}

pub(super) fn assembly_failed(error: BatchError) -> RecordError {
    RecordError::Unavailable(error.to_string())
}

pub(super) fn unavailable(error: StoreError) -> RecordError {
    RecordError::Unavailable(error.to_string())
}
