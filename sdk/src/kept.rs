//! What a client remembers of the log between calls: the newest checkpoint that it has verified and, where the
//! key was not configured, the key it trusted at first use. A broker that is behind it has lost entries.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use daypass_evidence::checkpoint::Checkpoint;
use daypass_evidence::note::VerifierKey;

use crate::error::Error;
use crate::verify::VerifyError;

/// A checkpoint that was verified, with the note that carried it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Newest {
    pub(crate) note: Bytes,
    pub(crate) checkpoint: Checkpoint,
}

/// In memory, and in a directory where there is one.
#[derive(Debug)]
pub(crate) struct Kept {
    directory: Option<PathBuf>,
    newest: Mutex<Option<Newest>>,
}

impl Kept {
    /// Remembers in `directory`, which is made if it is missing.
    pub(crate) fn open(directory: Option<PathBuf>) -> Result<Self, Error> {
        if let Some(path) = &directory {
            make_private(path).map_err(|error| {
                Error::Config(format!(
                    "cannot make the directory `{}`: {error}; look at `state`",
                    path.display()
                ))
            })?;
        }
        Ok(Self { directory, newest: Mutex::new(None) })
    }

    /// The newest checkpoint of the log that `key` signs for; none before the first call.
    pub(crate) fn newest(&self, key: &VerifierKey) -> Result<Option<Newest>, VerifyError> {
        if let Some(newest) = self.lock().clone() {
            return Ok(Some(newest).filter(|it| is_shard(key, &it.checkpoint.origin)));
        }
        let Some(path) = self.file("checkpoint") else { return Ok(None) };
        let Ok(note) = std::fs::read(&path) else { return Ok(None) };
        // Another log's checkpoint is no news about this one, or those that go on for it.
        let origin = note.split(|byte| *byte == b'\n').next().and_then(|line| std::str::from_utf8(line).ok());
        if !origin.is_some_and(|origin| is_shard(key, origin)) {
            return Ok(None);
        }
        let checkpoint = Checkpoint::open_shard(&note, key)
            .map_err(|why| VerifyError::KeptCheckpoint { path: path.display().to_string(), why })?;
        let newest = Newest { note: note.into(), checkpoint };
        self.lock().get_or_insert_with(|| newest.clone());
        Ok(Some(newest))
    }

    /// Remembers `newest` unless a larger one of the same log is known.
    pub(crate) fn advance(&self, newest: Newest) -> Result<(), Error> {
        let mut kept = self.lock();
        let older = kept.as_ref().is_none_or(|it| {
            it.checkpoint.origin != newest.checkpoint.origin || it.checkpoint.size < newest.checkpoint.size
        });
        if older {
            if let Some(path) = self.file("checkpoint") {
                write_private(&path, &newest.note)?;
            }
            *kept = Some(newest);
        }
        Ok(())
    }

    /// The key that was trusted at first use.
    pub(crate) fn log_key(&self) -> Option<VerifierKey> {
        let text = std::fs::read_to_string(self.file("log.vkey")?).ok()?;
        text.trim().parse().ok()
    }

    /// Trusts `key` from now on.
    pub(crate) fn keep_log_key(&self, key: &VerifierKey) -> Result<(), Error> {
        match self.file("log.vkey") {
            Some(path) => write_private(&path, format!("{key}\n").as_bytes()),
            None => Ok(()),
        }
    }

    fn file(&self, name: &str) -> Option<PathBuf> {
        self.directory.as_ref().map(|directory| directory.join(name))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Newest>> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether `origin` is the log that `key` was trusted for, or one that goes on for it.
fn is_shard(key: &VerifierKey, origin: &str) -> bool {
    key.of_shard(origin).is_some()
}

fn make_private(path: &Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// Puts `bytes` at `path`, mode 0600, whole or not at all: a reader finds the old file or the new one.
///
/// # Errors
/// When `path` is a symbolic link, or its directory cannot be written.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let shown = path.display();
    if path.is_symlink() {
        return Err(Error::Config(format!("`{shown}` is a symbolic link: expected a plain file; remove it")));
    }
    write_and_rename(path, bytes).map_err(|error| Error::Config(format!("cannot write `{shown}`: {error}")))
}

fn write_and_rename(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let directory = path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    std::fs::File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::verify::tests::Log;

    #[test]
    fn the_newest_checkpoint_outlives_the_process_and_never_goes_back() {
        let directory = tempfile::tempdir().unwrap();
        let open = || Kept::open(Some(directory.path().join("state"))).unwrap();
        let mut log = Log::new("example.org/evidence/2027h1");
        log.append(b"one");
        let small = log.newest();
        log.append(b"two");
        let large = log.newest();
        let kept = open();
        assert_eq!(kept.newest(&log.key()).unwrap(), None);
        kept.advance(large.clone()).unwrap();
        kept.advance(small).unwrap();
        assert_eq!(kept.newest(&log.key()).unwrap(), Some(large.clone()));
        assert_eq!(open().newest(&log.key()).unwrap(), Some(large));
    }

    #[test]
    fn a_kept_checkpoint_by_another_key_is_an_error_and_of_another_log_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = Log::new("example.org/evidence/2027h1");
        log.append(b"one");
        let open = || Kept::open(Some(directory.path().to_owned())).unwrap();
        open().advance(log.newest()).unwrap();
        let same_name = Log::new("example.org/evidence/2027h1");
        assert!(open().newest(&same_name.key()).is_err());
        let another = Log::new("example.com/evidence/2027h1");
        assert_eq!(open().newest(&another.key()).unwrap(), None);
    }

    #[test]
    fn a_log_key_that_was_trusted_once_is_trusted_again() {
        let directory = tempfile::tempdir().unwrap();
        let key = Log::new("example.org/evidence/2027h1").key();
        let kept = Kept::open(Some(directory.path().to_owned())).unwrap();
        assert_eq!(kept.log_key(), None);
        kept.keep_log_key(&key).unwrap();
        assert_eq!(kept.log_key(), Some(key));
    }

    #[test]
    fn a_private_file_is_for_its_owner_alone_and_never_behind_a_link() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tls.key");
        write_private(&path, b"first").unwrap();
        write_private(&path, b"second").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"second");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let error = write_private(&link, b"third").unwrap_err().to_string();
        assert!(error.contains("symbolic link"), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), b"second");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 2);
    }
}
