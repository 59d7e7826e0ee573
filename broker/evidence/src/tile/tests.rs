use tlog_tiles::{HashReader, TileHashReader, TileReader};

use super::*;
use crate::tree::{Frontier, inclusion_proof, leaf_hash, root_of, verify_inclusion};

/// All nodes of a tree, worked out from its leaves.
struct Whole(Vec<Hash>);

impl Nodes for Whole {
    fn node(&self, level: u8, index: u64) -> Option<Hash> {
        let width = 1_usize.checked_shl(u32::from(level))?;
        let first = usize::try_from(index).ok()?.checked_mul(width)?;
        root_over(self.0.get(first..first.checked_add(width)?)?)
    }
}

fn whole(size: u64) -> Whole {
    Whole((0..size).map(|i| leaf_hash(&i.to_be_bytes())).collect())
}

fn root(tree: &Whole) -> Hash {
    let mut frontier = Frontier::empty();
    tree.0.iter().for_each(|leaf| frontier.append(*leaf));
    frontier.root()
}

fn hashes(level: u8, index: u64, width: u16) -> Tile {
    Tile::new(Holds::Hashes(level), index, width).unwrap()
}

#[test]
fn paths_are_those_of_the_specification() {
    for (tile, path) in [
        (hashes(0, 0, 256), "tile/0/000"),
        (hashes(0, 67, 256), "tile/0/067"),
        (hashes(0, 1_067, 256), "tile/0/x001/067"),
        (hashes(63, 1_234_067, 1), "tile/63/x001/x234/067.p/1"),
        (hashes(1, 1_000_000, 255), "tile/1/x001/x000/000.p/255"),
        (Tile::new(Holds::Entries, 1_234_067, 256).unwrap(), "tile/entries/x001/x234/067"),
        (Tile::new(Holds::Entries, 5, 112).unwrap(), "tile/entries/005.p/112"),
    ] {
        assert_eq!(tile.to_string(), path);
        assert_eq!(Tile::from_path(path), Some(tile));
    }
}

#[test]
fn another_implementation_spells_paths_the_same() {
    for index in [0, 1, 255, 256, 999, 1_000, 1_001, 999_999, 1_000_000, 1_234_067_890] {
        for (level, width) in [(0, 256), (3, 1), (5, 255)] {
            let theirs = tlog_tiles::Tile::new(8, level, index, u32::from(width), false).path();
            // Theirs name the height too, as the checksum database does: C2SP's is always 8, and left out.
            assert_eq!(hashes(level, index, width).to_string(), theirs.replacen("tile/8/", "tile/", 1));
        }
    }
}

#[test]
fn a_path_that_is_spelt_otherwise_names_nothing() {
    for path in [
        "",
        "tile",
        "tile/0",
        "tile/0/",
        "tile/0/0",
        "tile/0/00",
        "tile/0/0000",
        "tile/0/x000/067",
        "tile/0/x001/x067",
        "tile/0/001/067",
        "tile/00/000",
        "tile/64/000",
        "tile/256/000",
        "tile/-1/000",
        "tile/+1/000",
        "tile/0/+00",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/000.p/01",
        "tile/0/000.p/",
        "tile/0/000.p",
        "tile/0/000/",
        "tile/0/../000",
        "/tile/0/000",
        "tile/8/0/000",
        "tile/Entries/000",
        "tile/0/x999/x999/x999/x999/x999/x999/999",
    ] {
        assert_eq!(Tile::from_path(path), None, "{path}");
    }
}

#[test]
fn a_tree_has_the_tiles_that_the_specification_counts() {
    let has = |tile: Tile| tile.is_of(70_000);
    assert!(has(hashes(0, 272, 256)) && !has(hashes(0, 273, 256)));
    assert!(has(hashes(0, 273, 112)) && !has(hashes(0, 273, 113)));
    assert!(has(hashes(1, 0, 256)) && has(hashes(1, 1, 17)) && !has(hashes(1, 1, 18)));
    assert!(has(hashes(2, 0, 1)) && !has(hashes(2, 0, 2)));
    assert!(!has(hashes(3, 0, 1)) && !has(hashes(63, 0, 1)));
    assert!(hashes(1, 0, 1).is_of(256) && !hashes(1, 0, 1).is_of(255));
    assert!(!hashes(0, 0, 1).is_of(0));
}

/// Serves tiles as this module writes them.
struct Served(Whole);

impl TileReader for Served {
    fn height(&self) -> u8 {
        8
    }

    fn read_tiles(&self, tiles: &[tlog_tiles::Tile]) -> Result<Vec<Vec<u8>>, tlog_tiles::Error> {
        let read = |tile: &tlog_tiles::Tile| {
            let width = u16::try_from(tile.width()).unwrap();
            hashes(tile.level(), tile.level_index(), width).hashes(&self.0).unwrap()
        };
        Ok(tiles.iter().map(read).collect())
    }

    fn save_tiles(&self, _: &[tlog_tiles::Tile], _: &[Vec<u8>]) {}
}

#[test]
fn another_implementation_proves_entries_from_our_tiles() {
    for (size, indexes) in [
        (1, &[0][..]),
        (2, &[1]),
        (255, &[254]),
        (256, &[0, 255]),
        (257, &[256]),
        (700, &[0, 300, 699]),
        (66_000, &[40_000]),
    ] {
        let served = Served(whole(size));
        let root = root(&served.0);
        let reader = TileHashReader::new(size, tlog_tiles::Hash(root), &served);
        for &index in indexes {
            let theirs = tlog_tiles::prove_record(size, index, &reader).unwrap();
            let path: Vec<Hash> = theirs.iter().map(|hash| hash.0).collect();
            let leaf = served.0.0[usize::try_from(index).unwrap()];
            assert_eq!(verify_inclusion(leaf, index, size, &path, root), Ok(()), "{index} of {size}");
            assert_eq!(inclusion_proof(index, size, &served.0), Some(path));
        }
        assert_eq!(root_of(size, &served.0), Some(root));
    }
}

#[test]
fn another_implementation_refuses_a_tile_with_one_hash_changed() {
    let mut served = Served(whole(700));
    let root = root(&served.0);
    served.0.0[300][0] ^= 1;
    let reader = TileHashReader::new(700, tlog_tiles::Hash(root), &served);
    let index = tlog_tiles::stored_hash_index(0, 300);
    assert!(reader.read_hashes(&[index]).is_err());
}

#[test]
fn a_tile_of_hashes_is_1_to_256_whole_ones() {
    for (bytes, hashes) in
        [(0, None), (31, None), (32, Some(1)), (33, None), (8_192, Some(256)), (8_224, None)]
    {
        assert_eq!(hashes_from(&vec![0; bytes]).map(<[Hash]>::len), hashes, "{bytes}");
    }
    assert_eq!(root_over(&[]), None);
    assert_eq!(root_over(&[[0; 32]; 3]), None);
}
