//! A request that is denied: what the caller is told, and what the entry says.

use std::collections::BTreeSet;

use daypass_evidence::entry::{
    Asked, Client, CredentialRefused, DecisionMade, Index, NameAt, ObjectType, Proof,
};
use daypass_verify::ids::{Digest, IdentityName, Name};
use daypass_verify::time::UnixMs;

use super::Decision;
use super::grant::proof_record;
use crate::proof::Principal;
use crate::state::State;

/// Declares [`Outward`] with the names of the API.
macro_rules! outward {
    ($($(#[$doc:meta])* $name:ident = $text:literal),+ $(,)?) => {
        /// What a caller is told: a closed list, part of the API.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Outward {
            $($(#[$doc])* $name,)+
        }

        impl Outward {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The name in answers.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }
        }
    };
}

outward! {
    /// The proof is no good.
    ProofRefused = "PROOF_REFUSED",
    /// The proof has bought its credential already.
    ProofReplayed = "PROOF_REPLAYED",
    /// Denied.
    NotAllowed = "NOT_ALLOWED",
    /// The identity may not do the task.
    TaskNotAllowed = "TASK_NOT_ALLOWED",
    /// No audience that was asked for is within the ceiling.
    AudienceNotAllowed = "AUDIENCE_NOT_ALLOWED",
    /// No action that was asked for is within the ceiling.
    ActionNotAllowed = "ACTION_NOT_ALLOWED",
    /// No resource that was asked for is within the ceiling.
    ResourceNotAllowed = "RESOURCE_NOT_ALLOWED",
    /// Something that the request touches is suspended.
    Suspended = "SUSPENDED",
    /// Nobody decides what they proposed.
    SelfApproval = "SELF_APPROVAL",
    /// People must approve first.
    ApprovalRequired = "APPROVAL_REQUIRED",
    /// The identity's review is overdue.
    ReviewOverdue = "REVIEW_OVERDUE",
    /// The identity has ended.
    IdentityExpired = "IDENTITY_EXPIRED",
    /// The supplier's contract has ended.
    ContractEnded = "CONTRACT_ENDED",
    /// The request is not well formed.
    Malformed = "MALFORMED",
    /// The key is not accepted.
    KeyRefused = "KEY_REFUSED",
    /// The certificate request is not accepted.
    CsrRefused = "CSR_REFUSED",
    /// The request id was used before.
    AlreadyIssued = "ALREADY_ISSUED",
    /// Too many requests.
    RateLimited = "RATE_LIMITED",
    /// The log cannot be written.
    EvidenceUnavailable = "EVIDENCE_UNAVAILABLE",
    /// The keys of the proof's issuer are not to be had.
    IssuerUnavailable = "ISSUER_UNAVAILABLE",
    /// The clock cannot be trusted.
    Clock = "CLOCK",
    /// The log was put back.
    Rollback = "ROLLBACK",
    /// The broker issues nothing.
    Halted = "HALTED",
    /// There is no such thing.
    NotFound = "NOT_FOUND",
    /// Not offered.
    Unimplemented = "UNIMPLEMENTED",
    /// A fault of the broker.
    Internal = "INTERNAL",
}

/// Why a request is denied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Why {
    /// The inner reason: may grow, never told to strangers.
    pub inner: &'static str,
    /// What the caller is told.
    pub outward: Outward,
    /// What failed, in words.
    pub clause: String,
    /// Malformed: the field of the request.
    pub field: Option<&'static str>,
    /// The rules that forbade it.
    pub rules: BTreeSet<String>,
    /// The suspension that stopped it.
    pub suspension: Option<Index>,
}

impl Why {
    /// A denial for the inner reason `inner`.
    pub fn new(inner: &'static str, outward: Outward, clause: impl Into<String>) -> Self {
        let clause = clause.into();
        Self { inner, outward, clause, field: None, rules: BTreeSet::new(), suspension: None }
    }

    pub(crate) fn malformed(field: &'static str, clause: impl Into<String>) -> Self {
        Self { field: Some(field), ..Self::new("MALFORMED", Outward::Malformed, clause) }
    }
}

/// A denied request: why, and what was known of it by then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// The inner reason.
    pub inner: &'static str,
    /// What the caller is told.
    pub outward: Outward,
    /// What failed, in words.
    pub clause: String,
    /// Malformed: the field of the request.
    pub field: Option<&'static str>,
    /// The rules that forbade it.
    pub rules: BTreeSet<String>,
    /// The suspension that stopped it.
    pub suspension: Option<Index>,
    /// Who asked, where the proof led to one identity.
    pub identity: Option<NameAt<IdentityName>>,
    /// The task, as it was named.
    pub task: String,
    /// The target, where the task led to one.
    pub target: Option<Name>,
    /// What was asked, with what the task fills in.
    pub asked: Option<Asked>,
    /// What the caller showed, without claims.
    pub proof: Proof,
    /// Where it came from.
    pub client: Option<Client>,
    /// Under what it was decided; the bundle is absent where none was in force.
    pub decision: Option<DecisionMade>,
    /// When it was decided.
    pub at: UnixMs,
}

impl Denial {
    /// An act of governance that is refused: it names no task, and `clause` says what was ordered and what failed.
    #[must_use]
    pub fn of_order(
        why: Why,
        principal: &Principal,
        client: Option<Client>,
        state: &State,
        now: UnixMs,
    ) -> Self {
        let issuer_at = state.declared_at(ObjectType::Issuer, principal.issuer().as_str());
        let clause = principal.operators().first().map_or(0, |(_, clause)| *clause);
        Self {
            inner: why.inner,
            outward: why.outward,
            clause: why.clause,
            field: why.field,
            rules: why.rules,
            suspension: why.suspension,
            identity: None,
            task: String::new(),
            target: None,
            asked: None,
            proof: proof_record(principal, issuer_at.unwrap_or_default(), clause),
            client,
            decision: state.bundle().map(|bundle| made_under(bundle.digest(), state)),
            at: now,
        }
    }

    /// The entry for `count` denials like this one, the first of them at `first_ms`. None where no bundle was in
    /// force: there was nothing to decide under.
    #[must_use]
    pub fn to_entry(&self, count: u64, first_ms: UnixMs) -> Option<CredentialRefused> {
        let decision = self.decision.clone()?;
        Some(CredentialRefused {
            identity: self.identity.clone(),
            task: (!self.task.is_empty()).then(|| cut(&self.task)),
            target: self.target.clone(),
            proof: self.proof.clone(),
            client: self.client.clone(),
            asked: self.asked.clone(),
            reason: self.inner.to_owned(),
            clause: cut(&self.clause),
            rules: self.rules.clone(),
            decision,
            suspension: self.suspension,
            count,
            first_ms,
        })
    }
}

// Entries are at most 16 KiB, and a caller chooses this text.
fn cut(text: &str) -> String {
    const CHARS_MAX: usize = 256;
    text.chars().take(CHARS_MAX).collect()
}

/// What is known of a request so far.
#[derive(Default)]
pub(super) struct Known {
    pub(super) identity: Option<NameAt<IdentityName>>,
    pub(super) target: Option<Name>,
    pub(super) asked: Option<Asked>,
}

impl Known {
    pub(super) fn because(self, why: Why, over: &Decision<'_>) -> Denial {
        let (principal, state) = (over.principal, over.state);
        let issuer_at = state.declared_at(ObjectType::Issuer, principal.issuer().as_str());
        let clause = principal.identities().first().map_or(0, |(_, clause)| *clause);
        Denial {
            inner: why.inner,
            outward: why.outward,
            clause: why.clause,
            field: why.field,
            rules: why.rules,
            suspension: why.suspension,
            identity: self.identity,
            task: over.request.task.clone(),
            target: self.target,
            asked: self.asked,
            proof: proof_record(principal, issuer_at.unwrap_or_default(), clause),
            client: over.request.client.clone(),
            decision: state.bundle().map(|bundle| made_under(bundle.digest(), state)),
            at: over.now,
        }
    }
}

fn made_under(bundle: Digest, state: &State) -> DecisionMade {
    DecisionMade { bundle, state: state.at(), rules: BTreeSet::new() }
}
