//! What each outward reason means: the paragraphs of `docs/errors.md`, compiled in.

use serde_json::json;

use crate::failure::Failure;
use crate::output::Output;

const DOCUMENT: &str = include_str!("../../../docs/errors.md");
const NEXT_STEP: &str = "What to do: ";

/// Prints the section of one reason, or the list of all.
pub(crate) fn run(code: Option<&str>, out: &Output) -> Result<(), Failure> {
    let Some(code) = code else {
        let reasons: Vec<&str> = sections().map(|(reason, _)| reason).collect();
        return match out.is_json() {
            true => out.json(&json!(reasons)),
            false => out.line(&reasons.join("\n")),
        };
    };
    let wanted = code.to_ascii_uppercase();
    let unknown = || Failure::Usage(format!("`{code}` is no reason: `daypass error` lists them"));
    let (reason, text) = sections().find(|(reason, _)| *reason == wanted).ok_or_else(unknown)?;
    match out.is_json() {
        true => out.json(&json!({ "reason": reason, "text": text })),
        false => out.line(&format!("{reason}\n\n{text}")),
    }
}

/// What to do about a refusal with `reason`; none for a reason that this version does not know.
pub(crate) fn next_step(reason: &str) -> Option<&'static str> {
    let (_, text) = sections().find(|(known, _)| *known == reason)?;
    text.lines().find_map(|line| line.strip_prefix(NEXT_STEP))
}

/// Each reason with its paragraphs.
fn sections() -> impl Iterator<Item = (&'static str, &'static str)> {
    DOCUMENT.split("\n## ").skip(1).filter_map(|section| {
        let (reason, text) = section.split_once('\n')?;
        Some((reason, text.trim()))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use daypass_core::decision::Outward;

    use super::*;

    #[test]
    fn every_outward_reason_is_explained_and_no_other() {
        let explained: BTreeSet<&str> = sections().map(|(reason, _)| reason).collect();
        let outward: BTreeSet<&str> = Outward::ALL.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(explained, outward);
    }

    #[test]
    fn each_explanation_has_the_same_three_paragraphs() {
        for (reason, text) in sections() {
            let starts = ["What was wrong: ", "What was expected: ", NEXT_STEP];
            let paragraphs: Vec<&str> = text.split("\n\n").collect();
            assert_eq!(paragraphs.len(), 3, "{reason}");
            for (paragraph, start) in paragraphs.iter().zip(starts) {
                assert!(paragraph.starts_with(start), "{reason}: {paragraph}");
            }
        }
    }
}
