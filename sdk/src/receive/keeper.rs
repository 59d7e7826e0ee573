//! The task that keeps a receiver's keys and feed fresh.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use daypass_verify::jose::JoseError;
use daypass_verify::revocations::{FeedError, Known, LEN_MAX, Revocations};
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

use super::trust::Trust;
use super::{Feed, LEEWAY, ReceiverConfig};
use crate::clock::Moment;
use crate::error::Error;
use crate::published::{Page, Web};
use crate::verify::VerifyError;

/// The longest wait before the clocks are looked at again: timers do not run while a machine sleeps.
const LOOK: Duration = Duration::from_secs(1);
/// How often the feed is fetched, in ms. It is signed within seconds of a revocation.
const FEED_EVERY_MS: i64 = 5_000;
/// After a fetch that failed, in ms: doubled each time.
const RETRY_MS: (i64, i64) = (1_000, 30_000);
/// A key that is not known, or keys that are too old, cost a fetch of their own once in this time, in ms.
const ANOTHER_EVERY_MS: i64 = 30_000;

/// What the task writes and the receiver's clones read.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) config: ReceiverConfig,
    web: Web,
    trust: ArcSwap<Trust>,
    /// What came of it last.
    rounds: watch::Sender<Round>,
    wanted: Notify,
    another_after_boot_ms: AtomicI64,
}

#[derive(Debug, Clone, Default)]
struct Round {
    /// How often everything was fetched because somebody wanted it.
    wanted: u64,
    failure: Option<Error>,
}

impl Shared {
    pub(super) fn new(config: ReceiverConfig, web: Web) -> Self {
        Self {
            trust: ArcSwap::from_pointee(Trust::none(&config)),
            config,
            web,
            rounds: watch::Sender::default(),
            wanted: Notify::new(),
            another_after_boot_ms: AtomicI64::new(i64::MIN),
        }
    }

    pub(super) fn trust(&self) -> Arc<Trust> {
        self.trust.load_full()
    }

    fn now(&self) -> Moment {
        Moment::of(&*self.config.clock)
    }

    /// Waits until a credential could be verified.
    pub(super) async fn ready(&self, patience: Duration) -> Result<(), Error> {
        let mut rounds = self.rounds.subscribe();
        let known = async {
            while self.trust().check(self.now()).is_err() {
                if rounds.changed().await.is_err() {
                    return;
                }
            }
        };
        if timeout(patience, known).await.is_ok() {
            return Ok(());
        }
        let failure = self.rounds.borrow().failure.clone();
        Err(failure.unwrap_or_else(|| Error::Config("what is needed to verify is not published".to_owned())))
    }

    /// Has everything fetched for what cannot be verified with what is at hand, unless that was done a moment ago.
    /// Says whether it was done.
    pub(super) async fn fetched_for_another(&self, patience: Duration) -> bool {
        let now = self.now().boot_ms;
        let after = self.another_after_boot_ms.load(Ordering::Acquire);
        let next = now.saturating_add(ANOTHER_EVERY_MS);
        let taken = now >= after
            && self
                .another_after_boot_ms
                .compare_exchange(after, next, Ordering::AcqRel, Ordering::Acquire)
                .is_ok();
        if !taken {
            return false;
        }
        let mut rounds = self.rounds.subscribe();
        let before = rounds.borrow_and_update().wanted;
        self.wanted.notify_one();
        timeout(patience, rounds.wait_for(|round| round.wanted > before)).await.is_ok()
    }
}

pub(super) struct Keeper {
    shared: Arc<Shared>,
    keys_at_boot_ms: i64,
    /// When keys were asked for last.
    asked_boot_ms: i64,
    feed_at_boot_ms: i64,
    failures: u32,
    etag: Option<String>,
}

impl Keeper {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            keys_at_boot_ms: i64::MIN,
            asked_boot_ms: i64::MIN,
            feed_at_boot_ms: i64::MIN,
            failures: 0,
            etag: None,
        }
    }

    pub(super) async fn run(mut self) {
        let mut wanted = false;
        loop {
            let now = self.shared.now().boot_ms;
            if now >= self.keys_at_boot_ms {
                self.fetch_keys().await;
            }
            if self.shared.config.feed == Feed::Required && now >= self.feed_at_boot_ms {
                self.fetch_feed().await;
            }
            if wanted {
                self.shared.rounds.send_modify(|round| round.wanted += 1);
            }
            wanted = tokio::select! {
                () = sleep(LOOK) => false,
                () = self.shared.wanted.notified() => true,
            };
            if wanted {
                (self.keys_at_boot_ms, self.feed_at_boot_ms) = (i64::MIN, i64::MIN);
            }
        }
    }

    async fn fetch_keys(&mut self) {
        let asked = self.shared.now();
        self.asked_boot_ms = asked.boot_ms;
        let failure = match self.shared.web.fetch().await {
            Ok((published, fresh_for)) => {
                let trust = self.shared.trust().with_keys(Arc::new(published), asked);
                self.shared.trust.store(Arc::new(trust));
                self.failures = 0;
                let fresh_ms = i64::try_from(fresh_for.as_millis()).unwrap_or(i64::MAX);
                self.keys_at_boot_ms = asked.boot_ms.saturating_add(fresh_ms);
                None
            }
            Err(error) => {
                self.failures = self.failures.saturating_add(1);
                let pause_ms = RETRY_MS.0.saturating_mul(1 << (self.failures - 1).min(16)).min(RETRY_MS.1);
                self.keys_at_boot_ms = self.shared.now().boot_ms.saturating_add(pause_ms);
                Some(error)
            }
        };
        self.shared.rounds.send_modify(|round| round.failure = failure);
    }

    async fn fetch_feed(&mut self) {
        self.feed_at_boot_ms = self.shared.now().boot_ms.saturating_add(FEED_EVERY_MS);
        let read = match self.shared.web.page("/revocations", self.etag.as_deref(), LEN_MAX).await {
            Ok(Some(page)) => self.read_feed(page),
            Ok(None) => return,
            Err(error) => Err(error),
        };
        if read.is_err() {
            // A broker that has begun a moment ago has not signed one yet.
            self.feed_at_boot_ms = self.shared.now().boot_ms.saturating_add(RETRY_MS.0);
        }
        let failure = read.err();
        self.shared.rounds.send_modify(|round| round.failure = failure);
    }

    fn read_feed(&mut self, page: Page) -> Result<(), Error> {
        let trust = self.shared.trust();
        let unusable = |why: String| VerifyError::Published { url: self.shared.web.url("/revocations"), why };
        let text = std::str::from_utf8(&page.body).map_err(|why| unusable(why.to_string()))?;
        let keys =
            trust.token_keys().ok_or_else(|| unusable("the broker's keys are not known yet".to_owned()))?;
        let known = Known {
            issuer: self.shared.web.issuer(),
            keys,
            sequence: trust.revocations().map(|feed| feed.sequence),
            now: self.shared.now().wall,
            leeway: LEEWAY,
        };
        let opened = Revocations::open(text.trim(), &known);
        if let Err(FeedError::Token(JoseError::UnknownKey)) = opened {
            // Another key signs by now: it was compromised, perhaps, and must not be believed for much longer.
            let soonest = self.asked_boot_ms.saturating_add(ANOTHER_EVERY_MS);
            self.keys_at_boot_ms = self.keys_at_boot_ms.min(soonest);
        }
        let feed = opened.map_err(|why| unusable(why.to_string()))?;
        self.shared.trust.store(Arc::new(trust.with_feed(feed)));
        self.etag = page.etag;
        Ok(())
    }
}
