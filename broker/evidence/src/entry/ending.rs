//! What ends the life of a credential: it is settled as released or void, and it ends.

use std::collections::{BTreeMap, BTreeSet};

use daypass_verify::ids::{Digest, IdentityName, KeyId, Name};
use daypass_verify::scope::{Action, Resource};
use daypass_verify::time::UnixMs;
use serde::{Deserialize, Serialize};

use super::Index;

/// One released credential: index of its issuance, SHA-256 of the whole credential, time of release.
pub type Released = (Index, Digest, UnixMs);

/// One credential that was recorded and never left: index of its issuance, and why.
pub type Void = (Index, String);

/// `credential.settled`: what became of recorded credentials.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CredentialSettled {
    /// Those that were handed out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub released: Vec<Released>,
    /// Those that provably were not: their ending.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub void: Vec<Void>,
    /// The origin of the log that these indexes are of; absent: this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
}

/// How credentials ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndedHow {
    /// Their time was over.
    Expired,
    /// Somebody ended them.
    Revoked,
}

/// `credential.ended`: credentials that ended, named by the index of their issuance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CredentialEnded {
    /// How.
    pub how: EndedHow,
    /// Which, sorted.
    pub ended: Vec<Index>,
    /// The origin of the log that these indexes are of; absent: this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
    /// Expired: everything that ended up to here is named here or earlier.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub through_ms: Option<UnixMs>,
    /// Revoked: what was selected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<Selector>,
    /// Revoked: the reason (RFC 5280, section 5.3.1).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Revoked: in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Revoked: the drill it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drill: Option<String>,
    /// Revoked: the first entry of the order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ordered: Option<Index>,
    /// Revoked: how many by the reach of their target.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub reach: BTreeMap<String, u64>,
}

/// What an order of containment selects: exactly one field, and optionally a cut-off.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Selector {
    /// One credential.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential: Option<Index>,
    /// An identity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<IdentityName>,
    /// One instance of an identity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// A task.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<Name>,
    /// A target.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<Name>,
    /// A supplier.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub supplier: Option<Name>,
    /// An issuer of proofs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<Name>,
    /// A signing key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<KeyId>,
    /// Everything: the stop switch.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub everything: bool,
    /// Only what was issued before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issued_before_ms: Option<UnixMs>,
}

/// What was seen at a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Observed {
    /// A credential was accepted.
    Used,
    /// A credential was refused.
    Refused,
    /// A credential was accepted after its end.
    AcceptedAfterEnd,
    /// A session was ended.
    SessionEnded,
    /// A credential that the broker does not know was used.
    Unseen,
    /// A grant is still there whose identity is gone.
    LeftOver,
}

/// `access.observed`: what somebody who serves a target saw there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessObserved {
    /// Where.
    pub target: Name,
    /// What.
    pub what: Observed,
    /// The issuance of the credential.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential: Option<Index>,
    /// The exception, where a static secret was used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exception: Option<Name>,
    /// When it was seen.
    pub at_ms: UnixMs,
    /// How: `probe`, `verifier`, `enforcer`, `proxy`, `introspection`, `target_log`.
    pub method: String,
    /// How often.
    pub count: u64,
    /// What was done.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub actions: BTreeSet<Action>,
    /// On what.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub resources: BTreeSet<Resource>,
    /// In words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}
