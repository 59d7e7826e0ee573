//! A directory that always holds one whole credential, or none.
//!
//! Each credential lies in a folder of its own, named after its id. The link `current` points to the newest, and is
//! replaced by one rename: whoever opens `current` once has files that belong together. The other names in the directory
//! are links through `current`. At the end of a life `current` goes, and with it every name.

pub(crate) mod folder;
pub(crate) mod place;
pub(crate) mod private;
mod version;

use std::fmt;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use daypass_verify::ids::CredentialId;
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, fsync, openat, readlinkat, renameat, statat, symlinkat, unlinkat,
};
use rustix::io::Errno;

use crate::config::{Files, Owner};

/// The link to the newest credential's folder.
pub const CURRENT: &str = "current";
/// What `current` is made as, before it is renamed.
const NEXT: &str = ".current";

/// One file: its name, and what is in it.
pub type File = (&'static str, Vec<u8>);

/// Why files could not be written. What stood there before still does.
#[derive(Debug, PartialEq, Eq)]
pub struct FilesError {
    /// What it is about.
    pub path: PathBuf,
    /// What was wrong, and what was expected.
    pub what: String,
}

impl fmt::Display for FilesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {}", self.path.display(), self.what)
    }
}

impl std::error::Error for FilesError {}

/// The directory of one credential. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Directory {
    path: PathBuf,
    owner: Option<Owner>,
    shared_parent: bool,
    /// Held while something is changed; true once nothing may be written any more.
    closed: Arc<Mutex<bool>>,
}

impl Directory {
    /// The directory at `path`, an absolute path, whose files belong to `owner`.
    #[must_use]
    pub fn new(path: PathBuf, owner: Option<Owner>) -> Self {
        Self { path, owner, shared_parent: false, closed: Arc::default() }
    }

    /// The directory that a configuration names.
    #[must_use]
    pub fn of(files: &Files) -> Self {
        let made = Self::new(files.directory.clone(), files.owner);
        Self { shared_parent: files.shared_parent, ..made }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Replaces what is there by `files`, all at once. When it returns they are on disk. The folder of the credential
    /// before stays for readers that are on their way to it, until [`Directory::sweep`].
    ///
    /// # Errors
    /// When the place is not safe, something else is in the way, or the disk does not take it: then what was there
    /// before is still there.
    pub fn replace(&self, id: CredentialId, files: &[File]) -> Result<(), FilesError> {
        let closed = self.lock();
        if *closed {
            return Err(FilesError { path: self.path.clone(), what: "nothing is written any more".into() });
        }
        let directory = self.opened()?;
        let failed = |what: &str, error: Errno| self.refuse(what, error);
        let former = current(&directory);
        self.check_current(&directory)?;
        for (name, _) in files {
            self.link(&directory, name)?;
        }
        let version = version::name(id);
        #[cfg(feature = "sabotage")]
        if crate::sabotage::breaks("p16") {
            Self::point(&directory, &version).ok();
        }
        let written = version::write(&directory, &version, files, self.owner)
            .and_then(|()| Self::point(&directory, &version));
        if let Err(error) = written {
            // What is half written must not stay: it may be why the disk is full.
            version::remove(&directory, &version).ok();
            return Err(failed("cannot be written", error));
        }
        fsync(&directory).map_err(|error| failed("cannot be synced", error))?;
        self.remove_all_but(&directory, &[Some(version), former])
    }

    /// Removes every credential but the current one.
    ///
    /// # Errors
    /// When the place is not safe, or does not let go of something.
    pub fn sweep(&self) -> Result<(), FilesError> {
        let _lock = self.lock();
        let directory = self.opened()?;
        self.remove_all_but(&directory, &[current(&directory)])
    }

    fn remove_all_but(&self, directory: &OwnedFd, kept: &[Option<String>]) -> Result<(), FilesError> {
        let swept = version::all(directory).and_then(|versions| {
            let mut old = versions.into_iter().filter(|it| !kept.contains(&Some(it.clone())));
            old.try_for_each(|it| version::remove(directory, &it))
        });
        swept.map_err(|error| self.refuse("an old credential cannot be removed", error))
    }

    /// Removes the credential: every name in the directory is absent from then on.
    ///
    /// # Errors
    /// When the place is not safe, or does not let go of something.
    pub fn clear(&self) -> Result<(), FilesError> {
        let _lock = self.lock();
        let directory = self.opened()?;
        match unlinkat(&directory, CURRENT, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(self.refuse("cannot be removed", error)),
        }
        fsync(&directory).map_err(|error| self.refuse("cannot be synced", error))?;
        self.remove_all_but(&directory, &[])
    }

    /// Removes the credential, for good: from now on nothing is written here.
    ///
    /// # Errors
    /// When the place is not safe, or does not let go of something.
    pub fn close(&self) -> Result<(), FilesError> {
        *self.lock() = true;
        self.clear()
    }

    /// The text of a file of the credential that is there, for instance from before a restart.
    #[must_use]
    pub fn read(&self, name: &str) -> Option<Vec<u8>> {
        let directory = self.opened().ok()?;
        let target = readlinkat(&directory, CURRENT, Vec::new()).ok()?;
        version::read(&directory, target.to_str().ok()?, name).ok()
    }

    fn lock(&self) -> MutexGuard<'_, bool> {
        self.closed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn opened(&self) -> Result<OwnedFd, FilesError> {
        // Others than the owner of the files may look at names, never at contents.
        let mode = if self.owner.is_some() { 0o755 } else { 0o700 };
        place::open(&self.path, Mode::from_raw_mode(mode), self.shared_parent)
    }

    /// Makes `name` a link through `current`.
    fn link(&self, directory: &OwnedFd, name: &str) -> Result<(), FilesError> {
        let target = format!("{CURRENT}/{name}");
        match readlinkat(directory, name, Vec::new()) {
            Ok(found) if found.as_bytes() == target.as_bytes() => Ok(()),
            Err(Errno::NOENT) => {
                symlinkat(target, directory, name).map_err(|error| self.refuse("cannot be written", error))
            }
            _ => Err(self.in_the_way(name)),
        }
    }

    fn check_current(&self, directory: &OwnedFd) -> Result<(), FilesError> {
        match statat(directory, CURRENT, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) if FileType::from_raw_mode(found.st_mode) == FileType::Symlink => Ok(()),
            Err(Errno::NOENT) => Ok(()),
            Ok(_) => Err(self.in_the_way(CURRENT)),
            Err(error) => Err(self.refuse("cannot be read", error)),
        }
    }

    fn in_the_way(&self, name: &str) -> FilesError {
        let what = "something else is in the way: expected nothing there, remove it".to_owned();
        FilesError { path: self.path.join(name), what }
    }

    /// Makes `current` point to `version`, from one moment to the next.
    fn point(directory: &OwnedFd, version: &str) -> Result<(), Errno> {
        match unlinkat(directory, NEXT, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error),
        }
        symlinkat(version, directory, NEXT)?;
        renameat(directory, NEXT, directory, CURRENT)
    }

    fn refuse(&self, what: &str, error: Errno) -> FilesError {
        FilesError { path: self.path.clone(), what: format!("{what}: {}", std::io::Error::from(error)) }
    }
}

/// What `current` points to.
fn current(directory: &OwnedFd) -> Option<String> {
    readlinkat(directory, CURRENT, Vec::new()).ok()?.into_string().ok()
}

/// How directories are opened: to be read, never through a link.
fn open_directory(parent: &OwnedFd, name: &str) -> Result<OwnedFd, Errno> {
    openat(
        parent,
        name,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

#[cfg(test)]
mod tests;
