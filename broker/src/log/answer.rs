//! From what a commit covered to answers, and from answers to those who wait for them.

use std::sync::Arc;

use daypass_evidence::entry::Index;
use daypass_evidence::tree;
use daypass_verify::time::UnixMs;
use tokio::sync::{mpsc, oneshot};

use super::work::Fate;
use super::{Command, Delivery, Place, RecordError, Recorded, Recording, Settlements};
use crate::store::{Batch, Head};

/// An answer, and whom to give it to.
pub(super) enum Answer {
    Record(oneshot::Sender<Result<Recording, RecordError>>, Result<Recording, RecordError>),
    Append(oneshot::Sender<Result<Vec<Place>, RecordError>>, Result<Vec<Place>, RecordError>),
}

/// Wakes the callers of a batch from the runtime: one message from the writer, however many wait.
pub(super) async fn answer_all(mut outbox: mpsc::Receiver<Vec<Answer>>) {
    while let Some(batch) = outbox.recv().await {
        for answer in batch {
            match answer {
                Answer::Record(caller, outcome) => drop(caller.send(outcome)),
                Answer::Append(caller, outcome) => drop(caller.send(outcome)),
            }
        }
    }
}

/// What one commit covered.
pub(super) struct Covered {
    first: Index,
    time: UnixMs,
    leaves: Vec<[u8; 32]>,
    tree: tree::Batch,
    checkpoint: Arc<[u8]>,
    origin: Arc<str>,
    shard: u32,
}

impl Covered {
    pub(super) fn of(head: &Head, adds: &Batch, tree: tree::Batch) -> Self {
        Self {
            first: head.size - adds.rows.len() as u64,
            time: head.time,
            leaves: adds.rows.iter().map(|row| row.leaf).collect(),
            tree,
            checkpoint: head.checkpoint.as_slice().into(),
            origin: head.origin.as_str().into(),
            shard: head.shard,
        }
    }

    pub(super) fn place(&self, index: Index) -> Option<Place> {
        let at = usize::try_from(index.checked_sub(self.first)?).ok()?;
        Some(Place {
            index,
            time: self.time,
            leaf: *self.leaves.get(at)?,
            checkpoint: Arc::clone(&self.checkpoint),
            inclusion: self.tree.proof(at)?,
            origin: Arc::clone(&self.origin),
            shard: self.shard,
        })
    }
}

pub(super) fn answer(
    command: Command,
    fate: Fate,
    covered: Option<&Covered>,
    settlements: &Arc<Settlements>,
) -> Option<Answer> {
    let missing = || RecordError::Unavailable("the place of an entry was lost".into());
    let find = |index| covered.and_then(|covered| covered.place(index)).ok_or_else(missing);
    match (command, fate) {
        (Command::Record { draft, answer, .. }, fate) => {
            let outcome = match fate {
                Fate::Recorded(index) => find(index).map(|place| {
                    Recording::Recorded(Delivery::new(Recorded { what: *draft, place }, settlements))
                }),
                Fate::Refused(error) => Err(error),
                _ => Ok(Recording::Stale),
            };
            Some(Answer::Record(answer, outcome))
        }
        (Command::Append { answer, .. }, fate) => {
            let outcome = match fate {
                Fate::Appended(indexes) => indexes.into_iter().map(find).collect(),
                Fate::Refused(error) => Err(error),
                _ => Err(missing()),
            };
            Some(Answer::Append(answer, outcome))
        }
        (Command::Sweep | Command::Flush | Command::Follow(_) | Command::Turn { .. }, _) => None,
    }
}

pub(super) fn refused(command: Command, error: &RecordError) -> Option<Answer> {
    match command {
        Command::Record { answer, .. } => Some(Answer::Record(answer, Err(error.clone()))),
        Command::Append { answer, .. } => Some(Answer::Append(answer, Err(error.clone()))),
        Command::Sweep | Command::Flush | Command::Follow(_) | Command::Turn { .. } => None,
    }
}
