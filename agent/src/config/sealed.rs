//! `[sealed]`: where credentials outlive the process.

use std::path::{Path, PathBuf};

use super::section::Section;
use crate::files::private::{self, Unfit};

/// Where credentials are kept encrypted, and under which key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// A directory for the agent alone.
    pub directory: PathBuf,
    /// A file with the key.
    pub key_file: PathBuf,
}

pub(super) fn read(mut section: Section<'_>, folder: &Path) -> Option<Sealed> {
    let directory = section.required::<PathBuf>("dir", "a directory that holds nothing else");
    let key_file = section.required::<PathBuf>("key_file", "a file with 32 random bytes");
    let key_file = key_file.map(|path| folder.join(path));
    // One that is not there may be where the agent runs: systemd hands it over at the start.
    if let Some(path) = &key_file
        && let Err(unfit @ Unfit::Unsafe(_)) = private::open(path)
    {
        section.wrong("key_file", &unfit.to_string());
    }
    section.finish();
    Some(Sealed { directory: folder.join(directory?), key_file: key_file? })
}
