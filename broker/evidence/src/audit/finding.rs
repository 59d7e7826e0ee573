//! What an audit can find.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::entry::Index;

/// The most findings that are kept: a log that is wrong throughout is no less wrong for the rest being counted.
pub const FINDINGS_MAX: usize = 10_000;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal),+ $(,)?) => {
        /// What is wrong.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "SCREAMING_SNAKE_CASE")]
        #[non_exhaustive]
        pub enum FindingCode {
            $($(#[$doc])* $name,)+
        }

        impl FindingCode {
            /// The code as it is printed: `LEAF_MISMATCH` and so on.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }
        }
    };
}

codes! {
    /// An entry's bytes do not have the hash that was stored beside them.
    LeafMismatch = "LEAF_MISMATCH",
    /// What lies in the store beside the entries is not what they say.
    StoreMismatch = "STORE_MISMATCH",
    /// An entry is not where it should be, and later ones are.
    Missing = "MISSING",
    /// The log is shorter than a checkpoint says.
    Truncated = "TRUNCATED",
    /// Bytes that are no entry, or an entry where none of its kind may stand.
    Malformed = "MALFORMED",
    /// The entries do not lead to the checkpoint's root.
    RootMismatch = "ROOT_MISMATCH",
    /// The log had another root at the same size in a checkpoint kept earlier.
    SplitView = "SPLIT_VIEW",
    /// A checkpoint of another log.
    WrongLog = "WRONG_LOG",
    /// A credential ended more than once.
    TwoEndings = "TWO_ENDINGS",
    /// What ended was never issued.
    EndingWithoutIssuance = "ENDING_WITHOUT_ISSUANCE",
    /// What was settled was never issued.
    SettledWithoutIssuance = "SETTLED_WITHOUT_ISSUANCE",
    /// A credential's time was over long ago, and nothing says that it ended.
    NoEnding = "NO_ENDING",
    /// A credential that was never released was released or used.
    VoidThenUsed = "VOID_THEN_USED",
    /// A credential was called expired while it could still be alive.
    EndedTooEarly = "ENDED_TOO_EARLY",
    /// An order about a key ended what that key did not sign.
    NotSelected = "NOT_SELECTED",
    /// A proof that buys one credential bought a second.
    ProofUsedTwice = "PROOF_USED_TWICE",
    /// More was granted than asked.
    WiderThanAsked = "WIDER_THAN_ASKED",
    /// More was granted than is declared.
    WiderThanDeclared = "WIDER_THAN_DECLARED",
    /// A credential that nobody can verify until its end, as its key is gone before.
    OutlivesKey = "OUTLIVES_KEY",
    /// A credential by a key that the log does not know, or that must sign no more.
    KeyUnusable = "KEY_UNUSABLE",
    /// A credential that lives longer than its identity.
    OutlivesIdentity = "OUTLIVES_IDENTITY",
    /// A credential that lives longer than its supplier's contract.
    OutlivesSupplier = "OUTLIVES_SUPPLIER",
    /// A decision that was made under a state that was no longer the newest.
    StaleState = "STALE_STATE",
    /// An entry is older than the one before it.
    TimeWentBack = "TIME_WENT_BACK",
    /// A credential was released before it was recorded.
    ReleasedBeforeRecorded = "RELEASED_BEFORE_RECORDED",
    /// A broker was silent for more than 120 s, and nothing says why.
    HeartbeatGap = "HEARTBEAT_GAP",
    /// An act by somebody who was neither an operator nor a declared identity.
    UnknownAuthor = "UNKNOWN_AUTHOR",
    /// Somebody decided what they had proposed.
    SelfDecided = "SELF_DECIDED",
    /// A credential says that it was issued after its entry was made.
    IssuedLate = "ISSUED_LATE",
}

impl fmt::Display for FindingCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FindingCode {
    /// Whether it tells of a broker that was away or late, in a log that is whole: nothing was changed.
    #[must_use]
    pub const fn is_of_operation(self) -> bool {
        matches!(self, Self::HeartbeatGap | Self::NoEnding)
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What.
    pub code: FindingCode,
    /// At which entry, where it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<Index>,
    /// In words.
    pub detail: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.index {
            Some(index) => write!(f, "{} at entry {index}: {}", self.code, self.detail),
            None => write!(f, "{}: {}", self.code, self.detail),
        }
    }
}

/// The findings so far.
#[derive(Debug, Default)]
pub(super) struct Findings {
    list: Vec<Finding>,
    omitted: u64,
}

impl Findings {
    pub(super) fn add(&mut self, code: FindingCode, index: Option<Index>, detail: impl Into<String>) {
        if self.list.len() < FINDINGS_MAX {
            self.list.push(Finding { code, index, detail: detail.into() });
        } else {
            self.omitted += 1;
        }
    }

    pub(super) fn omitted(&self) -> u64 {
        self.omitted
    }

    pub(super) fn into_list(self) -> Vec<Finding> {
        self.list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_printed_as_it_is_serialised() {
        for code in [FindingCode::LeafMismatch, FindingCode::VoidThenUsed, FindingCode::WiderThanAsked] {
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
        }
    }

    #[test]
    fn findings_are_bounded_and_the_rest_is_counted() {
        let mut findings = Findings::default();
        (0..FINDINGS_MAX + 3).for_each(|_| findings.add(FindingCode::Malformed, None, "x"));
        assert_eq!((findings.omitted(), findings.into_list().len()), (3, FINDINGS_MAX));
    }
}
