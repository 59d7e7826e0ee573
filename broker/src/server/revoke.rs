//! `CredentialService.Revoke`: decode, revoke, answer.

use daypass_proto::v1 as pb;

use super::Api;
use super::authenticate::Caller;
use super::selector::selector;
use super::status::Outgoing;
use crate::api::revoke::{Revoked, Revoking};

pub(super) async fn revoke(
    api: &Api,
    wire: &pb::RevokeRequest,
    caller: &Caller,
) -> Result<pb::RevokeResponse, Outgoing> {
    let (what, issued_before) = selector(wire.selector.as_ref())?;
    let revoking = Revoking {
        what,
        issued_before,
        reason: reason(wire.reason)?,
        comment: wire.comment.clone(),
        drill: wire.drill.clone(),
        validate_only: wire.validate_only,
    };
    Ok(answer(api.revoke(caller, revoking).await?))
}

fn answer(revoked: Revoked) -> pb::RevokeResponse {
    let place = revoked.place.as_ref();
    pb::RevokeResponse {
        count: revoked.count,
        credential_ids: revoked.named.iter().map(ToString::to_string).collect(),
        entry: place.map(|place| pb::EntryRef { log: place.origin.to_string(), index: place.index }),
        goes_on: revoked.goes_on,
        reach: revoked.reach.iter().map(|(reach, count)| (reach.as_str().to_owned(), *count)).collect(),
    }
}

/// As entries spell it (RFC 5280, section 5.3.1).
fn reason(wire: i32) -> Result<&'static str, Outgoing> {
    Ok(match pb::RevocationReason::try_from(wire).unwrap_or_default() {
        pb::RevocationReason::Unspecified => {
            let expected = "expected one of KEY_COMPROMISE, CA_COMPROMISE, AFFILIATION_CHANGED, SUPERSEDED, CESSATION_OF_OPERATION, PRIVILEGE_WITHDRAWN";
            return Err(Outgoing::malformed("reason", expected));
        }
        pb::RevocationReason::KeyCompromise => "keyCompromise",
        pb::RevocationReason::CaCompromise => "cACompromise",
        pb::RevocationReason::AffiliationChanged => "affiliationChanged",
        pb::RevocationReason::Superseded => "superseded",
        pb::RevocationReason::CessationOfOperation => "cessationOfOperation",
        pb::RevocationReason::PrivilegeWithdrawn => "privilegeWithdrawn",
    })
}
