//! The bundle as an object of the store: one canonical spelling, one digest.

use std::borrow::Cow;

use daypass_evidence::canonical;
use daypass_verify::ids::Digest;
use serde::{Deserialize, Serialize};

use super::object::Declared;
use super::places::Places;
use super::{Bundle, Finding, assemble};
use crate::policy;

/// The version of the object's form.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Stored<'a> {
    v: u32,
    declared: Cow<'a, Declared>,
    rules: Vec<RuleFile<'a>>,
    schema: Digest,
}

#[derive(Serialize, Deserialize)]
struct RuleFile<'a> {
    path: Cow<'a, str>,
    text: Cow<'a, str>,
}

/// Why a stored object is no bundle that may come into force.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoredError {
    /// It is not the canonical form of a bundle.
    #[error("the object is no bundle: {0}")]
    Malformed(String),
    /// It was made for another version of the rules' schema.
    #[error("the bundle's rules were written for schema `{0}`: propose it again from its files")]
    OtherSchema(Digest),
    /// What it says is refused.
    #[error("the bundle is refused: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Refused(Vec<Finding>),
}

impl Bundle {
    /// Reads a bundle back from its object, checking everything again.
    ///
    /// # Errors
    /// When the bytes are not exactly what [`Bundle::to_object`] writes, or what they say is refused.
    pub fn from_object(bytes: &[u8]) -> Result<Self, StoredError> {
        let malformed = |error: &dyn std::fmt::Display| StoredError::Malformed(error.to_string());
        let stored: Stored<'_> = serde_json::from_slice(bytes).map_err(|error| malformed(&error))?;
        if stored.v != VERSION {
            return Err(malformed(&format_args!("version {} is unknown: expected {VERSION}", stored.v)));
        }
        if stored.schema != schema_digest() {
            return Err(StoredError::OtherSchema(stored.schema));
        }
        let rules = stored.rules.into_iter().map(|it| (it.path.into_owned(), it.text.into_owned())).collect();
        let bundle = assemble(stored.declared.into_owned(), rules, &Places::default(), Vec::new())
            .map_err(StoredError::Refused)?;
        if bundle.object == bytes { Ok(bundle) } else { Err(malformed(&"not in its one canonical spelling")) }
    }
}

/// The canonical bytes of a bundle.
pub(super) fn write(declared: &Declared, rules: &[(String, String)]) -> Result<Vec<u8>, Finding> {
    let rules = rules.iter().map(|(path, text)| RuleFile { path: path.into(), text: text.into() }).collect();
    let stored = Stored { v: VERSION, declared: Cow::Borrowed(declared), rules, schema: schema_digest() };
    canonical::to_vec_unbounded(&stored).map_err(|error| Finding {
        path: "bundle".into(),
        line: 0,
        code: "not-canonical",
        message: error.to_string(),
        refuses: true,
    })
}

fn schema_digest() -> Digest {
    Digest::of(policy::SCHEMA.as_bytes())
}
