//! A node that asks for a workload of its machine: from here on the caller is that workload.

use std::sync::Arc;

use daypass_core::decision::Outward;
use daypass_core::proof::Attested;
use daypass_proto::v1::Delegation;

use super::Api;
use super::authenticate::Caller;
use super::status::Outgoing;

/// How long the name of a systemd unit may be, in bytes.
const UNIT_BYTES_MAX: usize = 255;
/// How long the name of an instance may be, in bytes: as in an ID token.
const INSTANCE_BYTES_MAX: usize = 256;

/// The workload that `caller` speaks for.
///
/// # Errors
/// When what it attests is not well formed, or it is no node that proved itself by its certificate.
pub(super) fn workload(api: &Api, caller: &Caller, wire: &Delegation) -> Result<Caller, Outgoing> {
    let attested = attested(wire)?;
    let state = api.desk.log.state();
    let bundle = state.bundle().ok_or_else(|| Outgoing::new(Outward::Halted, "no bundle is in force"))?;
    let Some(principal) = caller.principal.speaking_for(attested, bundle) else {
        let clause = "`delegation` is for a node that proves itself by its certificate";
        api.leave_trace(caller, "NO_NODE", clause);
        return Err(Outgoing::new(Outward::NotAllowed, format!("{clause}: leave it out")));
    };
    Ok(Caller { principal: Arc::new(principal), request: caller.request, client: caller.client.clone() })
}

fn attested(wire: &Delegation) -> Result<Attested, Outgoing> {
    let named = |field: &str, text: &str, most: usize| {
        if text.len() > most || text.chars().any(char::is_control) {
            let expected = format!("expected at most {most} bytes without control characters");
            return Err(Outgoing::malformed(field, expected));
        }
        Ok((!text.is_empty()).then(|| text.to_owned()))
    };
    Ok(Attested {
        unit: named("delegation.unit", &wire.unit, UNIT_BYTES_MAX)?,
        uid: wire.uid,
        instance: named("delegation.instance", &wire.instance, INSTANCE_BYTES_MAX)?,
    })
}
