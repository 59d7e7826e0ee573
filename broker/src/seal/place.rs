//! A store whose old entries are sealed: every reader of it finds them.

use std::path::Path;
use std::sync::Arc;

use daypass_evidence::entry::Index;

use super::{Archive, Archived};
use crate::store::{Batch, Head, Opened, Reader, Store, StoreError, Transaction};

struct Sealed {
    store: Box<dyn Store>,
    archive: Option<Archive>,
}

/// The same store; sealed entries are read from below `folder`, and without one whoever asks for them is told so.
///
/// # Errors
/// When the store fails.
pub fn opened(opened: Opened, folder: Option<&Path>) -> Result<Opened, StoreError> {
    let Opened { store, readers, about } = opened;
    let archive = archive(readers()?.as_ref(), folder)?;
    let found = archive.clone();
    let readers = Arc::new(move || Ok(Box::new(Archived::new(readers()?, found.clone())) as Box<dyn Reader>));
    Ok(Opened { store: Box::new(Sealed { store, archive }), readers, about })
}

/// The same reader, as for [`opened`].
///
/// # Errors
/// When the store fails.
pub fn reading(reader: Box<dyn Reader>, folder: Option<&Path>) -> Result<Box<dyn Reader>, StoreError> {
    let archive = archive(reader.as_ref(), folder)?;
    Ok(Box::new(Archived::new(reader, archive)))
}

/// Copies the files of what is sealed in a store from below one folder to below another. How many entries they hold.
///
/// # Errors
/// When one cannot be read or written, or there is no folder to read from.
pub fn copy(reader: &dyn Reader, from: Option<&Path>, to: &Path) -> Result<Index, StoreError> {
    let (until, head) = (reader.sealed_until()?, reader.head()?);
    let Some(head) = head.filter(|_| until > 0) else { return Ok(0) };
    let from = from.ok_or_else(|| super::nowhere(until))?;
    Archive::of_log(from, &head.origin).copy_to(&Archive::of_log(to, &head.origin), until)?;
    Ok(until)
}

fn archive(reader: &dyn Reader, folder: Option<&Path>) -> Result<Option<Archive>, StoreError> {
    let Some(folder) = folder else { return Ok(None) };
    Ok(reader.head()?.map(|head| Archive::of_log(folder, &head.origin)))
}

impl Store for Sealed {
    fn keep_room(&mut self) -> Result<(), StoreError> {
        self.store.keep_room()
    }

    fn has_room(&mut self) -> bool {
        self.store.has_room()
    }

    fn begin(&mut self) -> Result<Box<dyn Transaction + '_>, StoreError> {
        self.store.begin()
    }

    fn open(&mut self, batch: &Batch, head: &Head) -> Result<(), StoreError> {
        self.store.open(batch, head)
    }

    fn reader(&self) -> Result<Box<dyn Reader>, StoreError> {
        Ok(Box::new(Archived::new(self.store.reader()?, self.archive.clone())))
    }

    fn rest(&mut self) {
        self.store.rest();
    }
}
