//! The directory of one log's sealed entries: `tile/<L>/<N>` and `tile/entries/<N>`, full ones only (C2SP tlog-tiles).
//!
//! Whoever can write the directory can at most make sealed entries unreadable: their hashes lead to signed checkpoints.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use daypass_evidence::entry::Index;
use daypass_evidence::tile::{Bundle, Holds, Tile, WIDTH, hashes_from};
use daypass_evidence::tree::Hash;

use super::Step;
use crate::store::StoreError;

/// A tile of entries or hashes could not be written, or something else stopped before it.
pub(super) type Before<'a> = &'a mut dyn FnMut(Step) -> Result<(), StoreError>;

/// Where the sealed entries of one log lie.
#[derive(Debug, Clone)]
pub struct Archive {
    folder: PathBuf,
}

impl Archive {
    /// The sealed entries of the log `origin` below `folder`: in a folder named as the last part of the origin, so that
    /// each shard has its own.
    #[must_use]
    pub fn of_log(folder: &Path, origin: &str) -> Self {
        let shard = origin.rsplit('/').next().unwrap_or(origin);
        Self { folder: folder.join(shard) }
    }

    /// The archive of another shard beside it.
    pub(super) fn of_shard(&self, origin: &str) -> Self {
        Self::of_log(self.folder.parent().unwrap_or(&self.folder), origin)
    }

    /// Its folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The leaf hashes of `places`, which are sealed.
    ///
    /// # Errors
    /// When a tile cannot be read, or is none.
    pub(super) fn leaves(&self, places: Range<Index>) -> Result<Vec<Hash>, StoreError> {
        let mut leaves = Vec::new();
        for index in tiles_of(&places) {
            let tile = self.tile(index)?;
            leaves.extend(within(index, &places).filter_map(|place| tile.get(place).copied()));
        }
        Ok(leaves)
    }

    /// The leaf hashes and bytes of `places`, which are sealed.
    ///
    /// # Errors
    /// When a tile or a bundle cannot be read, or is none.
    pub(super) fn entries(&self, places: Range<Index>) -> Result<Vec<(Hash, Vec<u8>)>, StoreError> {
        let mut entries = Vec::new();
        for index in tiles_of(&places) {
            let (tile, bundle) = (self.tile(index)?, self.bundle(index)?);
            let both: Vec<(&Hash, &[u8])> = tile.iter().zip(bundle.entries()).collect();
            let wanted = within(index, &places).filter_map(|place| both.get(place));
            entries.extend(wanted.map(|(leaf, entry)| (**leaf, entry.to_vec())));
        }
        Ok(entries)
    }

    /// The full tile of leaf hashes at `index`.
    pub(super) fn tile(&self, index: u64) -> Result<Vec<Hash>, StoreError> {
        let tile = full(Holds::Hashes(0), index)?;
        let content = self.read(tile)?;
        let hashes = hashes_from(&content).filter(|hashes| hashes.len() == usize::from(WIDTH));
        hashes.map(<[Hash]>::to_vec).ok_or_else(|| self.damaged(tile, "it is no full tile"))
    }

    /// The full entry bundle at `index`. Its entries are not compared with their hashes.
    pub(super) fn bundle(&self, index: u64) -> Result<Bundle, StoreError> {
        let tile = full(Holds::Entries, index)?;
        let bundle =
            Bundle::read(self.read(tile)?).map_err(|error| self.damaged(tile, &error.to_string()))?;
        let whole = bundle.width() == usize::from(WIDTH);
        if whole { Ok(bundle) } else { Err(self.damaged(tile, "it is no full bundle")) }
    }

    fn read(&self, tile: Tile) -> Result<Vec<u8>, StoreError> {
        let path = self.folder.join(tile.to_string());
        fs::read(&path).map_err(|error| {
            let what = format!("sealed entries are in `{}`, which cannot be read: {error}", path.display());
            // A file that is gone from a folder that is there was lost; a folder may come back.
            if error.kind() == io::ErrorKind::NotFound && self.folder.exists() {
                StoreError::Damaged(what)
            } else {
                StoreError::Unavailable(what)
            }
        })
    }

    fn damaged(&self, tile: Tile, what: &str) -> StoreError {
        StoreError::Damaged(format!("`{}`: {what}", self.folder.join(tile.to_string()).display()))
    }

    /// Copies what is sealed below `until`.
    ///
    /// # Errors
    /// When a file cannot be read or written.
    pub(super) fn copy_to(&self, to: &Self, until: Index) -> Result<(), StoreError> {
        let mut tiles = super::above(&(0..until))?;
        for index in tiles_of(&(0..until)) {
            tiles.extend([full(Holds::Entries, index)?, full(Holds::Hashes(0), index)?]);
        }
        tiles.into_iter().try_for_each(|tile| to.write(tile, &self.read(tile)?, &mut |_| Ok(())))
    }

    /// Writes a full tile so that it is there whole and for good, or not at all under its name.
    pub(super) fn write(&self, tile: Tile, content: &[u8], before: Before<'_>) -> Result<(), StoreError> {
        let path = self.folder.join(tile.to_string());
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                StoreError::Full(format!("`{}` could not be written: {error}", path.display()))
            }
            _ => StoreError::Unavailable(format!("`{}` could not be written: {error}", path.display())),
        };
        let parent = path.parent().unwrap_or(&self.folder);
        make_folders(parent).map_err(failed)?;
        before(Step::Write(tile))?;
        // Two brokers may seal the same entries at once: each has a name of its own until the file is whole.
        let unfinished = path.with_extension(format!("{}.new", std::process::id()));
        let mut file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&unfinished)
            .map_err(failed)?;
        file.write_all(content).map_err(failed)?;
        before(Step::Sync(tile))?;
        file.sync_all().map_err(failed)?;
        before(Step::Name(tile))?;
        fs::rename(&unfinished, &path).map_err(failed)?;
        sync_folder(parent).map_err(failed)
    }
}

/// The numbers of the tiles that `places` lie in.
fn tiles_of(places: &Range<Index>) -> Range<u64> {
    let width = u64::from(WIDTH);
    if places.is_empty() { 0..0 } else { places.start / width..(places.end - 1) / width + 1 }
}

/// Those of `places` that lie in tile `index`, counted from its first.
fn within(index: u64, places: &Range<Index>) -> Range<usize> {
    let first = index * u64::from(WIDTH);
    let place = |at: u64| usize::try_from(at.saturating_sub(first).min(u64::from(WIDTH))).unwrap_or(0);
    place(places.start)..place(places.end)
}

pub(super) fn full(holds: Holds, index: u64) -> Result<Tile, StoreError> {
    let named = Tile::new(holds, index, WIDTH);
    named.ok_or_else(|| StoreError::Damaged(format!("there is no tile {index}")))
}

/// Makes `folder` and those above it, for their owner only; on return they are there for good.
fn make_folders(folder: &Path) -> io::Result<()> {
    let mut missing = Vec::new();
    let mut at = Some(folder);
    while let Some(path) = at.filter(|path| !path.as_os_str().is_empty() && !path.exists()) {
        missing.push(path);
        at = path.parent();
    }
    for path in missing.into_iter().rev() {
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            sync_folder(parent)?;
        }
    }
    Ok(())
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
