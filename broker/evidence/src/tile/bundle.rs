//! Entry bundles: entries one after the other, each with its length before it (C2SP tlog-tiles, "Log entries").

use std::ops::Range;

use super::WIDTH;
use crate::tree::{Hash, leaf_hash};

/// The entries of a bundle, read in place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    content: Vec<u8>,
    entries: Vec<Range<usize>>,
}

/// Why a bundle is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// It is cut, or has bytes that belong to no entry.
    #[error("the entry bundle is cut: expected each entry's length in two bytes, and then the entry")]
    Cut,
    /// It holds no entry, or more than a tile.
    #[error("the entry bundle holds {0} entries: expected 1 to {WIDTH}")]
    Width(usize),
    /// It has not as many entries as its tile has hashes.
    #[error("the entry bundle holds {entries} entries, and its tile {hashes} hashes")]
    Tile {
        /// Entries in the bundle.
        entries: usize,
        /// Hashes in the tile.
        hashes: usize,
    },
    /// An entry is not the one that was hashed.
    #[error("entry {0} of the bundle does not have the hash in its tile")]
    Entry(usize),
    /// An entry is too long for its length to be written.
    #[error("an entry of {0} bytes: expected at most 65535")]
    TooLong(usize),
}

impl Bundle {
    /// The content of the bundle that holds `entries`, in their order.
    ///
    /// # Errors
    /// When there is none, there are more than 256, or one is longer than 65,535 bytes.
    pub fn encode<'a>(entries: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<u8>, BundleError> {
        let mut content = Vec::new();
        let mut count = 0;
        for entry in entries {
            let length = u16::try_from(entry.len()).map_err(|_| BundleError::TooLong(entry.len()))?;
            content.extend_from_slice(&length.to_be_bytes());
            content.extend_from_slice(entry);
            count += 1;
        }
        if (1..=usize::from(WIDTH)).contains(&count) { Ok(content) } else { Err(BundleError::Width(count)) }
    }

    /// Reads a bundle's content. What its entries are is not looked at: see [`Self::check`].
    ///
    /// # Errors
    /// When it is cut, or holds no entry or more than 256.
    pub fn read(content: Vec<u8>) -> Result<Self, BundleError> {
        let mut entries = Vec::new();
        let mut at = 0;
        while let Some(rest) = content.get(at..).filter(|rest| !rest.is_empty()) {
            let (length, rest) = rest.split_first_chunk::<2>().ok_or(BundleError::Cut)?;
            let length = usize::from(u16::from_be_bytes(*length));
            if rest.len() < length {
                return Err(BundleError::Cut);
            }
            entries.push(at + 2..at + 2 + length);
            at += 2 + length;
        }
        let count = entries.len();
        let fits = (1..=usize::from(WIDTH)).contains(&count);
        if fits { Ok(Self { content, entries }) } else { Err(BundleError::Width(count)) }
    }

    /// How many entries it holds: never none.
    #[must_use]
    pub fn width(&self) -> usize {
        self.entries.len()
    }

    /// Its entries, in order.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.entries.iter().map(|place| self.content.get(place.clone()).unwrap_or_default())
    }

    /// Compares each entry with its leaf hash.
    ///
    /// # Errors
    /// When one differs, or there are more of the one than of the other.
    pub fn check(&self, leaves: &[Hash]) -> Result<(), BundleError> {
        if leaves.len() != self.width() {
            return Err(BundleError::Tile { entries: self.width(), hashes: leaves.len() });
        }
        let changed = self.entries().zip(leaves).position(|(entry, leaf)| leaf_hash(entry) != *leaf);
        changed.map_or(Ok(()), |place| Err(BundleError::Entry(place)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn leaves(entries: &[Vec<u8>]) -> Vec<Hash> {
        entries.iter().map(|entry| leaf_hash(entry)).collect()
    }

    fn encoded(entries: &[Vec<u8>]) -> Vec<u8> {
        Bundle::encode(entries.iter().map(Vec::as_slice)).unwrap()
    }

    #[test]
    fn a_bundle_is_written_as_the_specification_says() {
        assert_eq!(encoded(&[b"ab".to_vec(), vec![], b"c".to_vec()]), b"\0\x02ab\0\0\0\x01c");
    }

    #[test]
    fn what_no_bundle_can_hold_is_refused() {
        assert_eq!(Bundle::encode([]), Err(BundleError::Width(0)));
        assert_eq!(Bundle::encode(vec![&b"x"[..]; 257]), Err(BundleError::Width(257)));
        assert_eq!(Bundle::encode([&*vec![0; 65_536]]), Err(BundleError::TooLong(65_536)));
        assert_eq!(Bundle::read(Vec::new()), Err(BundleError::Width(0)));
        assert_eq!(Bundle::read(vec![0; 514]), Err(BundleError::Width(257)));
        for cut in [&b"\0"[..], b"\0\x01", b"\0\x02a", b"\0\x01ab", b"\0\x01a\0"] {
            assert_eq!(Bundle::read(cut.to_vec()), Err(BundleError::Cut), "{cut:?}");
        }
    }

    #[test]
    fn one_changed_byte_is_named_by_its_entry() {
        let entries: Vec<Vec<u8>> = (0..256_u16).map(|i| i.to_be_bytes().repeat(3)).collect();
        let (content, leaves) = (encoded(&entries), leaves(&entries));
        assert_eq!(Bundle::read(content.clone()).unwrap().check(&leaves), Ok(()));
        let mut changed = content;
        changed[8 * 200 + 5] ^= 1;
        assert_eq!(Bundle::read(changed.clone()).unwrap().check(&leaves), Err(BundleError::Entry(200)));
        let short = Bundle::read(changed).unwrap().check(&leaves[..255]);
        assert_eq!(short, Err(BundleError::Tile { entries: 256, hashes: 255 }));
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_and_checks(
            entries in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..600), 1..=256),
        ) {
            let bundle = Bundle::read(encoded(&entries)).unwrap();
            prop_assert!(bundle.entries().eq(entries.iter().map(Vec::as_slice)));
            prop_assert_eq!(bundle.check(&leaves(&entries)), Ok(()));
        }

        #[test]
        fn no_bytes_make_the_reader_fail_otherwise_than_by_refusing(bytes in proptest::collection::vec(any::<u8>(), 0..2_000)) {
            if let Ok(bundle) = Bundle::read(bytes.clone()) {
                prop_assert_eq!(Bundle::encode(bundle.entries()), Ok(bytes));
            }
        }
    }
}
