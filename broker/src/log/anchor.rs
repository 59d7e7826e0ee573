//! The anchor: the newest checkpoint in a file outside the store, so that a store that was put back is found.
//!
//! Two slots are written in turn, so that a torn write leaves the other one whole. Written before the answer,
//! synced within 100 ms off the path: it guards against a store that was put back, not against loss of power.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use daypass_evidence::checkpoint::Checkpoint;
use daypass_evidence::note::VerifierKey;

const SLOT_BYTES: usize = 4096;
const SYNC_EVERY: Duration = Duration::from_millis(100);

/// Why the anchor is of no use.
#[derive(Debug, thiserror::Error)]
pub enum AnchorError {
    /// The file could not be read or written.
    #[error("the anchor file `{path}` could not be used: {source}")]
    File {
        /// Where.
        path: String,
        /// What the system said.
        source: io::Error,
    },
}

/// The anchor file, open.
#[derive(Debug)]
pub struct Anchor {
    path: PathBuf,
    file: Arc<File>,
    dirty: Arc<AtomicBool>,
    slot: u64,
}

impl Anchor {
    /// Opens or makes the file, with mode 0600, and starts the thread that syncs it.
    ///
    /// # Errors
    /// When the file cannot be opened for writing.
    pub fn open(path: &Path) -> Result<Self, AnchorError> {
        let failed = |source| AnchorError::File { path: path.display().to_string(), source };
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(failed)?;
        let anchor = Self { path: path.to_owned(), file: Arc::new(file), dirty: Arc::default(), slot: 0 };
        anchor.sync_in_background().map_err(failed)?;
        Ok(anchor)
    }

    /// Where the file lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The newest checkpoint in it that `key` signed; none in a new file.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn newest(&self, key: &VerifierKey) -> Result<Option<Checkpoint>, AnchorError> {
        let read =
            |slot| self.read_slot(slot).map_err(|source| AnchorError::File { path: "anchor".into(), source });
        let open = |note: Vec<u8>| Checkpoint::open(&note, key).ok();
        let slots = [read(0)?.and_then(open), read(1)?.and_then(open)];
        Ok(slots.into_iter().flatten().max_by_key(|checkpoint| checkpoint.size))
    }

    /// The checkpoints in it of other logs that go on under the same key: of other shards.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn of_other_shards(&self, key: &VerifierKey) -> Result<Vec<Checkpoint>, AnchorError> {
        let read =
            |slot| self.read_slot(slot).map_err(|source| AnchorError::File { path: "anchor".into(), source });
        let notes = [read(0)?, read(1)?].into_iter().flatten();
        let opened = notes.filter_map(|note| Checkpoint::open_shard(&note, key).ok());
        Ok(opened.filter(|checkpoint| checkpoint.origin != key.name()).collect())
    }

    /// The notes in the bytes of an anchor file; none where they are not of one.
    #[must_use]
    pub fn notes(bytes: &[u8]) -> Vec<&[u8]> {
        bytes.chunks(SLOT_BYTES).filter_map(note_of).collect()
    }

    /// Writes a checkpoint into the older slot.
    ///
    /// # Errors
    /// When the write fails, or the note is longer than a slot.
    pub fn write(&mut self, checkpoint: &[u8]) -> io::Result<()> {
        let length = u32::try_from(checkpoint.len()).map_err(io::Error::other)?;
        if checkpoint.len() + 4 > SLOT_BYTES {
            return Err(io::Error::other("the checkpoint is longer than a slot of the anchor"));
        }
        let mut bytes = Vec::with_capacity(checkpoint.len() + 4);
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(checkpoint);
        self.file.write_all_at(&bytes, (self.slot % 2) * SLOT_BYTES as u64)?;
        self.slot += 1;
        self.dirty.store(true, Ordering::Release);
        Ok(())
    }

    fn read_slot(&self, slot: u64) -> io::Result<Option<Vec<u8>>> {
        let mut bytes = vec![0; SLOT_BYTES];
        let read = read_up_to(&self.file, &mut bytes, slot * SLOT_BYTES as u64)?;
        Ok(bytes.get(..read).and_then(note_of).map(<[u8]>::to_vec))
    }

    fn sync_in_background(&self) -> io::Result<()> {
        let (file, dirty) = (Arc::downgrade(&self.file), Arc::clone(&self.dirty));
        thread::Builder::new().name("anchor-sync".into()).spawn(move || {
            while let Some(file) = file.upgrade() {
                if dirty.swap(false, Ordering::AcqRel)
                    && let Err(error) = file.sync_data()
                {
                    tracing::error!(%error, "the anchor file could not be synced");
                }
                drop(file);
                thread::sleep(SYNC_EVERY);
            }
        })?;
        Ok(())
    }
}

/// The note in the bytes of a slot.
fn note_of(slot: &[u8]) -> Option<&[u8]> {
    let (length, rest) = slot.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
    rest.get(..length).filter(|note| !note.is_empty())
}

fn read_up_to(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut read = 0;
    while let Some(rest) = bytes.get_mut(read..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + read as u64)? {
            0 => break,
            some => read += some,
        }
    }
    Ok(read)
}
