//! Models to fetch: made up, published by the real command, and exported blob by blob.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use manifest::{Digest, Manifest};
use store::{Blobs, Cache};
use tempfile::TempDir;

use crate::{Conduct, Home, Tree, put};

/// The piece size that models are published with.
pub const PIECE_BYTES: usize = 64 << 10;

/// How a model is made and published.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// Sizes of the layers; one means that the model is one file.
    pub layers: Vec<usize>,
    /// Rows.
    pub data: u32,
    /// Parity shards.
    pub parity: u32,
    /// `rs` or `replica`.
    pub codec: &'static str,
    /// Whether there is a piece index.
    pub index: bool,
}

impl Default for Recipe {
    /// One file without padding, ten data and four parity shards, Reed-Solomon, four pieces in a shard.
    fn default() -> Self {
        Self { layers: vec![2_000_000], data: 10, parity: 4, codec: "rs", index: true }
    }
}

impl Recipe {
    /// The same for another size.
    pub fn of_size(bytes: usize) -> Self {
        Self { layers: vec![bytes], ..Self::default() }
    }

    /// Makes the model and publishes it.
    ///
    /// # Panics
    /// When that fails.
    pub async fn publish(&self) -> Model {
        self.publish_weights(made_up(self.layers.iter().sum())).await
    }

    /// Publishes these weights, as one file unless there are layers of that size.
    ///
    /// # Panics
    /// When that fails.
    pub async fn publish_weights(&self, weights: Vec<u8>) -> Model {
        let home = Home::new();
        let one = [weights.len()];
        let layers = if self.layers.len() > 1 { self.layers.as_slice() } else { &one };
        let mut rest = weights.as_slice();
        let layer = |(number, size): (usize, &usize)| -> PathBuf {
            let (layer, after) = rest.split_at(*size);
            rest = after;
            let path = home.path(format!("layer-{number}"));
            put(&path, layer);
            path
        };
        let files: Vec<PathBuf> = layers.iter().enumerate().map(layer).collect();
        let mut command = home.command(["--json", "publish", "--model-kind", "llm-backbone"]);
        command.args(["--codec", self.codec]);
        command.args(["--data", &self.data.to_string(), "--parity", &self.parity.to_string()]);
        match self.index {
            true => command.args(["--piece-size", &PIECE_BYTES.to_string()]),
            false => command.arg("--no-piece-index"),
        };
        command.arg(if files.len() > 1 { "--layers" } else { "--no-names" });
        command.args(files);
        let published = crate::Process::start(command).outcome().await.answer();
        Model::export(&home, published["manifest"].as_str().unwrap(), weights)
    }
}

/// A published model: its weights, and every blob that a peer may have of it.
#[derive(Debug, Clone)]
pub struct Model {
    /// The digest of its manifest, as text.
    pub id: String,
    /// The same.
    pub digest: Digest,
    /// Its manifest.
    pub manifest: Manifest,
    /// What a runtime maps.
    pub weights: Vec<u8>,
    /// The manifest, the piece index and the shards.
    pub blobs: HashMap<Digest, Arc<Vec<u8>>>,
}

impl Model {
    fn export(home: &Home, id: &str, weights: Vec<u8>) -> Self {
        let blobs = Blobs::open(Cache::open(&home.cache("")).unwrap(), Vec::new()).unwrap();
        let read = |blob: Digest| {
            let held = blobs.lookup(&blob).unwrap().unwrap_or_else(|| panic!("the publisher has no {blob}"));
            let mut bytes = vec![0; usize::try_from(held.size_bytes()).unwrap()];
            held.read_at(0, &mut bytes).unwrap();
            assert_eq!(Digest::of(&bytes), blob);
            (blob, Arc::new(bytes))
        };
        let digest = id.parse().unwrap();
        let (_, text) = read(digest);
        let manifest = Manifest::parse(&text).unwrap();
        let others = manifest.shards().iter().map(|shard| shard.digest);
        let others = others.chain(manifest.pieces().map(|pieces| pieces.index));
        let blobs = others.map(read).chain([(digest, text)]).collect();
        Self { id: id.to_owned(), digest, manifest, weights, blobs }
    }

    /// The model that a home has published from a folder.
    ///
    /// # Panics
    /// When it is not there.
    pub fn of_folder(home: &Home, id: &str, tree: &Tree) -> Self {
        let model = Self::export(home, id, Vec::new());
        let of = |path: &str| tree.0.iter().find(|(name, _)| name == path).unwrap().1.as_slice();
        let files = model.manifest.files().iter().map(|file| of(file.path().as_str()));
        let weights = files.collect::<Vec<_>>().concat();
        Self { weights, ..model }
    }

    /// The same model with another manifest of the same shards: `change` alters its JSON.
    ///
    /// # Panics
    /// When the model's own manifest is no JSON.
    #[must_use]
    pub fn with_manifest(&self, change: impl FnOnce(&mut serde_json::Value)) -> Self {
        let mut json = serde_json::from_slice(&self.blobs[&self.digest]).unwrap();
        change(&mut json);
        let bytes = json.to_string().into_bytes();
        let digest = Digest::of(&bytes);
        let mut changed = Self { id: digest.to_string(), digest, ..self.clone() };
        changed.blobs.insert(digest, Arc::new(bytes));
        changed
    }

    /// The digest of a shard.
    pub fn shard(&self, shard: usize) -> Digest {
        self.manifest.shards()[shard].digest
    }

    /// The digests of all shards.
    pub fn shards(&self) -> impl Iterator<Item = Digest> {
        self.manifest.shards().iter().map(|shard| shard.digest)
    }

    /// All shards but these, by index.
    pub fn shards_but(&self, lost: &[usize]) -> Vec<usize> {
        (0..self.manifest.shards().len()).filter(|shard| !lost.contains(shard)).collect()
    }

    /// The manifest, the piece index and these shards.
    pub fn blobs_of(&self, shards: &[usize]) -> HashMap<Digest, Arc<Vec<u8>>> {
        let held: Vec<_> = shards.iter().map(|shard| self.shard(*shard)).collect();
        let all: Vec<_> = self.shards().collect();
        let has = |blob: &Digest| held.contains(blob) || !all.contains(blob);
        self.blobs
            .iter()
            .filter(|(blob, _)| has(blob))
            .map(|(blob, bytes)| (*blob, Arc::clone(bytes)))
            .collect()
    }

    /// An honest peer with all of it, whose gate is for shards.
    pub fn conduct(&self) -> Conduct {
        Conduct { gated: self.shards().collect(), ..Conduct::sending(self.blobs.clone()) }
    }

    /// A folder with the manifest, the piece index and these shards.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn folder(&self, shards: &[usize]) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (blob, bytes) in self.blobs_of(shards) {
            put(&folder.path().join(blob.to_string()), &bytes);
        }
        folder
    }
}

/// Bytes that repeat nowhere.
pub fn made_up(length: usize) -> Vec<u8> {
    let word = |index: usize| {
        let mixed = (index as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (mixed ^ (mixed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9).to_le_bytes()
    };
    (0..=length / 8).flat_map(word).take(length).collect()
}
