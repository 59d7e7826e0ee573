//! What begins the life of a credential: it is issued, or refused.

use std::collections::{BTreeMap, BTreeSet};

use daypass_verify::ids::{Digest, IdentityName, KeyId, Name, SpiffeId};
use daypass_verify::scope::{Action, Audience, Resource, Scope};
use daypass_verify::time::{Seconds, UnixMs};
use serde::{Deserialize, Serialize};

use super::Index;

/// A named object, and the index of the entry that declared it as it was then.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NameAt<T> {
    /// The name.
    pub name: T,
    /// The newest `registry.changed` of it.
    pub at: Index,
}

/// `credential.issued`: the record that must be durable before the key may sign. The entry's id is the
/// credential's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CredentialIssued {
    /// For whom.
    pub identity: NameAt<IdentityName>,
    /// For which task.
    pub task: NameAt<Name>,
    /// Where it is used.
    pub target: NameAt<Name>,
    /// What the caller showed.
    pub proof: Proof,
    /// From where.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<Client>,
    /// What was asked; what was left open is filled from the task.
    pub asked: Asked,
    /// What was granted: within what was asked and what is declared.
    pub granted: Granted,
    /// Under which rules and state.
    pub decision: DecisionMade,
    /// What was made.
    pub credential: Issued,
    /// The approval that allowed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approval: Option<Index>,
    /// The emergency that was declared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub emergency: Option<EmergencyUse>,
}

/// How the caller proved itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Hash)]
#[serde(rename_all = "snake_case")]
pub enum ProofKind {
    /// An OIDC ID token.
    IdToken,
    /// An mTLS client certificate.
    Certificate,
    /// A node's word for a workload beside it.
    Delegated,
    /// A one-time enrolment code.
    Enrolment,
}

/// How often a proof may be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProofUse {
    /// It buys one credential.
    Once,
    /// It may be shown at each renewal until it expires.
    UntilExpiry,
}

/// Who is behind a proof, as its issuer declares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Hash)]
#[serde(rename_all = "snake_case")]
pub enum Actor {
    /// A program.
    Workload,
    /// A human.
    Person,
}

/// What a caller showed, as far as it may be kept: never the token or the certificate itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// Its kind.
    pub kind: ProofKind,
    /// The issuer's own name: the `iss` of a token, the declared name of a client CA.
    pub issuer: String,
    /// The newest `registry.changed` of that issuer.
    pub at: Index,
    /// Which of the identity's proof clauses it matched, from 0.
    pub clause: u32,
    /// Its subject: `sub`, or the SPIFFE ID or SAN of the certificate.
    pub subject: String,
    /// Which running instance of the identity showed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// SHA-256 of the whole token or DER certificate.
    pub digest: Digest,
    /// When it was made.
    pub issued_ms: UnixMs,
    /// When it ends.
    pub exp_ms: UnixMs,
    /// How often it may be shown.
    #[serde(rename = "use")]
    pub usage: ProofUse,
    /// Who is behind it.
    pub actor: Actor,
    /// The claims that a clause, a task or a rule looked at.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub claims: BTreeMap<String, String>,
    /// The node that vouched for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub via: Option<Via>,
}

/// The node that vouched for a workload, and what it attested.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Via {
    /// The node's identity.
    pub node: IdentityName,
    /// The entry that declared it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Index>,
    /// The systemd unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// The user id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
}

/// Where a request came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    /// The peer's IP address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub addr: Option<String>,
    /// The `user-agent` it sent, cut at 128 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
}

/// What a caller asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "AskedMembers")]
pub struct Asked {
    /// Audiences, actions and resources.
    #[serde(flatten)]
    pub scope: Scope,
    /// How long at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl_s: Option<Seconds>,
    /// The caller's name for this run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
}

/// The members of [`Asked`] side by side: a flattened scope would be read by way of a buffer, in most of the time that
/// reading an entry takes.
#[derive(Deserialize)]
struct AskedMembers {
    #[serde(default)]
    audiences: BTreeSet<Audience>,
    #[serde(default)]
    actions: BTreeSet<Action>,
    #[serde(default)]
    resources: BTreeSet<Resource>,
    ttl_s: Option<Seconds>,
    run: Option<String>,
}

impl From<AskedMembers> for Asked {
    fn from(read: AskedMembers) -> Self {
        let AskedMembers { audiences, actions, resources, ttl_s, run } = read;
        Self { scope: Scope { audiences, actions, resources }, ttl_s, run }
    }
}

/// What was granted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "GrantedMembers")]
pub struct Granted {
    /// Audiences, actions and resources.
    #[serde(flatten)]
    pub scope: Scope,
    /// For how long.
    pub ttl_s: Seconds,
}

/// The members of [`Granted`] side by side.
#[derive(Deserialize)]
struct GrantedMembers {
    #[serde(default)]
    audiences: BTreeSet<Audience>,
    #[serde(default)]
    actions: BTreeSet<Action>,
    #[serde(default)]
    resources: BTreeSet<Resource>,
    ttl_s: Seconds,
}

impl From<GrantedMembers> for Granted {
    fn from(read: GrantedMembers) -> Self {
        let GrantedMembers { audiences, actions, resources, ttl_s } = read;
        Self { scope: Scope { audiences, actions, resources }, ttl_s }
    }
}

/// Under what a decision was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecisionMade {
    /// The bundle in force.
    pub bundle: Digest,
    /// The newest entry that had changed the runtime state.
    pub state: Index,
    /// The Cedar rules that made the decision, by `@id`, sorted.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub rules: BTreeSet<String>,
}

/// What kind of credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CredentialType {
    /// A JSON Web Token.
    Jwt,
    /// An X.509 certificate.
    X509,
}

/// The profile of a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Profile {
    /// An access token (RFC 9068).
    #[serde(rename = "at+jwt")]
    AccessToken,
    /// A SPIFFE JWT-SVID.
    #[serde(rename = "jwt-svid")]
    JwtSvid,
    /// A SPIFFE X.509-SVID.
    #[serde(rename = "x509-svid")]
    X509Svid,
    /// A client certificate whose subject CN is a role or user name.
    #[serde(rename = "common-name")]
    CommonName,
    /// A certificate by which a node proves itself to the broker: good for nothing else.
    #[serde(rename = "node")]
    Node,
}

impl Profile {
    /// Whether it is a token or a certificate.
    #[must_use]
    pub const fn credential_type(self) -> CredentialType {
        match self {
            Self::AccessToken | Self::JwtSvid => CredentialType::Jwt,
            Self::X509Svid | Self::CommonName | Self::Node => CredentialType::X509,
        }
    }

    /// The name used in entries.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AccessToken => "at+jwt",
            Self::JwtSvid => "jwt-svid",
            Self::X509Svid => "x509-svid",
            Self::CommonName => "common-name",
            Self::Node => "node",
        }
    }
}

/// How a revocation would arrive where the credential is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reach {
    /// Not at all: it lives until its own end.
    None,
    /// By the signed feed.
    Feed,
    /// The target asks.
    Introspection,
    /// By the certificate revocation list.
    Crl,
    /// An enforcer beside the target ends sessions.
    Enforcer,
    /// The injecting proxy stops.
    Proxy,
}

impl Reach {
    /// The name used in entries.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Feed => "feed",
            Self::Introspection => "introspection",
            Self::Crl => "crl",
            Self::Enforcer => "enforcer",
            Self::Proxy => "proxy",
        }
    }
}

/// What was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issued {
    /// Token or certificate.
    #[serde(rename = "type")]
    pub credential_type: CredentialType,
    /// Its profile.
    pub profile: Profile,
    /// The key that signs it.
    pub key: KeyId,
    /// The algorithm.
    pub alg: String,
    /// The subject it names.
    pub subject: SpiffeId,
    /// The true time of issue.
    pub iat_ms: UnixMs,
    /// Valid from (backdated by the allowed skew).
    pub nbf_ms: UnixMs,
    /// Valid until.
    pub exp_ms: UnixMs,
    /// Until when what it buys downstream can live; at least `exp_ms`.
    pub until_ms: UnixMs,
    /// `x5t:sha256:…`: the certificate that a token is bound to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bound: Option<String>,
    /// SHA-256 of the holder's public key (SPKI).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub holder_key: Option<Digest>,
    /// SHA-256 of the exact bytes that are signed.
    pub tbs: Digest,
    /// How a revocation would arrive.
    pub reach: Reach,
    /// The issuance that this one renews.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub supersedes: Option<Index>,
}

/// An emergency that a caller declared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EmergencyUse {
    /// Why.
    pub reason: String,
    /// The incident or ticket.
    pub reference: String,
    /// When it has to be reviewed.
    pub review_due_ms: UnixMs,
}

/// `credential.refused`: a caller that is known was denied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CredentialRefused {
    /// Who asked, if the proof led to an identity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<NameAt<IdentityName>>,
    /// The task as it was named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// The target, where the task led to one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<Name>,
    /// What the caller showed, without claims.
    pub proof: Proof,
    /// From where.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<Client>,
    /// What was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asked: Option<Asked>,
    /// The inner reason.
    pub reason: String,
    /// What failed, in words.
    pub clause: String,
    /// The Cedar rules that forbade it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub rules: BTreeSet<String>,
    /// Under what it was decided.
    pub decision: DecisionMade,
    /// The suspension that stopped it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suspension: Option<Index>,
    /// How many like it this entry stands for.
    pub count: u64,
    /// When the first of them came.
    pub first_ms: UnixMs,
}
