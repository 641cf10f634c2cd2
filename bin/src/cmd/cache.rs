//! `loader cache`.

use std::time::UNIX_EPOCH;

use anyhow::Result;
use manifest::Digest;
use store::{Cache, CacheError, EntryState, Limit, Model};

use crate::answer::{Answer, CacheEntry, PathAnswer, Pinned, Removed, Text};
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
            args::Cache::Gc { .. } => not_there(&[], settings, output),
            args::Cache::Rm { manifests }
            | args::Cache::Pin { manifests }
            | args::Cache::Unpin { manifests }
            | args::Cache::DropParity { manifests } => {
                not_there(&Name::find_all(manifests, None)?, settings, output)
            }
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
                answer_removed(digest, cache.remove(digest)?.freed_bytes, false, output)?;
            }
            Ok(())
        }
        args::Cache::Gc { max_bytes, older_than, dry_run } => {
            collect(cache, Limit { max_bytes: *max_bytes, older_than: *older_than }, *dry_run, output)
        }
        args::Cache::Pin { manifests } => pin(cache, manifests, true, output),
        args::Cache::Unpin { manifests } => pin(cache, manifests, false, output),
        args::Cache::DropParity { manifests } => {
            for digest in &Name::find_all(manifests, Some(cache))? {
                answer_removed(digest, cache.drop_parity(digest)?, false, output)?;
            }
            Ok(())
        }
    }
}

/// Removes what may go, and says what stays although there is too much.
fn collect(cache: &Cache, limit: Limit, dry_run: bool, output: &Output) -> Result<()> {
    let evicted = cache.evict(limit, dry_run)?;
    for (digest, freed_bytes) in &evicted.removed {
        answer_removed(digest, *freed_bytes, dry_run, output)?;
    }
    let is_over = limit.max_bytes.is_some_and(|max_bytes| evicted.left_bytes > max_bytes);
    for (digest, bytes, keep) in evicted.kept.iter().filter(|_| is_over) {
        output.note(&format!("{digest} ({}) stays: {keep}", show_size(*bytes)));
    }
    let (verb, left) = (if dry_run { "would take" } else { "takes" }, show_size(evicted.left_bytes));
    output.note(&format!(
        "the cache {verb} {left}{}",
        if is_over { ", which is more than it may" } else { "" }
    ));
    Ok(())
}

fn answer_removed(digest: &Digest, freed_bytes: u64, dry_run: bool, output: &Output) -> Result<()> {
    output.answer(&Answer::Removed(Removed { manifest: Text::of(digest), freed_bytes, dry_run }))
}

fn pin(cache: &Cache, manifests: &[Name], pinned: bool, output: &Output) -> Result<()> {
    for digest in &Name::find_all(manifests, Some(cache))? {
        if pinned {
            cache.pin(digest)?
        } else {
            cache.unpin(digest)?
        };
        output.answer(&Answer::Pinned(Pinned { manifest: Text::of(digest), pinned }))?;
    }
    Ok(())
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
            used_at: entry.last_used.duration_since(UNIX_EPOCH).ok().map(|at| at.as_secs()),
            pinned: entry.is_pinned,
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
