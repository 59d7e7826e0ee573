//! Names to what they name: which identity asks, for which task, where, in which profile.

use std::collections::BTreeSet;

use daypass_evidence::entry::{Asked, CredentialType, NameAt, ObjectType, Profile};
use daypass_verify::ids::{IdentityName, Name};
use daypass_verify::scope::{Audience, Scope};

use super::{Decision, Ground, Outward, Why};
use crate::bundle::object::{Class, Declared, Identity, IssuerKind, ProofClause, Supplier, Target, Task};
use crate::request::Form;
use crate::state::Declaration;

/// An identity, with all that bounds it.
pub(super) struct Party<'a> {
    pub(super) named: NameAt<IdentityName>,
    pub(super) identity: &'a Identity,
    pub(super) declaration: &'a Declaration,
    pub(super) supplier: Option<(&'a Name, &'a Supplier)>,
}

/// The identity that asks.
pub(super) struct Caller<'a> {
    pub(super) party: Party<'a>,
    pub(super) clause_index: u32,
    pub(super) clause: &'a ProofClause,
    pub(super) issuer_at: u64,
    /// The node that speaks for it, where it does not speak for itself.
    pub(super) node: Option<Party<'a>>,
}

impl<'a> Caller<'a> {
    /// All whose bounds it is within: its own, and those of the node that speaks for it.
    pub(super) fn parties(&self) -> impl Iterator<Item = &Party<'a>> {
        std::iter::once(&self.party).chain(&self.node)
    }
}

/// What it asks for, and where that is used.
pub(super) struct Destination<'a> {
    pub(super) task_named: NameAt<Name>,
    pub(super) task: &'a Task,
    pub(super) target_named: NameAt<Name>,
    pub(super) target: &'a Target,
    pub(super) asked: Asked,
}

/// How many bytes of audiences, actions and resources one request may name: an entry holds them twice, beside
/// the rest, in 16 KiB.
const SCOPE_BYTES_MAX: usize = 4096;

fn not_allowed(inner: &'static str, clause: impl Into<String>) -> Why {
    Why::new(inner, Outward::NotAllowed, clause)
}

impl Decision<'_> {
    /// The one identity that the proof fits, under the bundle in force now: the proof may have been checked
    /// under the one before.
    pub(super) fn caller<'g>(&'g self, ground: &Ground<'g>) -> Result<Caller<'g>, Why> {
        let declared = ground.bundle.declared();
        let name = self.identity_name()?;
        let refuse = || not_allowed("NO_IDENTITY", "the proof fits no identity that is declared");
        let party = self.party(declared, name)?;
        let proofs = &party.identity.proofs;
        let clause_index = self.principal.facts().clause_of(proofs).ok_or_else(refuse)?;
        let clause = usize::try_from(clause_index).ok().and_then(|at| proofs.get(at)).ok_or_else(refuse)?;
        let issuer = self.principal.issuer();
        let issuer_at = self.state.declared_at(ObjectType::Issuer, issuer.as_str());
        let issuer_at = issuer_at.ok_or_else(|| unrecorded(issuer))?;
        let node = self.principal.via().map(|via| self.node(declared, &via.node)).transpose()?;
        Ok(Caller { party, clause_index, clause, issuer_at, node })
    }

    fn party<'g>(&'g self, declared: &'g Declared, name: &IdentityName) -> Result<Party<'g>, Why> {
        let refuse = || not_allowed("NO_IDENTITY", "the proof fits no identity that is declared");
        let (name, identity) = declared.identities.get_key_value(name).ok_or_else(refuse)?;
        let declaration =
            self.state.declaration(ObjectType::Identity, name.as_str()).ok_or_else(|| unrecorded(name))?;
        let named = NameAt { name: name.clone(), at: declaration.at };
        Ok(Party { named, identity, declaration, supplier: supplier(declared, identity)? })
    }

    fn node<'g>(&'g self, declared: &'g Declared, name: &IdentityName) -> Result<Party<'g>, Why> {
        let node = self.party(declared, name)?;
        if node.identity.class == Class::Node {
            return Ok(node);
        }
        Err(not_allowed("NO_NODE", format!("`{name}` is no longer declared as a node")))
    }

    fn identity_name(&self) -> Result<&IdentityName, Why> {
        let matches = self.principal.identities();
        match (&self.request.identity, matches) {
            (Some(wanted), _) => {
                matches.iter().map(|(name, _)| name).find(|name| *name == wanted).ok_or_else(|| {
                    not_allowed("OTHER_IDENTITY", "the proof does not fit the identity it names")
                })
            }
            (None, []) => Err(not_allowed("NO_IDENTITY", "the proof fits no identity that is declared")),
            (None, [(only, _)]) => Ok(only),
            (None, _) => Err(Why::malformed("identity", "the proof fits several identities: name one")),
        }
    }

    /// Whether the issuer of the proof and the identity are switched on, and the issuer is still the same.
    pub(super) fn check_issuer(&self, ground: &Ground<'_>) -> Result<(), Why> {
        let issuer = ground.bundle.declared().issuers.get(self.principal.issuer());
        let same = issuer.is_some_and(|issuer| match &issuer.kind {
            IssuerKind::Oidc { url, .. } => url == self.principal.issuer_id(),
            IssuerKind::ClientCa { .. } | IssuerKind::Nodes => true,
        });
        if !same {
            return Err(not_allowed("ISSUER_CHANGED", "the issuer of the proof is no longer declared so"));
        }
        if self.principal.issuer_is_disabled() || issuer.is_some_and(|issuer| issuer.disabled) {
            let clause = format!("issuer `{}` is disabled", self.principal.issuer());
            return Err(not_allowed("ISSUER_DISABLED", clause));
        }
        Ok(())
    }

    /// Whether the identity may ask at all now: switched on, and its own time and its supplier's not over.
    pub(super) fn check_standing(&self, caller: &Caller<'_>) -> Result<(), Why> {
        caller.parties().try_for_each(|party| self.check_party(party))
    }

    fn check_party(&self, party: &Party<'_>) -> Result<(), Why> {
        let name = &party.named.name;
        if party.identity.disabled {
            return Err(not_allowed("IDENTITY_DISABLED", format!("identity `{name}` is disabled")));
        }
        if self.now >= party.identity.expires_ms {
            let clause = format!("identity `{name}` ended at {}", party.identity.expires_ms);
            return Err(Why::new("IDENTITY_EXPIRED", Outward::IdentityExpired, clause));
        }
        match party.supplier {
            Some((name, supplier)) if self.now >= supplier.ends_ms => {
                let clause = format!("the contract of supplier `{name}` ended at {}", supplier.ends_ms);
                Err(Why::new("CONTRACT_ENDED", Outward::ContractEnded, clause))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn destination<'g>(
        &'g self,
        ground: &Ground<'g>,
        caller: &Caller<'_>,
    ) -> Result<Destination<'g>, Why> {
        let declared = ground.bundle.declared();
        let refuse = |party: &Party<'_>| {
            let clause = format!("identity `{}` has no task `{}`", party.named.name, self.request.task);
            Why::new("TASK_NOT_ALLOWED", Outward::TaskNotAllowed, clause)
        };
        let has = |party: &Party<'_>| party.identity.tasks.contains(self.request.task.as_str());
        if let Some(without) = caller.parties().find(|party| !has(party)) {
            return Err(refuse(without));
        }
        let found = declared.tasks.get_key_value(self.request.task.as_str());
        let (name, task) = found.ok_or_else(|| refuse(&caller.party))?;
        let (target_name, target) = self.target(declared, task)?;
        let at = |object, name: &Name| {
            self.state.declared_at(object, name.as_str()).ok_or_else(|| unrecorded(name))
        };
        let asked = self.asked(task, target);
        check_size(&asked.scope)?;
        Ok(Destination {
            task_named: NameAt { name: name.clone(), at: at(ObjectType::Task, name)? },
            target_named: NameAt { name: target_name.clone(), at: at(ObjectType::Target, target_name)? },
            asked,
            task,
            target,
        })
    }

    /// The one target of the request: the one that its audiences name, or the task's only one.
    fn target<'g>(&self, declared: &'g Declared, task: &'g Task) -> Result<(&'g Name, &'g Target), Why> {
        let asked = &self.request.audiences;
        let of_task = task.targets.iter().filter_map(|name| Some((name, declared.targets.get(name)?)));
        let reached: Vec<_> =
            of_task.filter(|(_, target)| asked.is_empty() || !target.audiences.is_disjoint(asked)).collect();
        match reached.as_slice() {
            [only] => Ok(*only),
            [] => {
                let clause = "none of the audiences belongs to a target of the task";
                Err(Why::new("AUDIENCE_NOT_ALLOWED", Outward::AudienceNotAllowed, clause))
            }
            _ if asked.is_empty() => {
                Err(Why::malformed("audiences", "the task has several targets: name audiences of one"))
            }
            _ => Err(Why::malformed("audiences", "the audiences belong to several targets: ask for one")),
        }
    }

    /// What is asked for, with what was left open filled from the task.
    fn asked(&self, task: &Task, target: &Target) -> Asked {
        let request = self.request;
        let or = |asked: &BTreeSet<Audience>, default: BTreeSet<Audience>| {
            if asked.is_empty() { default } else { asked.clone() }
        };
        let of_target = task.scope.audiences.intersection(&target.audiences).cloned().collect();
        let scope = Scope {
            audiences: or(&request.audiences, of_target),
            actions: if request.actions.is_empty() { &task.scope.actions } else { &request.actions }.clone(),
            resources: if request.resources.is_empty() { &task.scope.resources } else { &request.resources }
                .clone(),
        };
        let ttl_s = Some(request.ttl_s.unwrap_or(task.ttl_s));
        Asked { scope, ttl_s, run: request.run.clone().filter(|run| !run.is_empty()) }
    }

    /// The profile that is asked for, or the one that the task uses for this form.
    pub(super) fn profile(&self, destination: &Destination<'_>) -> Result<Profile, Why> {
        let (named, form) = match &self.request.form {
            Form::Token { profile, .. } => (*profile, CredentialType::Jwt),
            Form::Certificate { profile, .. } => (*profile, CredentialType::X509),
        };
        let task = destination.task;
        let mut of_form = task.kinds.iter().copied().filter(|kind| kind.credential_type() == form);
        let default = Some(task.profile).filter(|it| it.credential_type() == form).or_else(|| of_form.next());
        named.or(default).filter(|it| task.kinds.contains(it) && it.credential_type() == form).ok_or_else(
            || {
                let clause = format!("task `{}` has no such credential", destination.task_named.name);
                Why::new("PROFILE_NOT_ALLOWED", Outward::TaskNotAllowed, clause)
            },
        )
    }
}

fn check_size(asked: &Scope) -> Result<(), Why> {
    let audiences = asked.audiences.iter().map(|it| it.as_str().len());
    let actions = asked.actions.iter().map(|it| it.as_str().len());
    let resources = asked.resources.iter().map(|it| it.as_str().len());
    if audiences.chain(actions).chain(resources).map(|len| len + 3).sum::<usize>() <= SCOPE_BYTES_MAX {
        return Ok(());
    }
    let clause = format!("the scope is over {SCOPE_BYTES_MAX} bytes: ask for less at once, or by prefix");
    Err(Why::malformed("resources", clause))
}

fn supplier<'a>(
    declared: &'a Declared,
    identity: &'a Identity,
) -> Result<Option<(&'a Name, &'a Supplier)>, Why> {
    let Some(name) = &identity.supplier else { return Ok(None) };
    match declared.suppliers.get_key_value(name) {
        Some(found) => Ok(Some(found)),
        None => Err(not_allowed("NO_SUPPLIER", format!("supplier `{name}` is not declared"))),
    }
}

// A decision refers to the entries that declared what it rests on: without them it could not be recorded.
fn unrecorded(name: impl std::fmt::Display) -> Why {
    Why::new(
        "UNRECORDED",
        Outward::Internal,
        format!("`{name}` is in force and no entry of the log declares it"),
    )
}
