//! Where secrets may be written: on a way without links, on which nobody else can put up something of their own.

use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, Stat, fchmod, fstat, mkdirat, openat};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::{FilesError, open_directory};

/// Write permission for the group and for all others.
const WRITABLE_BY_OTHERS: u32 = 0o022;
/// In such a directory only the owner of an entry can rename or remove it.
const STICKY: u32 = 0o1000;

/// Opens the directory at `path`, which is made with `mode` where it is missing and its parent is there.
///
/// # Errors
/// When a part of the way is a link or no directory, belongs to another user than root and this one, or could be
/// replaced by others; when the directory itself is another's, or can be written by others.
pub(super) fn open(path: &Path, mode: Mode, shared_parent: bool) -> Result<OwnedFd, FilesError> {
    let (parent, name) = parent(path, shared_parent)?;
    let made = match mkdirat(&parent, name, mode) {
        Ok(()) => true,
        Err(Errno::EXIST) => false,
        Err(error) => return Err(unopened(path, error)),
    };
    let directory = open_directory(&parent, name).map_err(|error| unopened(path, error))?;
    if made {
        // Whatever this process's mask leaves of it.
        fchmod(&directory, mode).map_err(|error| unopened(path, error))?;
    }
    check_own(path, &stat(path, &directory)?)?;
    Ok(directory)
}

/// The directory that `path` is in, opened, and its name there. Where it is said to be shared, others may write in it: then
/// they can put something else in the place of `path`, and nothing more.
///
/// # Errors
/// When a part of the way is a link or no directory, belongs to another user than root and this one, or could be
/// replaced by others.
pub(crate) fn parent(path: &Path, shared: bool) -> Result<(OwnedFd, &str), FilesError> {
    let (mut at, mut seen) = (root()?, PathBuf::from("/"));
    let names = names(path)?;
    let Some((last, way)) = names.split_last() else {
        return Err(refuse(path, "expected a path below the root"));
    };
    for name in way {
        check_way(&seen, &stat(&seen, &at)?)?;
        seen.push(name);
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        at = openat(&at, *name, flags, Mode::empty()).map_err(|error| unopened(&seen, error))?;
    }
    if !shared {
        check_way(&seen, &stat(&seen, &at)?)?;
    }
    Ok((at, last))
}

fn root() -> Result<OwnedFd, FilesError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(CWD, "/", flags, Mode::empty()).map_err(|error| unopened(Path::new("/"), error))
}

fn names(path: &Path) -> Result<Vec<&str>, FilesError> {
    let expected = || refuse(path, "expected an absolute path without `..`, in UTF-8");
    let mut components = path.components();
    if components.next() != Some(Component::RootDir) {
        return Err(expected());
    }
    let name = |it: Component<'_>| matches!(it, Component::Normal(_));
    components.map(|it| it.as_os_str().to_str().filter(|_| name(it)).ok_or_else(expected)).collect()
}

/// On the way, others must not be able to put another directory in the place of the next.
fn check_way(path: &Path, found: &Stat) -> Result<(), FilesError> {
    let ours = found.st_uid == geteuid().as_raw() || found.st_uid == 0;
    if !ours {
        return Err(refuse(
            path,
            &format!("belongs to user {}: expected root or the agent's own user", found.st_uid),
        ));
    }
    if found.st_mode & WRITABLE_BY_OTHERS != 0 && found.st_mode & STICKY == 0 {
        return Err(refuse(
            path,
            "others may write there: expected that only its owner may, or a sticky directory",
        ));
    }
    Ok(())
}

fn check_own(path: &Path, found: &Stat) -> Result<(), FilesError> {
    let own = geteuid().as_raw();
    if found.st_uid != own {
        return Err(refuse(
            path,
            &format!("belongs to user {}: expected the agent's own user, {own}", found.st_uid),
        ));
    }
    if found.st_mode & WRITABLE_BY_OTHERS != 0 {
        return Err(refuse(
            path,
            "others may write there: expected that only its owner may, as after `chmod go-w`",
        ));
    }
    Ok(())
}

fn stat(path: &Path, fd: &OwnedFd) -> Result<Stat, FilesError> {
    fstat(fd).map_err(|error| unopened(path, error))
}

fn unopened(path: &Path, error: Errno) -> FilesError {
    match error {
        Errno::NOTDIR | Errno::LOOP => {
            refuse(path, "a link, or no directory: expected a directory, by its own path")
        }
        Errno::NOENT => refuse(path, "is not there: expected a directory, make it"),
        error => refuse(path, &std::io::Error::from(error).to_string()),
    }
}

/// What is wrong with a path.
pub(crate) fn refuse(path: &Path, what: &str) -> FilesError {
    FilesError { path: path.to_owned(), what: what.to_owned() }
}
