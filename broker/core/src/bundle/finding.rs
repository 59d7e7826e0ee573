//! What is wrong, or unwise, in the files of a bundle.

use std::fmt;

/// One thing found in a bundle's files.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The file, relative to the bundle's folder.
    pub path: String,
    /// The line, from 1; 0 where the file as a whole is meant.
    pub line: u32,
    /// The kind of finding: `unknown-key`, `unknown-reference` and so on.
    pub code: &'static str,
    /// What was wrong, what was expected, what to do.
    pub message: String,
    /// Whether it refuses the bundle; else it is advice.
    pub refuses: bool,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let weight = if self.refuses { "error" } else { "warning" };
        write!(f, "{}:{}: {weight}[{}]: {}", self.path, self.line, self.code, self.message)
    }
}

/// `: did you mean …?` for the known name nearest to `given`; where none is near, `: ` and `otherwise`.
pub(crate) fn did_you_mean<'a>(
    given: &str,
    known: impl IntoIterator<Item = &'a str>,
    otherwise: &str,
) -> String {
    let near = |candidate: &&str| strsim::jaro_winkler(given, candidate);
    let best = known.into_iter().max_by(|a, b| near(a).total_cmp(&near(b)));
    match best {
        Some(best) if near(&best) > 0.75 => format!(": did you mean `{best}`?"),
        _ => format!(": {otherwise}"),
    }
}
