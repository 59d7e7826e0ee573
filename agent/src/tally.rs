//! How often something was done, and the report of it to the broker.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use daypass_sdk::{Action, Client, Error, Observation, ObservationKind};
use daypass_verify::ids::{CredentialId, Name};
use daypass_verify::time::UnixMs;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::warn;

use crate::clock::now;
use crate::standing::Standing;

/// How often is reported.
const REPORT_EVERY: Duration = Duration::from_secs(10);
/// How long the last report may take.
const LAST_REPORT: Duration = Duration::from_secs(3);
/// How many kinds of what was seen wait for a report at most, and go into one.
const KINDS_MAX: usize = 4096;
const REPORTED_MAX: usize = 256;

/// One kind of what was seen.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Seen {
    /// Under which credential.
    pub(crate) credential: Option<CredentialId>,
    /// Under which exception.
    pub(crate) exception: Option<Name>,
    /// What was to be done, where that is known.
    pub(crate) action: Option<Action>,
    /// Why it was refused; none: it went on.
    pub(crate) refused: Option<&'static str>,
}

/// How often, and when last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Count {
    times: u64,
    last: UnixMs,
}

/// What was seen since the last report. Clones are the same tally.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally(Arc<Mutex<BTreeMap<Seen, Count>>>);

impl Tally {
    pub(crate) fn add(&self, seen: Seen) {
        self.add_all(seen, Count { times: 1, last: now() });
    }

    fn add_all(&self, seen: Seen, count: Count) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.len() >= KINDS_MAX && !counts.contains_key(&seen) {
            return;
        }
        let known = counts.entry(seen).or_insert(Count { times: 0, last: count.last });
        *known = Count { times: known.times + count.times, last: known.last.max(count.last) };
    }

    fn take(&self) -> Vec<(Seen, Count)> {
        let taken = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        taken.into_iter().collect()
    }
}

/// What reports one tally.
pub(crate) struct Reporter {
    tally: Tally,
    standing: Standing,
    clients: watch::Receiver<Client>,
}

impl Reporter {
    pub(crate) fn new(tally: Tally, standing: Standing, clients: watch::Receiver<Client>) -> Self {
        Self { tally, standing, clients }
    }

    /// Reports, for ever.
    pub(crate) async fn run(self: Arc<Self>) {
        loop {
            sleep(REPORT_EVERY).await;
            self.report().await;
        }
    }

    /// Reports what is left.
    pub(crate) async fn close(&self) {
        if timeout(LAST_REPORT, self.report()).await.is_err() {
            warn!("target `{}`: what was done last could not be reported", self.standing.target());
        }
    }

    async fn report(&self) {
        let seen = self.tally.take();
        for some in seen.chunks(REPORTED_MAX) {
            match self.observe(some).await {
                Ok(()) => {}
                // One that cannot be recorded must not keep the others from it.
                Err(Error::FixRequest { .. }) => {
                    for one in some {
                        self.report_one(one).await;
                    }
                }
                Err(error) => {
                    warn!("target `{}`: use could not be reported yet: {error}", self.standing.target());
                    for (seen, count) in some {
                        self.tally.add_all(seen.clone(), *count);
                    }
                }
            }
        }
    }

    /// An exception that is declared no more cannot be named; the credential can.
    async fn report_one(&self, (seen, count): &(Seen, Count)) {
        let unnamed = Seen { exception: None, ..seen.clone() };
        let mut failed = None;
        for seen in [seen.clone(), unnamed] {
            match self.observe(&[(seen, *count)]).await {
                Ok(()) => return,
                Err(error) => failed = Some(error),
            }
        }
        if let Some(error) = failed {
            let (times, target) = (count.times, self.standing.target());
            warn!("target `{target}`: {times} times {seen:?} cannot be recorded: {error}");
        }
    }

    async fn observe(&self, seen: &[(Seen, Count)]) -> Result<(), Error> {
        let known = |name: &&Name| self.standing.knows(name);
        let kind = |refused: &Option<&str>| match refused {
            None => ObservationKind::Used,
            Some(_) => ObservationKind::Refused,
        };
        let observations = seen.iter().map(|(seen, count)| Observation {
            credential: seen.credential,
            exception: seen.exception.as_ref().filter(known).cloned(),
            at: Some(count.last),
            count: count.times,
            actions: seen.action.iter().cloned().collect(),
            detail: seen.refused.unwrap_or_default().to_owned(),
            ..Observation::of(self.standing.target().clone(), kind(&seen.refused))
        });
        let named = |it: &Observation| it.credential.is_some() || it.exception.is_some();
        let observations: Vec<_> = observations.filter(named).collect();
        let client = self.clients.borrow().clone();
        client.observe(&observations).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_reported_is_added_to_what_came_since() {
        let tally = Tally::default();
        let seen = |refused| Seen { credential: None, exception: None, action: None, refused };
        for _ in 0..3 {
            tally.add(seen(None));
        }
        tally.add(seen(Some("access_denied")));
        let taken = tally.take();
        assert_eq!(taken.iter().map(|(_, count)| count.times).collect::<Vec<_>>(), [3, 1]);
        tally.add(seen(None));
        for (seen, count) in taken {
            tally.add_all(seen, count);
        }
        assert_eq!(tally.take().iter().map(|(_, count)| count.times).collect::<Vec<_>>(), [4, 1]);
        assert!(tally.take().is_empty());
    }
}
