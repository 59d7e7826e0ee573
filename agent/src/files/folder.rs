//! A directory for the agent alone, in which each file is replaced as a whole.

use std::fs::File as Opened;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::fs::{AtFlags, Dir, FlockOperation, Mode, OFlags, flock, fsync, openat, renameat, unlinkat};
use rustix::io::Errno;

use super::{FilesError, place, version};

/// Held by the one agent that uses it.
const LOCK: &str = "lock";

/// The directory, which no other agent uses while this lives.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    directory: OwnedFd,
    _lock: OwnedFd,
}

impl Folder {
    /// The directory at `path`, an absolute path, which is made if its parent is there.
    ///
    /// # Errors
    /// When the place is not safe, or another agent uses it.
    pub(crate) fn open(path: PathBuf) -> Result<Self, FilesError> {
        let directory = place::open(&path, Mode::from_raw_mode(0o700), false)?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let lock = openat(&directory, LOCK, flags, Mode::from_raw_mode(0o600));
        let lock = lock.map_err(|error| failed(&path, "cannot be locked", error))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
            place::refuse(&path, "another agent uses it: expected a directory of its own for each")
        })?;
        Ok(Self { path, directory, _lock: lock })
    }

    /// Puts `bytes` under `name`, 0600, in the place of what was there. On disk when it returns.
    ///
    /// # Errors
    /// When the disk does not take it: then what was there before is still there.
    pub(crate) fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), FilesError> {
        let next = format!(".{name}");
        let written = absent(unlinkat(&self.directory, &next, AtFlags::empty()))
            .and_then(|()| version::write_file(&self.directory, &next, bytes, None))
            .and_then(|()| renameat(&self.directory, &next, &self.directory, name))
            .and_then(|()| fsync(&self.directory));
        written.map_err(|error| {
            // What is half written must not stay: it may be why the disk is full.
            unlinkat(&self.directory, &next, AtFlags::empty()).ok();
            failed(&self.path.join(name), "cannot be written", error)
        })
    }

    /// What is under `name`, `len_max` bytes of it at most; none where there is nothing.
    ///
    /// # Errors
    /// When it cannot be read, or is no file.
    pub(crate) fn read(&self, name: &str, len_max: u64) -> Result<Option<Vec<u8>>, FilesError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let unread = |error| failed(&self.path.join(name), "cannot be read", error);
        let file = match openat(&self.directory, name, flags, Mode::empty()) {
            Ok(file) => Opened::from(file),
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(unread(error)),
        };
        let mut bytes = Vec::new();
        let read = file.take(len_max).read_to_end(&mut bytes);
        read.map_err(|error| unread(Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
        Ok(Some(bytes))
    }

    /// Removes what is under `name`, if anything is.
    ///
    /// # Errors
    /// When the disk does not let go of it.
    pub(crate) fn remove(&self, name: &str) -> Result<(), FilesError> {
        let removed = absent(unlinkat(&self.directory, name, AtFlags::empty()));
        let removed = removed.and_then(|()| fsync(&self.directory));
        removed.map_err(|error| failed(&self.path.join(name), "cannot be removed", error))
    }

    /// Every name but that of the lock.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub(crate) fn names(&self) -> Result<Vec<String>, FilesError> {
        let unread = |error| failed(&self.path, "cannot be read", error);
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.directory).map_err(unread)? {
            let entry = entry.map_err(unread)?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            if !matches!(name, "." | ".." | LOCK) {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }
}

fn absent(removed: Result<(), Errno>) -> Result<(), Errno> {
    match removed {
        Err(Errno::NOENT) => Ok(()),
        removed => removed,
    }
}

fn failed(path: &std::path::Path, what: &str, error: Errno) -> FilesError {
    place::refuse(path, &format!("{what}: {}", std::io::Error::from(error)))
}
