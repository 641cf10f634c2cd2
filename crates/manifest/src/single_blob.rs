//! Manifests of weights that are one blob, as contracts named them before there were manifests: only their size is missing.

use super::{Codec, Digest, Manifest, Shard};

/// What such a model is called.
const MODEL_KIND: &str = "single-blob";

impl Manifest {
    /// The manifest of weights that are one shard, which is the blob: the same for everybody who knows its size. `None` for a
    /// size that no manifest can have.
    pub fn of_single_blob(blob: Digest, size_bytes: u64) -> Option<Self> {
        let shard = Shard { digest: blob, size_bytes, is_parity: false };
        Self::new(MODEL_KIND.to_owned(), size_bytes, vec![shard], 1, 0, Codec::Rs, None).ok()
    }

    /// The blob that such a manifest was made for. What the manifest says of its size, nothing proves.
    pub fn single_blob(&self) -> Option<Digest> {
        match self.shards() {
            [shard] if self.model_kind() == MODEL_KIND => Some(shard.digest),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_and_its_size_make_one_manifest() {
        let blob = Digest::of(b"weights");
        let one = Manifest::of_single_blob(blob, 7).unwrap();
        assert_eq!(one.to_json(), Manifest::of_single_blob(blob, 7).unwrap().to_json());
        assert_eq!((one.total_size_bytes(), one.shards().len(), one.pieces()), (7, 1, None));
        assert_eq!(Manifest::parse(&one.to_json()).unwrap().to_json(), one.to_json());
        assert_eq!(one.single_blob(), Some(blob));
        assert!(
            Manifest::of_single_blob(blob, 0).is_none() && Manifest::of_single_blob(blob, u64::MAX).is_none()
        );
    }
}
