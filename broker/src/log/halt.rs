//! The stop switch of one broker: from the moment it is thrown, nothing is recorded for a caller and nothing is signed.

use std::sync::Arc;

use arc_swap::ArcSwapOption;

use super::RecordError;

/// Whether this broker issues at all.
#[derive(Debug, Default)]
pub struct Halt {
    thrown: ArcSwapOption<String>,
    broken: ArcSwapOption<RecordError>,
}

impl Halt {
    /// Stops issuance.
    pub fn set(&self, why: &str) {
        self.thrown.store(Some(Arc::new(why.into())));
    }

    /// Lets issuance go on.
    pub fn lift(&self) {
        self.thrown.store(None);
    }

    /// Why nothing is issued; none where the switch is not thrown.
    #[must_use]
    pub fn why(&self) -> Option<String> {
        self.thrown.load().as_deref().cloned()
    }

    /// What was found that no more may be written after, until the process ends.
    #[must_use]
    pub fn broken(&self) -> Option<Arc<RecordError>> {
        self.broken.load_full()
    }

    pub(super) fn break_off(&self, why: &RecordError) {
        self.broken.store(Some(Arc::new(why.clone())));
    }

    /// # Errors
    /// `Halted` where the switch is thrown; what was found, where nothing may be written any more.
    pub fn check(&self) -> Result<(), RecordError> {
        if let Some(broken) = self.broken.load().as_deref() {
            return Err(broken.clone());
        }
        self.why().map_or(Ok(()), |why| Err(RecordError::Halted(why)))
    }

    /// The same for what was recorded already: a log that was closed since takes nothing more, and what it took may be
    /// signed.
    ///
    /// # Errors
    /// As for [`Halt::check`].
    pub fn check_recorded(&self) -> Result<(), RecordError> {
        match self.check() {
            Err(RecordError::Turned) => self.why().map_or(Ok(()), |why| Err(RecordError::Halted(why))),
            checked => checked,
        }
    }
}
