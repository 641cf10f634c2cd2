//! The geometry of manifests of every shape: which weights bytes a piece is, and back, and which stripes it is in.
#![expect(clippy::unwrap_used, reason = "test code")]

use std::collections::HashMap;
use std::sync::Arc;

use manifest::{ByteRange, Cell, Codec, Digest, Geometry, Layout, Manifest, PieceId, Pieces, Shard};
use proptest::prelude::*;

const PIECE_BYTES: u32 = 64;

fn shard(name: &str, size_bytes: u64, is_parity: bool) -> Shard {
    Shard { digest: Digest::of(name.as_bytes()), size_bytes, is_parity }
}

/// Shards with made-up digests, but for rows of padding only, which have to be zeros.
fn uniform(total_bytes: u64, data: u32, parity: u32) -> Geometry {
    let row_bytes = total_bytes.div_ceil(u64::from(data));
    let row = |row: u32| {
        if u64::from(row) * row_bytes < total_bytes {
            return shard(&format!("row {row}"), row_bytes, false);
        }
        Shard {
            digest: Digest::of(&vec![0; usize::try_from(row_bytes).unwrap()]),
            size_bytes: row_bytes,
            is_parity: false,
        }
    };
    let mut shards: Vec<Shard> = (0..data).map(row).collect();
    shards.extend((0..parity).map(|index| shard(&format!("parity {index}"), row_bytes, true)));
    geometry(total_bytes, shards, data, parity)
}

fn layer_wise(layers: &[u64], data: u32, parity: u32) -> Geometry {
    let total_bytes: u64 = layers.iter().sum();
    let mut shards: Vec<Shard> = layers
        .iter()
        .enumerate()
        .map(|(index, size)| shard(&format!("layer {index}"), *size, false))
        .collect();
    let row_bytes = total_bytes.div_ceil(u64::from(data));
    shards.extend((0..parity).map(|index| shard(&format!("parity {index}"), row_bytes, true)));
    geometry(total_bytes, shards, data, parity)
}

fn geometry(total_bytes: u64, shards: Vec<Shard>, data: u32, parity: u32) -> Geometry {
    let pieces = Some(Pieces { size_bytes: PIECE_BYTES, index: Digest::ZERO });
    let manifest = Manifest::new("llm-backbone".into(), total_bytes, shards, data, parity, Codec::Rs, pieces);
    Geometry::new(Arc::new(manifest.unwrap()))
}

fn all_pieces(geometry: &Geometry) -> impl Iterator<Item = PieceId> {
    let manifest = geometry.manifest().clone();
    (0..u32::try_from(manifest.shards().len()).unwrap())
        .flat_map(move |shard| (0..manifest.piece_count(shard)).map(move |piece| PieceId { shard, piece }))
}

/// Everything that has to hold for any manifest.
fn check(geometry: &Geometry) {
    let manifest = geometry.manifest();
    let total_bytes = manifest.total_size_bytes();

    // Range to pieces: the slices are in order, whole, and each lies in its piece.
    let mut covered = 0;
    for slice in geometry.pieces_of(ByteRange::new(0, total_bytes)) {
        let piece = manifest.piece_range(slice.piece.shard, slice.piece.piece);
        assert!(piece.start <= slice.range.start && slice.range.end <= piece.end);
        let weights = geometry.weights_of(slice.piece).unwrap();
        assert_eq!(weights.start + (slice.range.start - piece.start), covered);
        covered += slice.range.len();
    }
    assert_eq!(covered, total_bytes);

    // Piece to range and back.
    for piece in all_pieces(geometry) {
        let Some(weights) = geometry.weights_of(piece) else {
            assert!(manifest.shards()[piece.shard as usize].is_parity);
            continue;
        };
        let slices: Vec<_> = geometry.pieces_of(weights).collect();
        assert!(slices.iter().all(|slice| slice.piece == piece), "{piece:?} {slices:?}");
        assert_eq!(slices.len(), usize::from(!weights.is_empty()));
    }

    // Stripes tile the row; their cells name each byte of the weights once, as the pieces do.
    let row_bytes = manifest.row_size_bytes();
    let mut from_cells: HashMap<(usize, u32), PieceId> = HashMap::new();
    let mut next = 0;
    let mut cell_bytes = 0;
    for stripe in 0..geometry.stripe_count() {
        let offsets = geometry.stripe(stripe);
        assert_eq!(offsets.start, next);
        assert!(!offsets.is_empty());
        assert_eq!(geometry.stripe_at(offsets.start), stripe);
        assert_eq!(geometry.stripe_at(offsets.end - 1), stripe);
        next = offsets.end;
        for (row, cell) in (0..).zip(geometry.cells(stripe)) {
            let Cell::Piece { piece, offset } = cell else {
                assert!(u64::from(row) * row_bytes + offsets.start >= total_bytes);
                continue;
            };
            let range = manifest.piece_range(piece.shard, piece.piece);
            assert!(range.start <= offset && offset + offsets.len() <= range.end);
            from_cells.insert((stripe, row), piece);
            if row < manifest.data() {
                let at = u64::from(row) * row_bytes + offsets.start;
                let weights = geometry.weights_of(piece).unwrap();
                let is_twin = geometry.same(piece.shard).count() > 1;
                assert!(is_twin || weights.is_empty() || weights.start + (offset - range.start) == at);
                cell_bytes += offsets.len().min(total_bytes - at.min(total_bytes));
            }
        }
    }
    assert_eq!(next, row_bytes);
    assert_eq!(cell_bytes, total_bytes);

    // And the stripes of a piece are just those whose cells name it.
    let mut from_pieces = HashMap::new();
    for piece in all_pieces(geometry).filter(|piece| geometry.canonical(piece.shard) == piece.shard) {
        let first = PieceId { piece: 0, ..piece };
        if geometry.weights_of(first).is_some_and(|weights| weights.is_empty()) {
            continue;
        }
        for place in geometry.stripes_of(piece) {
            assert_eq!(from_pieces.insert(place, piece), None);
        }
    }
    assert_eq!(from_pieces, from_cells);
}

#[test]
fn sizes_around_the_number_of_rows() {
    for data in [1, 2, 3, 10, 255] {
        for total_bytes in
            [1, u64::from(data) - 1, u64::from(data), u64::from(data) + 1, 641, 1_000, 6_400, 6_401]
        {
            if total_bytes > 0 {
                check(&uniform(total_bytes, data, 1));
            }
        }
    }
}

#[test]
fn rows_of_padding_only_are_padding() {
    // Eleven bytes in ten rows of two: rows 6 to 9 hold nothing.
    let geometry = uniform(11, 10, 2);
    let cells: Vec<Cell> = geometry.cells(0).collect();
    assert_eq!(cells.iter().filter(|cell| **cell == Cell::Padding).count(), 4);
    assert_eq!(geometry.weights_of(PieceId { shard: 5, piece: 0 }), Some(ByteRange::new(10, 11)));
    assert_eq!(geometry.weights_of(PieceId { shard: 6, piece: 0 }), Some(ByteRange::new(11, 11)));
}

#[test]
fn layers_that_straddle_rows() {
    let geometry = layer_wise(&[100, 300, 1, 64, 129], 3, 2);
    assert_eq!(geometry.manifest().layout(), Layout::LayerWise);
    check(&geometry);
    // One layer over all rows, and rows shorter than a piece.
    check(&layer_wise(&[50], 3, 1));
    check(&layer_wise(&[7, 1, 2], 10, 4));
}

#[test]
fn equal_shards_are_one() {
    let size = 200;
    let twin = |parity| shard("twin", size, parity);
    let shards = vec![shard("a", size, false), twin(false), twin(false), shard("p", size, true)];
    let geometry = geometry(600, shards, 3, 1);
    assert_eq!(geometry.canonical(2), 1);
    assert_eq!(geometry.same(1).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(geometry.same(0).collect::<Vec<_>>(), [0]);
    check(&geometry);
}

proptest! {
    #[test]
    fn any_uniform(total_bytes in 1_u64..5_000, data in 1_u32..20, parity in 0_u32..5) {
        check(&uniform(total_bytes, data, parity));
    }

    #[test]
    fn any_layers(layers in prop::collection::vec(1_u64..700, 1..12), data in 1_u32..8, parity in 0_u32..4) {
        let geometry = layer_wise(&layers, data, parity);
        check(&geometry);
    }

    #[test]
    fn any_range(total_bytes in 1_u64..5_000, data in 1_u32..20, from in 0_u64..6_000, len in 0_u64..6_000) {
        let geometry = uniform(total_bytes, data, 1);
        let range = ByteRange::new(from, from + len);
        let found: u64 = geometry.pieces_of(range).map(|slice| slice.range.len()).sum();
        prop_assert_eq!(found, range.end.min(total_bytes).saturating_sub(range.start));
    }
}
