//! `loader status`.

use anyhow::Result;
use node::status::running;
use store::{Cache, CacheError, EntryState, Keep};

use crate::answer::{Answer, CacheState, Held, Keeper, StatusAnswer};
use crate::config::Settings;
use crate::exit::NotRunning;
use crate::output::Output;

pub(crate) fn run(settings: &Settings, output: &Output) -> Result<()> {
    let heard = running(&settings.cache_dir)?;
    let cache = Cache::open_existing(&settings.cache_dir)?.filter(|_| !heard.is_empty());
    let Some(cache) = cache else {
        return Err(NotRunning { cache_dir: settings.cache_dir.clone() }.into());
    };
    let cache = state(&cache)?;
    let mut silent = None;
    for node in heard {
        match node {
            Ok(node) => {
                let answer = StatusAnswer { node, cache: cache.clone() };
                output.answer(&Answer::Status(Box::new(answer)))?;
            }
            Err(error) => silent = Some(error),
        }
    }
    silent.map_or(Ok(()), |error| Err(error.into()))
}

fn state(cache: &Cache) -> Result<CacheState, CacheError> {
    let (entries, mut kept) = (cache.list()?, cache.kept()?);
    let models = entries.into_iter().map(|entry| Held {
        manifest: entry.digest.to_string(),
        disk_bytes: entry.disk_bytes,
        finished: entry.state == EntryState::Finished,
        kept_by: kept.remove(&entry.digest).unwrap_or_default().into_iter().filter_map(keeper).collect(),
    });
    let models: Vec<_> = models.collect();
    Ok(CacheState {
        disk_bytes: models.iter().map(|model| model.disk_bytes).sum(),
        free_bytes: cache.free().map(|free| free.bytes),
        models,
    })
}

/// `None` for who only uses it.
fn keeper(keep: Keep) -> Option<Keeper> {
    let (by, name) = match keep {
        Keep::Pinned => ("pin", None),
        Keep::Linked(path) => ("link", Some(path.to_string_lossy().into_owned())),
        Keep::Followed(series) => ("contract", Some(series)),
        Keep::InUse => return None,
    };
    Some(Keeper { by, name })
}
