//! Declared objects one by one, and what one bundle changes of another: the `registry.changed` entries of an
//! activation.

use std::collections::BTreeMap;

use daypass_evidence::entry::{Change, ObjectType};
use daypass_verify::ids::IdentityName;
use serde::Serialize;
use serde_json::{Map, Value};

use super::Bundle;
use super::object::Declared;

/// A declared object as its entry carries it.
pub type Object = Map<String, Value>;

/// One object that a bundle adds, changes or removes; the object is absent when it is removed.
pub type ObjectChange = (ObjectType, IdentityName, Change, Option<Object>);

/// Every declared object: owners first, then what refers to them; by name within a type.
pub(super) fn objects(declared: &Declared) -> Vec<(ObjectType, IdentityName, Object)> {
    let mut objects = Vec::new();
    collect(ObjectType::Owner, &declared.owners, &mut objects);
    collect(ObjectType::Supplier, &declared.suppliers, &mut objects);
    collect(ObjectType::Issuer, &declared.issuers, &mut objects);
    collect(ObjectType::Operator, &declared.operators, &mut objects);
    collect(ObjectType::Target, &declared.targets, &mut objects);
    collect(ObjectType::Task, &declared.tasks, &mut objects);
    collect(ObjectType::Identity, &declared.identities, &mut objects);
    collect(ObjectType::Exception, &declared.exceptions, &mut objects);
    objects
}

impl Bundle {
    /// Every declared object: owners first, then what refers to them; by name within a type.
    pub fn objects(&self) -> impl Iterator<Item = (ObjectType, IdentityName, Object)> {
        objects(&self.declared).into_iter()
    }

    /// What this bundle changes of the one in force before it, in the order of [`Bundle::objects`], with what it
    /// removes at the end.
    #[must_use]
    pub fn changes_from(&self, before: Option<&Self>) -> Vec<ObjectChange> {
        let keyed = |(kind, name, object)| ((kind, name), object);
        let mut old: BTreeMap<_, _> = before.into_iter().flat_map(Self::objects).map(keyed).collect();
        let mut changes = Vec::new();
        for (kind, name, object) in self.objects() {
            match old.remove(&(kind, name.clone())) {
                None => changes.push((kind, name, Change::Added, Some(object))),
                Some(was) if was != object => changes.push((kind, name, Change::Changed, Some(object))),
                Some(_) => {}
            }
        }
        changes.extend(old.into_keys().map(|(kind, name)| (kind, name, Change::Removed, None)));
        changes
    }
}

fn collect<N: AsRef<str>, T: Serialize>(
    kind: ObjectType,
    declared: &BTreeMap<N, T>,
    objects: &mut Vec<(ObjectType, IdentityName, Object)>,
) {
    for (name, object) in declared {
        if let (Ok(name), Ok(Value::Object(object))) = (name.as_ref().parse(), serde_json::to_value(object)) {
            objects.push((kind, name, object));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{compile, sample};
    use super::*;

    fn names(changes: &[ObjectChange]) -> Vec<(ObjectType, &str, Change)> {
        changes.iter().map(|(kind, name, change, _)| (*kind, name.as_str(), *change)).collect()
    }

    #[test]
    fn a_first_bundle_adds_every_object_after_what_it_refers_to() {
        let bundle = sample::bundle();
        let changes = bundle.changes_from(None);
        assert!(changes.iter().all(|(_, _, change, object)| *change == Change::Added && object.is_some()));
        let at = |kind| changes.iter().position(|it| it.0 == kind).unwrap();
        let order = [
            ObjectType::Owner,
            ObjectType::Supplier,
            ObjectType::Issuer,
            ObjectType::Operator,
            ObjectType::Target,
            ObjectType::Task,
            ObjectType::Identity,
            ObjectType::Exception,
        ];
        assert!(order.map(at).is_sorted());
        let declared = bundle.declared();
        assert_eq!(changes.iter().filter(|it| it.0 == ObjectType::Task).count(), declared.tasks.len());
    }

    #[test]
    fn the_same_bundle_again_changes_nothing() {
        assert_eq!(sample::bundle().changes_from(Some(&sample::bundle())), []);
    }

    #[test]
    fn what_was_added_changed_and_removed_is_told_apart() {
        let before = sample::bundle();
        let mut files = sample::spoiled("tasks.toml", "\"shop/web\"", "\"shop/app\"");
        files.retain(|file| file.path != "exceptions.toml");
        files.push(super::super::SourceFile {
            path: "more.toml".into(),
            text: "[owner.legal]\nkind = \"team\"\n".into(),
        });
        let after = compile(&files).unwrap();
        let changes = after.changes_from(Some(&before));
        assert_eq!(
            names(&changes),
            [
                (ObjectType::Owner, "legal", Change::Added),
                (ObjectType::Task, "deploy-web", Change::Changed),
                (ObjectType::Exception, "erp-batch-password", Change::Removed),
            ]
        );
        assert!(changes.last().unwrap().3.is_none());
    }
}
