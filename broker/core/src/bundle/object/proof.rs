//! What a proof must say to be somebody's.

use std::collections::{BTreeMap, BTreeSet};

use daypass_verify::ids::{IdentityName, Name};
use serde::{Deserialize, Serialize};

/// One way in which an identity or an operator proves itself: an issuer, and what its proof must say exactly.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProofClause {
    /// The declared issuer.
    pub issuer: Name,
    /// The exact `sub` of an ID token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Claims that must be present with exactly one of these values (strings; numbers and booleans as text).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub claims: BTreeMap<String, BTreeSet<String>>,
    /// The exact SPIFFE ID in the certificate's only URI SAN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spiffe_id: Option<String>,
    /// The exact DNS SAN of a certificate that has no URI SAN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns_name: Option<String>,
    /// What the agent of a node must attest of a workload that it speaks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<Workload>,
}

/// A workload on a machine, as the agent there tells it from others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workload {
    /// The machine: an identity of class `node`.
    pub node: IdentityName,
    /// The exact systemd unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// The number of its user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
}
