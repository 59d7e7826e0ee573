//! Telling the broker whose credentials are used here: counted beside the requests, and told a few at a time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use daypass_proto::v1::ObservationKind;
use daypass_verify::ids::{CredentialId, Name};
use daypass_verify::time::UnixMs;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::sleep;

use crate::client::Client;
use crate::clock::Clock;
use crate::observation::Observation;

/// How often by itself.
const EVERY: Duration = Duration::from_secs(10);
/// How many credentials are counted until they are told; further ones are not, and it is said how many uses that were.
const COUNTED_MAX: usize = 4_096;
/// How many one call tells of.
const TOLD_MAX: usize = 256;

/// That use shall be told: to which broker, and of which target. A call that fails is made again, so that what is told may
/// be more than what was, and what was not told when the last receiver is dropped is lost.
#[derive(Debug, Clone)]
pub struct Report {
    /// A client whose identity serves the target (`served_by`).
    pub client: Client,
    /// The declared target.
    pub target: Name,
    /// How long uses are gathered.
    pub every: Duration,
}

impl Report {
    /// To the broker of `client`, each ten seconds.
    #[must_use]
    pub fn new(client: Client, target: Name) -> Self {
        Self { client, target, every: EVERY }
    }
}

/// How often one credential was used, and when last.
type Uses = BTreeMap<CredentialId, (u64, UnixMs)>;

/// Counts uses. Nothing in it waits for anybody.
#[derive(Debug)]
pub(super) struct Reporter {
    counted: Arc<Counted>,
    clock: Arc<dyn Clock>,
    task: AbortHandle,
}

#[derive(Debug, Default)]
struct Counted {
    uses: Mutex<(Uses, u64)>,
    any: Notify,
    untold: Mutex<Option<String>>,
}

impl Drop for Reporter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Reporter {
    /// To be made within a tokio runtime.
    pub(super) fn start(report: Report, clock: Arc<dyn Clock>) -> Self {
        let counted = Arc::new(Counted::default());
        let task = tokio::spawn(tell(report, Arc::clone(&counted))).abort_handle();
        Self { counted, clock, task }
    }

    /// One more use.
    pub(super) fn used(&self, credential: CredentialId) {
        self.counted.add(credential, 1, self.clock.now());
        self.counted.any.notify_one();
    }

    /// What the last call did not tell, and why.
    pub(super) fn untold(&self) -> Option<String> {
        self.counted.untold().clone()
    }
}

impl Counted {
    fn lock(&self) -> MutexGuard<'_, (Uses, u64)> {
        self.uses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn untold(&self) -> MutexGuard<'_, Option<String>> {
        self.untold.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, credential: CredentialId, count: u64, at: UnixMs) {
        let mut uses = self.lock();
        if uses.0.len() >= COUNTED_MAX && !uses.0.contains_key(&credential) {
            uses.1 = uses.1.saturating_add(count);
            return;
        }
        let (counted, last) = uses.0.entry(credential).or_insert((0, at));
        (*counted, *last) = (counted.saturating_add(count), at.max(*last));
    }

    /// As many as one call tells of; and how many uses were not counted.
    fn take(&self) -> (Uses, u64) {
        let mut uses = self.lock();
        let mut taken = std::mem::take(&mut uses.0);
        if let Some(rest) = taken.keys().nth(TOLD_MAX).copied() {
            uses.0 = taken.split_off(&rest);
        }
        (taken, std::mem::take(&mut uses.1))
    }
}

async fn tell(report: Report, counted: Arc<Counted>) {
    loop {
        counted.any.notified().await;
        sleep(report.every).await;
        let (uses, lost) = counted.take();
        let mut untold = (lost > 0)
            .then(|| format!("{lost} uses were not counted: more than {COUNTED_MAX} credentials wait"));
        let seen: Vec<_> = uses.iter().map(|(id, it)| observation(&report.target, *id, *it)).collect();
        if let Err(error) = report.client.observe(&seen).await {
            untold = Some(format!("the use of {} credentials is not told yet: {error}", seen.len()));
            uses.into_iter().for_each(|(id, (count, at))| counted.add(id, count, at));
        }
        *counted.untold() = untold;
        if !counted.lock().0.is_empty() {
            counted.any.notify_one();
        }
    }
}

fn observation(target: &Name, credential: CredentialId, (count, at): (u64, UnixMs)) -> Observation {
    Observation {
        credential: Some(credential),
        at: Some(at),
        count,
        ..Observation::of(target.clone(), ObservationKind::Used)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: usize) -> CredentialId {
        format!("01a2042b-b009-7b93-8118-{n:012x}").parse().unwrap()
    }

    #[test]
    fn what_is_counted_is_bounded_and_told_in_calls_that_a_broker_takes() {
        let (counted, now) = (Counted::default(), UnixMs::new(1_795_310_000_000));
        for n in 0..COUNTED_MAX + 7 {
            counted.add(id(n), 1, now);
        }
        counted.add(id(0), 2, now.plus_millis(5));
        let (first, lost) = counted.take();
        assert_eq!((first.len(), lost), (TOLD_MAX, 7));
        assert_eq!(first[&id(0)], (3, now.plus_millis(5)));
        let mut told = first.len();
        loop {
            match counted.take() {
                (uses, 0) if uses.is_empty() => break,
                (uses, lost) => (told, _) = (told + uses.len(), assert_eq!(lost, 0)),
            }
        }
        assert_eq!(told, COUNTED_MAX);
    }
}
