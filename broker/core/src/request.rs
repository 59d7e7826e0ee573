//! What a caller asks for, after the edge has read it and before anything is decided.

use std::collections::BTreeSet;

use daypass_evidence::entry::{Client, Index, Profile, Reach};
use daypass_verify::csr::CsrKey;
use daypass_verify::ids::{IdentityName, RequestId};
use daypass_verify::scope::{Action, Audience, Resource};
use daypass_verify::time::{Seconds, UnixMs};

/// A request for one credential. What is empty or absent is filled from the task.
#[derive(Debug)]
pub struct Request {
    /// The caller's id for it, or one that the broker drew.
    pub id: RequestId,
    /// Whether the caller chose that id: a repeat of it within ten minutes is refused.
    pub id_is_callers: bool,
    /// The task, as it was named.
    pub task: String,
    /// The identity, where the proof fits several.
    pub identity: Option<IdentityName>,
    /// Whom the credential is for.
    pub audiences: BTreeSet<Audience>,
    /// What it should allow.
    pub actions: BTreeSet<Action>,
    /// On what.
    pub resources: BTreeSet<Resource>,
    /// How long it should live at most.
    pub ttl_s: Option<Seconds>,
    /// Token or certificate.
    pub form: Form,
    /// The caller's name for this run, at most 128 bytes.
    pub run: Option<String>,
    /// The issuance that this one renews.
    pub supersedes: Option<Renewed>,
    /// Whether less than asked is a refusal.
    pub refuse_narrowed: bool,
    /// Where it came from.
    pub client: Option<Client>,
    /// The approval that it names.
    pub approval: Option<Index>,
    /// The emergency that it declares.
    pub emergency: Option<Emergency>,
    /// Whether it is for a workload that its caller speaks for.
    pub for_workload: bool,
}

/// An issuance that another renews.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Renewed {
    /// Where it is recorded.
    pub index: Index,
    /// When it ends.
    pub exp: UnixMs,
    /// How its end before its time would arrive.
    pub reach: Reach,
}

/// An emergency that a caller declares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Emergency {
    /// Why.
    pub reason: String,
    /// The incident or ticket.
    pub reference: String,
}

/// What kind of credential is asked for.
#[derive(Debug)]
pub enum Form {
    /// A JWT.
    Token {
        /// Which profile; absent: the task's.
        profile: Option<Profile>,
        /// Whether it is bound to the connection's certificate.
        bind: Bind,
    },
    /// An X.509 certificate.
    Certificate {
        /// Which profile; absent: the task's.
        profile: Option<Profile>,
        /// The holder's key.
        key: CsrKey,
    },
}

/// Whether a token is bound to the certificate of the caller's connection (RFC 8705, section 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bind {
    /// Bound whenever there is a certificate.
    Auto,
    /// Bound, or refused.
    Certificate,
    /// Not bound, where the task permits that.
    Bearer,
}
