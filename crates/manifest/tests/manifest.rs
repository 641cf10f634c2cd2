//! The manifest: what Python writes, how its values fit together, and what its numbers are.
#![expect(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a failed test panics, and its numbers are small"
)]

mod common;
#[path = "common/named.rs"]
mod named;

use std::path::Path;
use std::process::Command;

use common::{ROWS, list, plain, shard, uniform};
use manifest::piece_index::encode_index;
use manifest::{ByteRange, Codec, Digest, Layout, Manifest, Pieces, Shard};
use named::files;
use proptest::prelude::*;

/// The same 10 bytes as layers of 7 and 3 bytes.
fn layer_wise() -> Manifest {
    let pieces = Pieces { size_bytes: 64, index: Digest::of(b"index") };
    let shards = list(&[b"layer 1", b"two"], &[b"1111"]);
    Manifest::new("simplenet".into(), 10, shards, 3, 1, Codec::Rs, Some(pieces)).unwrap()
}

#[test]
fn python_writes_the_same_bytes() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/manifests.py");
    let output = Command::new("python3").arg(script).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let kind = "kind \"of\" \\ a \x7f\0\x1f\x08\x0c\n\r\t model/é☃\u{1f600}\u{ffff}";
    let new = |kind: &str, total, shards, data, parity, codec| {
        Manifest::new(kind.into(), total, shards, data, parity, codec, None).unwrap()
    };
    let ours = [
        uniform(),
        new("llm-backbone", 10, list(&ROWS, &ROWS[..2]), 3, 2, Codec::Replica),
        layer_wise(),
        new("simplenet", 1, list(&[b"x"], &[]), 1, 0, Codec::Rs),
        new("one row of padding", 4, list(&[b"ab", b"cd", b"\0\0"], &[]), 3, 0, Codec::Rs),
        new(kind, 1, list(&[b"x"], &[]), 1, 0, Codec::Rs),
        layer_wise()
            .with_files(files(&[("a/é☃.txt", b""), ("config.json", b"layer 1"), ("z \"q\".bin", b"two")]))
            .unwrap(),
        new("simplenet", 10, list(&[b"laye", b"r 1t", b"wo\0\0"], &[]), 3, 0, Codec::Rs)
            .with_files(files(&[("config.json", b"layer 1"), ("z/w.bin", b"two")]))
            .unwrap(),
    ];
    let lines: Vec<&str> = std::str::from_utf8(&output.stdout).unwrap().lines().collect();
    assert_eq!(lines.len(), ours.len());
    for (line, ours) in lines.into_iter().zip(ours) {
        assert_eq!(std::str::from_utf8(&ours.to_json()).unwrap(), line);
        assert_eq!(Digest::of(&ours.to_json()), Digest::of(line.as_bytes()));
        assert_eq!(Manifest::parse(line.as_bytes()).unwrap(), ours);
    }
}

#[test]
fn one_digest_has_one_size() {
    let mut shards = list(&[b"layer 1", b"two"], &[]);
    shards[1].digest = shards[0].digest;
    let error = Manifest::new("simplenet".into(), 10, shards, 1, 0, Codec::Rs, None).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "`shards[1].size` is 3, expected 7 as in `shards[0]`, which has the same hash {}",
            Digest::of(b"layer 1")
        )
    );
    let manifest =
        Manifest::new("simplenet".into(), 8, list(&[b"same", b"same"], &[b"same"]), 2, 1, Codec::Rs, None);
    assert_eq!([0, 1, 2].map(|shard| manifest.as_ref().unwrap().canonical(shard)), [0, 0, 0]);
}

#[test]
fn rows_of_padding_only_are_zeros() {
    // 5 bytes in 4 rows of 2: the last holds no weights.
    let zeros = list(&[b"ab", b"cd", b"e\0", b"\0\0"], &[]);
    let manifest = Manifest::new("simplenet".into(), 5, zeros.clone(), 4, 0, Codec::Rs, None).unwrap();
    assert_eq!(manifest.layout(), Layout::Uniform);
    let ranges = [(0, 2), (2, 4), (4, 5), (5, 5)].map(|(start, end)| Some(ByteRange::new(start, end)));
    assert_eq!([0, 1, 2, 3].map(|shard| manifest.weights_range(shard)), ranges);
    let mut other = zeros;
    other[3] = shard(b"\0x", false);
    let error = Manifest::new("simplenet".into(), 5, other, 4, 0, Codec::Rs, None).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "`shards[3].hash` is {}, expected {}, as it is padding only: 2 zero bytes",
            Digest::of(b"\0x"),
            Digest::of(b"\0\0")
        )
    );
}

#[test]
fn a_manifest_has_at_most_2_to_the_24_pieces() {
    let most = 1_u64 << 44;
    assert_eq!(plain(most, 1, &[most]).unwrap().piece_count(0), 1 << 24);
    let error = plain(most + 1, 1, &[most + 1]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the shards are 16777217 pieces of 1048576 bytes, expected at most 16777216"
    );
}

#[test]
fn the_numbers_of_a_uniform_manifest() {
    let manifest = uniform();
    assert_eq!((manifest.layout(), manifest.codec()), (Layout::Uniform, Codec::Rs));
    assert_eq!((manifest.data(), manifest.parity(), manifest.data_shard_count()), (3, 2, 3));
    assert_eq!((manifest.total_size_bytes(), manifest.row_size_bytes()), (10, 4));
    let ranges = [(0, 4), (4, 8), (8, 10)].map(|(start, end)| Some(ByteRange::new(start, end)));
    assert_eq!([0, 1, 2].map(|shard| manifest.weights_range(shard)), ranges);
    assert_eq!([3, 4, 5, u32::MAX].map(|shard| manifest.weights_range(shard)), [None; 4]);
    assert_eq!(manifest.index_size_bytes(), 13);
}

#[test]
fn the_numbers_of_a_layer_wise_manifest() {
    let manifest = layer_wise();
    assert_eq!(manifest.layout(), Layout::LayerWise);
    assert_eq!((manifest.data(), manifest.parity(), manifest.data_shard_count()), (3, 1, 2));
    assert_eq!(manifest.row_size_bytes(), 4);
    assert_eq!(manifest.weights_range(0), Some(ByteRange::new(0, 7)));
    assert_eq!(manifest.weights_range(1), Some(ByteRange::new(7, 10)));
    assert_eq!(manifest.weights_range(2), None);
    // As many shards as rows, but of other sizes.
    assert_eq!(plain(9, 2, &[5, 4]).unwrap().layout(), Layout::LayerWise);
    assert_eq!(plain(9, 2, &[5, 5]).unwrap().layout(), Layout::Uniform);
    assert_eq!(plain(8, 2, &[4, 4]).unwrap().layout(), Layout::Uniform);
}

#[test]
fn pieces_cut_a_shard() {
    const P: u64 = 1 << 20;
    for (size, count) in [(1, 1), (P - 1, 1), (P, 1), (P + 1, 2), (5 * P, 5), (5 * P + 1, 6)] {
        let manifest = plain(size, 1, &[size]).unwrap();
        assert_eq!((manifest.piece_size_bytes(), manifest.piece_count(0)), (1 << 20, count));
        assert_eq!(manifest.index_size_bytes(), 13 + 32 * u64::from(count - 1));
        let mut next = 0;
        for piece in 0..count {
            let range = manifest.piece_range(0, piece);
            assert_eq!(range.start, next);
            assert!(!range.is_empty() && range.len() <= P);
            next = range.end;
        }
        assert_eq!(next, size);
        assert!(manifest.piece_range(0, count).is_empty());
        assert!(manifest.piece_range(0, u32::MAX).is_empty());
    }
}

#[test]
fn codecs_have_names() {
    for (codec, name) in [(Codec::Rs, "rs"), (Codec::Replica, "replica")] {
        assert_eq!(codec.to_string(), name);
        assert_eq!(name.parse::<Codec>().unwrap(), codec);
    }
}

prop_compose! {
    fn manifests()(
        kind in any::<String>(),
        total in 1_u64..5000,
        data in 1_u32..20,
        parity in 0_u32..5,
        codec in prop::sample::select(vec![Codec::Rs, Codec::Replica]),
        cuts in prop::collection::btree_set(1_u64..5000, 0..6),
        pieces in prop::option::of((1_u32..100).prop_map(|blocks| blocks * 64)),
        is_uniform in any::<bool>(),
    ) -> Manifest {
        let row = total.div_ceil(u64::from(data));
        let borders: Vec<u64> = [0].into_iter().chain(cuts.into_iter().filter(|cut| *cut < total)).chain([total]).collect();
        let sizes: Vec<u64> = if is_uniform {
            vec![row; data as usize]
        } else {
            borders.windows(2).map(|pair| pair[1] - pair[0]).collect()
        };
        let data_shards = sizes.len();
        let shard = |(i, size_bytes): (usize, u64)| {
            let is_padding = is_uniform && i < data_shards && i as u64 * row >= total;
            let digest = if is_padding {
                Digest::of(&vec![0; row as usize])
            } else {
                Digest::of(&i.to_be_bytes())
            };
            Shard { digest, size_bytes, is_parity: i >= data_shards }
        };
        let shards = sizes.into_iter().chain(vec![row; parity as usize]).enumerate().map(shard).collect();
        let pieces = pieces.map(|size_bytes| Pieces { size_bytes, index: Digest::of(b"index") });
        Manifest::new(kind, total, shards, data, parity, codec, pieces).unwrap()
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(manifest in manifests()) {
        let json = manifest.to_json();
        prop_assert!(json.is_ascii());
        prop_assert_eq!(&Manifest::parse(&json).unwrap(), &manifest);
        // And by another parser, as the same JSON.
        let value: serde_json::Value = serde_json::from_slice(&json).unwrap();
        prop_assert_eq!(Manifest::parse(&serde_json::to_vec(&value).unwrap()).unwrap(), manifest);
    }

    #[test]
    fn the_data_shards_cover_the_weights(manifest in manifests()) {
        let mut next = 0;
        for shard in 0..manifest.data_shard_count() {
            let range = manifest.weights_range(shard).unwrap();
            prop_assert_eq!(range.start, next);
            next = range.end;
        }
        prop_assert_eq!(next, manifest.total_size_bytes());
    }
}

#[test]
fn the_documented_example_is_what_we_write() {
    let page = include_str!("../../../docs/manifest.md");
    let examples: Vec<&str> =
        page.split("```json\n").skip(1).map(|rest| rest.split_once('\n').unwrap().0).collect();
    let [folder, json] = examples[..] else { panic!("{} examples", examples.len()) };
    assert_eq!(Manifest::parse(folder.as_bytes()).unwrap().files().len(), 3);
    assert!(page.contains(&format!("Its digest is `{}`", Digest::of(folder.as_bytes()))));
    let index = encode_index(64, &vec![Vec::new(); 5]);
    let pieces = Pieces { size_bytes: 64, index: Digest::of(&index) };
    let shards = list(&ROWS, &ROWS[..2]);
    let manifest = Manifest::new("simplenet".into(), 10, shards, 3, 2, Codec::Replica, Some(pieces)).unwrap();
    assert_eq!(std::str::from_utf8(&manifest.to_json()).unwrap(), json);
    assert!(page.contains(&format!("its digest is `{}`", Digest::of(json.as_bytes()))));
    assert!(page.contains(&format!("`{}`", hex::encode(index))));
}
