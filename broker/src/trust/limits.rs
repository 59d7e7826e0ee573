//! The bounds of fetching, and when the next fetch is due.

use std::time::Duration;

use reqwest::header::{CACHE_CONTROL, HeaderMap};
use ring::rand::{SecureRandom as _, SystemRandom};

/// The bounds of fetching issuers' keys.
#[derive(Debug, Clone, Copy)]
pub struct FetchLimits {
    /// For name resolution, TCP and TLS together.
    pub connect: Duration,
    /// For all documents of one refresh together, to their last byte.
    pub total: Duration,
    /// The longest discovery document, in bytes.
    pub discovery_len_max: usize,
    /// The longest key set, in bytes.
    pub jwks_len_max: usize,
    /// The shortest time for which a set counts as fresh, whatever its issuer says.
    pub fresh_min: Duration,
    /// The longest.
    pub fresh_max: Duration,
    /// How long a set counts as fresh whose issuer does not say.
    pub fresh_default: Duration,
    /// How long a set may be used after that, while it cannot be fetched again.
    pub stale: Duration,
    /// How far apart refreshes lie that proofs ask for, for each issuer.
    pub asked_apart: Duration,
    /// The pause after a first failure; it doubles with each further one.
    pub pause_min: Duration,
    /// The longest pause after failures.
    pub pause_max: Duration,
    /// How often files with revocation lists are read again.
    pub crl_every: Duration,
}

impl Default for FetchLimits {
    fn default() -> Self {
        #[cfg(feature = "sabotage")]
        if crate::sabotage::breaks("p12") {
            return Self { asked_apart: Duration::ZERO, ..Self::promised() };
        }
        Self::promised()
    }
}

impl FetchLimits {
    const fn promised() -> Self {
        Self {
            connect: Duration::from_secs(2),
            total: Duration::from_secs(5),
            discovery_len_max: 64 * 1024,
            jwks_len_max: 256 * 1024,
            fresh_min: Duration::from_secs(60),
            fresh_max: Duration::from_secs(15 * 60),
            fresh_default: Duration::from_secs(5 * 60),
            stale: Duration::from_secs(15 * 60),
            asked_apart: Duration::from_secs(30),
            pause_min: Duration::from_secs(5),
            pause_max: Duration::from_secs(60),
            crl_every: Duration::from_secs(60),
        }
    }

    /// How long a document with these headers is fresh (RFC 9111, section 5.2.2), within the bounds.
    pub(super) fn fresh(&self, headers: &HeaderMap) -> Duration {
        let values = headers.get_all(CACHE_CONTROL).iter().filter_map(|it| it.to_str().ok());
        let said = values.flat_map(|it| it.split(',')).filter_map(directive_s).min();
        let fresh = said.map_or(self.fresh_default, Duration::from_secs);
        fresh.clamp(self.fresh_min, self.fresh_max)
    }

    /// When to fetch again a set that is fresh for `fresh`: somewhat earlier, and not all brokers at once.
    pub(super) fn after_success(&self, fresh: Duration) -> Duration {
        fresh.saturating_sub(share(fresh / 5))
    }

    /// When to try again after so many failures in a row.
    pub(super) fn after_failures(&self, failures: u32) -> Duration {
        let doubled = 2_u32.saturating_pow(failures.saturating_sub(1));
        let pause = self.pause_min.saturating_mul(doubled).min(self.pause_max);
        pause.saturating_sub(share(pause / 5))
    }
}

/// The seconds that one cache directive grants; none for those that say nothing about that.
fn directive_s(directive: &str) -> Option<u64> {
    let directive = directive.trim().to_ascii_lowercase();
    if directive == "no-store" || directive == "no-cache" {
        return Some(0);
    }
    let digits = directive.strip_prefix("max-age=")?.trim_matches('"');
    let all_digits = !digits.is_empty() && digits.bytes().all(|it| it.is_ascii_digit());
    // What is too long for the number is too long for the bound as well.
    all_digits.then(|| digits.parse().unwrap_or(u64::MAX))
}

/// A random part of `whole`. Without random bytes it is nothing, which is harmless: only the spread is lost.
fn share(whole: Duration) -> Duration {
    let mut byte = [0];
    let _ = SystemRandom::new().fill(&mut byte);
    let [byte] = byte;
    whole * u32::from(byte) / 255
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_issuer_says_of_caching_counts_between_a_minute_and_a_quarter_hour() {
        let limits = FetchLimits::default();
        let cases = [
            (None, 300),
            (Some("max-age=31536000"), 900),
            (Some("max-age=99999999999999999999999"), 900),
            (Some("max-age=0"), 60),
            (Some("max-age=120"), 120),
            (Some("public, Max-Age=\"120\" , must-revalidate"), 120),
            (Some("max-age=600, max-age=120"), 120),
            (Some("no-store"), 60),
            (Some("max-age=600, no-cache"), 60),
            (Some("max-age=-1"), 300),
            (Some("max-age="), 300),
            (Some("max-age=1e9"), 300),
            (Some("s-maxage=1"), 300),
        ];
        for (said, seconds) in cases {
            let headers = said.map(|it| (CACHE_CONTROL, it.parse().unwrap())).into_iter().collect();
            assert_eq!(limits.fresh(&headers), Duration::from_secs(seconds), "{said:?}");
        }
    }

    #[test]
    fn pauses_double_up_to_their_bound_and_never_vanish() {
        let limits = FetchLimits::default();
        for (failures, seconds) in [(1, 5), (2, 10), (3, 20), (4, 40), (5, 60), (6, 60), (u32::MAX, 60)] {
            let (pause, whole) = (limits.after_failures(failures), Duration::from_secs(seconds));
            assert!(pause <= whole && pause >= whole * 4 / 5, "{failures}: {pause:?}");
        }
    }

    #[test]
    fn a_set_is_fetched_again_while_it_is_fresh() {
        let fresh = Duration::from_secs(600);
        let due = FetchLimits::default().after_success(fresh);
        assert!(due <= fresh && due >= fresh * 4 / 5);
    }
}
