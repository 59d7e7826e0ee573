//! Sealing: old entries leave the database for entry bundles and tiles in files (C2SP tlog-tiles).
//!
//! Files first: written, synced, named, read back, and held to the kept subtree roots and the signed checkpoint. Then
//! the store says that they are sealed, in one transaction, and only then are their bytes dropped. Whatever stops it
//! in between leaves entries that are not sealed, or sealed ones that lie in the store too.

mod archive;
mod place;
mod reader;
#[cfg(test)]
mod tests;
mod upkeep;

use daypass_evidence::checkpoint::Checkpoint;
use daypass_evidence::entry::Index;
use daypass_evidence::note::VerifierKey;
use daypass_evidence::tile::{Bundle, Holds, Tile, WIDTH, root_over};
use daypass_evidence::tree::{Hash, Nodes, node_hash, root_of};

pub use archive::Archive;
pub use place::{copy, opened, reading};
pub use reader::Archived;
pub use upkeep::SealSettings;
pub(crate) use upkeep::start;

use crate::index::StoredNodes;
use crate::store::{Reader, Sealer, StoreError, base};
use crate::tiles;
use archive::{Before, full};

/// How many entries are sealed at once, unless a test wants it otherwise.
pub const SEAL_ENTRIES: u64 = 65_536;

/// How many rows one transaction drops: issuance waits no longer for one than for a batch.
const DROP: u32 = 1_024;

/// What is about to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A tile or bundle is written under a name of no meaning.
    Write(Tile),
    /// It is synced.
    Sync(Tile),
    /// It gets its name.
    Name(Tile),
    /// All are read back.
    Verify,
    /// The store says that they are sealed.
    Mark,
    /// Rows are dropped.
    Drop,
}

/// Whether a log can be sealed by so many entries at once: a power of two, 256 to 2^24.
#[must_use]
pub fn is_seal_size(entries: u64) -> bool {
    entries.is_power_of_two() && (256..=1 << 24).contains(&entries)
}

/// Seals the next `entries` of the log, which `is_seal_size`, where it has grown to them, and drops what is sealed.
/// Whether there was anything to seal.
///
/// # Errors
/// When a file cannot be written, what was written is not what was recorded, or the store fails. Nothing is lost then,
/// and it can be done again.
pub fn seal_next(
    sealer: &mut dyn Sealer,
    reader: &dyn Reader,
    archive: &Archive,
    key: &VerifierKey,
    entries: u64,
) -> Result<bool, StoreError> {
    seal_stepwise(sealer, reader, archive, key, entries, &mut |_| Ok(()))
}

fn seal_stepwise(
    sealer: &mut dyn Sealer,
    reader: &dyn Reader,
    archive: &Archive,
    key: &VerifierKey,
    entries: u64,
    before: Before<'_>,
) -> Result<bool, StoreError> {
    let from = reader.sealed_until()?;
    let until = next(from, entries);
    let due = reader.head()?.is_some_and(|head| head.size >= until);
    if due {
        write(reader, archive, from..until, before)?;
        before(Step::Verify)?;
        verify(reader, archive, from..until, key)?;
        before(Step::Mark)?;
        let base = base(reader.head()?.map_or(0, |head| head.shard));
        sealer.seal(base + from, base + until)?;
    }
    loop {
        before(Step::Drop)?;
        if !sealer.drop_sealed(DROP)? {
            return Ok(due);
        }
    }
}

fn nowhere(until: Index) -> StoreError {
    StoreError::Unavailable(format!(
        "entries below {until} are sealed in files: name their folder by `log.seal_dir`, or --sealed"
    ))
}

/// Where the sealing that begins at `from` ends.
fn next(from: Index, entries: u64) -> Index {
    from - from % entries + entries
}

/// The bundles and tiles over `places`, and the tiles above that are full by then.
fn write(
    reader: &dyn Reader,
    archive: &Archive,
    places: std::ops::Range<Index>,
    before: Before<'_>,
) -> Result<(), StoreError> {
    let width = u64::from(WIDTH);
    for index in places.start / width..places.end / width {
        let rows = reader.rows(index * width, WIDTH.into())?;
        let bundle = Bundle::encode(rows.iter().map(|row| row.bytes.as_slice()));
        let bundle = bundle.map_err(|error| StoreError::Damaged(error.to_string()))?;
        let leaves: Vec<Hash> = rows.iter().map(|row| row.leaf).collect();
        archive.write(full(Holds::Entries, index)?, &bundle, before)?;
        archive.write(full(Holds::Hashes(0), index)?, &leaves.concat(), before)?;
    }
    for tile in above(&places)? {
        let hashes = tiles::hashes(reader, tile)?;
        let hashes = hashes.ok_or_else(|| StoreError::Damaged(format!("`{tile}` is not full")))?;
        archive.write(tile, &hashes, before)?;
    }
    Ok(())
}

/// The tiles above the lowest that are full with the last of `places`.
fn above(places: &std::ops::Range<Index>) -> Result<Vec<Tile>, StoreError> {
    let mut tiles = Vec::new();
    for level in 1..=3_u8 {
        let spans = u64::from(WIDTH).pow(u32::from(level) + 1);
        for index in places.start / spans..places.end / spans {
            tiles.push(full(Holds::Hashes(level), index)?);
        }
    }
    Ok(tiles)
}

/// What lies in the files is what the log's own key signed.
fn verify(
    reader: &dyn Reader,
    archive: &Archive,
    places: std::ops::Range<Index>,
    key: &VerifierKey,
) -> Result<(), StoreError> {
    let width = u64::from(WIDTH);
    let differs = |what: String| StoreError::Damaged(format!("sealing is given up: {what}"));
    let mut roots = Vec::new();
    for index in places.start / width..places.end / width {
        let (leaves, bundle) = (archive.tile(index)?, archive.bundle(index)?);
        bundle.check(&leaves).map_err(|error| differs(format!("entry bundle {index}: {error}")))?;
        let root = root_over(&leaves);
        let kept = reader.subtree(8, index)?;
        if root.is_none() || root != kept {
            return Err(differs(format!(
                "tile {index} leads to another root than the one that the store kept"
            )));
        }
        roots.extend(root);
    }
    let head = reader.head()?.ok_or_else(|| differs("there is no log".into()))?;
    let signed = Checkpoint::open(&head.checkpoint, key).map_err(|error| differs(error.to_string()))?;
    let nodes = InFiles { stored: StoredNodes::of(reader), first: places.start / width, roots };
    if root_of(head.size, &nodes) != Some(signed.root) {
        return Err(differs("the files lead to another root than the signed checkpoint's".into()));
    }
    Ok(())
}

/// The tree, with the part that was read back from files in its place: nothing above it is taken from the store.
struct InFiles<'a> {
    stored: StoredNodes<'a>,
    /// The first tile of level 0, and the roots from it on.
    first: u64,
    roots: Vec<Hash>,
}

impl Nodes for InFiles<'_> {
    fn node(&self, level: u8, index: u64) -> Option<Hash> {
        let Some(above) = level.checked_sub(8) else { return self.stored.node(level, index) };
        let end = self.first + u64::try_from(self.roots.len()).ok()?;
        let (from, to) = (index.checked_shl(above.into())?, (index + 1).checked_shl(above.into())?);
        if to <= self.first || from >= end {
            return self.stored.node(level, index);
        }
        if above == 0 {
            return self.roots.get(usize::try_from(index - self.first).ok()?).copied();
        }
        Some(node_hash(&self.node(level - 1, index * 2)?, &self.node(level - 1, index * 2 + 1)?))
    }
}
