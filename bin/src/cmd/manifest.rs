//! `loader manifest`.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use loader::encode::{self, Options, ShardList, ShardListError};
use manifest::{Digest, Layout, Manifest};
use store::Cache;

use crate::answer::{self, Answer, FileSummary, ManifestSummary, ShardSummary, Text};
use crate::args::{self, Name};
use crate::config::Settings;
use crate::exit::{Damaged, Usage};
use crate::output::Output;
use crate::progress::ByteProgress;

/// No manifest is larger.
const MAX_BYTES: u64 = 16 << 20;

/// No list of shards is larger.
const MAX_LIST_BYTES: u64 = 64 << 20;

pub(crate) fn run(command: &args::Manifest, settings: &Settings, output: &Output) -> Result<()> {
    let (digest, manifest) = match command {
        args::Manifest::FromShards(flags) => return from_shards(flags, output),
        args::Manifest::Show { manifest: text } => match text.parse::<Name>() {
            Ok(name) if name.digest().is_some() || !Path::new(text).exists() => {
                let digest = name.find(Cache::open_existing(&settings.cache_dir)?.as_ref())?;
                (digest, cached(settings, &digest)?)
            }
            _ => of_file(Path::new(text))?,
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

fn from_shards(flags: &args::FromShards, output: &Output) -> Result<()> {
    let list = ShardList::parse(&read(&flags.list, MAX_LIST_BYTES)?)
        .map_err(|error| Usage::new(format!("{}: {}", flags.list.display(), chain(error))))?;
    let piece_size_bytes =
        u32::try_from(flags.piece_size).map_err(|_| Usage::new("--piece-size is over 4MiB"))?;
    let parity = flags.parity.or(u32::try_from(list.parity_count()).ok()).unwrap_or(u32::MAX);
    let options = Options::default()
        .with_model_kind(flags.model_kind.clone())
        .with_data(flags.data)
        .with_parity(parity)
        .with_piece_size_bytes(piece_size_bytes);
    let progress = ByteProgress::new(output, "hashing");
    let assembled = encode::assemble(&flags.blob_dir, &list, &options, &|done_bytes, total_bytes| {
        progress.update(done_bytes, total_bytes);
    })?;
    drop(progress);
    for correction in &assembled.corrections {
        output.note(&format!("corrected: {correction}"));
    }
    for warning in &assembled.warnings {
        output.warn(warning);
    }
    output.answer(&Answer::Assembled(answer::Assembled {
        manifest: Text::of(assembled.digest),
        total_size_bytes: assembled.manifest.total_size_bytes(),
        shards: assembled.manifest.shards().len(),
        files: assembled.manifest.files().len(),
        corrections: assembled.corrections,
        warnings: assembled.warnings,
    }))
}

/// The message of an error and its causes.
fn chain(error: ShardListError) -> String {
    format!("{:#}", anyhow::Error::new(error))
}

fn read(path: &Path, max_bytes: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(max_bytes + 1).read_to_end(&mut bytes));
    read.with_context(|| format!("cannot read {}", path.display()))?;
    Ok(bytes)
}

fn of_file(path: &Path) -> Result<(Digest, Manifest)> {
    let bytes = read(path, MAX_BYTES)?;
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
    let files = manifest.files().iter().map(|file| FileSummary {
        path: file.path().to_string(),
        size_bytes: file.size_bytes(),
        sha256: Text::of(file.sha256()),
        is_proven: manifest.shard_of_file(file).is_some(),
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
        files: files.collect(),
    }
}
