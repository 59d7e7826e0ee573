//! Receipts: what the holder of a credential keeps to prove that its issuance is in the log.

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::note::VerifierKey;
use crate::tree::{Hash, ProofError, verify_inclusion};

/// Why a receipt proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// The checkpoint is refused.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The entry does not stand in the tree where the receipt says.
    #[error(transparent)]
    Inclusion(#[from] ProofError),
}

/// Checks that the entry whose leaf hash is `leaf` stands at `index` in the log of the signed
/// `checkpoint_note`, which `key` must have signed; gives the checkpoint, to be kept and shown later.
///
/// # Errors
/// When the checkpoint is not by `key`, or `inclusion` does not lead from the leaf to its root.
pub fn verify_receipt(
    leaf: Hash,
    index: u64,
    checkpoint_note: &[u8],
    inclusion: &[Hash],
    key: &VerifierKey,
) -> Result<Checkpoint, ReceiptError> {
    let checkpoint = Checkpoint::open(checkpoint_note, key)?;
    verify_inclusion(leaf, index, checkpoint.size, inclusion, checkpoint.root)?;
    Ok(checkpoint)
}

#[cfg(test)]
mod tests {
    use ring::rand::SystemRandom;
    use ring::signature::Ed25519KeyPair;

    use super::*;
    use crate::tree::{Batch, Frontier, leaf_hash};

    #[test]
    fn a_receipt_proves_one_entry_at_one_place_in_one_log() {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let pair = Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap();
        let key = VerifierKey::of("example.org/evidence/2026-2", &pair).unwrap();
        let leaves: Vec<_> = (0..7_u8).map(|i| leaf_hash(&[i])).collect();
        let batch = Batch::new(&Frontier::empty(), leaves.clone());
        let root = batch.frontier().root();
        let checkpoint = Checkpoint { origin: key.name().into(), size: 7, root };
        let note = checkpoint.sign(&pair).unwrap();
        let path = batch.proof(4).unwrap();

        let check =
            |leaf, index, note: &str, path: &[Hash]| verify_receipt(leaf, index, note.as_bytes(), path, &key);
        assert_eq!(check(leaves[4], 4, &note, &path), Ok(checkpoint));
        assert!(check(leaves[3], 4, &note, &path).is_err());
        assert!(check(leaves[4], 5, &note, &path).is_err());
        assert!(check(leaves[4], 4, &note.replace("\n7\n", "\n8\n"), &path).is_err());
        assert!(check(leaves[4], 4, &note, &path[1..]).is_err());
    }
}
