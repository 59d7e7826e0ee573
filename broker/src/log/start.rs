//! Before anything is signed: the store is what it was when it was last left.

use daypass_evidence::audit::{Audit, FindingCode, Report};
use daypass_evidence::checkpoint::Checkpoint;
use daypass_evidence::entry::{Body, Entry, KeyChanged, KeyUse};
use daypass_evidence::note::VerifierKey;
use daypass_verify::ids::Digest;

use super::batch::folds;
use super::{Anchor, AnchorError};
use crate::store::{Head, Reader, Row, StoreError};

const PAGE: u32 = 1_000;

/// What a store was found to be.
#[derive(Debug)]
pub struct Started {
    /// Its head.
    pub head: Head,
    /// What its entries say.
    pub report: Report,
}

/// Why a broker does not start on a store.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The anchor could not be read.
    #[error(transparent)]
    Anchor(#[from] AnchorError),
    /// It was changed, cut, or put back.
    #[error("the log does not verify:\n{}", findings(.0))]
    Refused(Box<Report>),
    /// There is no log in it.
    #[error("there is no log in this store: run `daypass-broker init` first")]
    Empty,
}

fn findings(report: &Report) -> String {
    const SHOWN: usize = 20;
    let mut lines: Vec<String> =
        report.findings.iter().take(SHOWN).map(|finding| format!("  {finding}")).collect();
    if let Some(more) = report.findings.len().checked_sub(SHOWN).filter(|more| *more > 0) {
        lines.push(format!("  and {more} more"));
    }
    lines.join("\n")
}

/// Examines a whole store, and accepts it only if nothing at all was found.
///
/// # Errors
/// When it cannot be read, or does not verify.
pub fn verify_store(
    reader: &dyn Reader,
    key: &VerifierKey,
    anchor: Option<&Anchor>,
) -> Result<Started, StartError> {
    let started = examine_store(reader, key, anchor)?;
    if started.report.is_clean() { Ok(started) } else { Err(StartError::Refused(Box::new(started.report))) }
}

/// Examines a whole store: every leaf, the tree, the head's signature, what the entries say of each other, what lies
/// beside them, and the anchor where there is one.
///
/// # Errors
/// When it cannot be read.
pub fn examine_store(
    reader: &dyn Reader,
    key: &VerifierKey,
    anchor: Option<&Anchor>,
) -> Result<Started, StartError> {
    let head = reader.head()?.ok_or(StartError::Empty)?;
    let mut audit = Audit::new();
    if let Some(anchored) = anchor.map(|anchor| anchor.newest(key)).transpose()?.flatten() {
        audit.expect(anchored);
    }
    feed(&mut audit, reader)?;
    compare_frontier(&mut audit, &head);
    let report = match Checkpoint::open(&head.checkpoint, key) {
        Ok(checkpoint) => audit.finish(Some(&checkpoint)),
        Err(error) => {
            audit.fault(
                FindingCode::RootMismatch,
                format!("the head's checkpoint is not signed by this log's key: {error}"),
            );
            audit.finish(None)
        }
    };
    Ok(Started { head, report })
}

/// The entry of the evidence key: one of the first of the log. None where those are not what `init` wrote.
///
/// # Errors
/// When the store fails.
pub fn evidence_key_entry(reader: &dyn Reader) -> Result<Option<KeyChanged>, StoreError> {
    const AMONG_THE_FIRST: u32 = 8;
    let rows = reader.rows(0, AMONG_THE_FIRST)?;
    Ok(rows.iter().find_map(|row| match Entry::read(&row.bytes).ok()?.body {
        Body::KeyChanged(changed) if changed.usage == KeyUse::Evidence => Some(*changed),
        _ => None,
    }))
}

/// What can be said of a store whose key cannot be had.
///
/// # Errors
/// When the store fails.
pub(crate) fn verify_without_key(reader: &dyn Reader) -> Result<Report, StoreError> {
    let mut audit = Audit::new();
    feed(&mut audit, reader)?;
    Ok(audit.finish(None))
}

fn feed(audit: &mut Audit, reader: &dyn Reader) -> Result<(), StoreError> {
    let mut next = 0;
    loop {
        let rows = reader.rows(next, PAGE)?;
        if rows.is_empty() {
            return Ok(());
        }
        for row in rows {
            while next < row.index {
                audit.missing();
                next += 1;
            }
            if let Some(entry) = audit.entry_with_leaf(&row.bytes, row.leaf) {
                compare_beside(audit, reader, &row, &entry.body)?;
            }
            next += 1;
        }
    }
}

/// What the state is folded from lies partly outside the tree: which entries are read, and the bundle that one names.
fn compare_beside(audit: &mut Audit, reader: &dyn Reader, row: &Row, body: &Body) -> Result<(), StoreError> {
    if row.folds != folds(body) {
        let detail =
            format!("entry {} is not marked as its kind asks: the state would be another", row.index);
        audit.fault(FindingCode::StoreMismatch, detail);
    }
    if let Body::BundleActivated(activated) = body {
        let held = reader.object(&activated.digest)?.map(|bytes| Digest::of(&bytes));
        if held != Some(activated.digest) {
            let detail = format!(
                "the bundle `{}` that entry {} brought into force is missing, or was changed",
                activated.digest, row.index
            );
            audit.fault(FindingCode::StoreMismatch, detail);
        }
    }
    Ok(())
}

/// The head keeps the roots of the perfect subtrees: where one differs, it tells among which entries to look.
fn compare_frontier(audit: &mut Audit, head: &Head) {
    let found = audit.tree().clone();
    if found.size() != head.size {
        return;
    }
    let mut first = 0;
    let widths = (0..64_u32).rev().map(|bit| 1_u64 << bit).filter(|width| head.size & width != 0);
    for ((width, kept), computed) in widths.zip(&head.frontier).zip(found.nodes()) {
        if kept != computed {
            let detail = format!(
                "entries {first} to {} are not what they were when the head was signed",
                first + width - 1
            );
            audit.fault(FindingCode::RootMismatch, detail);
        }
        first += width;
    }
}
