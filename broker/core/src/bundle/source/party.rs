//! Reading those who answer for things, and what remains of static secrets.

use daypass_verify::ids::Name;

use super::task::scope;
use crate::bundle::object::{Exception, Owner, OwnerStatus, Supplier};
use crate::bundle::section::Section;

pub(super) fn owner(section: &mut Section<'_>) -> Option<Owner> {
    let kind: Option<Name> = section.required("kind");
    let status = section.optional("status").unwrap_or(OwnerStatus::Active);
    let since_ms = section.optional("since");
    if kind.as_ref().is_some_and(|kind| !matches!(kind.as_str(), "team" | "person")) {
        section.conflict("kind", "is neither `team` nor `person`: expected one of them");
    }
    Some(Owner { kind: kind?, status, since_ms })
}

pub(super) fn supplier(section: &mut Section<'_>) -> Option<Supplier> {
    let contract = section.required("contract");
    let ends_ms = section.required("ends");
    let ceiling = scope(section);
    let ttl_max_s = section.optional("ttl_max");
    Some(Supplier { contract: contract?, ends_ms: ends_ms?, ceiling, ttl_max_s })
}

pub(super) fn exception(section: &mut Section<'_>) -> Option<Exception> {
    let what = section.required("what");
    let kept = section.required("where");
    let target = section.required("target");
    let reason = section.required("reason");
    let control = section.required("control");
    let owner = section.required("owner");
    let until_ms = section.required("until");
    let plan = section.required("plan");
    Some(Exception {
        what: what?,
        kept: kept?,
        target: target?,
        reason: reason?,
        control: control?,
        owner: owner?,
        until_ms: until_ms?,
        plan: plan?,
    })
}
