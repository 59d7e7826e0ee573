//! `GovernanceService.Suspend` and `Resume`: decode, order, answer.

use daypass_evidence::entry::Selector;
use daypass_proto::v1 as pb;

use super::Api;
use super::authenticate::Caller;
use super::convert::moment;
use super::selector::selector;
use super::status::Outgoing;
use crate::api::suspend::{Suspended, Suspending};
use crate::log::Place;
use crate::revocation::What;

pub(super) async fn suspend(
    api: &Api,
    wire: &pb::SuspendRequest,
    caller: &Caller,
) -> Result<pb::SuspendResponse, Outgoing> {
    let suspending = Suspending {
        selector: all_of(wire.selector.as_ref())?,
        reason: wire.reason.clone(),
        until: moment("until", wire.until.as_ref())?,
        keep_live: wire.keep_live,
        drill: wire.drill.clone(),
        validate_only: wire.validate_only,
    };
    Ok(answer(&api.suspend(caller, suspending).await?))
}

pub(super) async fn resume(
    api: &Api,
    wire: &pb::ResumeRequest,
    caller: &Caller,
) -> Result<pb::ResumeResponse, Outgoing> {
    let place = api.resume(caller, &wire.suspension, &wire.reason).await?;
    Ok(pb::ResumeResponse { entry: Some(entry(&place)), approval: String::new() })
}

/// All of something: one credential is not suspended.
fn all_of(wire: Option<&pb::Selector>) -> Result<Selector, Outgoing> {
    match selector(wire)? {
        (What::All(selected), issued_before_ms) => Ok(Selector { issued_before_ms, ..selected }),
        _ => {
            let expected = "one credential is not suspended: select what it was issued for";
            Err(Outgoing::malformed("selector", expected))
        }
    }
}

fn answer(suspended: &Suspended) -> pb::SuspendResponse {
    pb::SuspendResponse {
        suspension: suspended.id.map(|id| id.to_string()).unwrap_or_default(),
        live: suspended.live,
        revoked: suspended.revoked,
        entry: suspended.place.as_ref().map(entry),
        goes_on: suspended.goes_on,
        credential_ids: suspended.named.iter().map(ToString::to_string).collect(),
    }
}

fn entry(place: &Place) -> pb::EntryRef {
    pb::EntryRef { log: place.origin.to_string(), index: place.index }
}
