//! Proofs that buy one credential each: the store's own marks lie outside the tree, so the entries are asked too.

use std::collections::{BTreeSet, HashMap};

use daypass_verify::ids::Digest;
use daypass_verify::time::UnixMs;

use super::finding::{FindingCode, Findings};
use crate::entry::{Index, Proof, ProofUse};

/// How long after its end a proof could still be shown somewhere: the leeway, and clocks that differ.
const REMEMBERED_MS: i64 = 120_000;

/// The proofs that were spent and could be shown again.
#[derive(Debug, Default)]
pub(super) struct Proofs {
    spent: HashMap<Digest, Index>,
    by_end: BTreeSet<(UnixMs, Digest)>,
}

impl Proofs {
    pub(super) fn shown(&mut self, index: Index, time: UnixMs, proof: &Proof, findings: &mut Findings) {
        if proof.usage != ProofUse::Once {
            return;
        }
        self.forget(time);
        if let Some(first) = self.spent.insert(proof.digest, index) {
            let detail = format!("its proof had bought the credential of entry {first}, and buys one only");
            findings.add(FindingCode::ProofUsedTwice, Some(index), detail);
        }
        self.by_end.insert((proof.exp_ms, proof.digest));
    }

    fn forget(&mut self, now: UnixMs) {
        while let Some(oldest) =
            self.by_end.first().copied().filter(|(end, _)| now.millis_since(*end) > REMEMBERED_MS)
        {
            self.by_end.remove(&oldest);
            self.spent.remove(&oldest.1);
        }
    }
}
