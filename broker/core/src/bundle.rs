//! What is declared: plain files, compiled as one object with one digest. A bundle that has anything wrong in it
//! is refused as a whole, with every finding at once.

pub mod access;
pub mod finding;
pub mod object;
pub mod preset;

mod changes;
mod check;
pub(crate) mod page;
mod places;
#[cfg(test)]
pub(crate) mod sample;
mod section;
mod source;
#[cfg(test)]
mod spoiled;
mod stored;
mod value;

use daypass_verify::ids::Digest;

use crate::policy::Rules;
use crate::proof::Clauses;
pub use changes::{Object, ObjectChange};
pub use finding::Finding;
use object::Declared;
use places::Places;
pub use stored::StoredError;

/// The longest file of a bundle, in bytes, that is worth reading: far above any that a person writes.
pub const FILE_LEN_MAX: u64 = 8 * 1024 * 1024;

/// A file of a bundle, as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// Its path from the bundle's top, with `/`.
    pub path: String,
    /// Its text.
    pub text: String,
}

/// A valid bundle.
#[derive(Debug, Clone)]
pub struct Bundle {
    declared: Declared,
    rules: Rules,
    rule_files: Vec<(String, String)>,
    clauses: Clauses,
    object: Vec<u8>,
    digest: Digest,
    warnings: Vec<Finding>,
}

/// Compiles the files of a bundle.
///
/// # Errors
/// Everything found, warnings too, when anything in it refuses the bundle. Where a file is no TOML at all, only
/// what the files say is judged, not whether it holds together.
pub fn compile(files: &[SourceFile]) -> Result<Bundle, Vec<Finding>> {
    let sources = source::read(files);
    if sources.findings.iter().any(|finding| finding.code == source::SYNTAX) {
        return Err(sources.findings);
    }
    assemble(sources.declared, sources.rules, &sources.places, sources.findings)
}

/// What both ways to a bundle have in common: the checks, the rules, the object and its digest.
fn assemble(
    declared: Declared,
    rule_files: Vec<(String, String)>,
    places: &Places,
    mut findings: Vec<Finding>,
) -> Result<Bundle, Vec<Finding>> {
    findings.extend(check::check(&declared, places));
    let rules = Rules::compile(&rule_files, &declared).map_err(|found| findings.extend(found)).ok();
    let first_rule_file = rule_files.first().map_or("bundle", |(path, _)| path.as_str());
    findings.extend(rules.as_ref().and_then(|rules| check::rule_count(rules.count(), first_rule_file)));
    let object = stored::write(&declared, &rule_files).map_err(|found| findings.push(found)).ok();
    findings.sort();
    match (rules, object) {
        (Some(rules), Some(object)) if findings.iter().all(|finding| !finding.refuses) => {
            let digest = Digest::of(&object);
            let clauses = Clauses::of(&declared);
            Ok(Bundle { declared, rules, rule_files, clauses, object, digest, warnings: findings })
        }
        _ => Err(findings),
    }
}

impl Bundle {
    /// SHA-256 of [`Bundle::to_object`].
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// What is declared.
    #[must_use]
    pub fn declared(&self) -> &Declared {
        &self.declared
    }

    /// The compiled rules.
    #[must_use]
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Where to look for those whom a proof may fit.
    pub(crate) fn clauses(&self) -> &Clauses {
        &self.clauses
    }

    /// Paths and texts of the rules, in the order of their paths.
    #[must_use]
    pub fn rule_files(&self) -> &[(String, String)] {
        &self.rule_files
    }

    /// Advice about it; none of it refuses.
    #[must_use]
    pub fn warnings(&self) -> &[Finding] {
        &self.warnings
    }

    /// The bundle as it is stored, proposed and activated: canonical JSON of what is declared and of the rules'
    /// text. Comments and layout of the other files are no part of it.
    #[must_use]
    pub fn to_object(&self) -> Vec<u8> {
        self.object.clone()
    }
}
