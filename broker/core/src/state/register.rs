//! Since when each object is declared as it is, and when it was last reviewed.

use std::collections::BTreeMap;

use daypass_evidence::entry::{Change, Index, ObjectType, RegistryChanged};
use daypass_verify::ids::IdentityName;
use daypass_verify::time::UnixMs;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::StateError;

const DAY_MS: i64 = 86_400_000;

/// What the log says about one declared object, beside the object itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declaration {
    /// The newest `registry.changed` of it.
    pub at: Index,
    /// When it was first declared: in this log, or in the one that it was carried over from.
    pub since_ms: UnixMs,
    /// When the last review said that the next one is due.
    pub next_due_ms: Option<UnixMs>,
}

impl Declaration {
    /// When its next review is due: as the last review said, else `review_days` after it was first declared.
    #[must_use]
    pub fn review_due(&self, review_days: u32) -> UnixMs {
        self.next_due_ms.unwrap_or(self.since_ms.plus_millis(i64::from(review_days) * DAY_MS))
    }
}

#[derive(Clone, Default)]
pub(super) struct Register {
    objects: BTreeMap<ObjectType, BTreeMap<IdentityName, Declaration>>,
}

impl Register {
    pub(super) fn of(&self, object: ObjectType, name: &str) -> Option<&Declaration> {
        self.objects.get(&object)?.get(name)
    }

    pub(super) fn change(&mut self, index: Index, time: UnixMs, change: &RegistryChanged) {
        let objects = self.objects.entry(change.object).or_default();
        if change.change == Change::Removed {
            objects.remove(&change.name);
            return;
        }
        objects.entry(change.name.clone()).and_modify(|declaration| declaration.at = index).or_insert(
            Declaration {
                at: index,
                since_ms: change.since_ms.unwrap_or(time),
                next_due_ms: change.next_due_ms,
            },
        );
    }

    pub(super) fn review(&mut self, review: &Review) {
        let objects = self.objects.entry(review.of.object).or_default();
        if let Some(declaration) = objects.get_mut(&review.of.name) {
            declaration.next_due_ms = Some(review.next_due_ms);
        }
    }
}

/// What a `review.recorded` of a declared object says.
#[derive(Deserialize)]
pub(super) struct Review {
    of: Reviewed,
    next_due_ms: UnixMs,
}

#[derive(Deserialize)]
struct Reviewed {
    #[serde(rename = "type")]
    object: ObjectType,
    name: IdentityName,
}

impl Review {
    /// Reads the fields of a `review.recorded`; none for other kinds, for the review of an emergency, and for
    /// one that sets no next date.
    pub(super) fn read(index: Index, fields: &Map<String, Value>) -> Result<Option<Self>, StateError> {
        let of_object = fields.get("of").is_some_and(|of| of.get("type").is_some());
        let is_review = fields.get("kind").and_then(Value::as_str) == Some("review.recorded");
        if !is_review || !of_object || !fields.contains_key("next_due_ms") {
            return Ok(None);
        }
        let review = Self::deserialize(&Value::Object(fields.clone()));
        review.map(Some).map_err(|_| StateError::Review(index))
    }
}
