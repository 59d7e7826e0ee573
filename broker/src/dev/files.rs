//! Files that hold keys: a directory for the owner alone, and whole files or none.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::DevError;

/// Makes `path`, for its owner only, where it is missing; one that is there keeps the rights that it has.
pub(super) fn private_directory(path: &Path) -> Result<(), DevError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| DevError::File { path: path.to_owned(), source })
}

/// Replaces the file as a whole: after a crash it is the old one or the new one. Mode 0600.
pub(super) fn write_private(path: &Path, bytes: &[u8]) -> Result<(), DevError> {
    let beside: PathBuf = path.with_extension("new");
    let write = || {
        // What a crash left there is removed, so that the mode below is the file's mode.
        let _ = fs::remove_file(&beside);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    write().map_err(|source| DevError::File { path: path.to_owned(), source })
}

/// The file's bytes, or none where there is no such file.
pub(super) fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, DevError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(DevError::File { path: path.to_owned(), source }),
    }
}
