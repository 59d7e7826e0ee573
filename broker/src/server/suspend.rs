//! `GovernanceService.Suspend` and `Resume`: decode, order, answer.

use daypass_evidence::entry::Selector;
use daypass_proto::v1 as pb;
use daypass_proto::v1::selector::What;

use super::Api;
use super::authenticate::Caller;
use super::convert::{moment, optional};
use super::status::Outgoing;
use crate::api::suspend::{Suspended, Suspending};
use crate::log::Place;

pub(super) async fn suspend(
    api: &Api,
    wire: &pb::SuspendRequest,
    caller: &Caller,
) -> Result<pb::SuspendResponse, Outgoing> {
    let suspending = Suspending {
        selector: selector(wire.selector.as_ref())?,
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

/// How long an instance's name may be, in bytes.
const INSTANCE_BYTES_MAX: usize = 256;

/// All of something: one credential is not suspended.
fn selector(wire: Option<&pb::Selector>) -> Result<Selector, Outgoing> {
    let empty = || Outgoing::malformed("selector", "expected exactly one thing to be selected");
    let wire = wire.ok_or_else(empty)?;
    let mut selected = Selector {
        issued_before_ms: moment("selector.issued_before", wire.issued_before.as_ref())?,
        ..Selector::default()
    };
    match wire.what.as_ref().ok_or_else(empty)? {
        What::Identity(name) => selected.identity = Some(named("selector.identity", name)?),
        What::Instance(name) => selected.instance = Some(instance(name)?),
        What::Task(name) => selected.task = Some(named("selector.task", name)?),
        What::Target(name) => selected.target = Some(named("selector.target", name)?),
        What::Supplier(name) => selected.supplier = Some(named("selector.supplier", name)?),
        What::Issuer(name) => selected.issuer = Some(named("selector.issuer", name)?),
        What::KeyId(key) => selected.key = Some(named("selector.key_id", key)?),
        What::Everything(true) => selected.everything = true,
        What::Everything(false) => {
            return Err(Outgoing::malformed("selector.everything", "expected true, or something else"));
        }
        What::CredentialId(_) | What::Token(_) | What::Certificate(_) | What::Digest(_) => {
            let expected = "one credential is not suspended: select what it was issued for";
            return Err(Outgoing::malformed("selector", expected));
        }
    }
    Ok(selected)
}

fn named<T: std::str::FromStr<Err: std::fmt::Display>>(field: &str, text: &str) -> Result<T, Outgoing> {
    optional(field, text)?.ok_or_else(|| Outgoing::malformed(field, "expected a name"))
}

fn instance(name: &str) -> Result<String, Outgoing> {
    let fits = (1..=INSTANCE_BYTES_MAX).contains(&name.len()) && !name.chars().any(char::is_control);
    let expected = format!("expected 1 to {INSTANCE_BYTES_MAX} bytes without control characters");
    fits.then(|| name.to_owned()).ok_or_else(|| Outgoing::malformed("selector.instance", expected))
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
