//! Tiles: the tree and its entries as files (C2SP tlog-tiles).
//!
//! A tile of hashes at level L holds up to 256 roots of perfect subtrees of 256^L leaves; an entry bundle holds the
//! entries below a tile of level 0. Full ones never change; partial ones belong to a tree that ends in them.

mod bundle;

use std::fmt::{self, Write as _};

pub use bundle::{Bundle, BundleError};

use crate::tree::{Hash, Nodes, node_hash};

/// How many hashes or entries a full tile holds.
pub const WIDTH: u16 = 256;

/// The highest level that has a path.
const LEVEL_MAX: u8 = 63;

/// How many levels of the tree one level of tiles spans: 256 is 2^8.
const HEIGHT: u8 = 8;

/// What lies in a tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Holds {
    /// Hashes of this level of tiles: 0 holds leaf hashes.
    Hashes(u8),
    /// Entries.
    Entries,
}

/// One tile, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tile {
    holds: Holds,
    index: u64,
    width: u16,
}

impl Tile {
    /// The tile at `index` whose first `width` places are filled. None for a level above 63, a width that is not
    /// 1 to 256, or an index past the end of any tree.
    #[must_use]
    pub fn new(holds: Holds, index: u64, width: u16) -> Option<Self> {
        let known = !matches!(holds, Holds::Hashes(level) if level > LEVEL_MAX);
        let within = index < u64::MAX / u64::from(WIDTH) && (1..=WIDTH).contains(&width);
        (known && within).then_some(Self { holds, index, width })
    }

    /// What it holds.
    #[must_use]
    pub fn holds(&self) -> Holds {
        self.holds
    }

    /// Its position among the tiles of its level.
    #[must_use]
    pub fn index(&self) -> u64 {
        self.index
    }

    /// How many places are filled.
    #[must_use]
    pub fn width(&self) -> u16 {
        self.width
    }

    /// Whether no place is empty.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.width == WIDTH
    }

    /// The first place, counted over the tiles of its level.
    #[must_use]
    pub fn first(&self) -> u64 {
        self.index * u64::from(WIDTH)
    }

    /// Whether a tree of `size` leaves fills its places.
    #[must_use]
    pub fn is_of(&self, size: u64) -> bool {
        let level = match self.holds {
            Holds::Hashes(level) => u32::from(level),
            Holds::Entries => 0,
        };
        let filled = size.checked_shr(level * u32::from(HEIGHT)).unwrap_or(0);
        self.first() + u64::from(self.width) <= filled
    }

    /// The tile that `path` names, as [`fmt::Display`] spells it and not otherwise.
    #[must_use]
    pub fn from_path(path: &str) -> Option<Self> {
        let (level, rest) = path.strip_prefix("tile/")?.split_once('/')?;
        let holds = match level {
            "entries" => Holds::Entries,
            level => Holds::Hashes(level.parse().ok()?),
        };
        let (index, width) = match rest.split_once(".p/") {
            Some((index, width)) => (index, width.parse().ok().filter(|width| *width < WIDTH)?),
            None => (rest, WIDTH),
        };
        let tile = Self::new(holds, index_from(index)?, width)?;
        (tile.to_string() == path).then_some(tile)
    }

    /// The hashes in it, one after the other: None for entries, or where `nodes` lacks one.
    pub fn hashes(&self, nodes: &impl Nodes) -> Option<Vec<u8>> {
        let Holds::Hashes(level) = self.holds else { return None };
        let level = level.checked_mul(HEIGHT)?;
        let places = self.first()..self.first() + u64::from(self.width);
        let hashes: Option<Vec<Hash>> = places.map(|place| nodes.node(level, place)).collect();
        Some(hashes?.concat())
    }
}

/// The path below a log's prefix: `tile/<L>/<N>[.p/<W>]`, where N is in groups of three digits, all but the last
/// with an `x` before them (C2SP tlog-tiles, "Merkle Tree" and "Log entries").
impl fmt::Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.holds {
            Holds::Hashes(level) => write!(f, "tile/{level}/")?,
            Holds::Entries => write!(f, "tile/entries/")?,
        }
        f.write_str(&grouped(self.index))?;
        if self.is_full() { Ok(()) } else { write!(f, ".p/{}", self.width) }
    }
}

fn grouped(index: u64) -> String {
    let mut groups = vec![index % 1000];
    let mut rest = index / 1000;
    while rest > 0 {
        groups.push(rest % 1000);
        rest /= 1000;
    }
    let mut path = String::new();
    for (left, group) in groups.iter().enumerate().rev() {
        let written = if left > 0 { write!(path, "x{group:03}/") } else { write!(path, "{group:03}") };
        debug_assert!(written.is_ok(), "text grows");
    }
    path
}

/// Any digits in any groups: that they are the right ones is seen by writing the path again.
fn index_from(groups: &str) -> Option<u64> {
    let digits: String = groups.split('/').map(|group| group.strip_prefix('x').unwrap_or(group)).collect();
    digits.parse().ok()
}

/// The hashes of a tile's content. None when it is not 1 to 256 whole hashes.
#[must_use]
pub fn hashes_from(content: &[u8]) -> Option<&[Hash]> {
    let (hashes, rest) = content.as_chunks::<32>();
    let whole = rest.is_empty() && (1..=usize::from(WIDTH)).contains(&hashes.len());
    whole.then_some(hashes)
}

/// The root of the perfect subtree over `hashes`. None unless there are 2^n of them.
#[must_use]
pub fn root_over(hashes: &[Hash]) -> Option<Hash> {
    if !hashes.len().is_power_of_two() {
        return None;
    }
    let mut row = hashes.to_vec();
    while row.len() > 1 {
        row = row.as_chunks::<2>().0.iter().map(|[left, right]| node_hash(left, right)).collect();
    }
    row.first().copied()
}

#[cfg(test)]
mod tests;
