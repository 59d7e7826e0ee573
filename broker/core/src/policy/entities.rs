//! What is declared, as the entities that rules look at.

use cedar_policy::{Entities, Entity, EntityId, EntityTypeName, EntityUid, RestrictedExpression};
use daypass_verify::ids::{IdentityName, Name};
use serde::Serialize;

use crate::bundle::object::{Declared, Identity, Issuer, IssuerKind, Target, Task};

type Attributes = Vec<(&'static str, RestrictedExpression)>;

/// The names of the schema's types, parsed once.
#[derive(Debug, Clone)]
pub(super) struct Types {
    identity: EntityTypeName,
    task: EntityTypeName,
    target: EntityTypeName,
    issuer: EntityTypeName,
    pub(super) issue: EntityUid,
}

impl Types {
    pub(super) fn new() -> Result<Self, String> {
        let parse = |name: &str| name.parse::<EntityTypeName>().map_err(|error| error.to_string());
        Ok(Self {
            identity: parse("Identity")?,
            task: parse("Task")?,
            target: parse("Target")?,
            issuer: parse("Issuer")?,
            issue: uid(&parse("Action")?, "issue"),
        })
    }

    pub(super) fn identity(&self, name: &IdentityName) -> EntityUid {
        uid(&self.identity, name.as_str())
    }

    pub(super) fn task(&self, name: &Name) -> EntityUid {
        uid(&self.task, name.as_str())
    }

    pub(super) fn target(&self, name: &Name) -> EntityUid {
        uid(&self.target, name.as_str())
    }

    pub(super) fn issuer(&self, name: &Name) -> EntityUid {
        uid(&self.issuer, name.as_str())
    }
}

fn uid(kind: &EntityTypeName, id: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(kind.clone(), EntityId::new(id))
}

/// An entity for each identity, task, target and issuer.
pub(super) fn of(declared: &Declared, types: &Types) -> Result<Entities, String> {
    let identities =
        declared.identities.iter().map(|(name, it)| entity(types.identity(name), identity(name, it)));
    let tasks = declared.tasks.iter().map(|(name, it)| entity(types.task(name), task(name, it)));
    let targets = declared.targets.iter().map(|(name, it)| entity(types.target(name), target(name, it)));
    let issuers = declared.issuers.iter().map(|(name, it)| entity(types.issuer(name), issuer(name, it)));
    let all = identities.chain(tasks).chain(targets).chain(issuers).collect::<Result<Vec<_>, _>>()?;
    Entities::from_entities(all, None).map_err(|error| error.to_string())
}

fn entity(uid: EntityUid, attributes: Attributes) -> Result<Entity, String> {
    let attributes = attributes.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    Entity::new(uid, attributes, [].into()).map_err(|error| error.to_string())
}

fn identity(name: &IdentityName, it: &Identity) -> Attributes {
    let mut attributes = vec![
        ("name", text(name.as_str())),
        ("class", word(it.class)),
        ("privilege", word(it.privilege)),
        ("environment", text(it.environment.as_str())),
        ("business_owner", text(it.business_owner.as_str())),
        ("technical_owner", text(it.technical_owner.as_str())),
    ];
    attributes.extend(it.supplier.as_ref().map(|supplier| ("supplier", text(supplier.as_str()))));
    attributes
}

fn task(name: &Name, it: &Task) -> Attributes {
    vec![
        ("name", text(name.as_str())),
        ("privileged", RestrictedExpression::new_bool(it.privileged)),
        ("needs_approval", RestrictedExpression::new_bool(it.approval.is_some())),
        ("continuous", RestrictedExpression::new_bool(it.continuous)),
        ("bearer", RestrictedExpression::new_bool(it.bearer)),
    ]
}

fn target(name: &Name, it: &Target) -> Attributes {
    vec![
        ("name", text(name.as_str())),
        ("kind", text(it.kind.as_str())),
        ("environment", text(it.environment.as_str())),
        ("reach", word(it.reach)),
        ("enforcement", word(it.enforcement)),
    ]
}

fn issuer(name: &Name, it: &Issuer) -> Attributes {
    let kind = match it.kind {
        IssuerKind::Oidc { .. } => "oidc",
        IssuerKind::ClientCa { .. } => "client_ca",
        IssuerKind::Nodes => "nodes",
    };
    vec![
        ("name", text(name.as_str())),
        ("kind", text(kind)),
        ("environment", text(it.environment.as_str())),
        ("replay", word(it.replay)),
    ]
}

fn text(text: &str) -> RestrictedExpression {
    RestrictedExpression::new_string(text.into())
}

/// The word by which a declared choice is written in entries.
fn word(choice: impl Serialize) -> RestrictedExpression {
    let word = serde_json::to_value(choice).ok();
    text(word.as_ref().and_then(serde_json::Value::as_str).unwrap_or_default())
}
