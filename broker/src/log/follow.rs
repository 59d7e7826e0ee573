//! What other brokers wrote on the same log, taken over. Nothing is signed on a head that does not extend the newest
//! one that this broker saw.

use std::sync::Arc;

use arc_swap::ArcSwap;
use daypass_core::bundle::Bundle;
use daypass_core::state::{Run, State};
use daypass_evidence::checkpoint::Checkpoint;
use daypass_evidence::entry::{Body, Entry, Index};
use daypass_evidence::note::VerifierKey;
use daypass_evidence::tree::{self, Frontier, consistency_proof, verify_consistency};
use daypass_verify::ids::{Digest, Name};
use serde::Deserialize;
use tokio::sync::watch;

use super::batch::kind_folds;
use super::open::fold;
use super::past::{Past, Proofs};
use super::revocations::Revocations;
use super::work::unavailable;
use super::{Published, RecordError};
use crate::index::StoredNodes;
use crate::store::{Head, Reader, Row, StoreError};

/// How many entries of others are taken over while the log's lock is held: reading and hashing them costs less than
/// one sync. More are taken over before the lock is.
pub(super) const NEAR: u64 = 1_000;

/// From how many entries on a consistency proof is cheaper than to hash them all.
const FAR: u64 = 20_000;

const PAGE: u32 = 1_000;

/// What this broker saw of the log, and how it sees more.
pub(super) struct Follower {
    pub(super) reader: Box<dyn Reader>,
    pub(super) published: Arc<ArcSwap<Published>>,
    pub(super) state_at: watch::Sender<Index>,
    pub(super) key: Arc<VerifierKey>,
    /// This broker's own name.
    pub(super) broker: Name,
    /// This broker's own run; none before it wrote that it started.
    pub(super) run: Option<Run>,
    /// Where those who look after revocations are told of new ones.
    pub(super) revocations: Arc<Revocations>,
    pub(super) proofs: Arc<Proofs>,
    pub(super) past: Arc<Past>,
}

/// The one field by which an entry that changes no state is told from one that does.
#[derive(Deserialize)]
struct Kind<'a> {
    #[serde(borrow)]
    kind: std::borrow::Cow<'a, str>,
}

impl Follower {
    pub(super) fn newest(&self) -> Arc<Published> {
        self.published.load_full()
    }

    /// Whether `head` is further away than what is taken over under the lock.
    pub(super) fn is_far_behind(&self, head: &Head) -> bool {
        head.size.saturating_sub(self.published.load().head.size) > NEAR
    }

    /// Takes over what the store holds, without its lock. A head that seems older is left to the next batch, which
    /// reads it under the lock.
    ///
    /// # Errors
    /// As for [`Self::take_over`].
    pub(super) fn catch_up(&mut self) -> Result<(), RecordError> {
        match self.reader.head().map_err(unavailable)? {
            Some(head) if head.size > self.published.load().head.size => self.take_over(&head),
            _ => Ok(()),
        }
    }

    /// Takes over a head, and the state that its entries lead to.
    ///
    /// # Errors
    /// `Rollback` or `SplitView` when it does not extend the newest one; `Halted` when another broker took this one's
    /// name; `Unavailable` when what is between could not be read.
    pub(super) fn take_over(&mut self, head: &Head) -> Result<(), RecordError> {
        let newest = self.newest();
        if *head == *newest.head {
            return Ok(());
        }
        if head.shard != newest.head.shard {
            return Err(RecordError::Turned);
        }
        self.check_head(head, &newest.head)?;
        let mut state = State::clone(&newest.state);
        if head.size - newest.head.size > FAR {
            self.check_proof(head, &newest.head)?;
            self.past.jumped(head);
            fold(&mut state, self.reader.as_ref(), newest.head.size, head.size).map_err(unavailable)?;
            state.pass_over_revocations(head.time);
            self.revocations.noticed(newest.head.size..head.size);
        } else {
            self.read_between(&mut state, head, &newest.head)?;
        }
        if state.at() != head.state {
            return Err(RecordError::Unavailable(format!(
                "the store's head names entry {} as the newest of the state, and its entries {}",
                head.state,
                state.at()
            )));
        }
        self.check_name(&state)?;
        self.publish(head.clone(), state);
        Ok(())
    }

    /// Takes over what this broker wrote itself, and committed.
    ///
    /// # Errors
    /// When the rows do not fold: the next batch reads them again, and nothing is written until it can.
    pub(super) fn take_own(&mut self, head: Head, rows: &[Row]) -> Result<(), RecordError> {
        let newest = self.newest();
        self.past.grew(&newest.head, rows.iter().map(|row| row.leaf));
        if !rows.iter().any(|row| row.folds || ends_by_order(row)) {
            self.published
                .store(Arc::new(Published { head: Arc::new(head), state: Arc::clone(&newest.state) }));
            return Ok(());
        }
        let mut state = State::clone(&newest.state);
        for row in rows.iter().filter(|row| row.folds) {
            fold_row(&mut state, self.reader.as_ref(), row).map_err(unavailable)?;
        }
        self.follow_revocations(&mut state, rows)?;
        self.run = state.run_of(&self.broker).filter(|run| run.started >= newest.head.size).or(self.run);
        self.publish(head, state);
        Ok(())
    }

    /// Drafts that were decided before a revocation, and those who publish it, must know of it.
    fn follow_revocations(&self, state: &mut State, rows: &[Row]) -> Result<(), RecordError> {
        for row in rows.iter().filter(|row| ends_by_order(row)) {
            let read = Entry::read(&row.bytes);
            let entry = read.map_err(|error| RecordError::Unavailable(error.to_string()))?;
            if let Body::CredentialEnded(ended) = &entry.body {
                state.follow_revocation(entry.envelope.time, ended);
                self.revocations.noticed(row.index..row.index + 1);
            }
        }
        Ok(())
    }

    fn publish(&self, head: Head, state: State) {
        let at = state.at();
        self.published.store(Arc::new(Published { head: Arc::new(head), state: Arc::new(state) }));
        self.state_at.send_if_modified(|seen| std::mem::replace(seen, at) != at);
    }

    /// The head must carry our own signature over exactly its tree, and neither be shorter nor say otherwise.
    fn check_head(&self, head: &Head, newest: &Head) -> Result<(), RecordError> {
        let checkpoint = Checkpoint::open(&head.checkpoint, &self.key)
            .map_err(|error| RecordError::Rollback(error.to_string()))?;
        let frontier = Frontier::from_parts(head.size, head.frontier.clone());
        if !frontier.is_ok_and(|it| it.size() == checkpoint.size && it.root() == checkpoint.root) {
            return Err(RecordError::Rollback(
                "its frontier does not lead to the root that was signed".into(),
            ));
        }
        if head.size == newest.size && head.frontier != newest.frontier {
            return Err(self.split_view(head, newest));
        }
        if head.size <= newest.size || head.time < newest.time || head.state < newest.state {
            return Err(RecordError::Rollback(format!(
                "its size was {} at {}, and is {} at {} now",
                newest.size, newest.time, head.size, head.time
            )));
        }
        Ok(())
    }

    /// Hashes the entries between: they are few, and read for the state anyway.
    fn read_between(&self, state: &mut State, head: &Head, newest: &Head) -> Result<(), RecordError> {
        let failed = |error: &dyn std::fmt::Display| RecordError::Unavailable(error.to_string());
        let mut frontier =
            Frontier::from_parts(newest.size, newest.frontier.clone()).map_err(|error| failed(&error))?;
        let mut leaves = Vec::new();
        while frontier.size() < head.size {
            let limit = u32::try_from(head.size - frontier.size()).unwrap_or(PAGE).min(PAGE);
            let rows = self.reader.rows(frontier.size(), limit).map_err(unavailable)?;
            if rows.is_empty() {
                return Err(failed(&format!("MISSING: there is no entry {}", frontier.size())));
            }
            for row in &rows {
                check_row(row, frontier.size()).map_err(|error| failed(&error))?;
                if row.folds {
                    fold_row(state, self.reader.as_ref(), row).map_err(unavailable)?;
                }
                frontier.append(row.leaf);
                leaves.push(row.leaf);
            }
            self.follow_revocations(state, &rows)?;
        }
        if frontier.nodes() != head.frontier {
            return Err(self.split_view(head, newest));
        }
        self.past.grew(newest, leaves.into_iter());
        Ok(())
    }

    /// RFC 6962, section 2.1.2. Whoever changed a node of the proof made it fail: it needs no trust.
    fn check_proof(&self, head: &Head, newest: &Head) -> Result<(), RecordError> {
        let root = |head: &Head| Frontier::from_parts(head.size, head.frontier.clone()).map(|it| it.root());
        let failed = |error: tree::FrontierError| RecordError::Unavailable(error.to_string());
        let (first, second) = (root(newest).map_err(failed)?, root(head).map_err(failed)?);
        let proof = consistency_proof(newest.size, head.size, &StoredNodes::of(self.reader.as_ref()))
            .ok_or_else(|| RecordError::Unavailable("a node of the tree is missing".into()))?;
        verify_consistency(newest.size, first, head.size, second, &proof)
            .map_err(|_| self.split_view(head, newest))
    }

    /// A name belongs to whoever started under it last: two that share one would answer for each other's silence.
    fn check_name(&self, state: &State) -> Result<(), RecordError> {
        let newer = self.run.zip(state.run_of(&self.broker)).filter(|(own, run)| own.started != run.started);
        match newer {
            Some((_, run)) => Err(RecordError::Halted(format!(
                "another broker started as `{}` at entry {}: give each broker a name of its own (`broker.name`), and restart this one",
                self.broker, run.started
            ))),
            None => Ok(()),
        }
    }

    /// Keeps both heads, each with its signature: together they prove that the log was forked.
    pub(super) fn split_view(&self, found: &Head, seen: &Head) -> RecordError {
        self.proofs.keep(&seen.checkpoint, &found.checkpoint);
        RecordError::SplitView(format!(
            "a signed head of size {} does not extend the one of size {} that was seen before",
            found.size, seen.size
        ))
    }
}

/// An entry's bytes against its hash, and whether its kind is one that the state is folded from.
fn check_row(row: &Row, expected: Index) -> Result<(), String> {
    if row.index != expected {
        return Err(format!("MISSING: there is no entry {expected}"));
    }
    if tree::leaf_hash(&row.bytes) != row.leaf {
        return Err(format!(
            "LEAF_MISMATCH: entry {expected} does not have the hash that is stored beside it"
        ));
    }
    let kind: Kind<'_> =
        serde_json::from_slice(&row.bytes).map_err(|error| format!("entry {expected}: {error}"))?;
    if kind_folds(&kind.kind) != row.folds {
        return Err(format!("STORE_MISMATCH: entry {expected} is not marked as its kind asks"));
    }
    Ok(())
}

/// Whether an entry may be of credentials that somebody ended: in canonical bytes a member has one spelling.
pub(crate) fn ends_by_order(row: &Row) -> bool {
    memchr::memmem::find(&row.bytes, b"\"how\":\"revoked\"").is_some()
}

/// Folds one entry into `state`.
pub(super) fn fold_row(state: &mut State, reader: &dyn Reader, row: &Row) -> Result<(), StoreError> {
    let damaged =
        |error: &dyn std::fmt::Display| StoreError::Damaged(format!("entry {}: {error}", row.index));
    let bundle = |digest: &Digest| {
        let bytes = reader.object(digest).ok().flatten()?;
        Bundle::from_object(&bytes).ok().map(Arc::new)
    };
    let entry = Entry::read(&row.bytes).map_err(|error| damaged(&error))?;
    state.follow_broker(row.index, &entry.envelope.broker, &entry.body);
    state.apply(row.index, entry.envelope.time, &entry.body, &bundle).map_err(|error| damaged(&error))
}
