//! Logs that are closed: each must be the one that the log after it names, with the same end.

use daypass_evidence::audit::{Finding, FindingCode, Report};
use daypass_evidence::entry::{Body, Predecessor};
use daypass_evidence::note::VerifierKey;
use daypass_evidence::tree::Frontier;
use daypass_verify::ids::Digest;

use super::Damage;
use crate::index::{self, Readers};
use crate::log::{StartError, examine_store};
use crate::store::{Head, Reader, StoreAt, StoreError};

/// What is wrong with the end of a closed log, by the first entry of the one that follows it.
pub(super) async fn named_by_next(next: &Readers, closed: &Head) -> Result<Option<Damage>, StoreError> {
    let closed = closed.clone();
    next.run(move |reader| other_end(reader, &closed)).await
}

/// Examines all closed logs of a store, and adds to `report` what is found.
pub(super) fn examine(
    store: &StoreAt,
    newest: &dyn Reader,
    key: &VerifierKey,
    report: &mut Report,
) -> Result<(), StartError> {
    for head in newest.closed()? {
        let (log, next) = (store.shard(head.shard)?, store.shard(head.shard + 1)?);
        let key = key.of_shard(&head.origin).unwrap_or_else(|| key.clone());
        let found = examine_store(log.as_ref(), &key, None)?.report.findings.into_iter();
        let found = found.filter(|finding| !finding.code.is_of_operation());
        let named = |detail: String| format!("`{}`: {detail}", head.origin);
        report.findings.extend(found.map(|it| Finding { detail: named(it.detail.clone()), ..it }));
        if let Some(Damage(detail)) = other_end(next.as_ref(), &head)? {
            let detail = named(detail);
            report.findings.push(Finding { code: FindingCode::WrongLog, index: None, detail });
        }
    }
    Ok(())
}

fn other_end(next: &dyn Reader, closed: &Head) -> Result<Option<Damage>, StoreError> {
    let root = Frontier::from_parts(closed.size, closed.frontier.clone()).map(|tree| tree.root());
    let root = root.map_err(|error| StoreError::Damaged(format!("`{}`: {error}", closed.origin)))?;
    let ended =
        Predecessor { origin: closed.origin.clone(), size: closed.size, root: Digest::from_bytes(root) };
    let first = next.rows(0, 1)?.first().map(index::read).transpose()?;
    Ok(match first.map(|entry| entry.body) {
        Some(Body::LogOpened(opened)) if opened.predecessor.as_ref() == Some(&ended) => None,
        _ => Some(Damage("its end is not the one that the log after it names".into())),
    })
}
