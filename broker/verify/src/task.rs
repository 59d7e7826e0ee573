//! The task as it travels inside a credential: one `authorization_details` object of RFC 9396.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::ids::Name;
use crate::scope::{Action, Audience, Resource, Scope};

/// The X.509 extension that holds the task: its value is the JSON of a [`TaskDetail`] in UTF-8. Never critical,
/// so that stock verifiers accept the certificate. The arc is that of UUIDs (ITU-T X.667).
pub const TASK_EXTENSION_OID: &[u64] = &[2, 25, 7_361_524_498_160_219_341];

/// The type of a [`TaskDetail`]; there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum DetailType {
    /// A task of a Daypass organisation.
    #[default]
    #[serde(rename = "task")]
    Task,
}

/// What a credential lets its holder do (RFC 9396, section 2). An absent set is an empty one; a field that is
/// not known is an error, because it could narrow what the others say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskDetail {
    /// Always `task`.
    #[serde(rename = "type")]
    pub kind: DetailType,
    /// The task's name.
    pub identifier: Name,
    /// What may be done.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub actions: BTreeSet<Action>,
    /// The audiences that are URIs.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub locations: BTreeSet<Audience>,
    /// What it may be done to.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub resources: BTreeSet<Resource>,
}

impl TaskDetail {
    /// The detail for a task with a granted scope.
    #[must_use]
    pub fn new(task: Name, scope: &Scope) -> Self {
        Self {
            kind: DetailType::Task,
            identifier: task,
            actions: scope.actions.clone(),
            locations: scope.audiences.iter().filter(|it| it.is_uri()).cloned().collect(),
            resources: scope.resources.clone(),
        }
    }

    /// The JSON text: the value of the extension, and the one item of `authorization_details`.
    ///
    /// # Errors
    /// Never for a detail that exists; the encoder's signature allows for it.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_reads_what_it_writes_and_nothing_more() {
        let scope = Scope {
            audiences: ["ledger", "https://ledger.example"].iter().map(|it| it.parse().unwrap()).collect(),
            actions: ["invoice:write".parse().unwrap()].into(),
            resources: ["eu/*".parse().unwrap()].into(),
        };
        let detail = TaskDetail::new("post-invoices".parse().unwrap(), &scope);
        let json = detail.to_json().unwrap();
        assert_eq!(
            json,
            r#"{"type":"task","identifier":"post-invoices","actions":["invoice:write"],"locations":["https://ledger.example"],"resources":["eu/*"]}"#
        );
        assert_eq!(serde_json::from_str::<TaskDetail>(&json).unwrap(), detail);
        let spoiled = [
            json.replace("\"task\"", "\"payment\""),
            json.replace("\"type\":\"task\",", ""),
            json.replace("\"resources\"", "\"unknown\""),
            json.replace("post-invoices", "Post Invoices"),
            json.replace("eu/*", "eu/../us"),
        ];
        for text in spoiled {
            assert!(serde_json::from_str::<TaskDetail>(&text).is_err(), "{text}");
        }
    }
}
