//! Finished models for the tests, made as simply as they can be: the rows, and what is encoded of them, all in memory.

use manifest::piece_index::{ShardHasher, encode_index};
use manifest::{Codec, Digest, MODEL_KINDS, Manifest, Pieces, Shard};
use reed_solomon_erasure::galois_8::ReedSolomon;

use super::*;

/// The smallest pieces, so that small models have some.
const PIECE_BYTES: u32 = 16 << 10;

pub(crate) struct Options {
    pub(crate) data: u32,
    pub(crate) parity: u32,
    pub(crate) codec: Codec,
    /// `None` publishes without a piece index.
    pub(crate) piece_size_bytes: Option<u32>,
}

pub(crate) struct Published {
    pub(crate) digest: Digest,
    pub(crate) manifest: Arc<Manifest>,
    pub(crate) model: Model,
}

pub(crate) fn options(data: u32, parity: u32, codec: Codec) -> Options {
    Options { data, parity, codec, piece_size_bytes: Some(PIECE_BYTES) }
}

/// Bytes that repeat nowhere soon, the same for the same seed.
pub(crate) fn sample(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    bytes
}

/// The shards of these weights: rows padded to the same length, then parity.
fn shards(bytes: &[u8], options: &Options) -> Vec<Vec<u8>> {
    let (data, parity) = (options.data as usize, options.parity as usize);
    let row_bytes = bytes.len().div_ceil(data);
    let mut padded = bytes.to_vec();
    padded.resize(row_bytes * data, 0);
    let mut shards: Vec<Vec<u8>> = padded.chunks(row_bytes).map(<[u8]>::to_vec).collect();
    match options.codec {
        Codec::Replica => (0..parity).for_each(|copy| shards.push(shards[copy % data].clone())),
        Codec::Rs if parity > 0 => {
            shards.resize(data + parity, vec![0; row_bytes]);
            ReedSolomon::new(data, parity).unwrap().encode(&mut shards).unwrap();
        }
        Codec::Rs => {}
    }
    shards
}

/// Puts a finished model with these weights into the cache, with all its parity.
pub(crate) fn publish_bytes(cache: &Cache, bytes: &[u8], options: &Options) -> Published {
    let piece_bytes = options.piece_size_bytes.unwrap_or(manifest::TRANSFER_PIECE_BYTES);
    let contents = shards(bytes, options);
    let hash = |content: &Vec<u8>| {
        let mut hashers = [ShardHasher::new(content.len() as u64, piece_bytes)];
        ShardHasher::update_all(&mut hashers, &[content]);
        let [hasher] = hashers;
        hasher.finish()
    };
    let (digests, values): (Vec<_>, Vec<_>) = contents.iter().map(hash).unzip();
    let index = encode_index(piece_bytes, &values);
    let shard = |(number, digest): (usize, &Digest)| Shard {
        digest: *digest,
        size_bytes: contents[number].len() as u64,
        is_parity: number >= options.data as usize,
    };
    let entries = digests.iter().enumerate().map(shard).collect();
    let pieces = options.piece_size_bytes.map(|size_bytes| Pieces { size_bytes, index: Digest::of(&index) });
    let (kind, Options { data, parity, codec, .. }) = (MODEL_KINDS[0].to_owned(), options);
    let manifest = Manifest::new(kind, bytes.len() as u64, entries, *data, *parity, *codec, pieces).unwrap();
    let (digest, manifest) = cache.store_manifest(&manifest.to_json()).unwrap();
    // Only what it lacks is added to one that is there.
    if let Ok(Some(model)) = cache.model(&digest) {
        let staging = cache.staging().unwrap();
        staging.write(PIECES, &index).unwrap();
        for (shard, content) in contents.iter().enumerate().skip(options.data as usize) {
            staging.write(&format!("{PARITY}/{shard}"), content).unwrap();
        }
        let model = cache.complete(model, &staging).unwrap();
        return Published { digest, manifest, model };
    }
    let partial =
        cache.partial(cache.lock_fill(&digest).unwrap(), Geometry::new(Arc::clone(&manifest)), true).unwrap();
    if manifest.pieces().is_some() {
        partial.store_index(&index).unwrap();
    }
    for (shard, content) in (0..).zip(&contents) {
        for piece in 0..manifest.piece_count(shard) {
            let range = manifest.piece_range(shard, piece);
            let range = usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
            partial.write_unverified(at(shard, piece), &content[range]).unwrap();
        }
        assert!(partial.check_shard(shard, &HashMap::new(), &|| true).unwrap().unwrap().good);
    }
    let model = partial.finish(true).unwrap();
    Published { digest, manifest, model }
}
