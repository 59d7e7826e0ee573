//! Promises that are broken on purpose, so that the tests of a promise can be seen to fail. Compiled with the feature
//! `sabotage` alone, which no program that is released has; the environment names the promise.

use std::sync::LazyLock;

static BROKEN: LazyLock<Option<String>> = LazyLock::new(|| std::env::var("DAYPASS_SABOTAGE").ok());

/// Whether this promise (`p14` and so on) is to be broken.
pub(crate) fn breaks(promise: &str) -> bool {
    BROKEN.as_deref() == Some(promise)
}
