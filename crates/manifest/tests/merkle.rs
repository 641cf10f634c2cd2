//! The Merkle tree against vectors from `vectors/merkle.py`, and against proofs that lie.
#![expect(clippy::unwrap_used, reason = "a failed test may panic")]

use std::path::Path;
use std::process::Command;

use manifest::{Digest, MAX_SHARDS, merkle};
use proptest::prelude::*;
use serde::Deserialize;

const VECTORS: &str = include_str!("vectors/merkle.json");

#[derive(Deserialize)]
struct Tree {
    leaves: Vec<String>,
    root: String,
    proofs: Vec<Vec<String>>,
}

fn digests(texts: &[String]) -> Vec<Digest> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn leaves(count: usize) -> Vec<Digest> {
    (0..count).map(|i| Digest::of(format!("leaf {i}").as_bytes())).collect()
}

#[test]
fn roots_and_proofs_are_those_of_the_python_script() {
    let trees: Vec<Tree> = serde_json::from_str(VECTORS).unwrap();
    assert_eq!(trees.len(), 20);
    for tree in trees {
        let leaves = digests(&tree.leaves);
        let root = tree.root.parse().unwrap();
        assert_eq!(merkle::root(&leaves), Some(root));
        for (index, (leaf, proof)) in leaves.iter().zip(&tree.proofs).enumerate() {
            let proof = digests(proof);
            assert_eq!(merkle::proof(&leaves, index).as_ref(), Some(&proof));
            assert!(
                merkle::verify(&root, leaf, index, leaves.len(), &proof),
                "leaf {index}/{}",
                leaves.len()
            );
        }
    }
}

#[test]
fn the_committed_vectors_are_what_the_script_prints() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/merkle.py");
    let output = Command::new("python3").arg(script).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), VECTORS);
}

#[test]
fn no_leaves_have_no_root_and_no_proof() {
    assert_eq!(merkle::root(&[]), None);
    assert_eq!(merkle::proof(&[], 0), None);
    assert_eq!(merkle::proof(&leaves(3), 3), None);
    assert!(!merkle::verify(&Digest::ZERO, &Digest::ZERO, 0, 0, &[]));
}

#[test]
fn one_leaf_is_its_own_root() {
    let leaf = leaves(1)[0];
    assert_eq!(merkle::root(&[leaf]), Some(leaf));
    assert!(merkle::verify(&leaf, &leaf, 0, 1, &[]));
    assert!(!merkle::verify(&leaf, &leaf, 0, 1, &[leaf]));
}

#[test]
fn more_leaves_than_any_manifest_has_are_refused() {
    let leaf = leaves(1)[0];
    for leaf_count in [MAX_SHARDS + 1, usize::MAX] {
        assert!(!merkle::verify(&leaf, &leaf, 0, leaf_count, &[]));
    }
}

#[test]
fn a_proof_of_another_length_is_refused() {
    let leaves = leaves(5);
    let root = merkle::root(&leaves).unwrap();
    let proof = merkle::proof(&leaves, 2).unwrap();
    let longer: Vec<Digest> = proof.iter().copied().chain([Digest::ZERO]).collect();
    assert!(merkle::verify(&root, &leaves[2], 2, 5, &proof));
    assert!(!merkle::verify(&root, &leaves[2], 2, 5, &longer));
    assert!(!merkle::verify(&root, &leaves[2], 2, 5, &proof[..2]));
    assert!(!merkle::verify(&root, &leaves[2], 2, 5, &[]));
}

#[test]
fn a_number_of_leaves_that_gives_another_depth_is_refused() {
    let leaves = leaves(5);
    let root = merkle::root(&leaves).unwrap();
    let proof = merkle::proof(&leaves, 2).unwrap();
    // Padding hides the exact number: 5 to 8 leaves have the same tree.
    for leaf_count in [0, 1, 2, 3, 4, 9, 16, 17] {
        assert!(!merkle::verify(&root, &leaves[2], 2, leaf_count, &proof), "{leaf_count}");
    }
}

proptest! {
    #[test]
    fn only_the_right_leaf_at_the_right_index_verifies(
        count in 1_usize..40, index in 0_usize..40, other in 0_usize..40, flip in 0_usize..256,
    ) {
        let (index, other) = (index % count, other % count);
        let leaves = leaves(count);
        let root = merkle::root(&leaves).unwrap();
        let proof = merkle::proof(&leaves, index).unwrap();
        prop_assert!(merkle::verify(&root, &leaves[index], index, count, &proof));
        let flipped = |digest: &Digest| {
            let mut bytes = *digest.as_bytes();
            bytes[flip / 8] ^= 1 << (flip % 8);
            Digest::from_bytes(bytes)
        };
        prop_assert!(!merkle::verify(&flipped(&root), &leaves[index], index, count, &proof));
        prop_assert!(!merkle::verify(&root, &flipped(&leaves[index]), index, count, &proof));
        prop_assert_eq!(merkle::verify(&root, &leaves[index], other, count, &proof), other == index);
        for depth in 0..proof.len() {
            let mut wrong = proof.clone();
            wrong[depth] = flipped(&wrong[depth]);
            prop_assert!(!merkle::verify(&root, &leaves[index], index, count, &wrong));
        }
    }
}
