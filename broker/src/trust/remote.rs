//! One OIDC issuer: its keys as they are held, and the task that keeps them fresh.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use daypass_core::proof::IssuerKeys;
use daypass_verify::ids::Name;
use daypass_verify::jwks::{DroppedKey, KeySet};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::event::{Events, TrustEvent};
use super::fetch::{FetchError, Fetched, Fetcher};
use super::limits::FetchLimits;
use super::{lock, millis};
use crate::clock::Clock;
use crate::telemetry::KEY_FETCHES;

pub(super) struct Remote {
    issuer: Name,
    fetcher: Fetcher,
    limits: FetchLimits,
    clock: Arc<dyn Clock>,
    events: Events,
    held: Mutex<Held>,
    /// When a refresh was last asked for, in boot time.
    asked_ms: Mutex<Option<i64>>,
    wake: Notify,
    rounds: watch::Sender<Rounds>,
}

/// What is known of the keys.
#[derive(Default)]
struct Held {
    keys: Option<Arc<KeySet>>,
    /// Until when, in boot time, they may be used.
    good_until_ms: i64,
    trouble: Option<Trouble>,
    /// Key ids whose private part was seen, so that each is told once.
    published: BTreeSet<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Trouble {
    Unreachable,
    Refused,
}

/// The refreshes that were made.
#[derive(Clone, Copy, Default)]
struct Rounds {
    /// One is running, or will at once.
    pending: bool,
    finished: u64,
    /// Whether the last one brought a good set.
    good: bool,
}

impl Remote {
    pub(super) fn new(
        issuer: Name,
        fetcher: Fetcher,
        limits: FetchLimits,
        clock: Arc<dyn Clock>,
        events: Events,
    ) -> Self {
        Self {
            issuer,
            fetcher,
            limits,
            clock,
            events,
            held: Mutex::default(),
            asked_ms: Mutex::default(),
            wake: Notify::new(),
            rounds: watch::Sender::new(Rounds { pending: true, ..Rounds::default() }),
        }
    }

    /// The keys at `now_ms` of boot time, and until when that answer holds.
    pub(super) fn keys(&self, now_ms: i64) -> (IssuerKeys, i64) {
        let mut held = lock(&self.held);
        if held.keys.is_some() && now_ms >= held.good_until_ms {
            held.keys = None;
            self.events.tell(TrustEvent::KeysExpired { issuer: self.issuer.clone() });
        }
        match &held.keys {
            Some(keys) => (IssuerKeys::Jwks(Arc::clone(keys)), held.good_until_ms),
            None => (IssuerKeys::Unavailable, i64::MAX),
        }
    }

    /// Asks for a refresh, unless one was asked for a moment ago, and waits for the one that is running. The
    /// fetch is the task's, so that a caller who goes away does not stop it.
    pub(super) async fn refresh(&self) -> bool {
        let mut rounds = self.rounds.subscribe();
        let Rounds { pending, finished: before, .. } = *rounds.borrow_and_update();
        if self.may_ask() {
            self.rounds.send_modify(|it| it.pending = true);
            self.wake.notify_one();
        } else if !pending {
            return false;
        }
        let next = timeout(self.limits.total, rounds.wait_for(|it| it.finished > before)).await;
        matches!(next, Ok(Ok(round)) if round.good)
    }

    fn may_ask(&self) -> bool {
        let now_ms = self.clock.boot_ms();
        let mut asked_ms = lock(&self.asked_ms);
        let too_soon = asked_ms.is_some_and(|it| now_ms.saturating_sub(it) < millis(self.limits.asked_apart));
        if !too_soon {
            *asked_ms = Some(now_ms);
        }
        !too_soon
    }

    /// Refreshes for ever: when it is due, and when it is asked for. `publish` is called after each change and
    /// says whether anybody still cares.
    pub(super) async fn follow(&self, publish: impl Fn() -> bool) {
        let mut due = Instant::now();
        let mut failures = 0_u32;
        loop {
            let asked = tokio::select! {
                () = sleep_until(due) => false,
                () = self.wake.notified() => true,
            };
            self.rounds.send_modify(|it| it.pending = true);
            let outcome = self.fetcher.fetch().await;
            let next = match &outcome {
                Ok(fetched) => {
                    failures = 0;
                    Some(self.limits.after_success(fetched.fresh))
                }
                // The schedule is not for callers to change: a flood must cost no more than its own share.
                Err(_) if asked => None,
                Err(_) => {
                    failures = failures.saturating_add(1);
                    Some(self.limits.after_failures(failures))
                }
            };
            due = next.map_or(due, |pause| Instant::now() + pause);
            let good = self.take(outcome);
            let result = if good { "ok" } else { "failed" };
            metrics::counter!(KEY_FETCHES, "issuer" => self.issuer.to_string(), "result" => result)
                .increment(1);
            if !publish() {
                return;
            }
            self.rounds.send_modify(|it| *it = Rounds { pending: false, finished: it.finished + 1, good });
        }
    }

    /// Keeps what was fetched; a failure leaves the last good set as it is.
    fn take(&self, outcome: Result<Fetched, FetchError>) -> bool {
        match outcome {
            Ok(fetched) => {
                self.tell_private_keys(&fetched.dropped);
                self.replace(fetched.keys, fetched.fresh);
                true
            }
            Err(FetchError::Unreachable(detail)) => {
                let issuer = self.issuer.clone();
                self.trouble(Trouble::Unreachable, TrustEvent::ProviderUnreachable { issuer, detail });
                false
            }
            Err(FetchError::Refused { detail, dropped }) => {
                self.tell_private_keys(&dropped);
                let issuer = self.issuer.clone();
                self.trouble(Trouble::Refused, TrustEvent::KeysetRefused { issuer, detail });
                false
            }
        }
    }

    fn replace(&self, keys: KeySet, fresh: Duration) {
        let until_ms = self.clock.boot_ms().saturating_add(millis(fresh + self.limits.stale));
        let mut held = lock(&self.held);
        held.keys = Some(Arc::new(keys));
        held.good_until_ms = until_ms;
        if held.trouble.take().is_some() {
            self.events.tell(TrustEvent::KeysetRestored { issuer: self.issuer.clone() });
        }
    }

    fn trouble(&self, trouble: Trouble, event: TrustEvent) {
        if lock(&self.held).trouble.replace(trouble) != Some(trouble) {
            self.events.tell(event);
        }
    }

    fn tell_private_keys(&self, dropped: &[DroppedKey]) {
        let seen: BTreeSet<String> = dropped
            .iter()
            .filter(|key| key.private_members)
            .map(|key| key.kid.as_deref().unwrap_or_default().escape_debug().to_string())
            .collect();
        let before = std::mem::replace(&mut lock(&self.held).published, seen.clone());
        for kid in seen.difference(&before) {
            let (issuer, kid) = (self.issuer.clone(), kid.clone());
            self.events.tell(TrustEvent::PrivateKeyPublished { issuer, kid });
        }
    }
}
