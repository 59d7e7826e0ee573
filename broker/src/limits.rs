//! How fast one caller may ask. What is over a limit is answered before anything is decided, and spends nothing.

use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dashmap::DashMap;
use governor::clock::{Clock as _, DefaultClock};
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};
use tokio::task::JoinHandle;

/// Checkpoints from long ago a second that are compared for one caller, and how many at once: a caller learns a newer one
/// with each answer.
const OLD_CHECKPOINTS: (u32, u32) = (1, 50);

/// How often those who ask no more are forgotten.
const FORGET_EVERY: Duration = Duration::from_secs(10);

/// Rates for one caller; 0 a second means no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rates {
    /// Calls to issue a second, of one instance of an identity, or of the identity where its proofs name no instance.
    pub issue_per_s: u32,
    /// How many may come at once.
    pub issue_burst: u32,
    /// Proofs that fail a second, of one address.
    pub failed_proofs_per_s: u32,
    /// How many may come at once.
    pub failed_proofs_burst: u32,
}

impl Default for Rates {
    fn default() -> Self {
        Self { issue_per_s: 100, issue_burst: 500, failed_proofs_per_s: 50, failed_proofs_burst: 500 }
    }
}

impl Rates {
    /// No limits.
    pub const NONE: Self =
        Self { issue_per_s: 0, issue_burst: 1, failed_proofs_per_s: 0, failed_proofs_burst: 1 };
}

/// Callers are told apart by a hash under a key of this process: 8 octets each, and nobody can aim at another's.
type Limiter = RateLimiter<u64, DashMapStateStore<u64>, DefaultClock>;

/// Counts who asks how fast.
pub struct Limits {
    hashes: RandomState,
    clock: DefaultClock,
    issue: Option<Limiter>,
    failed: Option<Limiter>,
    old: Option<Limiter>,
    /// Addresses whose proofs are not looked at, until when.
    shut: DashMap<u64, Instant>,
}

impl Limits {
    /// With these rates, and the task that forgets those who ask no more.
    #[must_use]
    pub fn start(rates: Rates) -> (Arc<Self>, JoinHandle<()>) {
        let limits = Arc::new(Self::new(rates));
        let forgetting = Arc::clone(&limits);
        let forget = async move {
            loop {
                tokio::time::sleep(FORGET_EVERY).await;
                forgetting.forget();
            }
        };
        (limits, tokio::spawn(forget))
    }

    /// With these rates.
    #[must_use]
    pub fn new(rates: Rates) -> Self {
        Self {
            hashes: RandomState::new(),
            clock: DefaultClock::default(),
            issue: limiter(rates.issue_per_s, rates.issue_burst),
            failed: limiter(rates.failed_proofs_per_s, rates.failed_proofs_burst),
            old: limiter(OLD_CHECKPOINTS.0, OLD_CHECKPOINTS.1),
            shut: DashMap::new(),
        }
    }

    /// One more call to issue, of `instance` of `caller`.
    ///
    /// # Errors
    /// Where it is one too many: how long to wait.
    pub fn issue(&self, caller: &str, instance: Option<&str>) -> Result<(), Duration> {
        self.one_more(self.issue.as_ref(), caller, instance)
    }

    /// One more checkpoint of `instance` of `caller` that must be compared with the store.
    ///
    /// # Errors
    /// Where it is one too many: how long to wait.
    pub fn old_checkpoint(&self, caller: &str, instance: Option<&str>) -> Result<(), Duration> {
        self.one_more(self.old.as_ref(), caller, instance)
    }

    fn one_more(
        &self,
        limiter: Option<&Limiter>,
        caller: &str,
        instance: Option<&str>,
    ) -> Result<(), Duration> {
        let Some(limiter) = limiter else { return Ok(()) };
        let key = self.hashes.hash_one((caller, instance));
        limiter.check_key(&key).map_err(|until| until.wait_time_from(self.clock.now()))
    }

    /// One more proof that failed, from `address`: past its rate none is looked at for a time.
    pub fn proof_failed(&self, address: IpAddr) {
        let Some(limiter) = &self.failed else { return };
        let key = self.hashes.hash_one(address.to_canonical());
        if let Err(until) = limiter.check_key(&key) {
            self.shut.insert(key, Instant::now() + until.wait_time_from(self.clock.now()));
        }
    }

    /// Whether proofs from `address` are looked at now.
    ///
    /// # Errors
    /// Where they are not: how long to wait.
    pub fn look_at_proof(&self, address: IpAddr) -> Result<(), Duration> {
        if self.shut.is_empty() {
            return Ok(());
        }
        let until = self.shut.get(&self.hashes.hash_one(address.to_canonical())).map(|until| *until);
        match until.and_then(|until| until.checked_duration_since(Instant::now())) {
            Some(wait) if !wait.is_zero() => Err(wait),
            _ => Ok(()),
        }
    }

    /// Forgets those who ask no more.
    pub fn forget(&self) {
        for limiter in self.issue.iter().chain(&self.failed).chain(&self.old) {
            limiter.retain_recent();
            limiter.shrink_to_fit();
        }
        let now = Instant::now();
        self.shut.retain(|_, until| *until > now);
    }

    /// How many callers are remembered.
    #[must_use]
    pub fn remembered(&self) -> usize {
        self.issue.iter().chain(&self.failed).chain(&self.old).map(Limiter::len).sum::<usize>()
            + self.shut.len()
    }
}

fn limiter(per_s: u32, burst: u32) -> Option<Limiter> {
    let per_s = NonZeroU32::new(per_s)?;
    let quota = Quota::per_second(per_s).allow_burst(NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN));
    Some(RateLimiter::dashmap(quota))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATES: Rates =
        Rates { issue_per_s: 10, issue_burst: 3, failed_proofs_per_s: 10, failed_proofs_burst: 2 };

    fn taken(limits: &Limits, caller: &str, instance: Option<&str>) -> usize {
        (0..20).filter(|_| limits.issue(caller, instance).is_ok()).count()
    }

    #[test]
    fn each_instance_of_an_identity_has_a_rate_of_its_own() {
        let limits = Limits::new(RATES);
        assert_eq!(taken(&limits, "prod/a", Some("run-1")), 3);
        assert_eq!(taken(&limits, "prod/a", Some("run-2")), 3);
        assert_eq!(taken(&limits, "prod/b", None), 3);
        let wait = limits.issue("prod/a", Some("run-1")).unwrap_err();
        assert!(wait <= Duration::from_millis(100), "{wait:?}");
        std::thread::sleep(wait + Duration::from_millis(5));
        assert_eq!(limits.issue("prod/a", Some("run-1")), Ok(()));
    }

    #[test]
    fn an_address_whose_proofs_fail_is_shut_out_for_a_moment_and_no_other() {
        let limits = Limits::new(RATES);
        let [bad, good] = ["192.0.2.1", "192.0.2.2"].map(|ip| ip.parse::<IpAddr>().unwrap());
        limits.proof_failed(bad);
        limits.proof_failed(bad);
        assert_eq!(limits.look_at_proof(bad), Ok(()));
        limits.proof_failed(bad);
        let wait = limits.look_at_proof(bad).unwrap_err();
        assert_eq!(limits.look_at_proof(good), Ok(()));
        std::thread::sleep(wait + Duration::from_millis(5));
        assert_eq!(limits.look_at_proof(bad), Ok(()));
    }

    #[test]
    fn those_who_ask_no_more_are_forgotten() {
        let limits = Limits::new(RATES);
        for caller in 0..10_000 {
            limits.issue(&caller.to_string(), None).unwrap();
        }
        assert_eq!(limits.remembered(), 10_000);
        std::thread::sleep(Duration::from_millis(400));
        limits.forget();
        assert_eq!(limits.remembered(), 0);
    }

    #[test]
    fn a_rate_of_nothing_is_no_limit() {
        assert_eq!(taken(&Limits::new(Rates::NONE), "prod/a", None), 20);
    }
}
