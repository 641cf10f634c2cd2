//! The first pass over a layer-wise model: layers are copied into the weights and hashed, several at once.

use std::sync::Arc;

use manifest::Digest;
use manifest::piece_index::ShardHasher;
use sha256_lanes::WIDE_LANES;
use store::{ModelFiles, Writeback};

use super::PublishError;
use super::pipeline::{self, SLABS, Values};
use super::source::Sources;

/// How much of a layer is read at a time.
const CHUNK_BYTES: usize = 256 << 10;

/// One chunk of each layer that is being read.
#[derive(Default)]
struct Slab {
    chunks: [Chunk; WIDE_LANES],
}

#[derive(Default)]
struct Chunk {
    bytes: Vec<u8>,
    layer: usize,
    /// Where in the layer it begins.
    offset: u64,
    /// Whether the layer ends with it.
    is_last: bool,
}

/// Copies `layers`, one after the other, into `weights`, unless they stay where they are, and gives the digest and the
/// chaining values of each. `progress` is told how many bytes were read.
pub(super) fn copy(
    layers: &Sources,
    weights: Option<&Arc<ModelFiles>>,
    piece_size_bytes: u32,
    progress: &dyn Fn(u64),
) -> Result<Vec<(Digest, Values)>, PublishError> {
    let new_hasher = |layer: usize| {
        ShardHasher::new(layers.list().get(layer).map_or(1, |layer| layer.size_bytes), piece_size_bytes)
    };
    let mut reader = Reader { layers, lanes: [None; WIDE_LANES], next: 0 };
    let mut hashers = [0; WIDE_LANES].map(new_hasher);
    let mut digests: Vec<Option<(Digest, Values)>> = vec![None; layers.list().len()];
    let mut done_bytes = 0;
    let written = weights.map(Arc::clone);
    let sync = move || written.as_ref().map_or(Ok(()), |weights| weights.sync_written());
    let writeback = Writeback::start(sync, None, Arc::new(()))?;
    pipeline::run(
        [(); SLABS].map(|()| Slab::default()),
        |slab| reader.fill(slab),
        |slab| {
            for (chunk, hasher) in slab.chunks.iter().zip(&mut hashers) {
                if chunk.offset == 0 && !chunk.bytes.is_empty() {
                    *hasher = new_hasher(chunk.layer);
                }
            }
            let slices = slab.chunks.each_ref().map(|chunk| chunk.bytes.as_slice());
            ShardHasher::update_all(&mut hashers, &slices);
            for (chunk, hasher) in slab.chunks.iter().zip(&mut hashers) {
                done_bytes += chunk.bytes.len() as u64;
                if chunk.is_last {
                    digests[chunk.layer] = Some(std::mem::replace(hasher, new_hasher(0)).finish());
                }
            }
            progress(done_bytes);
            Ok(())
        },
        |slab| {
            let Some(weights) = weights else { return Ok(()) };
            for chunk in slab.chunks.iter().filter(|chunk| !chunk.bytes.is_empty()) {
                weights.write_at(layers.start(chunk.layer) + chunk.offset, &chunk.bytes)?;
                writeback.wrote(chunk.bytes.len());
            }
            Ok(())
        },
    )?;
    writeback.finish()?;
    let missing = || PublishError::Encoder { what: "a layer was not hashed".to_owned() };
    digests.into_iter().map(|digest| digest.ok_or_else(missing)).collect()
}

/// Reads several layers at once, and goes on to the next whenever one ends.
struct Reader<'a> {
    layers: &'a Sources,
    /// The layer that each lane reads, and how far it is.
    lanes: [Option<(usize, u64)>; WIDE_LANES],
    next: usize,
}

impl Reader<'_> {
    /// Whether there was anything left to read.
    fn fill(&mut self, slab: &mut Slab) -> Result<bool, PublishError> {
        let mut any = false;
        for (lane, chunk) in self.lanes.iter_mut().zip(&mut slab.chunks) {
            if lane.is_none() && self.next < self.layers.list().len() {
                *lane = Some((self.next, 0));
                self.next += 1;
            }
            chunk.bytes.clear();
            chunk.is_last = false;
            let Some((layer, offset)) = *lane else { continue };
            let size_bytes = self.layers.list()[layer].size_bytes;
            let left = usize::try_from(size_bytes - offset).unwrap_or(usize::MAX);
            chunk.bytes.resize(left.min(CHUNK_BYTES), 0);
            self.layers.read_one(layer, offset, &mut chunk.bytes)?;
            let end = offset + chunk.bytes.len() as u64;
            chunk.layer = layer;
            chunk.offset = offset;
            chunk.is_last = end == size_bytes;
            *lane = (!chunk.is_last).then_some((layer, end));
            any = true;
        }
        Ok(any)
    }
}
