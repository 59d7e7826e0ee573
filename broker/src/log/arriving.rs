//! Drafts that are on their way: the writer lingers for them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A draft that is on its way to the log, until this is dropped.
pub struct Arriving(Arc<AtomicUsize>);

impl Arriving {
    pub(super) fn new(counted: &Arc<AtomicUsize>) -> Self {
        counted.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(counted))
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
