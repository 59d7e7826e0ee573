//! The organisation's rules (Cedar). They permit or refuse a request that the declared ceilings have already
//! narrowed, as a whole, over what an entry records and nothing else.
//!
//! Rules come from the bundle's files only; no text of a caller ever becomes part of one. What is declared is
//! turned into Cedar's entities once a bundle, so that a request builds its context and nothing more.

mod entities;
mod memo;
mod slices;
mod source;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use cedar_policy::{
    Authorizer, Context, Decision, Entities, EntityUid, PolicySet, Request, Response, RestrictedExpression,
};
use daypass_evidence::entry::{Actor, Profile, ProofKind};
use daypass_verify::ids::{IdentityName, Name};
use daypass_verify::scope::Scope;
use daypass_verify::time::Seconds;

use crate::bundle::Finding;
use crate::bundle::object::Declared;
use entities::Types;
use memo::Memo;
use slices::Slices;

/// The schema that every rule is validated against: what a rule may look at.
pub const SCHEMA: &str = include_str!("../../../policies/schema.cedarschema");

/// Compiled rules, and what they are evaluated over.
#[derive(Debug, Clone)]
pub struct Rules {
    policies: PolicySet,
    slices: Slices,
    entities: Entities,
    types: Types,
    claims: BTreeSet<String>,
    memo: Memo,
}

/// A narrowed request, as the rules see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Question<'a> {
    /// Who asks.
    pub identity_name: &'a IdentityName,
    /// To do what.
    pub task_name: &'a Name,
    /// Where.
    pub target_name: &'a Name,
    /// Who vouches for the caller.
    pub issuer_name: &'a Name,
    /// How the caller proved itself.
    pub proof_kind: ProofKind,
    /// Who is behind the proof.
    pub actor: Actor,
    /// The claims of the proof that the entry will record: those that the clause, the task or a rule names
    /// ([`Rules::claims`]).
    pub claims: &'a BTreeMap<String, String>,
    /// What would be granted.
    pub granted: &'a Scope,
    /// For how long.
    pub ttl_s: Seconds,
    /// In which profile.
    pub profile: Profile,
    /// Whether bound to a key of the holder.
    pub bound: bool,
    /// Whether the emergency path is asked for.
    pub emergency: bool,
    /// Whether approved by whom the task asks for.
    pub approved: bool,
}

/// What the rules say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Permitted, by these rules.
    Permit {
        /// The permitting rules, by `@id`.
        rules: BTreeSet<String>,
    },
    /// Refused, by these rules; by none of them when nothing permitted it.
    Forbid {
        /// The forbidding rules, by `@id`.
        rules: BTreeSet<String>,
    },
    /// A rule could not be evaluated: a denial, whatever the others say.
    Error {
        /// What went wrong, for the evidence.
        detail: String,
    },
}

impl Rules {
    /// Compiles the rules of `files`, each a path and its text, over what is declared.
    ///
    /// # Errors
    /// Every rule that does not parse, that does not validate against [`SCHEMA`], or whose `@id` is missing or
    /// taken.
    pub fn compile(files: &[(String, String)], declared: &Declared) -> Result<Self, Vec<Finding>> {
        let policies = source::policies(files)?;
        let types = Types::new().map_err(|detail| vec![unusable(detail)])?;
        let entities = entities::of(declared, &types).map_err(|detail| vec![unusable(detail)])?;
        let claims = source::claims(&policies);
        let slices = Slices::of(&policies).map_err(|detail| vec![unusable(detail)])?;
        Ok(Self { policies, slices, entities, types, claims, memo: Memo::default() })
    }

    /// How many rules there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.policies.num_of_policies()
    }

    /// The names of the claims that some rule looks at: the entry must record these.
    #[must_use]
    pub fn claims(&self) -> &BTreeSet<String> {
        &self.claims
    }

    /// Evaluates every rule that can concern `question`. A name that is not declared is an error, and so a denial.
    #[must_use]
    pub fn evaluate(&self, question: &Question<'_>) -> Verdict {
        self.memo.recall(question, || self.work_out(question))
    }

    fn work_out(&self, question: &Question<'_>) -> Verdict {
        match self.request(question) {
            Ok(request) => {
                let rules = self.slices.concerning(request.principal());
                verdict(&Authorizer::new().is_authorized(&request, rules, &self.entities))
            }
            Err(detail) => Verdict::Error { detail },
        }
    }

    fn request(&self, question: &Question<'_>) -> Result<Request, String> {
        let types = &self.types;
        let principal = self.declared(types.identity(question.identity_name))?;
        let task = self.declared(types.task(question.task_name))?;
        let target = self.declared(types.target(question.target_name))?;
        let issuer = self.declared(types.issuer(question.issuer_name))?;
        let context = Context::from_pairs(context(question, target, issuer)).map_err(|e| e.to_string())?;
        Request::new(principal, types.issue.clone(), task, context, None).map_err(|e| e.to_string())
    }

    fn declared(&self, uid: EntityUid) -> Result<EntityUid, String> {
        let known = self.entities.get(&uid).is_some();
        if known { Ok(uid) } else { Err(format!("{uid} is not declared in this bundle")) }
    }
}

fn context(
    question: &Question<'_>,
    target: EntityUid,
    issuer: EntityUid,
) -> [(String, RestrictedExpression); 13] {
    use RestrictedExpression as E;
    let text = |text: &str| E::new_string(text.into());
    let granted = question.granted;
    let claim = |(name, value): (&String, &String)| {
        E::new_record([("name".into(), text(name)), ("value".into(), text(value))]).ok()
    };
    [
        ("target".into(), E::new_entity_uid(target)),
        ("issuer".into(), E::new_entity_uid(issuer)),
        ("proof_kind".into(), text(proof_kind(question.proof_kind))),
        ("actor".into(), text(actor(question.actor))),
        ("claims".into(), E::new_set(question.claims.iter().filter_map(claim))),
        ("audiences".into(), E::new_set(granted.audiences.iter().map(|it| text(it.as_str())))),
        ("actions".into(), E::new_set(granted.actions.iter().map(|it| text(it.as_str())))),
        ("resources".into(), E::new_set(granted.resources.iter().map(|it| text(it.as_str())))),
        ("ttl_s".into(), E::new_long(question.ttl_s.get().into())),
        ("profile".into(), text(question.profile.as_str())),
        ("bound".into(), E::new_bool(question.bound)),
        ("emergency".into(), E::new_bool(question.emergency)),
        ("approved".into(), E::new_bool(question.approved)),
    ]
}

const fn proof_kind(kind: ProofKind) -> &'static str {
    match kind {
        ProofKind::IdToken => "id_token",
        ProofKind::Certificate => "certificate",
        ProofKind::Delegated => "delegated",
        ProofKind::Enrolment => "enrolment",
    }
}

const fn actor(actor: Actor) -> &'static str {
    match actor {
        Actor::Workload => "workload",
        Actor::Person => "person",
    }
}

/// Any error is a denial: a forbid that could not be evaluated might have applied.
fn verdict(response: &Response) -> Verdict {
    if let Some(error) = response.diagnostics().errors().next() {
        return Verdict::Error { detail: error.to_string() };
    }
    let rules = response.diagnostics().reason().map(ToString::to_string).collect();
    match response.decision() {
        Decision::Allow => Verdict::Permit { rules },
        Decision::Deny => Verdict::Forbid { rules },
    }
}

fn unusable(detail: String) -> Finding {
    Finding {
        code: "rule-engine",
        path: "schema.cedarschema".into(),
        line: 0,
        message: detail,
        refuses: true,
    }
}
