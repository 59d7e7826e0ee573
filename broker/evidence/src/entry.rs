//! The entries of the log, one type for each kind, as `ENTRIES` of the product's contract lists them. Fields may
//! be added; none changes its meaning.

mod credential;
mod ending;
#[cfg(test)]
mod golden;
mod operation;
mod register;

use daypass_verify::ids::{CredentialId, Digest, IdentityName, Name, RequestId, TrustDomain};
use daypass_verify::time::UnixMs;
use serde::{Deserialize, Deserializer, Serialize};

use crate::canonical::{CanonicalError, MAX_ENTRY, is_canonical, to_vec};

pub use credential::*;
pub use ending::*;
pub use operation::*;
pub use register::*;

/// The position of an entry in its log, from 0.
pub type Index = u64;

/// On whose authority an act was done: an operator or an identity, and the digest of the proof it showed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct By {
    /// The operator, where one acted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operator: Option<Name>,
    /// The identity, where one acted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<IdentityName>,
    /// SHA-256 of the proof.
    pub proof: Digest,
}

/// What every entry carries beside its own fields.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// The version of the kind.
    pub v: u32,
    /// The kind: `credential.issued` and so on.
    pub kind: String,
    /// The entry's id; for `credential.issued` also the credential's.
    pub id: CredentialId,
    /// When the entry was made: set under the log's lock, never decreasing.
    pub time: UnixMs,
    /// The trust domain.
    pub td: TrustDomain,
    /// The broker that wrote it.
    pub broker: Name,
    /// The request that caused it. `approval.decided` has an index under this name instead: what it decides.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "request_unless_index")]
    pub request: Option<RequestId>,
    /// On whose authority.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<By>,
}

fn request_unless_index<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<RequestId>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Request {
        Index(Index),
        Id(RequestId),
    }
    Ok(match Request::deserialize(deserializer)? {
        Request::Index(0..) => None,
        Request::Id(id) => Some(id),
    })
}

/// An entry that is not in the log yet: all but its time, which is set under the log's lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEntry {
    /// The entry's id.
    pub id: CredentialId,
    /// The request that caused it.
    pub request: Option<RequestId>,
    /// On whose authority.
    pub by: Option<By>,
    /// The kind and its fields.
    pub body: Body,
}

/// An entry as read from a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What all kinds carry.
    pub envelope: Envelope,
    /// What this kind carries.
    pub body: Body,
}

/// Why bytes are no entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// They are not the canonical form of a value that an entry may hold.
    #[error(transparent)]
    Canonical(#[from] CanonicalError),
    /// A field is missing or has another form than its kind asks for.
    #[error("not an entry: {0}")]
    Fields(String),
}

/// An entry as it is written: the envelope's members beside those of the kind.
#[derive(Serialize)]
struct Written<'a> {
    v: u32,
    kind: &'a str,
    id: CredentialId,
    time: UnixMs,
    td: &'a TrustDomain,
    broker: &'a Name,
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<RequestId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<&'a By>,
    #[serde(flatten)]
    body: &'a Body,
}

impl NewEntry {
    /// The entry's bytes: what is stored, and what its leaf is the hash of.
    ///
    /// # Errors
    /// When a field holds what an entry may not hold, the entry is longer than 16 KiB, or its kind is unknown.
    pub fn encode(&self, time: UnixMs, td: &TrustDomain, broker: &Name) -> Result<Vec<u8>, CanonicalError> {
        let (kind, v) = self.body.kind().ok_or(CanonicalError::UnknownKind)?;
        let (request, by) = (self.request, self.by.as_ref());
        to_vec(&Written { v, kind, id: self.id, time, td, broker, request, by, body: &self.body })
    }
}

impl Entry {
    /// Reads an entry. Members that this version does not know are passed over: the bytes are what is kept.
    /// An unknown kind, or a later version of a known one, is read as [`Body::Unknown`].
    ///
    /// # Errors
    /// When the bytes are not canonical, too long, or lack what the envelope or the kind asks for.
    pub fn read(bytes: &[u8]) -> Result<Self, EntryError> {
        if bytes.len() > MAX_ENTRY {
            return Err(CanonicalError::TooLong(bytes.len()).into());
        }
        is_canonical(bytes)?;
        let fields = |error: serde_json::Error| EntryError::Fields(error.to_string());
        let envelope: Envelope = serde_json::from_slice(bytes).map_err(fields)?;
        let body = Body::read(&envelope.kind, envelope.v, bytes).map_err(fields)?;
        Ok(Self { envelope, body })
    }
}

/// Declares [`Body`], with the name and the version of each kind beside its type.
macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $kind:literal v $version:literal),+ $(,)?) => {
        /// The fields of one entry, by kind.
        #[derive(Debug, Clone, PartialEq, Eq, Serialize)]
        #[serde(untagged)]
        pub enum Body {
            $($(#[$doc])* $name(Box<$name>),)+
            /// A kind that this reader does not know, or a later version of one: kept as it came.
            Unknown(serde_json::Map<String, serde_json::Value>),
        }

        /// The kinds that this reader knows, with their versions.
        pub const KINDS: &[(&str, u32)] = &[$(($kind, $version)),+];

        impl Body {
            /// The kind and the version under which it is written; none for an unknown one.
            #[must_use]
            pub fn kind(&self) -> Option<(&'static str, u32)> {
                match self {
                    $(Self::$name(_) => Some(($kind, $version)),)+
                    Self::Unknown(_) => None,
                }
            }

            /// Reads the fields of `kind` from the bytes of a whole entry.
            ///
            /// # Errors
            /// When a known kind lacks a field or holds one of another type.
            pub(crate) fn read(kind: &str, v: u32, bytes: &[u8]) -> Result<Self, serde_json::Error> {
                match (kind, v) {
                    $(($kind, $version) => serde_json::from_slice(bytes).map(Self::$name),)+
                    _ => serde_json::from_slice(bytes).map(Self::Unknown),
                }
            }
        }

        $(impl From<$name> for Body {
            fn from(body: $name) -> Self {
                Self::$name(Box::new(body))
            }
        })+
    };
}

kinds! {
    /// A log begins.
    LogOpened = "log.opened" v 1,
    /// A log ends: another follows it.
    LogClosed = "log.closed" v 1,
    /// A checkpoint was kept outside the store.
    CheckpointAnchored = "checkpoint.anchored" v 1,
    /// A broker began to serve.
    BrokerStarted = "broker.started" v 1,
    /// A broker's minute.
    BrokerHeartbeat = "broker.heartbeat" v 1,
    /// A broker stopped in order.
    BrokerStopped = "broker.stopped" v 1,
    /// Something that a person must look at.
    Alarm = "alarm" v 1,
    /// A bundle came into force.
    BundleActivated = "bundle.activated" v 1,
    /// One object of the register was declared, changed or removed.
    RegistryChanged = "registry.changed" v 1,
    /// A key, with the times that say what it may be used for.
    KeyChanged = "key.changed" v 1,
    /// A statement other than a credential was signed.
    StatementSigned = "statement.signed" v 1,
    /// Something that may be done once it is approved, or with the code that goes with it.
    ApprovalRequested = "approval.requested" v 1,
    /// A credential.
    CredentialIssued = "credential.issued" v 1,
    /// A request of a known caller that was refused.
    CredentialRefused = "credential.refused" v 1,
    /// What became of recorded credentials: released, or never released.
    CredentialSettled = "credential.settled" v 1,
    /// Credentials that ended.
    CredentialEnded = "credential.ended" v 1,
    /// Something was seen at a target.
    AccessObserved = "access.observed" v 1,
    /// Something selectable gets no more credentials.
    SuspensionSet = "suspension.set" v 1,
    /// A suspension is over.
    SuspensionLifted = "suspension.lifted" v 1,
}

impl Body {
    /// Whether an entry of this kind changes the runtime state that decisions are made under: the head's
    /// `state` is the index of the newest such entry.
    #[must_use]
    pub fn changes_state(&self) -> bool {
        match self {
            Self::Unknown(fields) => {
                fields.get("kind").and_then(serde_json::Value::as_str).is_some_and(kind_changes_state)
            }
            known => known.kind().is_some_and(|(kind, _)| kind_changes_state(kind)),
        }
    }
}

/// The kinds that change the runtime state (an activation's `registry.changed` entries take effect with its
/// `bundle.activated`).
#[must_use]
pub fn kind_changes_state(kind: &str) -> bool {
    matches!(
        kind,
        "log.opened"
            | "bundle.activated"
            | "key.changed"
            | "suspension.set"
            | "suspension.lifted"
            | "approval.decided"
            | "review.recorded"
    )
}
