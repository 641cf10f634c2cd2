//! `loader verify`.

use std::thread::available_parallelism;

use anyhow::Result;
use loader::cache::{Cache, EntryState};
use loader::{IndexState, RecheckReport};
use manifest::Digest;

use crate::answer::{Answer, BadShard, Text, Verified};
use crate::args;
use crate::cmd::not_cached;
use crate::exit::Damaged;
use crate::output::Output;
use crate::progress::ByteProgress;

pub(crate) fn run(flags: &args::Verify, cache: &Cache, output: &Output) -> Result<()> {
    let digests = match flags.manifests.as_slice() {
        [] => all_finished(cache)?,
        named => named.to_vec(),
    };
    if digests.is_empty() {
        output.note("the cache has no finished model");
    }
    let threads = available_parallelism().map_or(1, usize::from);
    let mut bad = 0;
    for digest in &digests {
        let progress = ByteProgress::new(output, "verifying");
        let report = cache
            .verify(digest, threads, &|done_bytes, total_bytes| progress.update(done_bytes, total_bytes))?;
        drop(progress);
        let report = report.ok_or_else(|| not_cached(cache, digest))?;
        bad += usize::from(!report.is_good());
        output.answer(&Answer::Verified(answer(digest, &report)))?;
    }
    match bad {
        0 => Ok(()),
        _ => Err(Damaged(format!(
            "{bad} of {} models are not what their manifests say: remove (`loader cache rm DIGEST`) and fetch them again",
            digests.len()
        ))
        .into()),
    }
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
        summary: report.to_string(),
    }
}
