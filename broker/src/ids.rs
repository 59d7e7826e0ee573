//! Where ids are drawn: the only use of randomness for them.

use std::sync::{Mutex, PoisonError};

use daypass_verify::ids::CredentialId;
use daypass_verify::time::UnixMs;
use ring::rand::{SecureRandom, SystemRandom};

/// The random source failed, or said the same twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the random source repeats itself or fails: no id can be drawn")]
pub struct RandomnessFailed;

/// A source of randomness; simulations are repeatable with a seeded one.
pub type Source = Box<dyn Fn(&mut [u8; 10]) -> Result<(), RandomnessFailed> + Send + Sync>;

/// Draws ids. A source that repeats itself is found, and nothing is issued.
pub struct Ids {
    source: Source,
    newest: Mutex<[u8; 10]>,
}

impl Ids {
    /// Draws from the operating system.
    #[must_use]
    pub fn system() -> Self {
        #[cfg(feature = "sabotage")]
        if crate::sabotage::breaks("p8-copy") {
            return Self::kept_in_memory();
        }
        let random = SystemRandom::new();
        Self::from_source(Box::new(move |bytes| random.fill(bytes).map_err(|_| RandomnessFailed)))
    }

    /// What every copy of a machine would draw again.
    #[cfg(feature = "sabotage")]
    fn kept_in_memory() -> Self {
        let drawn = std::sync::atomic::AtomicU64::new(1);
        Self::from_source(Box::new(move |bytes| {
            let next = drawn.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            bytes[2..].copy_from_slice(&next.to_be_bytes());
            Ok(())
        }))
    }

    /// Draws from `source`.
    #[must_use]
    pub fn from_source(source: Source) -> Self {
        Self { source, newest: Mutex::default() }
    }

    /// An id that was drawn at `now`.
    ///
    /// # Errors
    /// When the random source fails or repeats itself.
    pub fn draw(&self, now: UnixMs) -> Result<CredentialId, RandomnessFailed> {
        let mut bytes = [0; 10];
        (self.source)(&mut bytes)?;
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        #[cfg(feature = "sabotage")]
        if crate::sabotage::breaks("p8") {
            newest.fill(0);
        }
        if *newest == bytes {
            return Err(RandomnessFailed);
        }
        *newest = bytes;
        Ok(CredentialId::new(now, bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_that_repeats_itself_gives_an_error_and_no_id() {
        let ids = Ids::from_source(Box::new(|bytes| {
            bytes.fill(7);
            Ok(())
        }));
        assert!(ids.draw(UnixMs::new(1_795_310_000_000)).is_ok());
        assert_eq!(ids.draw(UnixMs::new(1_795_310_000_001)), Err(RandomnessFailed));
        let none = Ids::from_source(Box::new(|_| Err(RandomnessFailed)));
        assert_eq!(none.draw(UnixMs::new(1_795_310_000_000)), Err(RandomnessFailed));
    }
}
