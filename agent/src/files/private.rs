//! Files that hold a secret of somebody else's making: read only where nobody else could read them, or put them there.

use std::fs::File;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::process::geteuid;

/// Why a secret is not read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unfit {
    /// It is not there, or may not be read.
    #[error("`{0}`: {1}")]
    Unread(String, std::io::Error),
    /// Others may read it, or it is another's.
    #[error("`{0}`: expected a file of mode 0600 or 0400 that belongs to root or the agent's own user")]
    Unsafe(String),
}

/// Opens the file at `path` for reading.
///
/// # Errors
/// When it cannot be read, is no file, belongs to another user than root and this one, or others may read it.
pub(crate) fn open(path: &Path) -> Result<File, Unfit> {
    let shown = || path.display().to_string();
    // A pipe must not hold anybody up.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let opened = rustix::fs::open(path, flags, Mode::empty());
    let file = File::from(opened.map_err(|error| Unfit::Unread(shown(), error.into()))?);
    let found = file.metadata().map_err(|error| Unfit::Unread(shown(), error))?;
    let mode = found.permissions().mode() & 0o777;
    // systemd gives a service what belongs to root, by a list of its own, which shows as root's group reading it.
    let is_private = mode & 0o077 == 0 || (mode == 0o440 && (found.uid(), found.gid()) == (0, 0));
    let is_own = [0, geteuid().as_raw()].contains(&found.uid());
    if found.is_file() && is_own && is_private { Ok(file) } else { Err(Unfit::Unsafe(shown())) }
}
