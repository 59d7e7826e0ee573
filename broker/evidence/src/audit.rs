//! Whole-log verification: what the entries say against the tree, against signed checkpoints, and against each
//! other. Entries are fed in order and kept no longer than a later one can contradict them: memory is that of
//! the live credentials and of what is declared, and one bit for each entry.

mod credentials;
mod finding;
mod proofs;
mod register;
mod uptime;

use std::collections::BTreeMap;

use daypass_verify::ids::{Digest, TrustDomain};
use daypass_verify::time::UnixMs;
use serde::{Serialize, Serializer};

use crate::checkpoint::Checkpoint;
use crate::entry::{Body, Entry, EntryError, Envelope, Index, Observed};
use crate::tree::{Frontier, Hash, leaf_hash};

use credentials::Credentials;
use finding::Findings;
pub use finding::{FINDINGS_MAX, Finding, FindingCode};
use proofs::Proofs;
use register::Register;
use uptime::Uptime;

/// An entry that was hashed and read: what costs most of a verification, and hangs on nothing else, so that many can
/// be made at once.
#[derive(Debug)]
pub struct Prepared {
    leaf: Hash,
    entry: Option<Result<Entry, EntryError>>,
}

impl Prepared {
    /// Hashes and reads an entry.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Self {
        Self { leaf: leaf_hash(bytes), entry: Some(Entry::read(bytes)) }
    }

    /// Hashes an entry: enough where its meaning is not looked at.
    #[must_use]
    pub fn hashed(bytes: &[u8]) -> Self {
        Self { leaf: leaf_hash(bytes), entry: None }
    }
}

/// A log under verification.
#[derive(Debug, Default)]
pub struct Audit {
    /// The first entry that is read; what comes before is known by its frontier.
    from: Index,
    /// Whether only bytes and tree are looked at.
    bytes_only: bool,
    frontier: Frontier,
    /// Checkpoints seen earlier that the log has not grown to yet.
    expected: BTreeMap<u64, Vec<Checkpoint>>,
    origin: Option<String>,
    trust_domain: Option<TrustDomain>,
    closed: bool,
    last_time: Option<UnixMs>,
    counts_by_kind: BTreeMap<String, u64>,
    credentials: Credentials,
    proofs: Proofs,
    register: Register,
    uptime: Uptime,
    findings: Findings,
}

/// What an audit found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The log's origin, by its first entry.
    pub origin: Option<String>,
    /// How many entries it has.
    pub size: u64,
    /// The first entry that was read: those before it were taken from the tree's kept nodes.
    #[serde(skip_serializing_if = "is_zero")]
    pub from: Index,
    /// The root of the tree over them.
    #[serde(serialize_with = "as_digest")]
    pub root: Hash,
    /// The time of the last entry that could be read.
    pub last_time: Option<UnixMs>,
    /// How many entries of each kind.
    pub counts_by_kind: BTreeMap<String, u64>,
    /// Credentials recorded.
    pub issued: u64,
    /// Credentials that ended because their time was over.
    pub ended_expired: u64,
    /// Credentials that somebody ended.
    pub ended_revoked: u64,
    /// Credentials that were recorded and never released.
    pub void: u64,
    /// Credentials without an ending at the last entry.
    pub live: u64,
    /// What is wrong, in the order in which it was found: at most [`FINDINGS_MAX`].
    pub findings: Vec<Finding>,
    /// How many more findings there were.
    pub findings_omitted: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(index: &Index) -> bool {
    *index == 0
}

fn as_digest<S: Serializer>(root: &Hash, serializer: S) -> Result<S::Ok, S::Error> {
    Digest::from_bytes(*root).serialize(serializer)
}

impl Report {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }
}

impl Audit {
    /// An audit that has read nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An audit of bytes and tree alone, of the entries that follow a tree which ends with `before`, of the log `origin`.
    #[must_use]
    pub fn of_bytes_after(before: Frontier, origin: &str) -> Self {
        let from = before.size();
        Self { from, bytes_only: true, frontier: before, origin: Some(origin.into()), ..Self::default() }
    }

    /// Holds the log to a checkpoint that was kept earlier: when the log has grown to its size, the roots must
    /// be the same. To be called before the entries are fed.
    pub fn expect(&mut self, checkpoint: Checkpoint) {
        self.expected.entry(checkpoint.size).or_default().push(checkpoint);
    }

    /// Reads the next entry.
    pub fn entry(&mut self, bytes: &[u8]) {
        self.append(Prepared::read(bytes));
    }

    /// Reads the next entry, and compares its hash with the one that was stored beside it. Gives it back, where it
    /// is one, so that whatever else lies beside it can be compared too.
    pub fn entry_with_leaf(&mut self, bytes: &[u8], stored_leaf: Hash) -> Option<Entry> {
        self.prepared(Prepared::read(bytes), stored_leaf)
    }

    /// As [`Self::entry_with_leaf`], of an entry that was hashed and read already.
    pub fn prepared(&mut self, prepared: Prepared, stored_leaf: Hash) -> Option<Entry> {
        if prepared.leaf != stored_leaf {
            let detail = "the entry's bytes do not have the hash that was stored beside them";
            self.findings.add(FindingCode::LeafMismatch, Some(self.frontier.size()), detail);
        }
        self.append(prepared)
    }

    /// The store has no entry here, but later ones: those keep their positions.
    pub fn missing(&mut self) {
        self.compare_roots();
        let index = self.frontier.size();
        self.findings.add(
            FindingCode::Missing,
            Some(index),
            "there is no such entry, but there are later ones",
        );
        self.frontier.append([0; 32]);
    }

    /// A fault of one entry that the reader of the store found.
    pub fn fault_at(&mut self, index: Index, code: FindingCode, detail: impl Into<String>) {
        self.findings.add(code, Some(index), detail);
    }

    /// A fault that the reader of the store found beside the entries.
    pub fn fault(&mut self, code: FindingCode, detail: impl Into<String>) {
        self.findings.add(code, None, detail);
    }

    /// The tree over what was read so far.
    #[must_use]
    pub fn tree(&self) -> &Frontier {
        &self.frontier
    }

    /// Ends the audit: compares the whole log with `checkpoint`, which must be of exactly its size (one that
    /// was kept earlier belongs to [`Self::expect`]), and looks for what is missing. Without any checkpoint a
    /// tail that was cut off cannot be seen.
    #[must_use]
    pub fn finish(mut self, checkpoint: Option<&Checkpoint>) -> Report {
        self.compare_roots();
        if let Some(checkpoint) = checkpoint {
            self.check_head(checkpoint);
        }
        let longest = self.expected.last_key_value().map(|(size, _)| *size);
        if let Some(size) = longest {
            self.truncated(size);
        }
        if let Some(now) = self.last_time {
            self.uptime.finish(now, &mut self.findings);
            self.credentials.finish(now, self.uptime.excuses_endings(now), &mut self.findings);
        }
        self.report()
    }

    fn append(&mut self, prepared: Prepared) -> Option<Entry> {
        self.compare_roots();
        let index = self.frontier.size();
        match &prepared.entry {
            Some(Ok(entry)) if !self.bytes_only => self.check(index, entry),
            Some(Err(error)) => self.findings.add(FindingCode::Malformed, Some(index), error.to_string()),
            _ => {}
        }
        self.frontier.append(prepared.leaf);
        prepared.entry.and_then(Result::ok)
    }

    /// Compares the tree as it is now with the checkpoints that were kept of this size.
    fn compare_roots(&mut self) {
        let size = self.frontier.size();
        let kept = match self.expected.first_key_value() {
            Some((first, _)) if *first == size => self.expected.remove(&size).unwrap_or_default(),
            _ => return,
        };
        for checkpoint in kept {
            if checkpoint.root != self.frontier.root() {
                let detail = format!("the log had another root at size {size} in a checkpoint kept earlier");
                self.findings.add(FindingCode::SplitView, None, detail);
            }
            self.check_origin(&checkpoint);
        }
    }

    fn check_head(&mut self, checkpoint: &Checkpoint) {
        let size = self.frontier.size();
        self.check_origin(checkpoint);
        if checkpoint.size > size {
            self.truncated(checkpoint.size);
        } else if checkpoint.size < size {
            let detail = format!("{size} entries, but the checkpoint covers {}", checkpoint.size);
            self.findings.add(FindingCode::RootMismatch, None, detail);
        } else if checkpoint.root != self.frontier.root() {
            let detail = format!("the {size} entries lead to another root than the checkpoint's");
            self.findings.add(FindingCode::RootMismatch, None, detail);
        }
    }

    fn check_origin(&mut self, checkpoint: &Checkpoint) {
        if let Some(origin) = self.origin.as_ref().filter(|origin| **origin != checkpoint.origin) {
            let detail = format!("this log is `{origin}`, the checkpoint is of `{}`", checkpoint.origin);
            self.findings.add(FindingCode::WrongLog, None, detail);
        }
    }

    fn truncated(&mut self, claimed: u64) {
        let detail = format!("a checkpoint covers {claimed} entries, the log has {}", self.frontier.size());
        self.findings.add(FindingCode::Truncated, None, detail);
    }

    fn check(&mut self, index: Index, entry: &Entry) {
        let envelope = &entry.envelope;
        *self.counts_by_kind.entry(envelope.kind.clone()).or_default() += 1;
        self.check_envelope(index, envelope);
        self.check_opening(index, &entry.body);
        self.check_closing(index, &entry.body);
        self.register.check_author(index, entry, &mut self.findings);
        self.uptime.check(index, entry, &mut self.findings);
        self.check_body(index, entry);
        self.register.follow(index, entry, &mut self.findings);
    }

    fn check_envelope(&mut self, index: Index, envelope: &Envelope) {
        if let Some(last) = self.last_time.filter(|last| *last > envelope.time) {
            let detail = format!("time {} after {last}", envelope.time);
            self.findings.add(FindingCode::TimeWentBack, Some(index), detail);
        }
        self.last_time = self.last_time.max(Some(envelope.time));
        let domain = self.trust_domain.get_or_insert_with(|| envelope.td.clone());
        if *domain != envelope.td {
            let detail = format!("trust domain `{}` in the log of `{domain}`", envelope.td);
            self.findings.add(FindingCode::Malformed, Some(index), detail);
        }
    }

    fn check_opening(&mut self, index: Index, body: &Body) {
        match (index, body) {
            (0, Body::LogOpened(opened)) => self.origin = Some(opened.origin.clone()),
            (0, _) => {
                self.findings.add(FindingCode::Malformed, Some(0), "the first entry is not `log.opened`")
            }
            (_, Body::LogOpened(_)) => {
                self.findings.add(FindingCode::Malformed, Some(index), "the log is opened twice");
            }
            _ => {}
        }
    }

    fn check_closing(&mut self, index: Index, body: &Body) {
        if self.closed {
            self.findings.add(FindingCode::Malformed, Some(index), "the log was closed before");
        }
        let Body::LogClosed(closed) = body else { return };
        self.closed = true;
        let live = self.credentials.live();
        if closed.live != live {
            let detail = format!("the log is closed with {} live credentials, and has {live}", closed.live);
            self.findings.add(FindingCode::Malformed, Some(index), detail);
        }
    }

    fn check_body(&mut self, index: Index, entry: &Entry) {
        let (time, findings) = (entry.envelope.time, &mut self.findings);
        match &entry.body {
            Body::CredentialIssued(issued) => {
                self.register.check_issued(index, time, issued, findings);
                self.credentials.issued(index, time, issued, findings);
                self.proofs.shown(index, time, &issued.proof, findings);
            }
            // What another log issued, that log's own audit knows of.
            Body::CredentialEnded(ended) if ended.log.is_some() => {}
            Body::CredentialSettled(settled) if settled.log.is_some() => {}
            Body::CredentialSettled(settled) => self.credentials.settled(index, settled, findings),
            Body::CredentialEnded(ended) => self.credentials.ended(index, time, ended, findings),
            Body::KeyChanged(changed) => self.credentials.key_changed(time, changed),
            Body::AccessObserved(observed) => {
                let seen = observed.what != Observed::Unseen;
                if let Some(credential) = observed.credential.filter(|_| seen) {
                    self.credentials.observed(index, credential, findings);
                }
            }
            _ => {}
        }
    }

    fn report(self) -> Report {
        let counts = self.credentials.counts();
        Report {
            origin: self.origin,
            size: self.frontier.size(),
            from: self.from,
            root: self.frontier.root(),
            last_time: self.last_time,
            counts_by_kind: self.counts_by_kind,
            issued: counts.issued,
            ended_expired: counts.expired,
            ended_revoked: counts.revoked,
            void: counts.void,
            live: self.credentials.live(),
            findings_omitted: self.findings.omitted(),
            findings: self.findings.into_list(),
        }
    }
}

#[cfg(test)]
mod tests;
