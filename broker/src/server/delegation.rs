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

/// The workload that `caller` speaks for. Whoever is no node stays who it is, and is refused where all is decided.
///
/// # Errors
/// When what it attests is not well formed.
pub(super) fn workload(api: &Api, caller: &Caller, wire: &Delegation) -> Result<Caller, Outgoing> {
    let attested = attested(wire)?;
    let state = api.desk.log.state();
    let bundle = state.bundle().ok_or_else(|| Outgoing::new(Outward::Halted, "no bundle is in force"))?;
    let spoken_for = caller.principal.speaking_for(attested, bundle).map(Arc::new);
    let principal = spoken_for.unwrap_or_else(|| Arc::clone(&caller.principal));
    Ok(Caller { principal, request: caller.request, client: caller.client.clone() })
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
