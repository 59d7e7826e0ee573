//! Declared objects in their normal form: what `registry.changed` entries carry whole, and what decisions read.

mod proof;

use std::collections::{BTreeMap, BTreeSet};

use daypass_evidence::entry::{Actor, Profile, ProofUse, Reach};
use daypass_verify::ids::{IdentityName, Name};
use daypass_verify::scope::Scope;
use daypass_verify::time::{Seconds, UnixMs};
use serde::{Deserialize, Serialize};

pub use proof::{ProofClause, Workload};

use super::preset::Preset;

/// What kind of non-human identity it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// A long-running service.
    Service,
    /// A job of a CI system.
    Ci,
    /// A sidecar or automation agent.
    Agent,
    /// A machine.
    Node,
    /// A workload of a supplier.
    Supplier,
}

/// How much harm an identity could do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Privilege {
    /// Reads what is not sensitive.
    Low,
    /// Ordinary work.
    Standard,
    /// Administers, or touches what is sensitive.
    High,
}

/// A workload that may ask for credentials.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its class.
    pub class: Class,
    /// Its privilege level.
    pub privilege: Privilege,
    /// What it is for.
    pub purpose: String,
    /// Who answers for it.
    pub business_owner: Name,
    /// Who runs it.
    pub technical_owner: Name,
    /// Where it runs.
    pub environment: Name,
    /// When it ends.
    pub expires_ms: UnixMs,
    /// How often somebody must confirm that it is still needed.
    pub review_days: u32,
    /// How it proves itself: any one of these.
    pub proofs: Vec<ProofClause>,
    /// Whose contract bounds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supplier: Option<Name>,
    /// What it may do.
    pub tasks: BTreeSet<Name>,
    /// Whether it is switched off in the bundle.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub disabled: bool,
}

/// The unit of scope: something that is done, with all that it needs and nothing more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Where its credentials are used.
    pub targets: BTreeSet<Name>,
    /// The most that it may reach.
    #[serde(flatten)]
    pub scope: Scope,
    /// Which profiles of credential it may be done with.
    pub kinds: BTreeSet<Profile>,
    /// The profile used when the caller names none.
    pub profile: Profile,
    /// The algorithm that signs its credentials: `ES256`, or `RS256` for tokens, by an imported key.
    pub alg: String,
    /// How long a credential lives when the caller does not say.
    pub ttl_s: Seconds,
    /// How long at most.
    pub ttl_max_s: Seconds,
    /// Claims put into its tokens.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub claims: BTreeMap<String, ClaimSource>,
    /// DNS names put into its certificates.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub dns_names: BTreeSet<String>,
    /// The subject CN of its common-name certificates: a role or user name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub common_name: Option<String>,
    /// Who must approve each issuance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<ApprovalNeed>,
    /// Whether it is a privileged act.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub privileged: bool,
    /// Whether renewals are due without a break.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub continuous: bool,
    /// Whether a renewal ends what it renews.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub revoke_on_renew: bool,
    /// Whether tokens may be issued that are bound to no key.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub bearer: bool,
}

/// Where a claim of a token comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClaimSource {
    /// A constant.
    Constant(String),
    /// A whole claim of the proof, copied.
    Proof(String),
}

/// How many people of which roles must approve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalNeed {
    /// How many.
    pub n: u32,
    /// Of which roles.
    pub roles: BTreeSet<Name>,
}

/// How the end of a credential is enforced where it is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Enforcement {
    /// Checked when a connection is opened; an open session goes on.
    Connect,
    /// Checked on each request.
    Continuous,
    /// An enforcer beside the target ends sessions.
    Enforcer,
    /// A proxy in front of it stops.
    Proxy,
}

/// Where credentials are used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// `http`, `grpc`, `postgresql`, `nginx`, `cloud` and so on.
    pub kind: Name,
    /// Which environment it serves.
    pub environment: Name,
    /// The audiences that name it.
    pub audiences: BTreeSet<daypass_verify::scope::Audience>,
    /// How a revocation would arrive.
    pub reach: Reach,
    /// How an end is enforced.
    pub enforcement: Enforcement,
    /// How long credentials for it may live at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_max_s: Option<Seconds>,
    /// How long what they buy downstream lives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub downstream_ttl_s: Option<Seconds>,
    /// How it is probed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<String>,
    /// The identities that serve it: they may ask whether a credential for it still lives.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub served_by: BTreeSet<IdentityName>,
}

/// What kind of proof an issuer makes, and where its keys come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum IssuerKind {
    /// An OIDC issuer.
    Oidc {
        /// Its issuer identifier: `https://…`, byte for byte as in `iss`.
        url: String,
        /// Where its keys come from.
        keys: KeySource,
        /// The algorithms it may use.
        algs: BTreeSet<String>,
        /// The `typ` header values it may use; an absent header counts as `JWT`.
        typs: BTreeSet<String>,
        /// The longest `exp - iat` that is believed.
        proof_ttl_max_s: Seconds,
        /// The claim that names the running instance.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        instance_claim: Option<String>,
        /// Whether tokens with a `jku` or `x5u` header are refused rather than counted.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        refuse_key_urls: bool,
        /// DER certificates (base64) that alone are trusted for its HTTPS server; empty: the system's roots.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        tls_ca: Vec<String>,
        /// What a clause for it must name, so that it does not fit all whom the issuer knows: of each set at least
        /// one; `sub` is the subject.
        #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
        required_claims: BTreeSet<BTreeSet<String>>,
    },
    /// A CA for client certificates.
    ClientCa {
        /// Its roots: DER, base64.
        ca: Vec<String>,
        /// The trust domain of its SPIFFE IDs, where it issues them.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        trust_domain: Option<daypass_verify::ids::TrustDomain>,
        /// A file with its CRLs, read by each broker; declared: unknown status is denied.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        crl_file: Option<String>,
    },
    /// This broker itself, of the nodes that it let in: by a one-time code, and from then on by the certificates that it
    /// issues to them.
    Nodes,
}

/// Where an OIDC issuer's keys come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeySource {
    /// OIDC discovery.
    Discovery,
    /// A JWKS at this URL.
    JwksUrl(String),
    /// This JWKS document.
    Jwks(String),
    /// The API server of the cluster that the broker runs in.
    Cluster,
}

/// Whom we believe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issuer {
    /// What filled in whatever the declaration left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<Preset>,
    /// What it makes.
    #[serde(flatten)]
    pub kind: IssuerKind,
    /// Which environment it speaks for.
    pub environment: Name,
    /// How often its proofs may be shown.
    pub replay: ProofUse,
    /// Whether a proof's own end caps what it buys.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub proof_caps: bool,
    /// Who is behind its proofs.
    pub actor: Actor,
    /// Whether its server may have a private or loopback address.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub internal: bool,
    /// Whether it is switched off in the bundle.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub disabled: bool,
}

/// Whether an owner is still there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OwnerStatus {
    /// Still there.
    Active,
    /// Has left.
    Left,
}

/// A team or person, by id: never a name or an address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// `team` or `person`.
    pub kind: Name,
    /// Whether still there.
    pub status: OwnerStatus,
    /// Since when that status holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<UnixMs>,
}

/// A person or automation that may administer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operator {
    /// How it proves itself: any one of these.
    pub proofs: Vec<ProofClause>,
    /// What it may do: `read_evidence`, `propose`, `decide`, `contain`, `review`, `rotate`, `enrol`.
    pub roles: BTreeSet<String>,
    /// The owner that it is, where it is a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Name>,
    /// When it ends.
    pub expires_ms: UnixMs,
}

/// A supplier, whose contract bounds its identities.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Supplier {
    /// The contract's reference.
    pub contract: String,
    /// When it ends; its identities stop then.
    pub ends_ms: UnixMs,
    /// What its identities may never exceed.
    #[serde(flatten)]
    pub ceiling: Scope,
    /// How long their credentials may live at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_max_s: Option<Seconds>,
}

/// A static secret that cannot be replaced yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exception {
    /// What it is.
    pub what: String,
    /// Where it is kept.
    #[serde(rename = "where")]
    pub kept: String,
    /// The target that takes it.
    pub target: Name,
    /// Why it cannot be replaced yet.
    pub reason: String,
    /// What limits the harm meanwhile.
    pub control: String,
    /// Who answers for it.
    pub owner: Name,
    /// When it ends.
    pub until_ms: UnixMs,
    /// How it will be closed.
    pub plan: String,
}

/// What holds for the whole organisation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// From when an overdue review shortens credentials: this long at most.
    pub overdue_ttl_max_s: Seconds,
    /// From how many days after the due date an overdue review refuses.
    pub overdue_refuse_days: u32,
    /// The environments that exist.
    pub environments: BTreeSet<Name>,
}

/// Everything that is declared, by type and name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Declared {
    /// What holds for all.
    pub settings: Settings,
    /// Workloads.
    pub identities: BTreeMap<IdentityName, Identity>,
    /// Units of scope.
    pub tasks: BTreeMap<Name, Task>,
    /// Where credentials are used.
    pub targets: BTreeMap<Name, Target>,
    /// Whom we believe.
    pub issuers: BTreeMap<Name, Issuer>,
    /// Suppliers.
    #[serde(default)]
    pub suppliers: BTreeMap<Name, Supplier>,
    /// Static secrets that remain.
    #[serde(default)]
    pub exceptions: BTreeMap<Name, Exception>,
    /// Owners.
    pub owners: BTreeMap<Name, Owner>,
    /// Operators.
    #[serde(default)]
    pub operators: BTreeMap<Name, Operator>,
}
