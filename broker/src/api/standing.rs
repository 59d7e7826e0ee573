//! Who may read the log and who may act, under the bundle in force: what is switched off or over may nothing.

use daypass_core::bundle::Bundle;
use daypass_core::proof::Principal;
use daypass_verify::ids::{IdentityName, Name};
use daypass_verify::time::UnixMs;

/// The right to read entries.
const READ_EVIDENCE: &str = "read_evidence";

/// The right to change keys.
pub(crate) const ROTATE: &str = "rotate";

/// The right to end credentials before their time, and to suspend.
pub(crate) const CONTAIN: &str = "contain";

/// The right to let nodes in.
pub(crate) const ENROL: &str = "enrol";

/// Whether a caller is an operator who may read all entries at `now`.
pub(crate) fn reads_evidence(caller: &Principal, bundle: &Bundle, now: UnixMs) -> bool {
    operator(caller, READ_EVIDENCE, bundle, now).is_some()
}

/// The operator, with this role, that a caller is at `now`.
pub(crate) fn operator<'a>(
    caller: &'a Principal,
    role: &str,
    bundle: &Bundle,
    now: UnixMs,
) -> Option<&'a Name> {
    let operators = &bundle.declared().operators;
    let holds = |name: &&Name| {
        operators
            .get(*name)
            .is_some_and(|operator| operator.roles.contains(role) && now < operator.expires_ms)
    };
    let mut names = caller.operators().iter().map(|(name, _)| name).filter(holds);
    names.next().filter(|_| issuer_stands(caller, bundle))
}

/// The identities of a caller whose credentials it may follow at `now`.
pub(crate) fn identities(caller: &Principal, bundle: &Bundle, now: UnixMs) -> Vec<IdentityName> {
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
