//! What was seen at targets, by those who serve them: held to what is declared and to what was issued, and recorded.

use std::collections::BTreeSet;

use daypass_core::bundle::object::Enforcement;
use daypass_core::decision::Outward;
use daypass_core::draft::Mark;
use daypass_evidence::entry::{AccessObserved, By, NewEntry, Observed};
use daypass_verify::ids::{CredentialId, IdentityName, Name};
use daypass_verify::scope::{Action, Resource};
use daypass_verify::time::UnixMs;

use super::{Api, Caller, Outgoing, outgoing, standing};
use crate::log::{Attached, Place};
use crate::revocation::{What, identify};
use crate::store::place;

/// How many observations one call may bring.
pub(crate) const OBSERVATIONS_MAX: usize = 256;

/// How far ahead of our clock, and how long ago, something may have been seen.
const AHEAD_MS: i64 = 30_000;
const AGO_MS: i64 = 24 * 3_600_000;

/// How long the words of an observation may be, in bytes.
const DETAIL_BYTES_MAX: usize = 512;

/// One thing that was seen.
#[derive(Debug, Clone)]
pub(crate) struct Observation {
    pub(crate) target: Name,
    pub(crate) what: Observed,
    pub(crate) credential: Option<CredentialId>,
    pub(crate) exception: Option<Name>,
    pub(crate) at: Option<UnixMs>,
    pub(crate) count: u64,
    pub(crate) detail: String,
    pub(crate) actions: BTreeSet<Action>,
    pub(crate) resources: BTreeSet<Resource>,
}

impl Api {
    /// Records what `caller` saw at targets that it serves: all of it, or nothing.
    ///
    /// # Errors
    /// When one of them cannot be, is of a target that the caller does not serve, or could not be recorded.
    pub(crate) async fn observe(&self, caller: &Caller, seen: Vec<Observation>) -> Result<Place, Outgoing> {
        if seen.is_empty() || seen.len() > OBSERVATIONS_MAX {
            let expected = format!("expected 1 to {OBSERVATIONS_MAX}");
            return Err(Outgoing::malformed("observations", expected));
        }
        self.within_rate(caller)?;
        let now = self.desk.clock.now();
        let mut entries = Vec::with_capacity(seen.len());
        for (n, one) in seen.into_iter().enumerate() {
            let identity = self.serves(caller, &one.target)?;
            let body = self.observation(&format!("observations[{n}]"), one, now).await?;
            let by = By { operator: None, identity: Some(identity), proof: caller.principal.digest() };
            let id = self.desk.ids.draw(now).map_err(|_| {
                Outgoing::new(Outward::Internal, "the broker could not draw an id: its log says why")
            })?;
            entries.push(NewEntry { id, request: Some(caller.request), by: Some(by), body: body.into() });
        }
        let marks = Mark::of_proof(&caller.principal).into_iter().collect();
        let places = self.desk.log.append(entries, Attached { marks, ..Attached::default() }).await;
        let first = places.map_err(|error| outgoing::of_record(&error))?.into_iter().next();
        first.ok_or_else(|| Outgoing::new(Outward::Internal, "nothing was recorded"))
    }

    /// The identity of the caller that serves a target.
    fn serves(&self, caller: &Caller, target: &Name) -> Result<IdentityName, Outgoing> {
        let (state, now) = (self.desk.log.state(), self.desk.clock.now());
        let bundle = state.bundle();
        let declared = bundle.and_then(|bundle| bundle.declared().targets.get(target));
        let own = bundle.map(|it| standing::identities(&caller.principal, it, now)).unwrap_or_default();
        let serves = |name: &IdentityName| declared.is_some_and(|target| target.served_by.contains(name));
        own.into_iter().find(serves).ok_or_else(|| {
            let message = "telling what was seen at a target is the right of who serves it (`served_by`)";
            Outgoing::new(Outward::NotAllowed, message)
        })
    }

    async fn observation(&self, at: &str, one: Observation, now: UnixMs) -> Result<AccessObserved, Outgoing> {
        let wrong = |field: &str, expected: &str| Outgoing::malformed(&format!("{at}.{field}"), expected);
        let seen_at = one.at.unwrap_or(now);
        if seen_at.millis_since(now) > AHEAD_MS || now.millis_since(seen_at) > AGO_MS {
            return Err(wrong("at", "expected a time of the last 24 hours"));
        }
        if one.detail.len() > DETAIL_BYTES_MAX || one.detail.chars().any(char::is_control) {
            return Err(wrong("detail", "expected at most 512 bytes without control characters"));
        }
        let credential = match one.credential {
            None => None,
            Some(id) => {
                let find =
                    move |reader: &dyn crate::store::Reader| identify(reader, &What::Credential(id), now);
                let found = self.readers.run(find).await.map_err(|error| outgoing::of_store(&error))?;
                let issued = found.filter(|(_, issued)| issued.target.name == one.target);
                let unknown =
                    || wrong("credential_id", "expected a credential that was issued for this target");
                Some(place(issued.ok_or_else(unknown)?.0).1)
            }
        };
        let state = self.desk.log.state();
        let declared = state.bundle().map(|bundle| bundle.declared());
        let known = |name: &Name| declared.is_some_and(|it| it.exceptions.contains_key(name));
        if one.exception.as_ref().is_some_and(|name| !known(name)) {
            return Err(wrong("exception", "expected a declared exception"));
        }
        if credential.is_none()
            && one.exception.is_none()
            && one.what != Observed::Unseen
            && one.what != Observed::LeftOver
        {
            return Err(wrong(
                "credential_id",
                "expected the credential, or the exception, that it is about",
            ));
        }
        let enforcement = declared.and_then(|it| it.targets.get(&one.target)).map(|it| it.enforcement);
        Ok(AccessObserved {
            target: one.target,
            what: one.what,
            credential,
            exception: one.exception,
            at_ms: seen_at,
            method: match enforcement {
                Some(Enforcement::Enforcer) => "enforcer",
                Some(Enforcement::Proxy) => "proxy",
                _ => "verifier",
            }
            .into(),
            count: one.count.max(1),
            actions: one.actions,
            resources: one.resources,
            detail: Some(one.detail).filter(|text| !text.is_empty()),
        })
    }
}
