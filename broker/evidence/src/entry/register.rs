//! What is declared, and what is suspended.

use std::collections::BTreeSet;

use daypass_verify::ids::{Digest, IdentityName, Name};
use daypass_verify::time::UnixMs;
use serde::{Deserialize, Serialize};

use super::{Index, NameAt, Selector};

/// `bundle.activated`: a bundle came into force; the `registry.changed` entries of what it changes stand
/// before it in the same transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BundleActivated {
    /// The bundle.
    pub digest: Digest,
    /// The bundle before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous: Option<Digest>,
    /// The entry that proposed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proposed: Option<Index>,
    /// The decisions that let it in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub decided: Vec<Index>,
    /// Whether it was activated on the broker's own host without a second person.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub bootstrap: bool,
}

/// The types of declared objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ObjectType {
    /// A workload.
    Identity,
    /// A unit of scope.
    Task,
    /// Where credentials are used.
    Target,
    /// Whom we believe.
    Issuer,
    /// Whose contract bounds its identities.
    Supplier,
    /// A static secret that cannot be replaced yet.
    Exception,
    /// A team or person, by id.
    Owner,
    /// A person or automation that may administer.
    Operator,
}

/// What happened to a declared object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// New.
    Added,
    /// Declared otherwise.
    Changed,
    /// No longer declared.
    Removed,
    /// Carried over into a new log.
    Carried,
}

/// `registry.changed`: one declared object, whole and normalised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistryChanged {
    /// The type of the object.
    #[serde(rename = "type")]
    pub object: ObjectType,
    /// Its name.
    pub name: IdentityName,
    /// What happened.
    pub change: Change,
    /// The entry that declared it before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub was: Option<Index>,
    /// The bundle that says so.
    pub bundle: Digest,
    /// The whole object; absent when removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub declared: Option<serde_json::Map<String, serde_json::Value>>,
    /// Of what is carried over from the log before: since when it was declared there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<UnixMs>,
    /// Of what is carried over: when the last review of it there said that the next one is due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_due_ms: Option<UnixMs>,
}

/// `suspension.set`: something selectable gets no more credentials.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SuspensionSet {
    /// What.
    pub selector: Selector,
    /// Why.
    pub reason: String,
    /// Until when; absent: until it is lifted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<UnixMs>,
    /// How many live credentials were revoked with it.
    pub revoked: u64,
    /// How many live credentials were found.
    pub live: u64,
    /// The drill it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drill: Option<String>,
    /// Whether what lives of it is revoked, by whichever broker is left: else it lives until its own end.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub revokes: bool,
}

/// `suspension.lifted`: a suspension is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SuspensionLifted {
    /// The entry that set it.
    pub suspension: Index,
    /// Why.
    pub reason: String,
    /// The approval that allowed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approval: Option<Index>,
}

/// `approval.requested`: something that may be done once as many as it needs have approved it. Where it needs nobody else, who
/// asked approved it by asking: so a node is let in, by a code that buys one certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalRequested {
    /// `issuance`, `exception`, `resume`, `recover`.
    pub subject: String,
    /// Issuance: for whom.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<NameAt<IdentityName>>,
    /// Issuance: for which task.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<NameAt<Name>>,
    /// Who must approve.
    pub needs: ApprovalNeeds,
    /// Until when.
    pub until_ms: UnixMs,
    /// SHA-256 of the one-time code that must be shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<Digest>,
}

/// How many people of which roles.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalNeeds {
    /// How many.
    pub n: u32,
    /// Of which roles.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub roles: BTreeSet<Name>,
}
