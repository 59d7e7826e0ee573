//! The rules that can concern a principal: evaluation costs the same for each rule, whether its scope fits or not.

use std::collections::HashMap;

use cedar_policy::{EntityUid, Policy, PolicySet, PrincipalConstraint};

/// Which rules can concern whom.
#[derive(Debug, Clone)]
pub(super) struct Slices {
    /// Those that name no one principal.
    general: PolicySet,
    /// Those and the ones that name this principal.
    named: HashMap<EntityUid, PolicySet>,
}

impl Slices {
    /// Sorts the rules. Only one whose scope says `principal == X` is left out for others: it could neither apply to
    /// them nor fail, as the scope is looked at first.
    pub(super) fn of(policies: &PolicySet) -> Result<Self, String> {
        let (own, general): (Vec<&Policy>, Vec<&Policy>) =
            policies.policies().partition(|it| named_by(it).is_some());
        let set = |rules: Vec<&Policy>| {
            PolicySet::from_policies(rules.into_iter().cloned()).map_err(|error| error.to_string())
        };
        let mut by_name: HashMap<EntityUid, Vec<&Policy>> = HashMap::new();
        for rule in own {
            if let Some(name) = named_by(rule) {
                by_name.entry(name).or_insert_with(|| general.clone()).push(rule);
            }
        }
        let named = by_name
            .into_iter()
            .map(|(name, rules)| Ok((name, set(rules)?)))
            .collect::<Result<_, String>>()?;
        Ok(Self { general: set(general)?, named })
    }

    /// The rules that can concern `principal`.
    pub(super) fn concerning(&self, principal: Option<&EntityUid>) -> &PolicySet {
        principal.and_then(|name| self.named.get(name)).unwrap_or(&self.general)
    }
}

fn named_by(rule: &Policy) -> Option<EntityUid> {
    match rule.principal_constraint() {
        PrincipalConstraint::Eq(name) => Some(name),
        _ => None,
    }
}
