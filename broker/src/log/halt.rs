//! The stop switch of one broker: from the moment it is thrown, nothing is recorded for a caller and nothing is signed.

use std::sync::Arc;

use arc_swap::ArcSwapOption;

use super::RecordError;

/// Whether this broker issues at all.
#[derive(Debug, Default)]
pub struct Halt(ArcSwapOption<String>);

impl Halt {
    /// Stops issuance.
    pub fn set(&self, why: &str) {
        self.0.store(Some(Arc::new(why.into())));
    }

    /// Lets issuance go on.
    pub fn lift(&self) {
        self.0.store(None);
    }

    /// Why nothing is issued; none where the switch is not thrown.
    #[must_use]
    pub fn why(&self) -> Option<String> {
        self.0.load().as_deref().cloned()
    }

    /// # Errors
    /// `Halted` where the switch is thrown.
    pub fn check(&self) -> Result<(), RecordError> {
        self.why().map_or(Ok(()), |why| Err(RecordError::Halted(why)))
    }
}
