//! What a cache holds of a model, as a folder of blobs.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::Value;

/// Makes files in `blobs`, named by their digests, of the manifest, the piece index and all shards of a model of rows.
/// Its parity leaves the cache. Returns the names of the shards, by index.
pub(crate) fn take_apart(cache: &Path, manifest: &str, blobs: &Path) -> Result<Vec<String>> {
    let names = shards(cache, manifest, blobs);
    names.with_context(|| format!("cannot take the shards of {} apart", cache.display()))
}

fn shards(cache: &Path, manifest: &str, blobs: &Path) -> Result<Vec<String>> {
    let manifest_path = cache.join("manifests").join(format!("{manifest}.json"));
    let model = cache.join("models").join(manifest);
    let content: Value = serde_json::from_slice(&fs::read(&manifest_path)?)?;
    let text = |value: &Value| value.as_str().map(str::to_owned).context("it is no text");
    fs::copy(&manifest_path, blobs.join(manifest))?;
    fs::copy(model.join("pieces"), blobs.join(text(&content["pieces"]["index"])?))?;
    let mut weights = File::open(model.join("weights"))?;
    let mut names = Vec::new();
    for shard in content["shards"].as_array().context("it has no shards")? {
        let index = shard["index"].as_u64().context("a shard has no index")?;
        let name = text(&shard["hash"])?;
        let blob = blobs.join(&name);
        names.push(name);
        if shard["is_parity"] == true {
            fs::rename(model.join("parity").join(index.to_string()), blob)?;
            continue;
        }
        let size_bytes = shard["size"].as_u64().context("a shard has no size")?;
        weights.seek(SeekFrom::Start(index * size_bytes))?;
        let mut file = File::create(blob)?;
        std::io::copy(&mut (&weights).take(size_bytes), &mut file)?;
        // The last row ends in padding.
        file.set_len(size_bytes)?;
    }
    Ok(names)
}
