//! `loader cache`.

use anyhow::Result;
use manifest::Digest;
use store::{Cache, CacheError, EntryState, Model};

use crate::answer::{Answer, CacheEntry, PathAnswer, Removed, Text};
use crate::args;
use crate::config::Settings;
use crate::output::Output;

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
            args::Cache::Path { manifest: Some(digest) } => not_there(&[*digest], settings, output),
            args::Cache::Rm { manifests } => not_there(manifests, settings, output),
        };
    };
    match command {
        args::Cache::Ls => list(cache, output),
        args::Cache::Path { manifest: None } => {
            output.answer(&Answer::Path(PathAnswer { path: cache.dir().to_owned() }))
        }
        args::Cache::Path { manifest: Some(digest) } => {
            let model = finished(cache, digest)?;
            output.answer(&Answer::Path(PathAnswer { path: model.path() }))
        }
        args::Cache::Rm { manifests } => {
            for digest in manifests {
                let freed_bytes = cache.remove(digest)?.freed_bytes;
                output.answer(&Answer::Removed(Removed { manifest: Text::of(digest), freed_bytes }))?;
            }
            Ok(())
        }
    }
}

fn list(cache: &Cache, output: &Output) -> Result<()> {
    for entry in cache.list()? {
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
        }))?;
    }
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
