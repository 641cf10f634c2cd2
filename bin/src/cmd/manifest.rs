//! `loader manifest`.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use manifest::{Digest, Layout, Manifest};
use store::Cache;

use crate::answer::{Answer, ManifestSummary, ShardSummary, Text};
use crate::args;
use crate::config::Settings;
use crate::exit::{Damaged, Usage};
use crate::output::Output;

/// No manifest is larger.
const MAX_BYTES: u64 = 16 << 20;

pub(crate) fn run(command: &args::Manifest, settings: &Settings, output: &Output) -> Result<()> {
    let (digest, manifest) = match command {
        args::Manifest::Show { manifest: name } => match name.parse::<Digest>() {
            Ok(digest) => (digest, cached(settings, &digest)?),
            Err(_) => of_file(Path::new(name))?,
        },
        args::Manifest::Check { file, expect } => {
            let (digest, manifest) = of_file(file)?;
            if let Some(expected) = expect.filter(|expected| *expected != digest) {
                let file = file.display();
                return Err(Damaged(format!("{file} has the digest {digest}, expected {expected}")).into());
            }
            output.note(&format!("{} is a valid manifest", file.display()));
            (digest, manifest)
        }
    };
    output.answer(&Answer::Manifest(summary(digest, &manifest)))
}

fn cached(settings: &Settings, digest: &Digest) -> Result<Manifest> {
    let cache = Cache::open_existing(&settings.cache_dir)?;
    let manifest = cache.map(|cache| cache.manifest(digest)).transpose()?.flatten();
    let cache_dir = settings.cache_dir.display();
    let manifest =
        manifest.ok_or_else(|| Usage::new(format!("manifest {digest} is not in the cache {cache_dir}")))?;
    Ok(Manifest::clone(&manifest))
}

fn of_file(path: &Path) -> Result<(Digest, Manifest)> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes));
    read.with_context(|| format!("cannot read {}", path.display()))?;
    let parsed = Manifest::parse(&bytes);
    let manifest = parsed.with_context(|| format!("{} is not a valid manifest", path.display()))?;
    Ok((Digest::of(&bytes), manifest))
}

fn summary(digest: Digest, manifest: &Manifest) -> ManifestSummary {
    let shards = manifest.shards().iter().enumerate().map(|(index, shard)| ShardSummary {
        index,
        digest: Text::of(shard.digest),
        size_bytes: shard.size_bytes,
        is_parity: shard.is_parity,
    });
    ManifestSummary {
        manifest: Text::of(digest),
        model_kind: manifest.model_kind().to_owned(),
        total_size_bytes: manifest.total_size_bytes(),
        layout: match manifest.layout() {
            Layout::Uniform => "uniform",
            Layout::LayerWise => "layer-wise",
        },
        codec: Text::of(manifest.codec()),
        data: manifest.data(),
        parity: manifest.parity(),
        row_size_bytes: manifest.row_size_bytes(),
        piece_size_bytes: manifest.pieces().map(|pieces| pieces.size_bytes),
        merkle_root: Text::of(manifest.merkle_root()),
        shards: shards.collect(),
    }
}
