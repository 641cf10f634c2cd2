//! The Merkle tree over the shards' digests.
//!
//! Leaves are the raw digests in index order, padded with 32 zero bytes to the next power of two; a parent is
//! `sha256(left ‖ right)`; one leaf is its own root. Source: `docs/manifest.md`, "Merkle root".

use rs_merkle::algorithms::Sha256;
use rs_merkle::{MerkleProof, MerkleTree};

use crate::{Digest, MAX_SHARDS};

/// The root over `leaves`; `None` when there are none.
pub fn root(leaves: &[Digest]) -> Option<Digest> {
    tree(leaves).root().map(Digest::from_bytes)
}

/// The proof that `leaves[index]` is in the tree: the siblings from the leaf up to below the root. `None` when there
/// is no such leaf.
pub fn proof(leaves: &[Digest], index: usize) -> Option<Vec<Digest>> {
    (index < leaves.len()).then(|| {
        let proof = tree(leaves).proof(&[index]);
        proof.proof_hashes().iter().copied().map(Digest::from_bytes).collect()
    })
}

/// Whether `leaf` stands at `index` of the `leaf_count` leaves of the tree with this root.
///
/// False as well for a proof of another length than this tree's depth, and for more leaves than a manifest has.
pub fn verify(root: &Digest, leaf: &Digest, index: usize, leaf_count: usize, proof: &[Digest]) -> bool {
    if index >= leaf_count || leaf_count > MAX_SHARDS {
        return false;
    }
    // rs_merkle takes any number of leaves and ignores hashes that are left over.
    let padded_count = leaf_count.next_power_of_two();
    if proof.len() != padded_count.ilog2() as usize {
        return false;
    }
    let proof = MerkleProof::<Sha256>::new(proof.iter().map(|digest| *digest.as_bytes()).collect());
    proof.verify(*root.as_bytes(), &[index], &[*leaf.as_bytes()], padded_count)
}

fn tree(leaves: &[Digest]) -> MerkleTree<Sha256> {
    let mut padded: Vec<[u8; 32]> = leaves.iter().map(|digest| *digest.as_bytes()).collect();
    if !padded.is_empty() {
        padded.resize(leaves.len().next_power_of_two(), *Digest::ZERO.as_bytes());
    }
    MerkleTree::from_leaves(&padded)
}
