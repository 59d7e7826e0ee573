//! What was permitted: everything that a draft needs, and nothing that could change.

use std::collections::BTreeMap;

use daypass_evidence::entry::{
    By, CredentialIssued, DecisionMade, Granted, Index, Issued, KeyChanged, NameAt, Profile, Proof, Reach,
    Via,
};
use daypass_verify::csr::CsrKey;
use daypass_verify::ids::{
    CredentialId, Digest, IdentityName, KeyId, Name, RequestId, SpiffeId, TrustDomain,
};
use daypass_verify::scope::Scope;
use daypass_verify::time::{Seconds, UnixMs};

use super::Bound;
use super::lifetime::Lifetime;
use super::resolve::{Caller, Destination};
use super::scope::Narrowed;
use crate::bundle::object::ClaimSource;
use crate::proof::{NodeProof, Principal, SpentMark};
use crate::request::{Form, Renewed, Request};

/// How far `nbf` and `notBefore` lie before the time of issue: clocks of receivers differ.
const SKEW: Seconds = Seconds::new(10);

/// A permitted request. Made by `decide` alone.
#[derive(Debug)]
pub struct Grant {
    pub(crate) id: CredentialId,
    pub(crate) request: RequestId,
    pub(crate) id_is_callers: bool,
    pub(crate) subject: SpiffeId,
    pub(crate) record: Unsigned,
    pub(crate) binding: Bound,
    pub(crate) csr_key: Option<CsrKey>,
    pub(crate) token_claims: BTreeMap<String, String>,
    pub(crate) dns_names: Vec<String>,
    pub(crate) common_name: Option<String>,
    pub(crate) spent: Option<SpentMark>,
    pub(crate) renewed_node: Option<RenewedNode>,
    /// The node that asked for its holder.
    pub(crate) node: Option<SpiffeId>,
    replaces: Option<Renewed>,
    narrowed: Vec<&'static str>,
}

/// The node certificate that is renewed: it can be, once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RenewedNode {
    /// Its digest.
    pub(crate) digest: Digest,
    /// Its end.
    pub(crate) expires: UnixMs,
}

fn renewed_node(principal: &Principal, profile: Profile) -> Option<RenewedNode> {
    let renews = profile == Profile::Node && matches!(principal.node(), Some(NodeProof::Certificate(_)));
    renews.then(|| RenewedNode { digest: principal.digest(), expires: principal.expires_at() })
}

/// The entry, but for what the draft adds: the digest of what will be signed.
pub(crate) type Unsigned = CredentialIssued;

impl Grant {
    /// The credential's id.
    #[must_use]
    pub fn id(&self) -> CredentialId {
        self.id
    }

    /// For whom.
    #[must_use]
    pub fn identity(&self) -> &NameAt<IdentityName> {
        &self.record.identity
    }

    /// For which task.
    #[must_use]
    pub fn task(&self) -> &NameAt<Name> {
        &self.record.task
    }

    /// Where it is used.
    #[must_use]
    pub fn target(&self) -> &NameAt<Name> {
        &self.record.target
    }

    /// The subject that it will name.
    #[must_use]
    pub fn subject(&self) -> &SpiffeId {
        &self.subject
    }

    /// What it allows.
    #[must_use]
    pub fn scope(&self) -> &Scope {
        &self.record.granted.scope
    }

    /// Its profile.
    #[must_use]
    pub fn profile(&self) -> Profile {
        self.record.credential.profile
    }

    /// When it is issued, in whole seconds.
    #[must_use]
    pub fn issued_at(&self) -> UnixMs {
        self.record.credential.iat_ms
    }

    /// From when it holds.
    #[must_use]
    pub fn not_before(&self) -> UnixMs {
        self.record.credential.nbf_ms
    }

    /// When it ends, in whole seconds.
    #[must_use]
    pub fn expires_at(&self) -> UnixMs {
        self.record.credential.exp_ms
    }

    /// How a revocation would arrive.
    #[must_use]
    pub fn reach(&self) -> Reach {
        self.record.credential.reach
    }

    /// The key that must sign it.
    #[must_use]
    pub fn key(&self) -> &KeyId {
        &self.record.credential.key
    }

    /// Where less was granted than asked: of `audiences`, `actions`, `resources`, `ttl`.
    #[must_use]
    pub fn narrowed(&self) -> &[&'static str] {
        &self.narrowed
    }

    /// The credential that ends with this one's record: the one that it renews, where the task says so.
    #[must_use]
    pub fn replaces(&self) -> Option<Renewed> {
        self.replaces
    }

    /// Whether it will be bound to a key of its holder.
    #[must_use]
    pub fn is_bound(&self) -> bool {
        self.binding != Bound::Nothing
    }

    /// The rules that permitted it, and under what.
    #[must_use]
    pub fn decision(&self) -> &DecisionMade {
        &self.record.decision
    }
}

/// What the steps of a decision found.
pub(super) struct Parts<'a> {
    pub(super) principal: &'a Principal,
    pub(super) request: &'a Request,
    pub(super) trust_domain: &'a TrustDomain,
    pub(super) caller: Caller<'a>,
    pub(super) destination: Destination<'a>,
    pub(super) profile: Profile,
    pub(super) key: &'a KeyChanged,
    pub(super) binding: Bound,
    pub(super) narrowed: Narrowed,
    pub(super) lifetime: Lifetime,
    pub(super) claims: BTreeMap<String, String>,
    pub(super) decision: DecisionMade,
}

impl Parts<'_> {
    pub(super) fn into_grant(self, id: CredentialId) -> Grant {
        let token_claims = self.token_claims();
        let subject = self.caller.party.named.name.spiffe_id(self.trust_domain);
        let credential = self.issued(&subject);
        let csr_key = match &self.request.form {
            Form::Certificate { key, .. } => Some(key.clone()),
            Form::Token { .. } => None,
        };
        let node = self.caller.node.as_ref().map(|node| &node.named);
        let via = self.principal.via().cloned();
        let via = via.map(|via| Via { at: node.map(|node| node.at), ..via });
        let node = node.map(|node| node.name.spiffe_id(self.trust_domain));
        let proof = Proof {
            claims: self.claims,
            via,
            ..proof_record(self.principal, self.caller.issuer_at, self.caller.clause_index)
        };
        let mut narrowed: Vec<_> = self.narrowed.dimensions.iter().map(|it| it.name()).collect();
        narrowed.extend(self.lifetime.is_shortened.then_some("ttl"));
        Grant {
            id,
            request: self.request.id,
            id_is_callers: self.request.id_is_callers,
            subject,
            binding: self.binding,
            csr_key,
            token_claims,
            dns_names: self.destination.task.dns_names.iter().cloned().collect(),
            common_name: self.destination.task.common_name.clone(),
            spent: self.principal.spent_mark(),
            renewed_node: renewed_node(self.principal, self.profile),
            node,
            replaces: self.request.supersedes.filter(|_| self.destination.task.revoke_on_renew),
            narrowed,
            record: Unsigned {
                identity: self.caller.party.named,
                task: self.destination.task_named,
                target: self.destination.target_named,
                proof,
                client: self.request.client.clone(),
                asked: self.destination.asked,
                granted: Granted { scope: self.narrowed.granted, ttl_s: self.lifetime.ttl_s },
                decision: self.decision,
                credential,
                approval: match self.principal.node() {
                    Some(NodeProof::Code(at)) => Some(at),
                    _ => None,
                },
                emergency: None,
            },
        }
    }

    fn issued(&self, subject: &SpiffeId) -> Issued {
        let Lifetime { issued_at, expires_at, .. } = self.lifetime;
        let downstream = self.destination.target.downstream_ttl_s.unwrap_or_default();
        Issued {
            credential_type: self.profile.credential_type(),
            profile: self.profile,
            key: self.key.key.clone(),
            alg: self.key.alg.clone(),
            subject: subject.clone(),
            iat_ms: issued_at,
            nbf_ms: issued_at.minus(SKEW),
            exp_ms: expires_at,
            until_ms: expires_at.plus(downstream),
            bound: match &self.binding {
                Bound::Certificate(binding) => Some(format!("x5t:{}", binding.certificate)),
                Bound::Key(_) | Bound::Nothing => None,
            },
            holder_key: match &self.binding {
                Bound::Certificate(binding) => Some(binding.key),
                Bound::Key(key) => Some(*key),
                Bound::Nothing => None,
            },
            // Filled by the draft, which alone knows the bytes.
            tbs: Digest::from_bytes([0; 32]),
            reach: self.destination.target.reach,
            supersedes: self.request.supersedes.map(|renewed| renewed.index),
        }
    }

    /// The claims that the task puts into its tokens. One that it copies is left out where the proof has none:
    /// an identity may prove itself in several ways.
    fn token_claims(&self) -> BTreeMap<String, String> {
        let value = |source: &ClaimSource| match source {
            ClaimSource::Constant(value) => Some(value.clone()),
            ClaimSource::Proof(name) => self.claims.get(name).cloned(),
        };
        let claims = &self.destination.task.claims;
        claims.iter().filter_map(|(name, source)| Some((name.clone(), value(source)?))).collect()
    }
}

/// What may be kept of a proof, without its claims.
pub(super) fn proof_record(principal: &Principal, issuer_at: Index, clause: u32) -> Proof {
    Proof {
        kind: principal.kind(),
        issuer: principal.issuer_id().to_owned(),
        at: issuer_at,
        clause,
        subject: principal.subject().to_owned(),
        instance: principal.instance().map(ToOwned::to_owned),
        digest: principal.digest(),
        issued_ms: principal.issued_at(),
        exp_ms: principal.expires_at(),
        usage: principal.usage(),
        actor: principal.actor(),
        claims: BTreeMap::new(),
        via: principal.via().cloned(),
    }
}

impl Grant {
    /// On whose authority the entry is written.
    pub(crate) fn by(&self) -> By {
        let proof = self.record.proof.digest;
        By { operator: None, identity: Some(self.record.identity.name.clone()), proof }
    }
}
