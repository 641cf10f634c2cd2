//! The piece index: its bytes, and what it accepts.
#![expect(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a failed test panics, and its numbers are small"
)]

use std::sync::Arc;

use manifest::piece_index::{PieceIndex, ShardHasher, encode_index};
use manifest::{Blame, Codec, Digest, IndexError, Manifest, PieceId, Pieces, Shard};
use proptest::prelude::*;

const SIZES: [usize; 8] = [1, 63, 64, 65, 127, 128, 129, 200];

/// A model: its manifest, its shards' bytes, its piece index.
struct Model {
    manifest: Arc<Manifest>,
    shards: Vec<Vec<u8>>,
    index: Vec<u8>,
}

/// Bytes `i mod 251`, beginning at `from`.
fn bytes(from: usize, len: usize) -> Vec<u8> {
    (from..from + len).map(|i| (i % 251) as u8).collect()
}

/// A layer-wise model of these shards, without parity, with a piece index.
fn layers(shards: Vec<Vec<u8>>, piece_size_bytes: u32) -> Model {
    let mut hashers: Vec<ShardHasher> =
        shards.iter().map(|bytes| ShardHasher::new(bytes.len() as u64, piece_size_bytes)).collect();
    let slices: Vec<&[u8]> = shards.iter().map(Vec::as_slice).collect();
    ShardHasher::update_all(&mut hashers, &slices);
    let values: Vec<_> = hashers.into_iter().map(|hasher| hasher.finish().1).collect();
    let index = encode_index(piece_size_bytes, &values);
    let total = shards.iter().map(|bytes| bytes.len() as u64).sum();
    let pieces = Pieces { size_bytes: piece_size_bytes, index: Digest::of(&index) };
    let shard = |bytes: &Vec<u8>| Shard {
        digest: Digest::of(bytes),
        size_bytes: bytes.len() as u64,
        is_parity: false,
    };
    let list = shards.iter().map(shard).collect();
    let manifest = Manifest::new("simplenet".into(), total, list, 1, 0, Codec::Rs, Some(pieces)).unwrap();
    Model { manifest: Arc::new(manifest), shards, index }
}

fn vector(piece_size_bytes: u32) -> Model {
    layers(SIZES.map(|len| bytes(0, len)).to_vec(), piece_size_bytes)
}

fn pieces<'a>(manifest: &Manifest, shards: &'a [Vec<u8>]) -> Vec<(PieceId, &'a [u8])> {
    let mut pieces = Vec::new();
    for (shard, bytes) in (0..).zip(shards) {
        for piece in 0..manifest.piece_count(shard) {
            let range = manifest.piece_range(shard, piece);
            pieces.push((PieceId { shard, piece }, &bytes[range.start as usize..range.end as usize]));
        }
    }
    pieces
}

/// Which pieces of `shards` are good for `model`.
fn verify(model: &Model, shards: &[Vec<u8>]) -> Vec<bool> {
    let index = PieceIndex::parse(&model.index, &model.manifest).unwrap();
    let pieces = pieces(&model.manifest, shards);
    let verified = index.verify(&pieces);
    for (found, (piece, bytes)) in verified.iter().zip(&pieces) {
        let Some(found) = found else { continue };
        assert_eq!((found.piece(), found.bytes()), (*piece, *bytes));
        assert!(found.is_of(&model.manifest));
    }
    verified.iter().map(Option::is_some).collect()
}

/// `model` with another index, which its manifest names.
fn with_index(model: &Model, index: Vec<u8>) -> Model {
    let pieces = Pieces { index: Digest::of(&index), ..model.manifest.pieces().unwrap() };
    let list = model.manifest.shards().to_vec();
    let total = model.manifest.total_size_bytes();
    let manifest = Manifest::new("simplenet".into(), total, list, 1, 0, Codec::Rs, Some(pieces)).unwrap();
    Model { manifest: Arc::new(manifest), shards: model.shards.clone(), index }
}

#[test]
fn the_blob_is_that_of_the_specification() {
    for (piece_size_bytes, size, digest) in [
        (64, 269, "e106f7f147336d8a92c9e0bf7328bb8ede86a20503ff77f7323b532ef0636806"),
        (128, 77, "296ac4a21a06d7d2b3ecacc40aa9565718cb9eeeb38d0936535d605b1dcabe54"),
    ] {
        let Model { manifest, shards, index } = vector(piece_size_bytes);
        assert_eq!(index.len(), size);
        assert_eq!(manifest.index_size_bytes(), size as u64);
        assert_eq!(Digest::of(&index).to_string(), digest);
        assert!(verify(&Model { manifest, shards: shards.clone(), index }, &shards).iter().all(|good| *good));
    }
}

#[test]
fn a_manifest_without_pieces_has_no_index() {
    let model = vector(64);
    let list = model.manifest.shards().to_vec();
    let total = model.manifest.total_size_bytes();
    let manifest = Manifest::new("simplenet".into(), total, list, 1, 0, Codec::Rs, None).unwrap();
    assert_eq!(PieceIndex::parse(&model.index, &Arc::new(manifest)).unwrap_err(), IndexError::NoIndex);
}

#[test]
fn bytes_that_are_not_those_named_blame_the_peer() {
    let Model { manifest, index, .. } = vector(64);
    for len in [0, 1, 12, 13, index.len() - 1] {
        let error = PieceIndex::parse(&index[..len], &manifest).unwrap_err();
        assert_eq!(error, IndexError::WrongSize { found_bytes: len as u64, expected_bytes: 269 });
        assert_eq!(error.blame(), Blame::Peer);
    }
    let mut other = index.clone();
    other[100] ^= 1;
    let error = PieceIndex::parse(&other, &manifest).unwrap_err();
    assert!(matches!(error, IndexError::WrongDigest { .. }), "{error}");
    assert_eq!(error.blame(), Blame::Peer);
    let mut longer = index;
    longer.push(0);
    assert!(PieceIndex::parse(&longer, &manifest).is_err());
}

#[test]
fn a_header_of_something_else_blames_the_publisher() {
    let model = vector(64);
    for (at, message) in [
        (0, "the piece index begins with \"SPBX\", expected \"RPBX\""),
        (4, "the piece index has version 0, expected 1"),
        (8, "the piece index is for pieces of 65 bytes, expected 64 as in the manifest"),
        (12, "the piece index is for 9 shards, expected 8 as in the manifest"),
    ] {
        let mut index = model.index.clone();
        index[at] ^= 1;
        let Model { manifest, index, .. } = with_index(&model, index);
        let error = PieceIndex::parse(index, &manifest).unwrap_err();
        assert_eq!((error.to_string().as_str(), error.blame()), (message, Blame::Caller));
    }
}

#[test]
fn pieces_that_there_are_not_are_not_good() {
    let Model { manifest, shards, index } = vector(64);
    let index = PieceIndex::parse(index, &manifest).unwrap();
    let bytes = shards[7].as_slice();
    let pieces = [
        (8, 0, &bytes[..64]),
        (u32::MAX, u32::MAX, &bytes[..64]),
        (7, 4, &bytes[..0]),
        (7, 4, &bytes[..64]),
        (7, u32::MAX, &bytes[..64]),
        (7, 0, &bytes[..63]),
        (7, 0, &bytes[..65]),
        (7, 0, &bytes[..0]),
        (7, 3, &bytes[192..199]),
    ]
    .map(|(shard, piece, bytes)| (PieceId { shard, piece }, bytes));
    let found = index.verify(&pieces);
    assert!(found.iter().all(Option::is_none), "{found:?}");
    assert!(index.verify(&[]).is_empty());
}

#[test]
fn what_is_verified_is_so_for_its_model_only() {
    let (model, other) = (vector(64), layers(vec![bytes(1, 100), bytes(2, 100)], 64));
    let index = PieceIndex::parse(&model.index, &model.manifest).unwrap();
    let piece = (PieceId { shard: 0, piece: 0 }, model.shards[0].as_slice());
    let found = index.verify(&[piece]).pop().flatten().unwrap();
    assert!(found.is_of(&model.manifest) && !found.is_of(&other.manifest));
    assert!(!found.is_of(&vector(128).manifest), "cut into other pieces");
}

#[test]
fn in_shards_with_one_digest_the_values_of_the_first_count() {
    let same = bytes(7, 200);
    let model = layers(vec![same.clone(), bytes(0, 100), same.clone()], 64);
    assert_eq!([0, 1, 2].map(|shard| model.manifest.canonical(shard)), [0, 1, 0]);
    // The header, 3 values of shard 0, 1 of shard 1: then those of shard 2.
    let mut index = model.index.clone();
    index[13 + 32 * 4] ^= 1;
    let damaged = with_index(&model, index);
    assert!(verify(&damaged, &damaged.shards).iter().all(|good| *good));
    let mut index = model.index.clone();
    index[13] ^= 1;
    let damaged = with_index(&model, index);
    assert!(!verify(&damaged, &damaged.shards)[6]);
}

#[test]
#[should_panic(expected = "not whole SHA-256 blocks")]
fn pieces_are_whole_blocks() {
    ShardHasher::new(1, 100);
}

fn shards() -> impl Strategy<Value = Vec<Vec<u8>>> {
    prop::collection::vec(prop::collection::vec(any::<u8>(), 1..700), 1..7)
}

fn piece_sizes() -> impl Strategy<Value = u32> {
    (1_u32..5).prop_map(|blocks| blocks * 64)
}

proptest! {
    #[test]
    fn hashing_in_any_slices_gives_the_same(
        shards in shards(),
        piece_size_bytes in piece_sizes(),
        cuts in prop::collection::vec(prop::collection::vec(0_usize..300, 7), 0..12),
    ) {
        let Model { manifest, shards, index } = layers(shards, piece_size_bytes);
        let hasher = |bytes: &Vec<u8>| ShardHasher::new(bytes.len() as u64, piece_size_bytes);
        let mut hashers: Vec<ShardHasher> = shards.iter().map(hasher).collect();
        let mut left: Vec<&[u8]> = shards.iter().map(Vec::as_slice).collect();
        for lens in cuts.into_iter().chain([vec![usize::MAX; 7]]) {
            let slices: Vec<&[u8]> = left
                .iter_mut()
                .zip(lens)
                .map(|(left, len)| left.split_off(..len.min(left.len())).unwrap())
                .collect();
            ShardHasher::update_all(&mut hashers, &slices);
        }
        let (found, values): (Vec<Digest>, Vec<_>) = hashers.into_iter().map(ShardHasher::finish).unzip();
        let expected: Vec<Digest> = shards.iter().map(|bytes| Digest::of(bytes)).collect();
        prop_assert_eq!(found, expected);
        for (shard, values) in (0..).zip(&values) {
            prop_assert_eq!(values.len() as u32 + 1, manifest.piece_count(shard));
        }
        prop_assert_eq!(encode_index(piece_size_bytes, &values), index);
    }

    #[test]
    fn only_the_piece_with_the_flipped_bit_is_not_good(
        shards in shards(),
        piece_size_bytes in piece_sizes(),
        place in any::<prop::sample::Index>(),
        bit in 0_u8..8,
    ) {
        let model = layers(shards, piece_size_bytes);
        let mut shards = model.shards.clone();
        let mut at = place.index(shards.iter().map(Vec::len).sum());
        let mut flipped = 0;
        while at >= shards[flipped].len() {
            at -= shards[flipped].len();
            flipped += 1;
        }
        shards[flipped][at] ^= 1 << bit;
        let good = verify(&model, &shards);
        let expected: Vec<bool> = pieces(&model.manifest, &shards)
            .iter()
            .map(|(id, _)| (id.shard as usize, id.piece) != (flipped, at as u32 / piece_size_bytes))
            .collect();
        prop_assert_eq!(good, expected);
    }

    /// Even of bytes and an index that have nothing to do with each other.
    #[test]
    fn all_pieces_good_means_the_digest_is_right(
        shards in shards(),
        place in any::<prop::sample::Index>(),
        bit in 0_u8..8,
        shard_is_damaged in any::<bool>(),
    ) {
        let mut model = layers(shards, 64);
        let values = model.index.len() - 13;
        if values > 0 {
            let mut index = model.index.clone();
            index[13 + place.index(values)] ^= 1 << bit;
            model = with_index(&model, index);
        }
        let mut shards = model.shards.clone();
        if shard_is_damaged {
            let at = place.index(shards[0].len());
            shards[0][at] ^= 1;
        }
        let good = verify(&model, &shards);
        prop_assert!(values == 0 || good.contains(&false));
        let mut good = good.into_iter();
        for (shard, bytes) in (0..).zip(&shards) {
            let pieces = model.manifest.piece_count(shard) as usize;
            // Of each shard all pieces, also after one that is not good.
            if good.by_ref().take(pieces).filter(|good| *good).count() == pieces {
                prop_assert_eq!(Digest::of(bytes), model.manifest.shards()[shard as usize].digest);
            }
        }
    }
}
