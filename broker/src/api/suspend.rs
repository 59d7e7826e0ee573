//! Suspending and resuming: an operator's orders.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use daypass_core::decision::Outward;
use daypass_core::draft::Mark;
use daypass_evidence::entry::{By, Selector, SuspensionSet};
use daypass_verify::ids::{CredentialId, Name};
use daypass_verify::time::UnixMs;
use tokio::time::timeout;

use super::{Api, Caller, Outgoing, outgoing, standing};
use crate::emergency::begins_like_an_order;
use crate::log::Place;
use crate::revocation::{Authority, Outcome};
use crate::suspension::LiftError;

/// How long an answer waits for all endings: they go on after it.
const ENDINGS_AWAITED: Duration = Duration::from_millis(2_500);

/// How long the words of an order, and the name of an exercise, may be, in bytes.
const WORDS_BYTES_MAX: usize = 512;
const DRILL_BYTES_MAX: usize = 128;

/// A request to suspend.
#[derive(Debug, Clone)]
pub(crate) struct Suspending {
    /// What; its cut-off says which of what lives is revoked.
    pub(crate) selector: Selector,
    /// Why, in words.
    pub(crate) reason: String,
    /// Until when; none: until it is lifted.
    pub(crate) until: Option<UnixMs>,
    /// Leaves what lives to its own end.
    pub(crate) keep_live: bool,
    /// The name of the exercise; may be empty.
    pub(crate) drill: String,
    /// Count and name; change nothing, spend nothing.
    pub(crate) validate_only: bool,
}

/// What was suspended, or would be.
#[derive(Debug, Default)]
pub(crate) struct Suspended {
    /// The id by which it is lifted; none where nothing was written.
    pub(crate) id: Option<CredentialId>,
    /// How many credentials lived.
    pub(crate) live: u64,
    /// At most 1,000 of them.
    pub(crate) named: Vec<CredentialId>,
    /// How many were revoked by now.
    pub(crate) revoked: u64,
    /// Whether more are being revoked.
    pub(crate) goes_on: bool,
    /// Its entry; none where nothing was written.
    pub(crate) place: Option<Place>,
}

impl Api {
    /// Suspends for `caller`: from the entry on nothing is issued for what is selected, on any broker.
    ///
    /// # Errors
    /// When the request is malformed or not the caller's to give, or could not be recorded.
    pub(crate) async fn suspend(
        &self,
        caller: &Caller,
        suspending: Suspending,
    ) -> Result<Suspended, Outgoing> {
        let operator = self.operator(caller, standing::CONTAIN, "suspend")?;
        let set = self.checked(suspending.clone())?;
        self.within_rate(caller)?;
        if suspending.validate_only {
            let Outcome { count, named, .. } =
                self.suspensions.preview(&set.selector).await.map_err(outgoing::of_order)?;
            return Ok(Suspended { live: count, named, ..Suspended::default() });
        }
        let authority = ordered_by(caller, operator);
        let made = self.suspensions.set(set.clone(), &authority).await.map_err(outgoing::of_order)?;
        let mut suspended = Suspended { id: Some(made.id), live: made.live, ..Suspended::default() };
        if set.revokes {
            self.revoke_suspended(made.place.index, set, authority, &mut suspended).await;
        }
        suspended.place = Some(made.place);
        Ok(suspended)
    }

    /// It is suspended already; what lives is revoked as fast as the log takes it, whoever waits for it.
    async fn revoke_suspended(
        &self,
        at: u64,
        set: SuspensionSet,
        authority: Authority,
        suspended: &mut Suspended,
    ) {
        let (suspensions, ended) = (Arc::clone(&self.suspensions), Arc::new(AtomicU64::default()));
        let counted = Arc::clone(&ended);
        let revoking = tokio::spawn(async move {
            let done = suspensions.revoke(at, &set, &authority, &counted).await;
            done.inspect_err(|error| {
                tracing::error!(%error, "not all that a suspension revokes was ended; it is tried again");
            })
        });
        match timeout(ENDINGS_AWAITED, revoking).await {
            Ok(Ok(Ok(Outcome { count, named, .. }))) => {
                // What was issued between the count and the entry was revoked too.
                (suspended.revoked, suspended.named) = (count, named);
                suspended.live = suspended.live.max(count);
            }
            // What is left is ended by whichever broker looks next: the order itself stands.
            _ => (suspended.revoked, suspended.goes_on) = (ended.load(Ordering::Relaxed), true),
        }
    }

    /// Lifts one suspension for `caller`.
    ///
    /// # Errors
    /// When there is none, the caller may not, or it could not be recorded.
    pub(crate) async fn resume(
        &self,
        caller: &Caller,
        suspension: &str,
        reason: &str,
    ) -> Result<Place, Outgoing> {
        let operator = self.operator(caller, standing::CONTAIN, "resume")?;
        check_reason(reason)?;
        if suspension.is_empty() {
            return Err(Outgoing::malformed("suspension", "expected the id of a suspension"));
        }
        let lifted = self.suspensions.lift(suspension, reason, &ordered_by(caller, operator)).await;
        lifted.map_err(|error| match error {
            LiftError::Unknown => {
                self.leave_trace(caller, "ORDER_REFUSED", &format!("`resume`: {error}"));
                Outgoing::new(Outward::NotFound, error.to_string())
            }
            LiftError::Switch => {
                self.leave_trace(caller, "ORDER_REFUSED", &format!("`resume`: {error}"));
                Outgoing::new(Outward::NotAllowed, error.to_string())
            }
            LiftError::Failed(error) => outgoing::of_order(error),
        })
    }

    fn checked(&self, wanted: Suspending) -> Result<SuspensionSet, Outgoing> {
        check_reason(&wanted.reason)?;
        if begins_like_an_order(&wanted.reason) {
            let expected = "so begin the reasons of the emergency switch: say it in other words";
            return Err(Outgoing::malformed("reason", expected));
        }
        check_words("drill", &wanted.drill, DRILL_BYTES_MAX)?;
        if wanted.until.is_some_and(|until| until <= self.desk.clock.now()) {
            return Err(Outgoing::malformed("until", "expected a time to come, or none"));
        }
        Ok(SuspensionSet {
            selector: wanted.selector,
            reason: wanted.reason,
            until_ms: wanted.until,
            revoked: 0,
            live: 0,
            drill: Some(wanted.drill).filter(|drill| !drill.is_empty()),
            revokes: !wanted.keep_live,
        })
    }
}

fn ordered_by(caller: &Caller, operator: Name) -> Authority {
    Authority {
        by: Some(By { operator: Some(operator), identity: None, proof: caller.principal.digest() }),
        request: Some(caller.request),
        marks: Mark::of_proof(&caller.principal).into_iter().collect(),
    }
}

fn check_reason(reason: &str) -> Result<(), Outgoing> {
    if reason.trim().is_empty() {
        return Err(Outgoing::malformed("reason", "expected why, in words: it is recorded"));
    }
    check_words("reason", reason, WORDS_BYTES_MAX)
}

fn check_words(field: &str, text: &str, most: usize) -> Result<(), Outgoing> {
    if text.len() > most || text.chars().any(char::is_control) {
        let expected = format!("expected at most {most} bytes without control characters");
        return Err(Outgoing::malformed(field, expected));
    }
    Ok(())
}
