//! What one batch does: drafts are recorded, entries appended, credentials settled and ended.

use std::collections::BTreeMap;

use daypass_core::draft::{Draft, MarkKind};
use daypass_evidence::checkpoint::Checkpoint;
use daypass_evidence::entry::{Body, CredentialEnded, EndedHow, Index, NewEntry};
use daypass_verify::time::UnixMs;

use super::batch::{Assembly, BatchError};
use super::settlement::Waiting;
use super::{Attached, Command, RecordError};
use crate::ids::Ids;
use crate::store::{Head, Live, StoreError, Transaction};

/// Endings wait out the leeway that receivers may give.
const LEEWAY_MS: i64 = 30_000;

/// How many credentials one sweep ends, and how many one entry names within 16 KiB.
const SWEEP: u32 = 8_000;
const ENDED_PER_ENTRY: usize = 1_000;

/// How old a draft may be when it is recorded: older ones are decided again.
const DRAFT_AGE_MS: i64 = 5_000;

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
            Self::Refused(error @ RecordError::Rollback(_)) => Some(error.clone()),
            _ => None,
        }
    }
}

/// Records the drafts of a batch, before anything in it can change the state they were decided under: so a draft
/// is stale or not by the head alone, and the proof of a stale one is not spent.
pub(super) fn record_all(
    assembly: &mut Assembly<'_>,
    transaction: &mut dyn Transaction,
    commands: &[Command],
    time: UnixMs,
) -> Result<Vec<Fate>, RecordError> {
    let head = transaction.head().clone();
    let mut fates: Vec<Fate> = commands.iter().map(|command| before_spending(command, &head, time)).collect();
    for (command, fate) in commands.iter().zip(&mut fates) {
        if let (Command::Record { draft, .. }, Fate::Ready) = (command, &fate) {
            *fate = record_one(assembly, transaction, draft)?;
        }
    }
    Ok(fates)
}

fn before_spending(command: &Command, head: &Head, time: UnixMs) -> Fate {
    let Command::Record { draft, known, .. } = command else { return Fate::Nothing };
    if let Some(detail) = known.as_ref().and_then(|known| went_back(known, head)) {
        return Fate::Refused(RecordError::Rollback(detail));
    }
    let aged = time.millis_since(draft.grant().issued_at()).abs() > DRAFT_AGE_MS || time >= draft.exp();
    if aged || draft.state() != head.state { Fate::Stale } else { Fate::Ready }
}

/// Each draft has its own outcome: a replay fails alone, never the batch, and spends nothing else of its own.
fn record_one(
    assembly: &mut Assembly<'_>,
    transaction: &mut dyn Transaction,
    draft: &Draft,
) -> Result<Fate, RecordError> {
    let fresh = match draft.marks() {
        [] => Vec::new(),
        marks => transaction.spend(marks).map_err(unavailable)?,
    };
    let spent = draft.marks().iter().zip(fresh).find(|(_, fresh)| !fresh).map(|(mark, _)| mark.kind);
    Ok(match spent {
        Some(MarkKind::Request) => Fate::Refused(RecordError::AlreadyIssued),
        Some(MarkKind::Proof) => Fate::Refused(RecordError::Replayed),
        None => match assembly.push(draft.entry()) {
            Ok(index) => {
                assembly.adds.born.push(Live { exp: draft.exp(), index });
                Fate::Recorded(index)
            }
            Err(error) => Fate::Refused(assembly_failed(error)),
        },
    })
}

/// What a checkpoint in a caller's hand says against the head, if anything.
fn went_back(known: &Checkpoint, head: &Head) -> Option<String> {
    let ahead = known.origin == head.origin && known.size > head.size;
    ahead.then(|| {
        format!("a caller holds a checkpoint of size {}, and the store has {}", known.size, head.size)
    })
}

pub(super) fn append(assembly: &mut Assembly<'_>, entries: &[NewEntry], attached: &Attached) -> Fate {
    // All of them or none: half a bundle's changes would belong to no activation.
    if let Err(error) = entries.iter().try_for_each(|entry| assembly.check(entry)) {
        return Fate::Refused(assembly_failed(error));
    }
    assembly.adds.objects.extend(attached.objects.iter().cloned());
    assembly.adds.keys.extend(attached.keys.iter().cloned());
    match entries.iter().map(|entry| assembly.push(entry)).collect() {
        Ok(indexes) => Fate::Appended(indexes),
        Err(error) => Fate::Refused(assembly_failed(error)),
    }
}

pub(super) fn settle(
    assembly: &mut Assembly<'_>,
    settling: &mut Waiting,
    ids: &Ids,
    time: UnixMs,
) -> Result<(), RecordError> {
    settling.forget_ended(time.plus_millis(-LEEWAY_MS));
    for settled in settling.entries() {
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
) -> Result<bool, RecordError> {
    let through = time.plus_millis(-LEEWAY_MS);
    let expired = transaction.expired(through, SWEEP).map_err(unavailable)?;
    let whole = expired.len() < SWEEP as usize;
    let expired: Vec<Live> = expired.into_iter().filter(|live| !assembly.adds.ended.contains(live)).collect();
    for chunk in expired.chunks(ENDED_PER_ENTRY) {
        let mut ended: Vec<Index> = chunk.iter().map(|live| live.index).collect();
        ended.sort_unstable();
        let complete = whole && chunk.last() == expired.last();
        let body = CredentialEnded {
            how: EndedHow::Expired,
            ended,
            through_ms: if complete {
                Some(through)
            } else {
                chunk.last().map(|live| before_minute(live.exp))
            },
            selector: None,
            reason: None,
            comment: None,
            drill: None,
            ordered: None,
            reach: BTreeMap::new(),
        };
        push(assembly, ids, time, body.into())?;
    }
    assembly.adds.ended.extend(expired);
    Ok(whole)
}

/// Endings come by minute: when one of a minute is named, all of the minutes before it are.
fn before_minute(exp: UnixMs) -> UnixMs {
    UnixMs::new(exp.get().div_euclid(60_000) * 60_000 - 1)
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
