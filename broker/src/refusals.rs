//! Refusals: answered first, recorded within 5 s; one entry for the first of a kind in a minute, then a count. And
//! what an operator may ask about each, by request id.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use daypass_core::decision::Denial;
use daypass_evidence::entry::{Body, By, Counts, Latency, NewEntry};
use daypass_verify::ids::{CredentialId, IdentityName, RequestId};
use daypass_verify::time::UnixMs;
use hdrhistogram::Histogram;

use crate::ids::Ids;

/// How long refusals of one kind are counted together.
const KIND_MS: i64 = 60_000;

/// How many kinds are counted at once: past that, new ones are counted together by issuer and reason, so that no
/// caller can grow the log at will.
const KINDS: usize = 1_000;

/// How many refusals an operator can still ask about after they were answered.
const EXPLAINED: usize = 10_000;

/// Why a request was refused: for an operator, never for the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The inner reason.
    pub reason: String,
    /// What failed, in words.
    pub clause: String,
    /// The rules that forbade it.
    pub rules: Vec<String>,
    /// Whether the broker drew the request's id: then no entry that names it is older.
    pub id_is_ours: bool,
}

/// What makes two refusals of one kind: nothing that a caller can make up.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Kind {
    issuer: String,
    subject: String,
    /// One proof, that of a node, may be shown for several.
    identity: Option<IdentityName>,
    task: String,
    reason: &'static str,
}

impl Kind {
    fn of(denial: &Denial, declared: bool) -> Self {
        Self {
            issuer: denial.proof.issuer.clone(),
            subject: denial.proof.subject.clone(),
            identity: denial.identity.as_ref().map(|it| it.name.clone()),
            task: if declared { denial.task.clone() } else { String::new() },
            reason: denial.inner,
        }
    }

    fn folded(self) -> Self {
        Self { subject: String::new(), identity: None, task: String::new(), ..self }
    }
}

/// A kind that is counted.
struct Counting {
    newest: Denial,
    request: RequestId,
    first: UnixMs,
    since: UnixMs,
    waiting: u64,
    newest_entry: Option<CredentialId>,
}

#[derive(Default)]
struct Inner {
    kinds: HashMap<Kind, Counting>,
    explained: HashMap<RequestId, Explanation>,
    order: VecDeque<RequestId>,
    counts: Counts,
    latencies: Option<Histogram<u64>>,
}

/// Everything that was refused and is not yet written.
#[derive(Default)]
pub struct Refusals(Mutex<Inner>);

impl Refusals {
    /// Counts a denial of a caller whose proof held, and keeps its explanation. `declared` says whether the task
    /// that it named is one: any other text tells no kinds apart.
    pub fn denied(&self, request: RequestId, denial: Denial, declared: bool) {
        let explanation = Explanation {
            reason: denial.inner.into(),
            clause: denial.clause.clone(),
            rules: denial.rules.iter().cloned().collect(),
            id_is_ours: false,
        };
        let mut inner = self.lock();
        inner.counts.refused += 1;
        inner.explain(request, explanation);
        let mut kind = Kind::of(&denial, declared);
        if inner.kinds.len() >= KINDS && !inner.kinds.contains_key(&kind) {
            kind = kind.folded();
        }
        let now = denial.at;
        let counting = inner.kinds.entry(kind).or_insert_with(|| Counting {
            newest: denial.clone(),
            request,
            first: now,
            since: now.plus_millis(-KIND_MS),
            waiting: 0,
            newest_entry: None,
        });
        if counting.waiting == 0 {
            (counting.first, counting.request) = (now, request);
        }
        counting.waiting += 1;
        counting.newest = denial;
    }

    /// Counts a proof that failed: strangers cannot grow the log.
    pub fn proof_failed(&self, request: RequestId, reason: &'static str, detail: &str) {
        metrics::counter!(crate::telemetry::PROOF_FAILURES, "reason" => reason).increment(1);
        let mut inner = self.lock();
        *inner.counts.proof_failed.entry(reason.into()).or_default() += 1;
        let clause = detail.chars().take(256).collect();
        let rules = Vec::new();
        inner.explain(request, Explanation { reason: reason.into(), clause, rules, id_is_ours: true });
    }

    /// Counts a request that could not be served for a reason of ours.
    pub fn unavailable(&self, request: RequestId, reason: &str, detail: &str) {
        let mut inner = self.lock();
        inner.counts.unavailable += 1;
        inner.explain(
            request,
            Explanation {
                reason: reason.into(),
                clause: detail.into(),
                rules: Vec::new(),
                id_is_ours: false,
            },
        );
    }

    /// Counts a credential, and how long it took.
    pub fn issued(&self, took: Duration) {
        let mut inner = self.lock();
        inner.counts.issued += 1;
        if inner.latencies.is_none() {
            inner.latencies = Histogram::new_with_bounds(1, 60_000_000, 2).ok();
        }
        if let Some(latencies) = &mut inner.latencies {
            latencies.saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        }
    }

    /// Why a request was refused, if that is still in memory.
    #[must_use]
    pub fn explain(&self, request: &RequestId) -> Option<Explanation> {
        self.lock().explained.get(request).cloned()
    }

    /// What was counted since this was last asked, and how long issuance took.
    #[must_use]
    pub fn take_activity(&self) -> (Counts, Option<Latency>) {
        let mut inner = self.lock();
        let latency = inner.latencies.take().map(|latencies| {
            let millis = |quantile| latencies.value_at_quantile(quantile).div_ceil(1000);
            Latency { p50: millis(0.5), p99: millis(0.99) }
        });
        (std::mem::take(&mut inner.counts), latency)
    }

    /// Counts again what could not be written.
    pub fn put_back(&self, counts: Counts) {
        let now = &mut self.lock().counts;
        now.issued += counts.issued;
        now.refused += counts.refused;
        now.unavailable += counts.unavailable;
        for (reason, count) in counts.proof_failed {
            *now.proof_failed.entry(reason).or_default() += count;
        }
    }

    /// The entries that are due at `now`: the first of a kind at once, the rest once a minute; with `all`, every
    /// one that waits.
    #[must_use]
    pub fn due(&self, now: UnixMs, ids: &Ids, all: bool) -> Vec<NewEntry> {
        let mut inner = self.lock();
        let mut due = Vec::new();
        inner.kinds.retain(|_, counting| {
            let over = now.millis_since(counting.since) >= KIND_MS;
            if counting.waiting > 0 && (over || all) {
                let entry = entry(counting, ids, now);
                counting.newest_entry = entry.as_ref().map(|entry| entry.id);
                due.extend(entry);
                (counting.waiting, counting.since) = (0, now);
                return !all;
            }
            !over
        });
        due
    }

    /// Counts again the refusals of an entry that could not be written: it is due again at once.
    pub fn count_again(&self, entry: &NewEntry) {
        let Body::CredentialRefused(refused) = &entry.body else { return };
        let mut inner = self.lock();
        let counting = inner.kinds.values_mut().find(|it| it.newest_entry == Some(entry.id));
        if let Some(counting) = counting {
            counting.waiting += refused.count;
            counting.first = refused.first_ms;
            counting.request = entry.request.unwrap_or(counting.request);
            counting.since = counting.since.plus_millis(-KIND_MS);
            counting.newest_entry = None;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn explain(&mut self, request: RequestId, explanation: Explanation) {
        if self.explained.insert(request, explanation).is_none() {
            self.order.push_back(request);
        }
        if self.order.len() > EXPLAINED
            && let Some(oldest) = self.order.pop_front()
        {
            self.explained.remove(&oldest);
        }
    }
}

fn entry(counting: &Counting, ids: &Ids, now: UnixMs) -> Option<NewEntry> {
    let refused = counting.newest.to_entry(counting.waiting, counting.first)?;
    let proof = refused.proof.digest;
    let by = refused.identity.as_ref().map(|identity| By {
        operator: None,
        identity: Some(identity.name.clone()),
        proof,
    });
    Some(NewEntry { id: ids.draw(now).ok()?, request: Some(counting.request), by, body: refused.into() })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use daypass_core::decision::Outward;
    use daypass_evidence::entry::{Actor, DecisionMade, Proof, ProofKind, ProofUse};
    use daypass_verify::ids::Digest;

    use super::*;

    const NOW: UnixMs = UnixMs::new(1_800_000_000_000);

    fn denial(subject: &str, task: &str) -> Denial {
        let proof = Proof {
            kind: ProofKind::IdToken,
            issuer: "https://ci.example.org".into(),
            at: 3,
            clause: 0,
            subject: subject.into(),
            instance: None,
            digest: Digest::of(subject.as_bytes()),
            issued_ms: NOW,
            exp_ms: NOW.plus_millis(300_000),
            usage: ProofUse::Once,
            actor: Actor::Workload,
            claims: std::collections::BTreeMap::new(),
            via: None,
        };
        Denial {
            inner: "TASK_NOT_ALLOWED",
            outward: Outward::TaskNotAllowed,
            clause: format!("no task `{task}`"),
            field: None,
            rules: BTreeSet::new(),
            suspension: None,
            identity: None,
            task: task.into(),
            target: None,
            asked: None,
            proof,
            client: None,
            decision: Some(DecisionMade { bundle: Digest::of(b"bundle"), state: 1, rules: BTreeSet::new() }),
            at: NOW,
        }
    }

    fn deny(refusals: &Refusals, ids: &Ids, subject: &str, task: &str, declared: bool) {
        refusals.denied(ids.draw(NOW).unwrap().into(), denial(subject, task), declared);
    }

    fn counts(entries: &[NewEntry]) -> Vec<u64> {
        let refused = |entry: &NewEntry| match &entry.body {
            Body::CredentialRefused(refused) => refused.count,
            _ => 0,
        };
        entries.iter().map(refused).collect()
    }

    #[test]
    fn a_caller_that_makes_up_tasks_gets_one_entry() {
        let (refusals, ids) = (Refusals::default(), Ids::system());
        for made_up in 0..50 {
            deny(&refusals, &ids, "job", &format!("x-{made_up}"), false);
        }
        deny(&refusals, &ids, "job", "deploy", true);
        deny(&refusals, &ids, "job", "migrate", true);
        let mut counted = counts(&refusals.due(NOW, &ids, false));
        counted.sort_unstable();
        assert_eq!(counted, [1, 1, 50], "tasks that are declared are told apart");
    }

    #[test]
    fn more_kinds_than_are_kept_are_counted_together() {
        let (refusals, ids) = (Refusals::default(), Ids::system());
        for subject in 0..KINDS + 500 {
            deny(&refusals, &ids, &format!("job-{subject}"), "deploy", true);
        }
        let entries = refusals.due(NOW, &ids, false);
        assert_eq!(entries.len(), KINDS + 1);
        assert_eq!(counts(&entries).iter().max(), Some(&500));
        deny(&refusals, &ids, "another", "deploy", true);
        assert!(refusals.due(NOW.plus_millis(1_000), &ids, false).is_empty(), "a minute's worth was written");
    }

    #[test]
    fn what_could_not_be_written_is_counted_again() {
        let (refusals, ids) = (Refusals::default(), Ids::system());
        for _ in 0..3 {
            deny(&refusals, &ids, "job", "deploy", true);
        }
        let lost = refusals.due(NOW, &ids, false);
        deny(&refusals, &ids, "job", "deploy", true);
        lost.iter().for_each(|entry| refusals.count_again(entry));
        let later = NOW.plus_millis(1_000);
        let again = refusals.due(later, &ids, false);
        assert_eq!(counts(&again), [4]);
        assert_eq!(again[0].request, lost[0].request, "it is still the first that is named");
        assert!(refusals.due(later, &ids, false).is_empty());
    }
}
