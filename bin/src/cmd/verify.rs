//! `loader verify`.

use std::thread::available_parallelism;

use anyhow::Result;
use manifest::Digest;
use node::Node;
use store::{Cache, CacheError, EntryState};
use store::{IndexState, RecheckReport};

use crate::answer::{Answer, BadShard, Text, Verified};
use crate::args::{self, Name};
use crate::cmd::cache::not_cached;
use crate::cmd::fetch;
use crate::config::{self, Settings};
use crate::exit::Damaged;
use crate::output::Output;
use crate::progress::{ByteProgress, FetchProgress};
use crate::system::block_on;

pub(crate) fn run(flags: &args::Verify, settings: &Settings, cache: &Cache, output: &Output) -> Result<()> {
    let named = Name::find_all(&flags.manifests, Some(cache))?;
    let digests = match named.as_slice() {
        [] => all_finished(cache)?,
        named => named.to_vec(),
    };
    if digests.is_empty() {
        output.note("the cache has no finished model");
    }
    // Each is looked at, whatever becomes of the others.
    let (mut bad, mut failed) = (Vec::new(), None);
    for digest in &digests {
        match verify(cache, digest, output) {
            Ok(report) => {
                if !report.is_good() {
                    bad.push(*digest);
                }
                output.answer(&Answer::Verified(answer(digest, &report)))?;
            }
            Err(error @ CacheError::Corrupt { .. }) => {
                bad.push(*digest);
                output.answer(&Answer::Verified(unreadable(digest, &error)))?;
            }
            Err(error) => {
                output.answer(&Answer::Verified(unreadable(digest, &error)))?;
                failed = failed.or(Some(error));
            }
        }
    }
    if flags.repair && !bad.is_empty() {
        block_on(repair(flags, settings, &mut bad, output))?;
    }
    match (bad.len(), failed) {
        (0, None) => Ok(()),
        (0, Some(error)) => Err(error.into()),
        (count, _) => Err(Damaged(format!(
            "{count} of {} models are not what their manifests say: `loader fetch` and `loader verify --repair` fetch what is \
             wrong of them",
            digests.len()
        ))
        .into()),
    }
}

fn verify(cache: &Cache, digest: &Digest, output: &Output) -> Result<RecheckReport, CacheError> {
    let threads = available_parallelism().map_or(1, usize::from);
    let progress = ByteProgress::new(output, "verifying");
    let update = |done_bytes, total_bytes| progress.update(done_bytes, total_bytes);
    cache.verify(digest, threads, &update)?.ok_or_else(|| not_cached(cache, digest))
}

/// Fetches what is wrong of each, and leaves in `bad` those that still are.
async fn repair(
    flags: &args::Verify,
    settings: &Settings,
    bad: &mut Vec<Digest>,
    output: &Output,
) -> Result<()> {
    let fetch = config::fetching(&flags.network).with_wait(config::wait(flags.wait));
    let config = settings.fetcher(&flags.network)?.with_fetch(fetch);
    let node = Node::start(config).await?;
    let mut failed = None;
    for digest in std::mem::take(bad) {
        let progress = FetchProgress::new(output, digest);
        let loaded = fetch::load(&node, digest, &progress).await;
        progress.finish();
        match loaded {
            Ok(loaded) => {
                fetch::tell(&loaded, output);
                output.answer(&Answer::Fetched(fetch::answer(&loaded, None, output).await?))?;
            }
            Err(error) => {
                output.trouble(&format!("model {digest} is not repaired: {error:#}"));
                failed = failed.or(Some(error));
                bad.push(digest);
            }
        }
    }
    node.shutdown().await;
    failed.map_or(Ok(()), Err)
}

fn all_finished(cache: &Cache) -> Result<Vec<Digest>> {
    let entries = cache.list()?.into_iter();
    Ok(entries.filter(|entry| entry.state == EntryState::Finished).map(|entry| entry.digest).collect())
}

fn answer(digest: &Digest, report: &RecheckReport) -> Verified {
    let bad = report.bad.iter();
    Verified {
        manifest: Text::of(digest),
        good: report.is_good(),
        checked_bytes: report.checked_bytes,
        checked_shards: report.checked_shards,
        bad: bad
            .map(|bad| BadShard { shard: bad.shard, is_parity: bad.is_parity, pieces: bad.pieces.clone() })
            .collect(),
        index: match report.index {
            IndexState::Absent => "absent",
            IndexState::Good => "good",
            IndexState::Corrupt => "corrupt",
            IndexState::Wrong => "wrong",
        },
        error: None,
        summary: report.to_string(),
    }
}

/// A model that cannot even be opened.
fn unreadable(digest: &Digest, error: &CacheError) -> Verified {
    let causes = anyhow::Chain::new(error).map(ToString::to_string).collect::<Vec<_>>().join(": ");
    Verified {
        manifest: Text::of(digest),
        good: false,
        checked_bytes: 0,
        checked_shards: 0,
        bad: Vec::new(),
        index: "absent",
        error: Some(causes.clone()),
        summary: causes,
    }
}
