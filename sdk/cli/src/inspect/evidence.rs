//! What the log says of a credential: its issuance, proven to be in the tree, and its ending.

use daypass_evidence::entry::{Body, EndedHow, Entry};
use daypass_evidence::tree::leaf_hash;
use daypass_sdk::{Client, EntryFilter, LogEntry};

use super::decode::Decoded;
use crate::failure::Failure;

/// The issuance of a credential.
pub(super) struct Found {
    pub(super) index: u64,
    pub(super) entry: Entry,
    /// How its place in the tree was proven.
    pub(super) inclusion: String,
    /// How it ended, if it has.
    pub(super) ending: Option<String>,
}

impl Found {
    pub(super) fn describe(&self) -> String {
        let at = self.entry.envelope.time;
        format!("{} of {at}, made for exactly the bytes that were signed", self.index)
    }
}

/// Asks for all that concerns the credential.
///
/// # Errors
/// When the log cannot be read, knows nothing of it, or says something else than the credential.
pub(super) async fn find(client: &Client, decoded: &Decoded) -> Result<Found, Failure> {
    let id = decoded.id.ok_or_else(|| Failure::Verification("it names no credential id".into()))?;
    let filter = EntryFilter { credential_id: Some(id.to_string()), ..EntryFilter::default() };
    let mut entries = client.entries(filter).await?;
    let mut found: Option<(LogEntry, Entry)> = None;
    let mut ending = None;
    while let Some(logged) = entries.next().await? {
        let entry = Entry::read(&logged.bytes).map_err(|why| Failure::Verification(why.to_string()))?;
        let about = found.as_ref().map(|(issued, _)| issued);
        ending = ending.or_else(|| ended(&entry, about?, &logged));
        if matches!(entry.body, Body::CredentialIssued(_)) && entry.envelope.id == id {
            found = Some((logged, entry));
        }
    }
    let (logged, entry) =
        found.ok_or_else(|| Failure::Verification(format!("the log knows no credential `{id}`")))?;
    same_bytes(decoded, &entry)?;
    let checkpoint = client.prove_inclusion_in(&logged.log, leaf_hash(&logged.bytes), logged.index).await?;
    let inclusion =
        format!("proven under the checkpoint of {} entries of {}", checkpoint.size, checkpoint.origin);
    Ok(Found { index: logged.index, entry, inclusion, ending })
}

/// A credential with the id of another is found by what was signed.
fn same_bytes(decoded: &Decoded, entry: &Entry) -> Result<(), Failure> {
    match &entry.body {
        Body::CredentialIssued(issued) if issued.credential.tbs == decoded.tbs => Ok(()),
        _ => Err(Failure::Verification("the entry of this id was made for other bytes than these".into())),
    }
}

/// Whether an entry ends what was issued: in the same log, or in one that follows it.
fn ended(entry: &Entry, issued: &LogEntry, at: &LogEntry) -> Option<String> {
    let (time, index) = (entry.envelope.time, at.index);
    let is_its = |log: &Option<String>| log.as_ref().unwrap_or(&at.log) == &issued.log;
    let place = match at.log == issued.log {
        true => format!("entry {index} of {time}"),
        false => format!("entry {index} of {time} in `{}`", at.log),
    };
    match &entry.body {
        Body::CredentialEnded(ended) if is_its(&ended.log) && ended.ended.contains(&issued.index) => {
            match ended.how {
                EndedHow::Expired => Some(format!("expired, as {place} says")),
                EndedHow::Revoked => Some(format!("revoked by {place}")),
            }
        }
        Body::CredentialSettled(settled)
            if is_its(&settled.log) && settled.void.iter().any(|(of, _)| *of == issued.index) =>
        {
            Some(format!("void by {place}: it was never released"))
        }
        _ => None,
    }
}
