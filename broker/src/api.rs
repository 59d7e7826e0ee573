//! What is offered, before it is spelt as gRPC or as HTTP: who calls, what they get, and what they are told otherwise.

pub(crate) mod caller;
pub(crate) mod fields;
mod introspect;
pub(crate) mod node;
pub(crate) mod observe;
pub(crate) mod operator;
pub(crate) mod outgoing;
mod renewal;
pub(crate) mod revoke;
pub(crate) mod standing;
pub(crate) mod suspend;

use std::sync::Arc;
use std::time::{Duration, Instant};

use daypass_core::decision::Outward;
use daypass_core::request::Request;
use daypass_evidence::checkpoint::Checkpoint;

pub(crate) use caller::{Caller, bearer, caller, client};
pub(crate) use outgoing::{Outgoing, too_late};

use crate::alarms::Alarms;
use crate::index::Readers;
use crate::issue::{self, Credential, Desk, Refusal};
use crate::limits::Limits;
use crate::log::{Compared, RecordError};
use crate::refusals::Refusals;
use crate::revocation::Revocation;
use crate::rotate::Rotation;
use crate::serve::Shown;
use crate::shelf::Shelf;
use crate::suspension::Suspensions;
use crate::telemetry;
use crate::trust::Trust;
use crate::witness::Cosignatures;

/// The header of every answer that names its request.
pub(crate) const REQUEST_ID: &str = "daypass-request-id";

/// How long a request may take until its answer begins, who calls included; streams may go on after that.
pub(crate) const REQUEST_TIME: Duration = Duration::from_secs(5);

/// What both faces need.
pub struct Api {
    /// Issues.
    pub desk: Desk,
    /// Whom we believe.
    pub trust: Trust,
    /// Reads the newest log.
    pub readers: Readers,
    /// Reads those before it too.
    pub shelf: Shelf,
    /// Checkpoints that witnesses signed.
    pub cosignatures: Cosignatures,
    /// How fast one caller may ask.
    pub limits: Arc<Limits>,
    /// Counts and explains what was refused.
    pub refusals: Arc<Refusals>,
    /// Changes keys.
    pub rotation: Arc<Rotation>,
    /// Suspends, and lets go on.
    pub suspensions: Arc<Suspensions>,
    /// Revokes, and knows what is revoked.
    pub revocation: Arc<Revocation>,
    /// What receivers need to verify credentials.
    pub shown: Shown,
    /// What a person must look at.
    pub alarms: Alarms,
}

impl Api {
    /// Issues one credential: whoever asks, and by whichever face.
    ///
    /// # Errors
    /// When it was refused, or nothing could be recorded or signed.
    pub(crate) async fn issue(
        &self,
        caller: &Caller,
        request: &Request,
        known: Option<Checkpoint>,
    ) -> Result<Credential, Outgoing> {
        let known = match known {
            Some(known) => self.compared(known, caller, request).await?,
            None => None,
        };
        let issued = issue::issue(&self.desk, &caller.principal, request, known).await;
        if matches!(issued, Err(Refusal::NotRecorded(RecordError::Superseded))) {
            self.suspend_node(caller).await;
        }
        issued.map_err(|refusal| outgoing::of_refusal(refusal, request.id, self))
    }

    /// What the writer still has to compare of the checkpoint that the caller holds: one that this broker knows nothing
    /// of yet. Any other one is compared here.
    async fn compared(
        &self,
        known: Checkpoint,
        caller: &Caller,
        request: &Request,
    ) -> Result<Option<Checkpoint>, Outgoing> {
        let log = &self.desk.log;
        let refused = |error: RecordError| outgoing::of_refusal(error.into(), request.id, self);
        match log.compare(&known).map_err(refused)? {
            Compared::Same => Ok(None),
            Compared::Ahead => Ok(Some(known)),
            Compared::Unknown => Err(Outgoing::malformed(
                "known_checkpoint",
                "it is of a log that this deployment does not keep: send the newest one, or none",
            )),
            Compared::Older => {
                let (who, instance) = limited_as(caller);
                self.limits.old_checkpoint(who, instance).map_err(|wait| {
                    let message = "this identity shows old checkpoints faster than this broker compares them: come back, or send the newest";
                    Outgoing::new(Outward::RateLimited, message).retry(wait)
                })?;
                let readers = self.shelf.readers(&known.origin);
                let compared = log.compare_stored(&known, readers).await;
                compared.map_err(|error| outgoing::of_store(&error))?.map_err(refused)?;
                Ok(None)
            }
        }
    }

    /// Before anything is looked up, decided or spent.
    ///
    /// # Errors
    /// When this identity has asked too often lately.
    pub(crate) fn within_rate(&self, caller: &Caller) -> Result<(), Outgoing> {
        let (who, instance) = limited_as(caller);
        self.limits.issue(who, instance).map_err(|wait| {
            let message = "this identity asks faster than this broker serves one: come back";
            Outgoing::new(Outward::RateLimited, message).retry(wait)
        })
    }

    /// Counts an answer to a request for a credential; `issued` says whether it holds one.
    pub(crate) fn count(&self, began: Instant, refusal: Option<&Outgoing>, issued: bool) {
        let result = refusal.map_or("issued", |outgoing| outgoing.reason.as_str());
        metrics::counter!(telemetry::ISSUES, "result" => result).increment(1);
        metrics::histogram!(telemetry::ISSUE_SECONDS).record(began.elapsed().as_secs_f64());
        if issued {
            self.refusals.issued(began.elapsed());
        }
    }
}

/// Whose rate a call counts towards. A node chooses how the instances that it speaks for are called: all count as its own.
fn limited_as(caller: &Caller) -> (&str, Option<&str>) {
    let principal = &caller.principal;
    if let Some(via) = principal.via() {
        return (via.node.as_str(), None);
    }
    let named = principal.identities().first().map(|(name, _)| name.as_str());
    (named.unwrap_or(principal.subject()), principal.instance())
}
