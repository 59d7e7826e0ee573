//! Declared objects one by one, and what one bundle changes of another: the `registry.changed` entries of an
//! activation.

use std::collections::BTreeMap;

use daypass_evidence::entry::{Change, ObjectType};
use daypass_verify::ids::IdentityName;
use serde::Serialize;
use serde_json::{Map, Value};

use super::Bundle;

/// A declared object as its entry carries it.
pub type Object = Map<String, Value>;

/// One object that a bundle adds, changes or removes; the object is absent when it is removed.
pub type ObjectChange = (ObjectType, IdentityName, Change, Option<Object>);

impl Bundle {
    /// Every declared object: owners first, then what refers to them; by name within a type.
    pub fn objects(&self) -> impl Iterator<Item = (ObjectType, IdentityName, Object)> {
        let it = &self.declared;
        let mut objects = Vec::new();
        collect(ObjectType::Owner, &it.owners, &mut objects);
        collect(ObjectType::Supplier, &it.suppliers, &mut objects);
        collect(ObjectType::Issuer, &it.issuers, &mut objects);
        collect(ObjectType::Operator, &it.operators, &mut objects);
        collect(ObjectType::Target, &it.targets, &mut objects);
        collect(ObjectType::Task, &it.tasks, &mut objects);
        collect(ObjectType::Identity, &it.identities, &mut objects);
        collect(ObjectType::Exception, &it.exceptions, &mut objects);
        objects.into_iter()
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
