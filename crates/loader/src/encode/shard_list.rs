//! What the network's own sharder writes about the blobs that it makes of a model: `sharding.py`, `ShardManifest.to_json`.
//!
//! It is no manifest: its total counts parity, its number of data shards is that of the layers, and its parity is an
//! exclusive or of some rows, which rebuilds nothing. What is true of it are the layers and their order.

use manifest::{Digest, FileEntry, FilePath, MAX_SHARDS};
use serde::Deserialize;

/// More than any list of [`MAX_SHARDS`] shards has.
const MAX_LIST_BYTES: usize = 64 << 20;

/// A list of shards, each a blob of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardList {
    /// The layers in their order: one after the other they are the weights.
    pub(super) layers: Vec<ListedShard>,
    pub(super) parity: Vec<Digest>,
    /// What it says of the whole.
    data_shards: u64,
    parity_shards: u64,
    total_size_bytes: u64,
}

/// One data shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ListedShard {
    pub(super) digest: Digest,
    size_bytes: u64,
    name: Option<String>,
}

/// Why bytes are no list of shards.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShardListError {
    /// More bytes than any list has.
    #[error("the list has {found_bytes} bytes, expected at most {MAX_LIST_BYTES}")]
    TooLarge {
        /// How many.
        found_bytes: usize,
    },
    /// Not what the sharder writes.
    #[error("not a list of shards as sharding.py writes it")]
    NotAList {
        /// Where and why.
        source: serde_json::Error,
    },
    /// Shards that are not in index order, or parity that does not come last.
    #[error("`shards[{position}]` has shard_index {index} and is_parity {is_parity}, expected {expected}")]
    Order {
        /// Where in the list.
        position: usize,
        /// Its index.
        index: u64,
        /// How it is marked.
        is_parity: bool,
        /// What belongs there.
        expected: String,
    },
    /// A hash that is none.
    #[error("`shards[{position}].shard_hash` is not a digest")]
    Hash {
        /// Where in the list.
        position: usize,
        /// What was found.
        source: manifest::ParseDigestError,
    },
    /// More shards than a manifest has, or none.
    #[error(
        "`shards` has {found} entries, {data} of them data, expected 1 to {MAX_SHARDS}, at least one of them data"
    )]
    Count {
        /// How many.
        found: usize,
        /// How many of them are data.
        data: usize,
    },
}

#[derive(Deserialize)]
struct RawList {
    shards: Vec<RawShard>,
    data_shards: u64,
    parity_shards: u64,
    total_size: u64,
}

#[derive(Deserialize)]
struct RawShard {
    shard_index: u64,
    shard_hash: String,
    size: u64,
    is_parity: bool,
    layer_name: Option<String>,
}

impl ShardList {
    /// Reads the JSON that the sharder writes; fields that do not matter are ignored.
    ///
    /// # Errors
    /// [`ShardListError`], with the field.
    pub fn parse(json: &[u8]) -> Result<Self, ShardListError> {
        if json.len() > MAX_LIST_BYTES {
            return Err(ShardListError::TooLarge { found_bytes: json.len() });
        }
        let RawList { shards, data_shards, parity_shards, total_size: total_size_bytes } =
            serde_json::from_slice(json).map_err(|source| ShardListError::NotAList { source })?;
        let (found, data) = (shards.len(), shards.iter().filter(|shard| !shard.is_parity).count());
        if data == 0 || found > MAX_SHARDS {
            return Err(ShardListError::Count { found, data });
        }
        let (mut layers, mut parity) = (Vec::with_capacity(data), Vec::new());
        for (position, shard) in shards.into_iter().enumerate() {
            let RawShard { shard_index: index, shard_hash, size: size_bytes, is_parity, layer_name: name } =
                shard;
            if index != position as u64 || is_parity != (position >= data) {
                let kind = if position < data { "false" } else { "true, as the parity comes last" };
                let expected = format!("shard_index {position} and is_parity {kind}");
                return Err(ShardListError::Order { position, index, is_parity, expected });
            }
            let digest = shard_hash.parse().map_err(|source| ShardListError::Hash { position, source })?;
            match is_parity {
                true => parity.push(digest),
                false => layers.push(ListedShard { digest, size_bytes, name }),
            }
        }
        Ok(Self { layers, parity, data_shards, parity_shards, total_size_bytes })
    }

    /// How many parity shards it has.
    pub fn parity_count(&self) -> usize {
        self.parity.len()
    }

    /// What it says that is not so, one sentence each; `sizes_bytes` are those of the layers' blobs.
    pub(super) fn corrections(&self, sizes_bytes: &[u64]) -> Vec<String> {
        let mut corrections = Vec::new();
        for (layer, size_bytes) in self.layers.iter().zip(sizes_bytes) {
            if layer.size_bytes != *size_bytes {
                let (digest, listed) = (layer.digest, layer.size_bytes);
                corrections.push(format!("size of shard {digest}: it has {size_bytes} bytes, not {listed}"));
            }
        }
        let total_bytes: u64 = sizes_bytes.iter().sum();
        if self.total_size_bytes != total_bytes {
            let listed = self.total_size_bytes;
            corrections.push(format!("total_size: the layers have {total_bytes} bytes, not {listed}"));
        }
        for (field, listed, found) in [
            ("data_shards", self.data_shards, self.layers.len()),
            ("parity_shards", self.parity_shards, self.parity.len()),
        ] {
            if listed != found as u64 {
                corrections.push(format!("{field}: there are {found}, not {listed}"));
            }
        }
        corrections
    }

    /// The layers as files, named by them; or why they cannot be, in a sentence.
    pub(super) fn files(&self, sizes_bytes: &[u64]) -> Result<Vec<FileEntry>, String> {
        let entry = |(layer, size_bytes): (&ListedShard, &u64)| {
            let (digest, name) = (layer.digest, layer.name.as_deref());
            let name = name.ok_or_else(|| format!("shard {digest} has no layer_name"))?;
            let path: FilePath =
                name.parse().map_err(|error| format!("the layer_name {name:?} cannot be a path: {error}"))?;
            Ok(FileEntry { path, size_bytes: *size_bytes, sha256: digest })
        };
        self.layers.iter().zip(sizes_bytes).map(entry).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(shards: &str) -> String {
        format!(
            r#"{{"model_hash": "x", "strategy": "layer_wise", "data_shards": 2, "parity_shards": 1, "total_size": 9,
                "shards": [{shards}]}}"#
        )
    }

    fn shard(index: u32, is_parity: bool) -> String {
        let digest = Digest::of(&index.to_be_bytes());
        format!(
            r#"{{"shard_index": {index}, "shard_hash": "{digest}", "cid": "{digest}", "size": 3,
                "is_parity": {is_parity}, "layer_name": null, "shape": [1, 2], "dtype": "float32"}}"#
        )
    }

    #[test]
    fn what_is_no_list_is_refused_with_the_reason() {
        let all = [shard(0, false), shard(1, false), shard(2, true)];
        let parsed = ShardList::parse(list(&all.join(",")).as_bytes()).unwrap();
        assert_eq!((parsed.layers.len(), parsed.parity_count()), (2, 1));
        let says = |json: &str| {
            let error = ShardList::parse(json.as_bytes()).unwrap_err();
            let source = std::error::Error::source(&error).map(ToString::to_string);
            format!("{error}: {}", source.unwrap_or_default())
        };
        for (json, expected) in [
            ("{}".to_owned(), "missing field `shards`"),
            ("[".to_owned(), "EOF"),
            (list(""), "0 entries"),
            (list(&shard(0, true)), "0 of them data"),
            (list(&[shard(0, false), shard(2, true)].join(",")), "`shards[1]` has shard_index 2"),
            (
                list(&[shard(0, true), shard(1, false)].join(",")),
                "`shards[0]` has shard_index 0 and is_parity true",
            ),
            (
                list(&shard(0, false).replace("\"shard_hash\": \"", "\"shard_hash\": \"x")),
                "`shards[0].shard_hash`",
            ),
            (list(&shard(0, false).replace("\"size\": 3", "\"size\": -3")), "invalid value"),
            (list(&shard(0, false).replace("\"size\": 3,", "")), "missing field `size`"),
        ] {
            let said = says(&json);
            assert!(said.contains(expected), "{json}: {said}");
        }
    }
}
