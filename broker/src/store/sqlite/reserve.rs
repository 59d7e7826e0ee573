//! Room that is kept for what must be written on a full disk: a file beside the store, given up when there is no more room,
//! and taken again when there is. Its length says which, to every broker of this store and over restarts.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::ErrorCode;
use rustix::fs::{FallocateFlags, fallocate, fstatvfs};

use crate::store::StoreError;

/// Enough for some ten thousand entries, and for moving the write-ahead log meanwhile.
const RESERVE_BYTES: u64 = 8 * 1024 * 1024;

/// How much more must be free before the reserve is taken again, so that it is not given up at once.
const HEADROOM_BYTES: u64 = 1024 * 1024;

/// How often it is tried to take it again.
const TAKE_EVERY: Duration = Duration::from_millis(250);

/// The reserve of one store.
#[derive(Debug)]
pub(super) struct Reserve {
    file: File,
    tried: Option<Instant>,
}

impl Reserve {
    /// Takes the reserve of the store at `path`, where there is room for it.
    ///
    /// # Errors
    /// When its file cannot be made.
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let mut name = path.as_os_str().to_owned();
        name.push(super::RESERVE);
        let file =
            File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(&name);
        let file = file.map_err(|error| {
            StoreError::Unavailable(format!("the reserve `{}` could not be made: {error}", name.display()))
        })?;
        let mut reserve = Self { file, tried: None };
        reserve.keep();
        Ok(reserve)
    }

    /// Whether it is kept; taken again where there is room for it and more.
    pub(super) fn keep(&mut self) -> bool {
        if self.is_whole() {
            return true;
        }
        if self.tried.is_some_and(|tried| tried.elapsed() < TAKE_EVERY) {
            return false;
        }
        self.tried = Some(Instant::now());
        if self.free_bytes() < RESERVE_BYTES + HEADROOM_BYTES {
            return false;
        }
        if let Err(error) = self.take() {
            tracing::warn!(%error, "the store's reserve could not be taken again");
            self.give_up();
        }
        self.is_whole()
    }

    /// Whether the failure of a write is one for which it is kept.
    pub(super) fn is_for(&self, error: &rusqlite::Error) -> bool {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => true,
            // Some file systems tell only at a sync that there was no room.
            Some(ErrorCode::SystemIoFailure) => self.free_bytes() < HEADROOM_BYTES,
            _ => false,
        }
    }

    /// Makes room of it.
    pub(super) fn give_up(&mut self) {
        self.tried = Some(Instant::now());
        if let Err(error) = self.file.set_len(0) {
            tracing::error!(%error, "the store's reserve could not be given up");
        }
    }

    fn is_whole(&self) -> bool {
        self.file.metadata().is_ok_and(|found| found.len() >= RESERVE_BYTES)
    }

    fn free_bytes(&self) -> u64 {
        fstatvfs(&self.file).map_or(0, |disk| disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    fn take(&self) -> io::Result<()> {
        match fallocate(&self.file, FallocateFlags::empty(), 0, RESERVE_BYTES) {
            Err(rustix::io::Errno::OPNOTSUPP) => self.write_out(),
            taken => Ok(taken?),
        }
    }

    /// Where room can be had by writing alone: bytes that no file system leaves out.
    fn write_out(&self) -> io::Result<()> {
        use std::os::unix::fs::FileExt as _;
        let chunk = [0xa5; 64 * 1024];
        for at in (0..RESERVE_BYTES).step_by(chunk.len()) {
            self.file.write_all_at(&chunk, at)?;
        }
        self.file.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserve_that_was_given_up_is_seen_by_every_broker_and_taken_again() {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("store");
        let (mut one, mut other) = (Reserve::open(&store).unwrap(), Reserve::open(&store).unwrap());
        assert!(one.keep() && other.keep());
        one.give_up();
        assert!(!one.keep(), "not at once");
        assert!(!other.is_whole());
        std::thread::sleep(TAKE_EVERY);
        assert!(one.keep() && other.keep());
        one.give_up();
        one.write_out().unwrap();
        assert!(one.is_whole());
    }
}
