//! Reading the log: checkpoints, proofs, entries, explanations.

use bytes::Bytes;
use daypass_evidence::checkpoint::{Checkpoint, is_later};
use daypass_evidence::tree::{Hash, verify_inclusion};
use daypass_proto::v1;
use daypass_proto::v1::evidence_service_client::EvidenceServiceClient;
use daypass_proto::v1::get_proof_request::Of;
use daypass_verify::time::UnixMs;
use tonic::Streaming;

use crate::client::Client;
use crate::error::Error;
use crate::kept::Newest;
use crate::verify::{self, VerifyError};

/// A proof, and the checkpoint of the tree that it leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// The path.
    pub hashes: Vec<Hash>,
    /// The signed note.
    pub note: Bytes,
}

/// Which entries; all filters must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EntryFilter {
    /// The origin of the log, which may be one that is closed; none: the newest.
    pub log: Option<String>,
    /// The first index.
    pub start: u64,
    /// At most so many; none: all there are.
    pub limit: Option<u64>,
    /// Stay, and wait for new ones.
    pub follow: bool,
    /// Only these kinds.
    pub kinds: Vec<String>,
    /// Only those about this identity.
    pub identity: Option<String>,
    /// Only those about this credential.
    pub credential_id: Option<String>,
    /// Only those about this request.
    pub request_id: Option<String>,
    /// Not earlier than this.
    pub since: Option<UnixMs>,
    /// Earlier than this.
    pub until: Option<UnixMs>,
}

/// One entry, with the checkpoint that covers it where that is new.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// The origin of its log.
    pub log: String,
    /// Its position.
    pub index: u64,
    /// The canonical bytes.
    pub bytes: Bytes,
    /// A signed note.
    pub checkpoint: Option<Bytes>,
}

/// The entries of one question, as they arrive.
#[derive(Debug)]
pub struct Entries {
    client: Client,
    stream: Streaming<v1::ListEntriesResponse>,
}

/// Why a request was answered as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The canonical bytes of the entry, where there is one.
    pub entry: Option<Bytes>,
    /// The inner reason.
    pub reason: String,
    /// What failed.
    pub clause: String,
    /// The rules that decided.
    pub rules: Vec<String>,
    /// `log`, or `memory` for what is lost when the broker restarts.
    pub source: String,
}

impl Client {
    /// The newest checkpoint: verified, consistent with all that this client has seen, and kept. The signed note
    /// comes beside it.
    ///
    /// # Errors
    /// When nobody answered, or the checkpoint does not hold.
    pub async fn checkpoint(&self) -> Result<(Checkpoint, Bytes), Error> {
        let key = self.log_key().await?;
        let known = self.known(key)?;
        let note = self.checkpoint_note().await?;
        let checkpoint = Checkpoint::open_shard(&note, key).map_err(VerifyError::from)?;
        self.follow_checkpoint(known, Newest { note: note.clone(), checkpoint: checkpoint.clone() }).await?;
        Ok((checkpoint, note))
    }

    /// The checkpoint of the log of this origin, verified, and its note: of one that is closed, the last.
    ///
    /// # Errors
    /// As for [`Client::checkpoint`].
    pub async fn checkpoint_of(&self, log: &str) -> Result<(Checkpoint, Bytes), Error> {
        let key = self.log_key().await?;
        let request = self.proven(v1::GetCheckpointRequest { log: log.into(), size: 0 }).await?;
        let answer = EvidenceServiceClient::new(self.channel()).get_checkpoint(request).await;
        let note = self.sorted(answer)?.into_inner().checkpoint;
        let checkpoint = Checkpoint::open_shard(&note, key).map_err(VerifyError::from)?;
        if checkpoint.origin != log {
            return Err(VerifyError::Answer("checkpoint").into());
        }
        Ok((checkpoint, note))
    }

    /// The newest checkpoint as the broker shows it, not verified.
    ///
    /// # Errors
    /// When nobody answered, or it was refused.
    pub async fn checkpoint_note(&self) -> Result<Bytes, Error> {
        let request = self.proven(v1::GetCheckpointRequest::default()).await?;
        let answer = EvidenceServiceClient::new(self.channel()).get_checkpoint(request).await;
        Ok(self.sorted(answer)?.into_inner().checkpoint)
    }

    /// Verifies that an entry with this leaf hash stands at `index` in the log; gives the checkpoint that says so.
    ///
    /// # Errors
    /// When nobody answered, or the proof does not hold.
    pub async fn prove_inclusion(&self, leaf: Hash, index: u64) -> Result<Checkpoint, Error> {
        self.prove_inclusion_in("", leaf, index).await
    }

    /// The same in the log of this origin, which may be one that is closed; empty: the newest.
    ///
    /// # Errors
    /// As for [`Client::prove_inclusion`].
    pub async fn prove_inclusion_in(&self, log: &str, leaf: Hash, index: u64) -> Result<Checkpoint, Error> {
        let key = self.log_key().await?;
        let known = self.known(key)?;
        let proof = self.proof(log, Of::Index(index), 0).await?;
        let checkpoint = Checkpoint::open_shard(&proof.note, key).map_err(VerifyError::from)?;
        if !log.is_empty() && checkpoint.origin != log {
            return Err(VerifyError::Answer("checkpoint").into());
        }
        verify_inclusion(leaf, index, checkpoint.size, &proof.hashes, checkpoint.root)
            .map_err(|why| VerifyError::Receipt(why.into()))?;
        // A log that is closed is no news.
        let closed = |newest: &Newest| is_later(&newest.checkpoint.origin, log);
        if log.is_empty() || !known.as_ref().is_some_and(closed) {
            let newest = Newest { note: proof.note, checkpoint: checkpoint.clone() };
            self.follow_checkpoint(known, newest).await?;
        }
        Ok(checkpoint)
    }

    /// The proof that the tree of `size` begins with the tree of `first`, to be verified by the caller.
    ///
    /// # Errors
    /// When nobody answered, or it was refused.
    pub async fn consistency(&self, first: u64, size: u64) -> Result<Proof, Error> {
        self.proof("", Of::FirstSize(first), size).await
    }

    async fn proof(&self, log: &str, of: Of, size: u64) -> Result<Proof, Error> {
        let request = v1::GetProofRequest { log: log.to_owned(), of: Some(of), size };
        let request = self.proven(request).await?;
        let answer = EvidenceServiceClient::new(self.channel()).get_proof(request).await;
        let answer = self.sorted(answer)?.into_inner();
        Ok(Proof { hashes: verify::hashes(&answer.hashes, "hashes")?, note: answer.checkpoint })
    }

    /// The entries that pass `filter`, in the order of the log.
    ///
    /// # Errors
    /// When nobody answered, or it was refused.
    pub async fn entries(&self, filter: EntryFilter) -> Result<Entries, Error> {
        let request = self.proven_stream(filter.into_wire()).await?;
        let answer = EvidenceServiceClient::new(self.channel()).list_entries(request).await;
        Ok(Entries { client: self.clone(), stream: self.sorted(answer)?.into_inner() })
    }

    /// Why a request was refused or narrowed.
    ///
    /// # Errors
    /// When nobody answered, the request is not known, or it is not the caller's to see.
    pub async fn explain(&self, request_id: &str) -> Result<Explanation, Error> {
        let request = self.proven(v1::ExplainRequest { request_id: request_id.to_owned() }).await?;
        let answer = EvidenceServiceClient::new(self.channel()).explain(request).await;
        let answer = self.sorted(answer)?.into_inner();
        Ok(Explanation {
            entry: Some(answer.entry).filter(|bytes| !bytes.is_empty()),
            reason: answer.reason,
            clause: answer.clause,
            rules: answer.rules,
            source: answer.source,
        })
    }
}

impl Entries {
    /// The next entry; none at the end.
    ///
    /// # Errors
    /// When the stream broke off, or an answer is malformed.
    pub async fn next(&mut self) -> Result<Option<LogEntry>, Error> {
        let Some(answer) = self.stream.message().await.map_err(|status| self.client.error(&status))? else {
            return Ok(None);
        };
        let at = answer.r#ref.ok_or(VerifyError::Answer("ref"))?;
        let checkpoint = Some(answer.checkpoint).filter(|note| !note.is_empty());
        Ok(Some(LogEntry { log: at.log, index: at.index, bytes: answer.entry, checkpoint }))
    }
}

impl EntryFilter {
    fn into_wire(self) -> v1::ListEntriesRequest {
        v1::ListEntriesRequest {
            log: self.log.unwrap_or_default(),
            start: self.start,
            limit: self.limit.unwrap_or_default(),
            follow: self.follow,
            kinds: self.kinds,
            identity: self.identity.unwrap_or_default(),
            credential_id: self.credential_id.unwrap_or_default(),
            request_id: self.request_id.unwrap_or_default(),
            since: self.since.map(timestamp),
            until: self.until.map(timestamp),
        }
    }
}

pub(crate) fn timestamp(at: UnixMs) -> prost_types::Timestamp {
    let nanos = i32::try_from(at.get().rem_euclid(1000)).unwrap_or_default() * 1_000_000;
    prost_types::Timestamp { seconds: at.seconds(), nanos }
}
