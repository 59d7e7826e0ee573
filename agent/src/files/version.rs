//! The folder of one credential, beside those before it.

use std::fs::File as Opened;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;

use daypass_verify::ids::CredentialId;
use rustix::fs::{AtFlags, Dir, Gid, Mode, OFlags, Uid, fchmod, fchown, fsync, mkdirat, openat, unlinkat};
use rustix::io::Errno;

use super::{File, open_directory};
use crate::config::Owner;

/// The longest file that is read back, in bytes.
const READ_LEN_MAX: u64 = 64 * 1024;

/// What the folder of a credential is called.
pub(super) fn name(id: CredentialId) -> String {
    format!(".{id}")
}

/// The folders of all credentials that are there.
pub(super) fn all(directory: &OwnedFd) -> Result<Vec<String>, Errno> {
    let mut found = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().to_str() else { continue };
        if name.strip_prefix('.').is_some_and(|id| id.parse::<CredentialId>().is_ok()) {
            found.push(name.to_owned());
        }
    }
    Ok(found)
}

/// Writes a folder with all of its files; on disk when it returns.
pub(super) fn write(
    directory: &OwnedFd,
    name: &str,
    files: &[File],
    owner: Option<Owner>,
) -> Result<(), Errno> {
    // An attempt before this one may have been cut off.
    remove(directory, name)?;
    let mode = if owner.is_some() { 0o755 } else { 0o700 };
    mkdirat(directory, name, Mode::from_raw_mode(mode))?;
    let folder = open_directory(directory, name)?;
    fchmod(&folder, Mode::from_raw_mode(mode))?;
    for (name, bytes) in files {
        write_file(&folder, name, bytes, owner)?;
    }
    fsync(&folder)
}

/// Writes a file that was not there, 0600; on disk when it returns.
pub(super) fn write_file(
    folder: &OwnedFd,
    name: &str,
    bytes: &[u8],
    owner: Option<Owner>,
) -> Result<(), Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(0o600);
    let file = openat(folder, name, flags, mode)?;
    fchmod(&file, mode)?;
    let mut file = Opened::from(file);
    let failed = |error: std::io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
    file.write_all(bytes).map_err(failed)?;
    if let Some(Owner { uid, gid }) = owner {
        fchown(&file, Some(Uid::from_raw(uid)), gid.map(Gid::from_raw))?;
    }
    fsync(&file)
}

/// Removes a folder and its files, if it is there.
pub(super) fn remove(directory: &OwnedFd, name: &str) -> Result<(), Errno> {
    let folder = match open_directory(directory, name) {
        Ok(folder) => folder,
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in Dir::read_from(&folder)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            unlinkat(&folder, entry.file_name(), AtFlags::empty())?;
        }
    }
    unlinkat(directory, name, AtFlags::REMOVEDIR)
}

/// What is in a file of a folder.
pub(super) fn read(directory: &OwnedFd, name: &str, file: &str) -> Result<Vec<u8>, Errno> {
    let folder = open_directory(directory, name)?;
    let file = openat(&folder, file, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let mut bytes = Vec::new();
    let read = Opened::from(file).take(READ_LEN_MAX).read_to_end(&mut bytes);
    read.map(|_| bytes).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}
