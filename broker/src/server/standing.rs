//! Who may read the log, under the bundle in force: what is switched off or over reads nothing.

use daypass_core::bundle::Bundle;
use daypass_core::proof::Principal;
use daypass_verify::ids::IdentityName;
use daypass_verify::time::UnixMs;

/// The right to read entries.
const READ_EVIDENCE: &str = "read_evidence";

/// Whether a caller is an operator who may read all entries at `now`.
pub(super) fn reads_evidence(caller: &Principal, bundle: &Bundle, now: UnixMs) -> bool {
    let operators = &bundle.declared().operators;
    issuer_stands(caller, bundle)
        && caller
            .operators()
            .iter()
            .filter_map(|(name, _)| operators.get(name))
            .any(|operator| operator.roles.contains(READ_EVIDENCE) && now < operator.expires_ms)
}

/// The identities of a caller whose credentials it may follow at `now`.
pub(super) fn identities(caller: &Principal, bundle: &Bundle, now: UnixMs) -> Vec<IdentityName> {
    let stands = |name: &IdentityName| {
        let declared = bundle.declared().identities.get(name);
        declared.is_some_and(|identity| !identity.disabled && now < identity.expires_ms)
    };
    let names = caller.identities().iter().map(|(name, _)| name);
    names.filter(|name| issuer_stands(caller, bundle) && stands(name)).cloned().collect()
}

fn issuer_stands(caller: &Principal, bundle: &Bundle) -> bool {
    let issuer = bundle.declared().issuers.get(caller.issuer());
    !caller.issuer_is_disabled() && issuer.is_some_and(|issuer| !issuer.disabled)
}
