//! `loader cache`.

use std::time::UNIX_EPOCH;

use anyhow::Result;
use manifest::Digest;
use store::{Cache, CacheError, EntryState, Model};

use crate::answer::{Answer, CacheEntry, PathAnswer, Removed, Text};
use crate::args::{self, Name};
use crate::config::Settings;
use crate::output::Output;
use crate::units::show_size;

pub(crate) fn run(
    command: &args::Cache,
    cache: Option<&Cache>,
    settings: &Settings,
    output: &Output,
) -> Result<()> {
    let Some(cache) = cache else {
        return match command {
            args::Cache::Ls => not_there(&[], settings, output),
            args::Cache::Path { manifest: None } => {
                let path = std::path::absolute(&settings.cache_dir)?;
                output.answer(&Answer::Path(PathAnswer { path }))
            }
            args::Cache::Path { manifest: Some(name) } => not_there(&[name.find(None)?], settings, output),
            args::Cache::Rm { manifests } => not_there(&Name::find_all(manifests, None)?, settings, output),
        };
    };
    match command {
        args::Cache::Ls => list(cache, output),
        args::Cache::Path { manifest: None } => {
            output.answer(&Answer::Path(PathAnswer { path: cache.dir().to_owned() }))
        }
        args::Cache::Path { manifest: Some(name) } => {
            let model = finished(cache, &name.find(Some(cache))?)?;
            output.answer(&Answer::Path(PathAnswer { path: model.path() }))
        }
        args::Cache::Rm { manifests } => {
            for digest in &Name::find_all(manifests, Some(cache))? {
                let freed_bytes = cache.remove(digest)?.freed_bytes;
                output.answer(&Answer::Removed(Removed { manifest: Text::of(digest), freed_bytes }))?;
            }
            Ok(())
        }
    }
}

fn list(cache: &Cache, output: &Output) -> Result<()> {
    let entries = cache.list()?;
    let disk_bytes = entries.iter().map(|entry| entry.disk_bytes).sum::<u64>();
    let total = format!("{} models take {}", entries.len(), show_size(disk_bytes));
    for entry in entries {
        let verified_bytes = match entry.state {
            EntryState::Finished => None,
            EntryState::Partial { verified_bytes } => Some(verified_bytes),
        };
        output.answer(&Answer::CacheEntry(CacheEntry {
            manifest: Text::of(entry.digest),
            model_kind: entry.model_kind,
            total_size_bytes: entry.total_size_bytes,
            finished: verified_bytes.is_none(),
            verified_bytes,
            disk_bytes: entry.disk_bytes,
            path: entry.path,
            files: entry.files,
            name: entry.name,
            changed_at: entry
                .changed
                .and_then(|at| at.duration_since(UNIX_EPOCH).ok())
                .map(|at| at.as_secs()),
            contracts: entry.series,
        }))?;
    }
    output.note(&total);
    Ok(())
}

/// The finished model in the cache.
pub(super) fn finished(cache: &Cache, digest: &Digest) -> Result<Model> {
    cache.model(digest)?.ok_or_else(|| not_cached(cache, digest).into())
}

pub(super) fn not_cached(cache: &Cache, digest: &Digest) -> CacheError {
    CacheError::NotCached { digest: *digest, path: cache.dir().to_owned() }
}

/// Says that there is no cache, which is no error unless models of it are asked for.
pub(super) fn not_there(asked: &[Digest], settings: &Settings, output: &Output) -> Result<()> {
    let path = settings.cache_dir.clone();
    if let Some(digest) = asked.first() {
        return Err(CacheError::NotCached { digest: *digest, path }.into());
    }
    output.note(&format!("there is no cache {} yet", path.display()));
    Ok(())
}
