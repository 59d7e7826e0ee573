//! Tiles of the log's tree, worked out from what the store keeps of it.

use daypass_evidence::tile::{Holds, Tile};

use crate::store::{Reader, StoreError};

/// How many levels of the tree one level of tiles spans.
const HEIGHT: u8 = 8;

/// The hashes in `tile`; none where the log has not grown to it, or for entries.
///
/// # Errors
/// When the store fails, or lacks a hash that it should have.
pub fn hashes(reader: &dyn Reader, tile: Tile) -> Result<Option<Vec<u8>>, StoreError> {
    let Holds::Hashes(level) = tile.holds() else { return Ok(None) };
    if !tile.is_of(reader.head()?.map_or(0, |head| head.size)) {
        return Ok(None);
    }
    let hashes = match level {
        0 => reader.leaves(tile.first(), u32::from(tile.width()))?,
        _ => subtrees(reader, level * HEIGHT, tile)?,
    };
    if hashes.len() == usize::from(tile.width()) {
        return Ok(Some(hashes.concat()));
    }
    Err(StoreError::Damaged(format!("the store has not all hashes of `{tile}`")))
}

fn subtrees(reader: &dyn Reader, level: u8, tile: Tile) -> Result<Vec<[u8; 32]>, StoreError> {
    let places = tile.first()..tile.first() + u64::from(tile.width());
    let kept = places.map(|place| reader.subtree(level, place));
    kept.filter_map(Result::transpose).collect()
}
