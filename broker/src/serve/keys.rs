//! The keys of a deployment, changed on its own host: beside brokers that serve it, or while none does.

use std::sync::Arc;

use super::{ServeError, Settings, Verified, open_desk, open_verified};
use crate::index::Readers;
use crate::rotate::Rotation;

/// Opens the store and verifies its log, to change keys and nothing else. The anchor is looked at, and left to the broker
/// that keeps it.
///
/// # Errors
/// As for [`super::start`].
pub fn open_keys(settings: &Settings) -> Result<Rotation, ServeError> {
    let verified = open_verified(&settings.store, &settings.kek, Some(&settings.anchor))?;
    let readers = Readers::new(Arc::clone(&verified.opened.readers));
    let (desk, kek, _) = open_desk(Verified { anchor: None, ..verified }, settings)?;
    Ok(Rotation::new(desk, kek, readers, settings.lifetimes))
}
