//! Revoking, by whichever face: an operator what it selects, a holder what is its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use daypass_core::decision::Outward;
use daypass_core::draft::Mark;
use daypass_evidence::entry::{By, CredentialIssued, Reach, Selector};
use daypass_verify::ids::{CredentialId, IdentityName, Name};
use daypass_verify::time::UnixMs;
use tokio::time::timeout;

use super::{Api, Caller, Outgoing, outgoing, standing};
use crate::log::Place;
use crate::revocation::{Authority, Matching, Order, Outcome, What, holds, identify};
use crate::store::place;

/// How long an answer waits for all endings: they go on after it.
const ENDINGS_AWAITED: Duration = Duration::from_millis(3_500);

/// How long the words of an order may be, in bytes.
const WORDS_BYTES_MAX: usize = 512;

/// How long the name of an exercise may be, in bytes.
const DRILL_BYTES_MAX: usize = 128;

/// A request to revoke.
#[derive(Debug, Clone)]
pub(crate) struct Revoking {
    /// What.
    pub(crate) what: What,
    /// Only what was issued before.
    pub(crate) issued_before: Option<UnixMs>,
    /// Why: a reason of RFC 5280, section 5.3.1.
    pub(crate) reason: &'static str,
    /// In words; may be empty.
    pub(crate) comment: String,
    /// The name of the exercise; may be empty.
    pub(crate) drill: String,
    /// Count and name; change nothing, spend nothing.
    pub(crate) validate_only: bool,
}

/// What was revoked, or would be.
#[derive(Debug, Default)]
pub(crate) struct Revoked {
    /// How many.
    pub(crate) count: u64,
    /// At most 1,000 of them.
    pub(crate) named: Vec<CredentialId>,
    /// How many by the reach of their targets.
    pub(crate) reach: Vec<(Reach, u64)>,
    /// The first entry of the order; none where nothing was written.
    pub(crate) place: Option<Place>,
    /// Whether more is being ended than had ended when the answer was due.
    pub(crate) goes_on: bool,
}

/// In what right somebody revokes.
enum Right {
    Operator(Name),
    Holder(Vec<IdentityName>),
}

impl Api {
    /// Revokes for `caller`: durable on return, and told by this broker to whoever asks it.
    ///
    /// # Errors
    /// When the request is malformed, is none of the caller's own, or could not be recorded.
    pub(crate) async fn revoke(&self, caller: &Caller, revoking: Revoking) -> Result<Revoked, Outgoing> {
        check_words(&revoking)?;
        let right = self.right_to_revoke(caller)?;
        self.within_rate(caller)?;
        let order = self.order(&right, &revoking).await?;
        if revoking.validate_only {
            let found = self.revocation.preview(&order).await.map_err(outgoing::of_order)?;
            return Ok(found.into());
        }
        let proof = caller.principal.digest();
        let by = match right {
            Right::Operator(name) => By { operator: Some(name), identity: None, proof },
            Right::Holder(own) => By { operator: None, identity: self.held_by(&order, own).await?, proof },
        };
        let marks = Mark::of_proof(&caller.principal).into_iter().collect();
        self.carry_out(order, Authority { by: Some(by), request: Some(caller.request), marks }).await
    }

    fn right_to_revoke(&self, caller: &Caller) -> Result<Right, Outgoing> {
        let (state, now) = (self.desk.log.state(), self.desk.clock.now());
        let bundle = state.bundle();
        let operator =
            bundle.and_then(|it| standing::operator(&caller.principal, standing::CONTAIN, it, now));
        if let Some(name) = operator {
            return Ok(Right::Operator(name.clone()));
        }
        let own = bundle.map(|it| standing::identities(&caller.principal, it, now)).unwrap_or_default();
        if own.is_empty() {
            let message =
                "revoking is the right of an operator (`contain`), or of a holder for what is its own";
            return Err(Outgoing::new(Outward::NotAllowed, message));
        }
        Ok(Right::Holder(own))
    }

    async fn order(&self, right: &Right, revoking: &Revoking) -> Result<Order, Outgoing> {
        let matching = match (&revoking.what, right) {
            (What::All(selector), Right::Operator(_)) => {
                Matching::new(self.until_now(selector, revoking).await)
            }
            (What::All(selector), Right::Holder(own)) => {
                check_own(selector, own)?;
                Matching::of(self.until_now(selector, revoking).await, own.clone())
            }
            (what, _) => self.one(what, right, revoking).await?,
        };
        let said = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
        Ok(Order {
            matching,
            reason: revoking.reason.into(),
            comment: said(&revoking.comment),
            drill: said(&revoking.drill),
            ordered: None,
        })
    }

    /// What is issued while the order is carried out is no part of it.
    async fn until_now(&self, selector: &Selector, revoking: &Revoking) -> Selector {
        let now = self.revocation.from_now_on().await;
        let before = revoking.issued_before.map_or(now, |before| before.min(now));
        Selector { issued_before_ms: Some(before), ..selector.clone() }
    }

    /// One credential. Whose it is that is not the caller's own, nobody learns.
    async fn one(&self, what: &What, right: &Right, revoking: &Revoking) -> Result<Matching, Outgoing> {
        let (what, now) = (what.clone(), self.desk.clock.now());
        let found = self.readers.run(move |reader| identify(reader, &what, now)).await;
        let found = found.map_err(|error| outgoing::of_store(&error))?;
        let own = |issued: &CredentialIssued| match right {
            Right::Operator(_) => true,
            Right::Holder(own) => own.iter().any(|name| holds(name, issued)),
        };
        let Some((at, _)) = found.filter(|(_, issued)| own(issued)) else {
            let message = "no credential of this log is selected, or none that is the caller's own";
            return Err(Outgoing::new(Outward::NotFound, message));
        };
        let before = revoking.issued_before;
        let (shard, index) = place(at);
        let own = shard == u64::from(self.desk.log.published().head.shard);
        Ok(Matching::one(at, own.then_some(index), before))
    }

    /// Which of its identities a holder acts as: the one whose credentials the order is about.
    async fn held_by(&self, order: &Order, own: Vec<IdentityName>) -> Result<Option<IdentityName>, Outgoing> {
        if let Some(name) = &order.matching.selector().identity {
            return Ok(Some(name.clone()));
        }
        let mut matching = order.matching.clone();
        let first = self.readers.run(move |reader| matching.page(reader, None)).await;
        let first = first.map_err(|error| outgoing::of_store(&error))?.found.into_iter().next();
        let as_itself = first.map(|one| one.identity).filter(|name| own.contains(name));
        Ok(as_itself.or_else(|| own.into_iter().next()))
    }

    /// Ends as fast as the log takes it, whoever waits for it.
    async fn carry_out(&self, order: Order, authority: Authority) -> Result<Revoked, Outgoing> {
        let (revocation, ended) = (Arc::clone(&self.revocation), Arc::new(AtomicU64::default()));
        let counted = Arc::clone(&ended);
        let ending = tokio::spawn(async move {
            let done = revocation.revoke(&order, &authority, &counted).await;
            done.inspect_err(|error| tracing::error!(%error, "not all of an order to revoke was carried out"))
        });
        match timeout(ENDINGS_AWAITED, ending).await {
            Ok(Ok(done)) => done.map(Revoked::from).map_err(outgoing::of_order),
            Ok(Err(_)) => Err(Outgoing::new(Outward::Internal, "the order was broken off: give it again")),
            Err(_) => {
                Ok(Revoked { count: ended.load(Ordering::Relaxed), goes_on: true, ..Revoked::default() })
            }
        }
    }
}

impl From<Outcome> for Revoked {
    fn from(outcome: Outcome) -> Self {
        let Outcome { count, named, reach, place, .. } = outcome;
        Self { count, named, reach: reach.into_iter().collect(), place, goes_on: false }
    }
}

/// A holder selects what is its own; what concerns others beside it is for operators.
fn check_own(selector: &Selector, own: &[IdentityName]) -> Result<(), Outgoing> {
    let is_own = selector.identity.as_ref().is_some_and(|name| own.contains(name));
    if is_own || selector.instance.is_some() {
        return Ok(());
    }
    let message = "a holder revokes by credential, its own identity or its instance: what else there is to select is an operator's right (`contain`)";
    Err(Outgoing::new(Outward::NotAllowed, message))
}

fn check_words(revoking: &Revoking) -> Result<(), Outgoing> {
    let words =
        [("comment", &revoking.comment, WORDS_BYTES_MAX), ("drill", &revoking.drill, DRILL_BYTES_MAX)];
    for (field, text, most) in words {
        if text.len() > most || text.chars().any(char::is_control) {
            let expected = format!("expected at most {most} bytes without control characters");
            return Err(Outgoing::malformed(field, expected));
        }
    }
    match &revoking.what {
        What::All(selector) if selector.everything => Err(Outgoing::malformed(
            "selector.everything",
            "this is for Suspend, which also keeps new ones from being issued: select something, or suspend",
        )),
        _ => Ok(()),
    }
}
