//! Whether a file is still the one that was read.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// What tells one state of a file from the next: where it lies, when it was changed, and how long it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileStamp {
    place: (u64, u64),
    changed: (i64, i64),
    len: u64,
}

impl FileStamp {
    /// The stamp of the file at `path`; none where there is no file that can be looked at. To be taken before the
    /// file is read: a change meanwhile is found at the next look.
    #[must_use]
    pub fn of(path: &Path) -> Option<Self> {
        let found = std::fs::metadata(path).ok()?;
        Some(Self {
            place: (found.dev(), found.ino()),
            changed: (found.mtime(), found.mtime_nsec()),
            len: found.len(),
        })
    }
}
