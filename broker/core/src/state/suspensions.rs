//! What gets no more credentials.

use std::collections::BTreeMap;

use daypass_evidence::entry::{Index, Selector, SuspensionSet};
use daypass_verify::ids::{IdentityName, KeyId, Name};
use daypass_verify::time::UnixMs;

/// Everything that one issuance touches, any of which may be suspended.
#[derive(Debug, Clone, Copy)]
pub struct Selected<'a> {
    /// The identity.
    pub identity: &'a IdentityName,
    /// Its instance, where the proof names one.
    pub instance: Option<&'a str>,
    /// The task.
    pub task: &'a Name,
    /// The target.
    pub target: &'a Name,
    /// The supplier whose contract bounds the identity.
    pub supplier: Option<&'a Name>,
    /// The issuer of the proof.
    pub issuer: &'a Name,
    /// The key that would sign.
    pub key: Option<&'a KeyId>,
}

#[derive(Clone, Default)]
pub(super) struct Suspensions {
    by_index: BTreeMap<Index, SuspensionSet>,
}

impl Suspensions {
    pub(super) fn set(&mut self, index: Index, set: &SuspensionSet) {
        self.by_index.insert(index, set.clone());
    }

    pub(super) fn lift(&mut self, index: Index) {
        self.by_index.remove(&index);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Index, &SuspensionSet)> {
        self.by_index.iter().map(|(index, set)| (*index, set))
    }

    pub(super) fn covering(&self, selected: &Selected<'_>, now: UnixMs) -> Option<Index> {
        let in_force = |set: &SuspensionSet| set.until_ms.is_none_or(|until| now < until);
        self.iter().find(|(_, set)| in_force(set) && covers(&set.selector, selected)).map(|(index, _)| index)
    }
}

// A selector's cut-off (`issued_before_ms`) says what is revoked with a suspension, never what is suspended.
fn covers(selector: &Selector, selected: &Selected<'_>) -> bool {
    let named = |name: &Option<Name>, it: &Name| name.as_ref() == Some(it);
    selector.everything
        || selector.identity.as_ref() == Some(selected.identity)
        || selected.instance.is_some_and(|it| selector.instance.as_deref() == Some(it))
        || named(&selector.task, selected.task)
        || named(&selector.target, selected.target)
        || selected.supplier.is_some_and(|it| named(&selector.supplier, it))
        || named(&selector.issuer, selected.issuer)
        || selected.key.is_some_and(|it| selector.key.as_ref() == Some(it))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_suspension_selects_is_suspended_and_nothing_else() {
        let name = |text: &str| text.parse::<Name>().unwrap();
        let (identity, other): (IdentityName, IdentityName) =
            ("prod/x".parse().unwrap(), "prod/y".parse().unwrap());
        let (task, target, supplier, issuer) = (name("t"), name("g"), name("s"), name("i"));
        let key = KeyId::from_thumbprint([1; 32]);
        let selected = Selected {
            identity: &identity,
            instance: Some("run:1"),
            task: &task,
            target: &target,
            supplier: Some(&supplier),
            issuer: &issuer,
            key: Some(&key),
        };
        let none = Selector::default;
        for (selector, expected) in [
            (Selector { identity: Some(identity.clone()), ..none() }, true),
            (Selector { identity: Some(other), ..none() }, false),
            (Selector { instance: Some("run:1".into()), ..none() }, true),
            (Selector { instance: Some("run:11".into()), ..none() }, false),
            (Selector { task: Some(task.clone()), ..none() }, true),
            (Selector { task: Some(name("g")), ..none() }, false),
            (Selector { target: Some(target.clone()), ..none() }, true),
            (Selector { supplier: Some(supplier.clone()), ..none() }, true),
            (Selector { issuer: Some(issuer.clone()), ..none() }, true),
            (Selector { key: Some(key.clone()), ..none() }, true),
            (Selector { everything: true, ..none() }, true),
            (Selector { credential: Some(1), ..none() }, false),
        ] {
            assert_eq!(covers(&selector, &selected), expected, "{selector:?}");
        }
    }
}
