//! `loader fetch`.

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use chain_reader::{Address, ChainReader, MatureModel, Staleness};
use loader::{Report, Selection, SourceReport, executable};
use manifest::Digest;
use node::{Loaded, Node, NodeError};
use store::{Cache, MappedFile, check_empty};
use tokio::time::{MissedTickBehavior, interval};

use crate::answer::{self, Answer, FetchSource, OnChain, ReusedFrom, Text};
use crate::args;
use crate::cmd::code;
use crate::cmd::from_cache::Wait;
use crate::cmd::link::Link;
use crate::cmd::panel;
use crate::cmd::which::which;
use crate::config::{self, Settings};
use crate::event::{Done, Event};
use crate::exit::{Interrupted, Usage};
use crate::interrupt::Interrupt;
use crate::output::Output;
use crate::progress::FetchProgress;
use crate::units::{show_count, show_duration, show_rate, show_size};
use crate::visible::visible;

/// How often it is looked whether a line of progress is due.
pub(super) const TICK: Duration = Duration::from_secs(1);

pub(crate) async fn run(flags: &args::Fetch, settings: &Settings, output: &Output) -> Result<()> {
    let mut interrupt = Interrupt::new().context("cannot listen for signals")?;
    tokio::select! {
        done = fetch(flags, settings, output) => done,
        () = interrupt.next() => {
            output.note("what was verified is kept: the same command goes on from there");
            Err(Interrupted.into())
        }
    }
}

async fn fetch(flags: &args::Fetch, settings: &Settings, output: &Output) -> Result<()> {
    let within = config::wait(flags.wait);
    let files =
        Selection::new(&flags.files, &flags.exclude).map_err(|error| Usage::new(error.to_string()))?;
    let fetch = config::fetching(&flags.network)
        .with_files(files)
        .with_wait(within)
        .with_single_blob_max_bytes(settings.single_blob_max_bytes(&flags.named.legacy)?)
        .with_durable(!flags.no_fsync);
    let mut config = settings.fetcher(&flags.network)?;
    if flags.no_listen {
        config = config.with_listen(Vec::new());
    }
    if let Some(into) = &flags.into {
        check_empty(into)?;
    }
    let link = Link::new(flags.link.as_deref(), &settings.cache_dir)?;
    let http = settings.http(&flags.http)?;
    // A contract that is asked for now wins over a manifest that the file names.
    let is_left = settings.is_in_file("manifest") && settings.is_given("contract");
    let named = match flags.digest.as_ref().or(flags.manifest.as_ref().filter(|_| !is_left)) {
        Some(name) => {
            let cache = match name.digest() {
                Some(_) => None,
                None => Cache::open_existing(&settings.cache_dir)?,
            };
            Some(name.find(cache.as_ref())?)
        }
        None => None,
    };
    let chain = match named {
        Some(_) => None,
        None => Some(settings.reading(&flags.named)?.ok_or_else(|| {
            Usage::new("which model? Give its DIGEST, or --contract ADDRESS and --rpc-url URL")
        })?),
    };
    let contract = chain.as_ref().map(chain_reader::Config::contract);
    let by_others = flags.from_cache.then(|| Wait::new(&settings.cache_dir, within));
    if let Some(wait) = &by_others {
        wait.for_cache().await?;
    } else if chain.as_ref().is_none_or(|chain| chain.staleness() != Staleness::Offline) {
        // Before anything is remembered in it.
        Cache::open(&settings.cache_dir)?;
    }
    let config = config.with_fetch(fetch).with_chain(chain);
    let reader = config.reader()?;
    let (digest, found, current) = match &by_others {
        Some(wait) => {
            let (loaded, current) = wait.for_model(&config, named, reader.as_ref()).await?;
            (*loaded.model.digest(), Some(loaded), current)
        }
        None => {
            let (digest, current) = which(named, reader.as_ref()).await?;
            (digest, node::cached(&config, digest).await?, current)
        }
    };
    let loaded = match found {
        // Nobody need be asked, so that no network is needed.
        Some(loaded) => {
            if let Some((reader, current)) = reader.as_ref().zip(current.as_ref())
                && let Err(error) = reader.note_loaded(current).await
            {
                output.trouble(&format!("cannot remember which model was loaded: {error}"));
            }
            loaded
        }
        None => load_from_peers(config, http, reader, digest, current.as_ref(), output).await?,
    };
    let Loaded { model, report, .. } = &loaded;
    tell(&loaded, output);
    if !model.is_complete() {
        let (there, all) = (model.files().count(), model.manifest().files().len());
        output.note(&format!("{there} of {all} files are there: the same without --files fetches the rest"));
    }
    for source in report.sources.iter().filter(|source| source.bad_bytes > 0) {
        output.note(&format!("peer {} sent {} wrong bytes", source.source, source.bad_bytes));
    }
    let on_chain = contract.zip(current).map(|(contract, current)| on_chain(contract, &current));
    let mut answer = answer(&loaded, on_chain, output).await?;
    if flags.no_code && !answer.executable.is_empty() {
        let found = answer.executable.join(", ");
        return Err(anyhow!("--no-code: a runtime may execute what is in model {digest}: {found}"));
    }
    if let Some(into) = flags.into.clone() {
        let model = model.clone();
        let laid_out = tokio::task::spawn_blocking(move || model.lay_out(&into));
        answer.path = laid_out.await.context("the thread that lays files out has failed")??;
        answer.weights = answer.weights.map(|_| answer.path.clone());
    }
    if let Some(link) = link {
        link.set(model).await?;
    }
    output.answer(&Answer::Fetched(answer))
}

/// Starts a node, and loads the model.
async fn load_from_peers(
    config: node::Config,
    http: Option<::panel::Config>,
    reader: Option<ChainReader>,
    digest: Digest,
    current: Option<&MatureModel>,
    output: &Output,
) -> Result<Loaded> {
    let node = Node::start_reading(config, reader).await?;
    let panel = panel::start(&node, http, output).await?;
    let progress = FetchProgress::new(output, digest);
    let loaded = load(&node, digest, &progress).await;
    progress.finish();
    if let (Ok(_), Some(current)) = (&loaded, current) {
        node.note_loaded(current).await;
    }
    drop(panel);
    node.shutdown().await;
    loaded
}

/// What is answered when a model is in the cache. Warns of what a runtime may execute.
pub(super) async fn answer(
    Loaded { model, report, .. }: &Loaded,
    chain: Option<OnChain>,
    output: &Output,
) -> Result<answer::Fetched> {
    let looked_at = model.clone();
    let found = tokio::task::spawn_blocking(move || executable(&looked_at));
    let found = found.await.context("the thread that looks for code has failed")?;
    if let Some(warning) = code::summary(&found) {
        output.warn(&visible(&warning));
    }
    Ok(answer::Fetched {
        executable: found.iter().map(ToString::to_string).collect(),
        manifest: Text::of(model.digest()),
        path: model.path(),
        weights: model.weights().map(MappedFile::path),
        complete: model.is_complete(),
        total_size_bytes: model.manifest().total_size_bytes(),
        from_cache: report.from_cache,
        fetched_bytes: report.fetched_bytes,
        resumed_bytes: report.resumed_bytes,
        reused_bytes: report.reused_bytes,
        reused_from: report
            .reused_from
            .iter()
            .map(|(manifest, bytes)| ReusedFrom { manifest: Text::of(manifest), bytes: *bytes })
            .collect(),
        rebuilt_bytes: report.rebuilt_bytes,
        wasted_bytes: report.wasted_bytes,
        elapsed_ms: elapsed_ms(report),
        sources: report.sources.iter().map(source).collect(),
        chain,
        of: None,
    })
}

/// Loads the model, showing how far that is.
pub(super) async fn load(node: &Node, digest: Digest, progress: &FetchProgress) -> Result<Loaded> {
    let loading = node.load(digest, progress);
    tokio::pin!(loading);
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            loaded = &mut loading => return loaded.map_err(|error| explained(digest, error)),
            _ = ticks.tick() => progress.tick(),
        }
    }
}

/// The error, with what can be done about it.
pub(super) fn explained(digest: Digest, error: NodeError) -> anyhow::Error {
    let may_be_single_blob = matches!(&error, NodeError::Load(error) if error.may_be_single_blob());
    let error = anyhow::Error::from(error);
    if !may_be_single_blob {
        return error;
    }
    error.context(format!(
        "{digest} is not that of a manifest. If it is that of the weights themselves, as contracts named them before \
         there were manifests, load them with --single-blob, and --max-size SIZE"
    ))
}

/// Tells what a load did.
pub(super) fn tell(Loaded { model, report, .. }: &Loaded, output: &Output) {
    for (from, bytes) in &report.reused_from {
        output.note(&format!("{} of it are those of model {from}", show_size(*bytes)));
    }
    let total_bytes = model.files().map(|file| file.size_bytes).sum();
    let done = Done {
        manifest: Text::of(model.digest()),
        total_bytes,
        from_cache: report.from_cache,
        elapsed_ms: elapsed_ms(report),
        sources: givers(report),
        fetched_bytes: report.fetched_bytes,
        resumed_bytes: report.resumed_bytes,
        reused_bytes: report.reused_bytes,
        rebuilt_bytes: report.rebuilt_bytes,
        wasted_bytes: report.wasted_bytes,
    };
    output.result(model.digest(), &Event::Done(done), &summary(report, total_bytes));
}

/// What was done, in a line.
fn summary(report: &Report, total_bytes: u64) -> String {
    if report.from_cache {
        return format!("{} in the cache already: no peer was asked", show_size(total_bytes));
    }
    let parts = [
        ("fetched", report.fetched_bytes),
        ("rebuilt", report.rebuilt_bytes),
        ("kept from an earlier run", report.resumed_bytes),
        ("taken from another model in the cache", report.reused_bytes),
    ];
    let parts = parts
        .iter()
        .filter(|(_, bytes)| *bytes > 0)
        .map(|(what, bytes)| format!("{} {what}", show_size(*bytes)));
    format!(
        "{} verified and mapped in {} ({}) from {}: {}",
        show_size(total_bytes),
        show_duration(report.elapsed),
        show_rate(total_bytes, report.elapsed),
        show_count(givers(report), "peer"),
        parts.collect::<Vec<_>>().join(", ")
    )
}

/// How many sources have given something.
fn givers(report: &Report) -> usize {
    report.sources.iter().filter(|source| source.good_bytes > 0).count()
}

fn elapsed_ms(report: &Report) -> u64 {
    u64::try_from(report.elapsed.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn on_chain(contract: Address, model: &MatureModel) -> OnChain {
    OnChain {
        contract: Text::of(contract),
        chain_id: model.chain_id,
        block_number: model.block_number,
        block_hash: Text::of(model.block_hash),
        block_timestamp: model.block_timestamp,
        price: Text::of(model.price),
    }
}

fn source(report: &SourceReport) -> FetchSource {
    FetchSource {
        source: Text::of(&report.source),
        good_bytes: report.good_bytes,
        bad_bytes: report.bad_bytes,
        duplicate_bytes: report.duplicate_bytes,
        banned: report.banned,
        last_error: report.last_error.clone(),
    }
}
