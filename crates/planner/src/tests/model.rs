//! Models to plan for. Only their numbers matter: no bytes exist.

use std::sync::Arc;

use manifest::{Codec, Digest, Geometry, Manifest, Pieces, Shard};

pub(super) const PIECE: u64 = 1 << 20;

/// The parameters of a model.
#[derive(Debug, Clone)]
pub(super) struct Model {
    pub(super) total_bytes: u64,
    pub(super) data: u32,
    pub(super) parity: u32,
    pub(super) codec: Codec,
    /// Sizes of the layers; none for the uniform layout.
    pub(super) layers: Vec<u64>,
}

impl Model {
    /// Ten rows of so many pieces, and four parity shards.
    pub(super) fn columns(columns: u64) -> Self {
        Self { total_bytes: 10 * columns * PIECE, data: 10, parity: 4, codec: Codec::Rs, layers: Vec::new() }
    }

    /// Layers of these sizes, in MiB.
    pub(super) fn layers(sizes_mib: &[u64]) -> Self {
        let layers: Vec<u64> = sizes_mib.iter().map(|size| size * PIECE).collect();
        Self { total_bytes: layers.iter().sum(), layers, ..Self::columns(1) }
    }

    pub(super) fn geometry(&self) -> Geometry {
        let row_bytes = self.total_bytes.div_ceil(u64::from(self.data));
        let mut shards: Vec<Shard> = Vec::new();
        let unique = |number: usize| Digest::of(&number.to_be_bytes());
        if self.layers.is_empty() {
            for row in 0..u64::from(self.data) {
                let is_padding = row * row_bytes >= self.total_bytes;
                let digest =
                    if is_padding { Digest::of(&vec![0; row_bytes as usize]) } else { unique(shards.len()) };
                shards.push(Shard { digest, size_bytes: row_bytes, is_parity: false });
            }
        }
        for size_bytes in self.layers.iter().copied() {
            shards.push(Shard { digest: unique(shards.len()), size_bytes, is_parity: false });
        }
        for parity in 0..self.parity as usize {
            let is_copy = self.codec == Codec::Replica && self.layers.is_empty();
            let digest =
                if is_copy { shards[parity % self.data as usize].digest } else { unique(shards.len()) };
            shards.push(Shard { digest, size_bytes: row_bytes, is_parity: true });
        }
        let pieces = Pieces { size_bytes: PIECE as u32, index: Digest::ZERO };
        let (data, parity) = (self.data, self.parity);
        let kind = "simplenet".to_owned();
        let manifest =
            Manifest::new(kind, self.total_bytes, shards, data, parity, self.codec, Some(pieces)).unwrap();
        Geometry::new(Arc::new(manifest))
    }
}
