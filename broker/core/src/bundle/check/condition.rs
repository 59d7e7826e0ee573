//! What a clause must ask of the tokens of its issuer: an issuer that vouches for many must not vouch for all of them.

use std::collections::BTreeSet;

use super::{Check, Subject};
use crate::bundle::object::{Issuer, IssuerKind, ProofClause};
use crate::bundle::preset::Preset;

/// How the subject is called among the claims that an issuer requires.
const SUBJECT: &str = "sub";

pub(super) fn conditions(
    check: &mut Check<'_>,
    subject: Subject<'_>,
    key: &str,
    clause: &ProofClause,
    issuer: &Issuer,
) {
    let IssuerKind::Oidc { required_claims, .. } = &issuer.kind else { return };
    for one_of in required_claims.iter().filter(|one_of| !one_of.iter().any(|it| names(clause, it))) {
        let message = format!(
            "a proof of issuer `{}` without {}: others whom that issuer vouches for could fit; name {} too",
            clause.issuer,
            listed(one_of),
            if one_of.len() > 1 { "one of them" } else { "it" },
        );
        check.refuse("open-proof", subject, key, &message);
    }
    if let Some(preset) = issuer.preset {
        form_of_subject(check, subject, key, clause, preset);
        events(check, subject, key, clause, preset);
    }
}

fn names(clause: &ProofClause, claim: &str) -> bool {
    clause.claims.contains_key(claim) || (claim == SUBJECT && clause.subject.is_some())
}

fn listed(one_of: &BTreeSet<String>) -> String {
    let shown = |claim: &String| match claim.as_str() {
        SUBJECT => "`subject`".to_owned(),
        claim => format!("claim `{claim}`"),
    };
    one_of.iter().map(shown).collect::<Vec<_>>().join(" or ")
}

fn form_of_subject(
    check: &mut Check<'_>,
    subject: Subject<'_>,
    key: &str,
    clause: &ProofClause,
    preset: Preset,
) {
    let among_claims = clause.claims.get(SUBJECT).into_iter().flatten();
    for text in clause.subject.iter().chain(among_claims) {
        if let Some(expected) = preset.other_subject_expected(text) {
            let message =
                format!("`{}` is no subject of such a token: expected {expected}", text.escape_debug());
            check.refuse("subject-form", subject, &format!("{key}.subject"), &message);
        }
    }
}

/// What a stranger can set off must wait for somebody's consent.
fn events(check: &mut Check<'_>, subject: Subject<'_>, key: &str, clause: &ProofClause, preset: Preset) {
    let Some((claim, outside)) = preset.outside_events() else { return };
    if clause.claims.contains_key("environment") {
        return;
    }
    let listed = clause.claims.get(claim).into_iter().flatten();
    for event in listed.filter(|event| outside.contains(&event.as_str())) {
        let message = format!(
            "whoever proposes a change can bring about `{event}`: name the `environment` whose reviewers stand before it, or leave it out"
        );
        check.refuse("outside-event", subject, &format!("{key}.claims.{claim}"), &message);
    }
}
