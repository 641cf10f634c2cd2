//! This project, when nobody has four of the ten data shards: they are rebuilt from parity.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::rc::Rc;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{Contender, Ground, REBUILDING, loader};
use crate::bench::compare::files::remove_dir;
use crate::bench::compare::process::Service;

/// How many rows nobody has. As many parity shards are published.
const LOST_ROWS: u64 = 4;

pub(super) fn start(ground: &Ground) -> Result<Contender> {
    let cache = ground.seed_dir("rebuild-cache")?;
    let manifest = loader::publish(ground, &cache)?;
    let blobs = ground.seed_dir("rebuild-blobs")?;
    keep_some(&cache, &manifest, &blobs)
        .with_context(|| format!("cannot take the shards of {} apart", cache.display()))?;
    remove_dir(&cache)?;
    let empty = ground.seed_dir("rebuild-seeder")?;
    let (service, address) = loader::serve(ground, &empty, &["--blob-dir", "../rebuild-blobs"])?;
    let seeders = Rc::<[Service]>::from([service]);
    loader::contender(ground, REBUILDING, &manifest, seeders, &[address], &[])
}

/// Makes files, named by their digests, of the manifest, the piece index, and all shards but the first rows.
fn keep_some(cache: &Path, manifest: &str, blobs: &Path) -> Result<()> {
    let manifest_path = cache.join("manifests").join(format!("{manifest}.json"));
    let model = cache.join("models").join(manifest);
    let content: Value = serde_json::from_slice(&fs::read(&manifest_path)?)?;
    let text = |value: &Value| value.as_str().map(str::to_owned).context("it is no text");
    fs::copy(&manifest_path, blobs.join(manifest))?;
    fs::copy(model.join("pieces"), blobs.join(text(&content["pieces"]["index"])?))?;
    let mut weights = File::open(model.join("weights"))?;
    for shard in content["shards"].as_array().context("it has no shards")? {
        let index = shard["index"].as_u64().context("a shard has no index")?;
        let blob = blobs.join(text(&shard["hash"])?);
        if shard["is_parity"] == true {
            fs::rename(model.join("parity").join(index.to_string()), blob)?;
        } else if index >= LOST_ROWS {
            let size_bytes = shard["size"].as_u64().context("a shard has no size")?;
            weights.seek(SeekFrom::Start(index * size_bytes))?;
            let mut file = File::create(blob)?;
            std::io::copy(&mut (&weights).take(size_bytes), &mut file)?;
            // The last row ends in padding.
            file.set_len(size_bytes)?;
        }
    }
    Ok(())
}
