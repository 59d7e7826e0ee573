//! Principal to permit or deny. The declared ceilings narrow, the runtime state may stop, and the organisation's
//! rules permit or refuse what is left, as a whole. The same arguments always give the same answer.

mod binding;
#[cfg(test)]
mod delegated;
mod denial;
mod grant;
pub(crate) mod lifetime;
mod node;
#[cfg(test)]
mod oracle;
mod resolve;
mod scope;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use daypass_evidence::entry::{DecisionMade, KeyChanged, KeyUse, Profile};
use daypass_verify::ids::{CredentialId, TrustDomain};
use daypass_verify::time::UnixMs;

pub(crate) use binding::Bound;
use denial::Known;
pub use denial::{Denial, Outward, Why};
pub use grant::Grant;

use crate::bundle::Bundle;
use crate::bundle::object::ClaimSource;
use crate::policy::{Question, Verdict};
use crate::proof::Principal;
use crate::request::Request;
use crate::state::{Selected, State};
use lifetime::{Bounds, Lifetime};
use resolve::{Caller, Destination, Party};
use scope::Narrowed;

/// Decides `request` of `principal` under `state` at `now`. `id` is the id that the credential will have.
///
/// # Errors
/// When it is denied: with the reason, and what is known of the caller and of what it asked.
#[expect(
    clippy::result_large_err,
    reason = "a grant is larger still, so a smaller denial would save nothing"
)]
pub fn decide(
    principal: &Principal,
    request: &Request,
    state: &State,
    id: CredentialId,
    now: UnixMs,
) -> Result<Grant, Denial> {
    let mut known = Known::default();
    let decision = Decision { principal, request, state, now };
    decision.decide(id, &mut known).map_err(|why| known.because(why, &decision))
}

struct Decision<'a> {
    principal: &'a Principal,
    request: &'a Request,
    state: &'a State,
    now: UnixMs,
}

/// What decisions are made over, once a bundle is in force.
struct Ground<'a> {
    bundle: &'a Bundle,
    trust_domain: &'a TrustDomain,
}

impl Decision<'_> {
    fn decide(&self, id: CredentialId, known: &mut Known) -> Result<Grant, Why> {
        let ground = self.ground()?;
        let caller = self.caller(&ground)?;
        known.identity = Some(caller.party.named.clone());
        self.check_spoken_for()?;
        self.check_issuer(&ground)?;
        let destination = self.destination(&ground, &caller)?;
        known.target = Some(destination.target_named.name.clone());
        known.asked = Some(destination.asked.clone());
        let profile = self.profile(&destination)?;
        self.check_node(profile)?;
        let key = self.signing_key(profile, &destination.task.alg)?;
        self.check_suspension(&caller, &destination, key)?;
        self.check_standing(&caller)?;
        self.check_approval(&destination)?;
        let binding = self.binding(&destination, profile)?;
        let narrowed = scope::narrow(&destination, &caller, profile)?;
        let lifetime = self.lifetime(&ground, &caller, &destination, profile, key)?;
        let claims = self.recorded_claims(&ground, &caller, &destination);
        let rules =
            self.evaluate(&ground, &caller, &destination, profile, &narrowed, &lifetime, &binding, &claims)?;
        self.check_narrowed(&narrowed, &lifetime)?;
        let decision = DecisionMade { bundle: ground.bundle.digest(), state: self.state.at(), rules };
        let parts = grant::Parts {
            principal: self.principal,
            request: self.request,
            trust_domain: ground.trust_domain,
            caller,
            destination,
            profile,
            key,
            binding,
            narrowed,
            lifetime,
            claims,
            decision,
        };
        Ok(parts.into_grant(id))
    }

    fn ground(&self) -> Result<Ground<'_>, Why> {
        let halted = |clause| Why::new("NO_BUNDLE", Outward::Halted, clause);
        let bundle = self.state.bundle().ok_or_else(|| halted("no bundle is in force"))?;
        let trust_domain = self.state.trust_domain().ok_or_else(|| halted("no log is open"))?;
        Ok(Ground { bundle, trust_domain })
    }

    fn signing_key(&self, profile: Profile, alg: &str) -> Result<&KeyChanged, Why> {
        let usage = key_use(profile);
        self.state.signing_key_by(usage, alg, self.now).ok_or_else(|| {
            let clause = format!("no {} key is active for {alg}", usage.as_str());
            Why::new("NO_SIGNING_KEY", Outward::Halted, clause)
        })
    }

    fn check_suspension(
        &self,
        caller: &Caller<'_>,
        destination: &Destination<'_>,
        key: &KeyChanged,
    ) -> Result<(), Why> {
        let selected = |party: &Party<'_>| {
            let selected = Selected {
                identity: &party.named.name,
                instance: self.principal.instance(),
                task: &destination.task_named.name,
                target: &destination.target_named.name,
                supplier: party.supplier.map(|(name, _)| name),
                issuer: self.principal.issuer(),
                key: Some(&key.key),
            };
            self.state.suspension_of(&selected, self.now)
        };
        match caller.parties().find_map(selected) {
            None => Ok(()),
            Some(index) => Err(Why {
                suspension: Some(index),
                ..Why::new("SUSPENDED", Outward::Suspended, format!("suspended by entry {index}"))
            }),
        }
    }

    fn check_approval(&self, destination: &Destination<'_>) -> Result<(), Why> {
        if self.request.emergency.is_some() {
            let clause = "no emergency path is offered yet: ask without an emergency";
            return Err(Why::new("EMERGENCY_UNIMPLEMENTED", Outward::Unimplemented, clause));
        }
        match &destination.task.approval {
            None => Ok(()),
            Some(need) => {
                let clause = format!("task `{}` needs {} approvals", destination.task_named.name, need.n);
                Err(Why::new("APPROVAL_REQUIRED", Outward::ApprovalRequired, clause))
            }
        }
    }

    /// The claims that the entry records: those that the clause, the task or a rule looks at. The rules see
    /// these and no others.
    fn recorded_claims(
        &self,
        ground: &Ground<'_>,
        caller: &Caller<'_>,
        destination: &Destination<'_>,
    ) -> BTreeMap<String, String> {
        let of_clause = caller.clause.claims.keys().map(String::as_str);
        let copied = destination.task.claims.values().filter_map(|source| match source {
            ClaimSource::Proof(name) => Some(name.as_str()),
            ClaimSource::Constant(_) => None,
        });
        let of_rules = ground.bundle.rules().claims().iter().map(String::as_str);
        let wanted = of_clause.chain(copied).chain(of_rules);
        let found = wanted.filter_map(|name| self.principal.claims().get_key_value(name));
        // An entry holds no empty string: an empty claim counts as absent.
        found.filter(|(_, value)| !value.is_empty()).map(|(name, it)| (name.clone(), it.clone())).collect()
    }

    fn lifetime(
        &self,
        ground: &Ground<'_>,
        caller: &Caller<'_>,
        destination: &Destination<'_>,
        profile: Profile,
        key: &KeyChanged,
    ) -> Result<Lifetime, Why> {
        let mut bounds = Bounds::new(self.now, self.request.ttl_s.unwrap_or(destination.task.ttl_s))?;
        bounds.of_task(destination, profile);
        for party in caller.parties() {
            bounds.of_party(party);
            bounds.of_review(party, &ground.bundle.declared().settings)?;
        }
        // The certificate that a node shows to renew it ends before the one that it asks for.
        if profile != Profile::Node {
            bounds.of_proof(self.principal);
        }
        bounds.of_key(key);
        bounds.earliest()
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "each is a step of the decision, and a rule may look at any"
    )]
    fn evaluate(
        &self,
        ground: &Ground<'_>,
        caller: &Caller<'_>,
        destination: &Destination<'_>,
        profile: Profile,
        narrowed: &Narrowed,
        lifetime: &Lifetime,
        bound: &Bound,
        claims: &BTreeMap<String, String>,
    ) -> Result<std::collections::BTreeSet<String>, Why> {
        let verdict = ground.bundle.rules().evaluate(&Question {
            identity_name: &caller.party.named.name,
            task_name: &destination.task_named.name,
            target_name: &destination.target_named.name,
            issuer_name: self.principal.issuer(),
            proof_kind: self.principal.kind(),
            actor: self.principal.actor(),
            claims,
            granted: &narrowed.granted,
            ttl_s: lifetime.ttl_s,
            profile,
            bound: *bound != Bound::Nothing,
            emergency: false,
            approved: false,
        });
        match verdict {
            Verdict::Permit { rules } => Ok(rules),
            Verdict::Forbid { rules } if rules.is_empty() => {
                Err(Why::new("NOT_PERMITTED", Outward::NotAllowed, "no rule permits it"))
            }
            Verdict::Forbid { rules } => {
                Err(Why { rules, ..Why::new("FORBIDDEN", Outward::NotAllowed, "a rule forbids it") })
            }
            Verdict::Error { detail } => Err(Why::new("POLICY_ERROR", Outward::NotAllowed, detail)),
        }
    }

    fn check_narrowed(&self, narrowed: &Narrowed, lifetime: &Lifetime) -> Result<(), Why> {
        if !self.request.refuse_narrowed {
            return Ok(());
        }
        let first = narrowed.dimensions.first().map(|it| (it.name(), it.outward()));
        // A lifetime that the caller left open is not one it asked for: any is as good as the task's default.
        let is_shorter = lifetime.is_shortened && self.request.ttl_s.is_some();
        match first.or(is_shorter.then_some(("ttl", Outward::NotAllowed))) {
            None => Ok(()),
            Some((what, outward)) => {
                let clause =
                    format!("less is allowed than asked ({what}), and the request wants all or nothing");
                Err(Why::new("NARROWED", outward, clause))
            }
        }
    }
}

/// Which use of key signs a profile.
const fn key_use(profile: Profile) -> KeyUse {
    match profile {
        Profile::AccessToken => KeyUse::Token,
        Profile::JwtSvid => KeyUse::Svid,
        Profile::X509Svid | Profile::CommonName | Profile::Node => KeyUse::Ca,
    }
}
