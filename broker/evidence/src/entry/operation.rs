//! The life of the log, of its brokers and of their keys.

use std::collections::BTreeMap;

use daypass_verify::ids::{Digest, KeyId, Name};
use daypass_verify::time::UnixMs;
use serde::{Deserialize, Serialize};

use super::Index;

/// Why a log was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OpenReason {
    /// The deployment's first.
    First,
    /// The half-year is over.
    Period,
    /// A backup was restored.
    Recovered,
}

/// The log before this one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Predecessor {
    /// Its origin.
    pub origin: String,
    /// Its size.
    pub size: u64,
    /// Its root.
    pub root: Digest,
}

/// What a recovery could not bring back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The first index that is missing.
    pub from: Index,
    /// What is known of it.
    pub note: String,
}

/// `log.opened`: the first entry of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogOpened {
    /// The origin of its checkpoints: `<td>/evidence/<shard>`.
    pub origin: String,
    /// The verifier key of its checkpoints (C2SP signed-note vkey).
    pub key: String,
    /// Why.
    pub reason: OpenReason,
    /// The log before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub predecessor: Option<Predecessor>,
    /// What is missing between the two.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gap: Option<Gap>,
    /// Origins of logs before the predecessor of which credentials were alive at a loss: they end in this log, or in one
    /// that follows it, as those of the predecessor do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<String>,
}

/// `log.closed`: the last entry of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogClosed {
    /// The origin of the log that follows.
    pub successor: String,
    /// How many credentials of this log have not ended: the logs that follow name their ends, with this log's origin.
    pub live: u64,
}

/// `checkpoint.anchored`: a checkpoint of this log that is kept elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointAnchored {
    /// The tree's size.
    pub size: u64,
    /// The tree's root.
    pub root: Digest,
    /// Where: `file`, `witness:NAME`, `rfc3161`, `holder`.
    #[serde(rename = "where")]
    pub kept: String,
    /// SHA-256 of the cosignature or timestamp.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Digest>,
    /// When, by that place's word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_ms: Option<UnixMs>,
}

/// How a broker runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// For real.
    Production,
    /// `daypass-broker dev`: trusts its own clock, and applies bundles alone.
    Dev,
}

/// What a broker knows of its clock.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ClockStatus {
    /// Whether the kernel says that it is synchronised.
    pub synchronised: bool,
    /// The kernel's estimate of the largest error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_error_ms: Option<u64>,
    /// Offset against the second source, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset_ms: Option<i64>,
    /// Milliseconds since the machine booted, where `boot` says which boot it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_ms: Option<i64>,
    /// The standing alarm about this broker's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alarm: Option<Index>,
}

/// The entry with which a broker's former run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreviousRun {
    /// The newest entry when this run began.
    pub index: Index,
    /// Whether it is a `broker.stopped`.
    pub clean: bool,
}

/// `broker.started`: a broker began to serve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokerStarted {
    /// Its version.
    pub version: String,
    /// SHA-256 of the program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build: Option<Digest>,
    /// SHA-256 of its configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<Digest>,
    /// How it runs.
    pub mode: Mode,
    /// The store: `sqlite`, `postgres`.
    pub store: String,
    /// What the store promises: `fsync`.
    pub durability: String,
    /// The store's schema version.
    pub schema: u32,
    /// The kernel's boot id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boot: Option<String>,
    /// Its clock.
    pub clock: ClockStatus,
    /// How the run before it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous: Option<PreviousRun>,
    /// The kinds it understands, with their versions.
    pub reads: BTreeMap<String, u32>,
}

/// What a broker did since its last heartbeat.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counts {
    /// Credentials recorded.
    pub issued: u64,
    /// Requests denied.
    pub refused: u64,
    /// Proofs that failed, by inner reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub proof_failed: BTreeMap<String, u64>,
    /// Requests that found no evidence, no keys or no clock.
    pub unavailable: u64,
}

/// The latency of issuance, rounded up to whole milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Latency {
    /// The median.
    pub p50: u64,
    /// The 99th percentile.
    pub p99: u64,
}

/// `broker.heartbeat`: every 60 s.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokerHeartbeat {
    /// From when its counts run.
    pub since_ms: UnixMs,
    /// What happened.
    pub counts: Counts,
    /// How long issuance took; absent when nothing was issued.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<Latency>,
    /// Its clock.
    pub clock: ClockStatus,
    /// The kernel's boot id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boot: Option<String>,
    /// How long the broker has run.
    pub up_ms: u64,
}

/// `broker.stopped`: a broker stopped in order, or another says of it that it is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokerStopped {
    /// Why.
    pub reason: String,
    /// Which broker, where it is not the one that writes: it was killed, and cannot say so itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub of: Option<Name>,
}

/// Whether an alarm began or is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlarmState {
    /// It stands.
    Raised,
    /// It is over.
    Cleared,
}

/// `alarm`: something that a person must look at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alarm {
    /// `CLOCK`, `ROLLBACK`, `LEAF_MISMATCH`, `BUNDLE_REFUSED`, `KEYSET_REFUSED`, `STORE_FULL`, `LINT_FAILED` and so on.
    pub code: String,
    /// Raised or cleared.
    pub state: AlarmState,
    /// Cleared: the entry that raised it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub raised: Option<Index>,
    /// In words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// What a key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyUse {
    /// Signs access tokens.
    Token,
    /// Signs JWT-SVIDs.
    Svid,
    /// The issuing CA: signs certificates of workloads.
    Ca,
    /// The root: signs issuing CAs.
    Root,
    /// Signs checkpoints, and nothing else.
    Evidence,
    /// Signs node certificates.
    Node,
    /// Signs SSH certificates.
    Ssh,
}

impl KeyUse {
    /// The name used in entries.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Svid => "svid",
            Self::Ca => "ca",
            Self::Root => "root",
            Self::Evidence => "evidence",
            Self::Node => "node",
            Self::Ssh => "ssh",
        }
    }
}

/// What was done to a key; which of its times holds follows from `now`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyState {
    /// Made; published from `publish_from_ms`.
    Prepared,
    /// Signs from `sign_from_ms`.
    Active,
    /// Signs only drafts that name it.
    Draining,
    /// Signs no more.
    Retired,
    /// Its secret part is gone.
    Destroyed,
    /// Unpublished at once; all it signed is revoked.
    Compromised,
}

/// `key.changed`: a key and the times that say what it may be used for, the same on every broker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyChanged {
    /// The key's id.
    pub key: KeyId,
    /// What it is for.
    #[serde(rename = "use")]
    pub usage: KeyUse,
    /// Its algorithm: `ES256`, `Ed25519`, `RS256`.
    pub alg: String,
    /// SHA-256 of its public part (SPKI DER).
    pub public: Digest,
    /// What was done to it.
    pub state: KeyState,
    /// Published from.
    pub publish_from_ms: UnixMs,
    /// Signs from.
    pub sign_from_ms: UnixMs,
    /// Signs until.
    pub sign_until_ms: UnixMs,
    /// Published until.
    pub publish_until_ms: UnixMs,
    /// SHA-256 of its certificate (DER), for a CA.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Digest>,
    /// SHA-256 of each certificate above it and below the root, for a CA that is signed upstream.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub chain: Vec<Digest>,
    /// `generated`, `imported`, `upstream`.
    pub origin: String,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// `statement.signed`: something other than a credential that a key signed, recorded first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatementSigned {
    /// `crl`, `revocations`, `ca_certificate`, `ca_request`.
    #[serde(rename = "type")]
    pub statement: String,
    /// The key that signs it.
    pub key: KeyId,
    /// SHA-256 of the bytes that are signed.
    pub digest: Digest,
    /// Valid from.
    pub from_ms: UnixMs,
    /// Valid until.
    pub until_ms: UnixMs,
    /// The number of a CRL or a feed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub number: Option<u64>,
}
