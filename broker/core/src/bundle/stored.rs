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

/// How long an object may be: what a proposal may carry, in bytes.
const OBJECT_LEN_MAX: usize = 8 * 1024 * 1024;

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
        if bytes.len() > OBJECT_LEN_MAX {
            return Err(malformed(&format_args!("{} bytes: expected {OBJECT_LEN_MAX} at most", bytes.len())));
        }
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
    let bytes =
        canonical::to_vec_unbounded(&stored).map_err(|error| unfit("not-canonical", error.to_string()))?;
    if bytes.len() > OBJECT_LEN_MAX {
        let message = format!("{} bytes in all: expected {OBJECT_LEN_MAX} at most", bytes.len());
        return Err(unfit("too-long", message));
    }
    Ok(bytes)
}

fn unfit(code: &'static str, message: String) -> Finding {
    Finding { path: "bundle".into(), line: 0, code, message, refuses: true }
}

fn schema_digest() -> Digest {
    Digest::of(policy::SCHEMA.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::super::{compile, sample};
    use super::*;

    #[test]
    fn a_bundle_reads_back_as_it_was_stored() {
        let bundle = sample::bundle();
        let read = Bundle::from_object(&bundle.to_object()).unwrap();
        assert_eq!((read.digest(), read.to_object()), (bundle.digest(), bundle.to_object()));
        assert_eq!(read.declared(), bundle.declared());
        assert_eq!(read.rule_files(), bundle.rule_files());
        assert_eq!(Digest::of(&bundle.to_object()), bundle.digest());
    }

    #[test]
    fn the_digest_follows_what_is_declared_not_how_it_is_written() {
        let digest = |files: &[_]| compile(files).unwrap().digest();
        let sample = digest(&sample::files());
        let comment = sample::spoiled("tasks.toml", "[task.deploy-web]", "# note\n[task.deploy-web]");
        assert_eq!(digest(&comment), sample);
        let mut reversed = sample::files();
        reversed.reverse();
        assert_eq!(digest(&reversed), sample);
        let other = sample::spoiled("tasks.toml", "\"shop/web\"", "\"shop/app\"");
        assert_ne!(digest(&other), sample);
        let rule = sample::spoiled("rules/base.cedar", "context.ttl_s > 900", "context.ttl_s > 901");
        assert_ne!(digest(&rule), sample);
    }

    #[test]
    fn an_object_that_no_proposal_could_carry_is_refused() {
        let long = vec![b' '; OBJECT_LEN_MAX + 1];
        assert!(Bundle::from_object(&long).unwrap_err().to_string().contains("at most"));
        let mut files = sample::files();
        files.push(crate::bundle::SourceFile {
            path: "rules/long.cedar".into(),
            text: format!("// {}", "x".repeat(OBJECT_LEN_MAX)),
        });
        assert_eq!(compile(&files).unwrap_err()[0].code, "too-long");
    }

    #[test]
    fn a_spoiled_object_never_comes_into_force() {
        let object = String::from_utf8(sample::bundle().to_object()).unwrap();
        let schema = schema_digest().to_string();
        let table = [
            ("", " ", "canonical"),
            ("\"v\":1", "\"v\":2", "version 2"),
            ("\"v\":1", "\"v\":1,\"x\":1", "canonical"),
            ("\"bearer\":true", "\"bearer\":true,\"berer\":true", "canonical"),
            (
                schema.as_str(),
                "sha256:0000000000000000000000000000000000000000000000000000000000000000",
                "schema",
            ),
            ("\"ttl_max_s\":3600", "\"ttl_max_s\":3601", "done with tokens"),
            ("base/no-person", "base/own-environment", "is taken"),
            ("\"business_owner\":\"finance\"", "\"business_owner\":\"nobody\"", "unknown owner"),
        ];
        for (from, to, expected) in table {
            assert!(object.contains(from), "{from}");
            let spoiled = object.replacen(from, to, 1);
            let error = Bundle::from_object(spoiled.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(expected), "{from} -> {to}: {error}");
        }
    }
}
