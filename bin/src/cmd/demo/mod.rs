//! `loader demo`: the whole story on one machine, told as it happens.

pub(crate) mod liar;
mod memory;
mod model;
mod seeder;

use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use chain_reader::{BlockTag, Devnet, Signer, SubmitConfig, U256, set_mature_model};
use loader::SourceReport;
use loader::encode::{self, Input, Options, Published};
use manifest::Digest;
use node::{Loaded, Node};
use p2p_blob::Multiaddr;
use store::{Blobs, Cache};
use tempfile::TempDir;

use crate::answer::{Answer, DemoDone, Text};
use crate::args;
use crate::cmd::fetch;
use crate::exit::{Damaged, Interrupted, Usage};
use crate::interrupt::Interrupt;
use crate::output::Output;
use crate::progress::{ByteProgress, FetchProgress};
use crate::units::{show_duration, show_rate, show_size};
use memory::PeakMemory;
use seeder::Seeder;

const CONTRACT_JSON: &str = include_str!("../../../../tests/contracts/RPB.json");
const LISTEN: &str = "/ip4/127.0.0.1/tcp/0";
/// Which shards of ten data and four parity ones each honest seeder holds. The last one will be stopped.
const HOLDINGS: [&[u32]; 3] = [&[0, 1, 2, 3, 10, 11], &[4, 5, 6, 7, 12, 13], &[8, 9]];

pub(crate) async fn run(flags: &args::Demo, output: &Output) -> Result<()> {
    if flags.size < model::MIN_SIZE_BYTES {
        return Err(Usage::new(format!("--size is at least {}", show_size(model::MIN_SIZE_BYTES))).into());
    }
    let mut interrupt = Interrupt::new().context("cannot listen for signals")?;
    let dir = tempfile::Builder::new().prefix("loader-demo-").tempdir().context("cannot make a directory")?;
    let demo = Demo { dir: dir.path(), output, size_bytes: flags.size };
    // Whatever happens, processes end with the story and the directory after them.
    tokio::select! {
        told = demo.tell(&flags.anvil) => told?,
        () = interrupt.next() => return Err(Interrupted.into()),
    }
    tidy_up(dir, flags.keep, output)
}

fn tidy_up(dir: TempDir, keep: bool, output: &Output) -> Result<()> {
    if keep {
        output.note(&format!("kept {}", dir.keep().display()));
        return Ok(());
    }
    dir.close().context("cannot remove the demo's directory")
}

struct Demo<'a> {
    dir: &'a Path,
    output: &'a Output,
    size_bytes: u64,
}

impl Demo<'_> {
    async fn tell(&self, anvil: &Path) -> Result<()> {
        let chain = Devnet::start(anvil, CONTRACT_JSON).await.with_context(|| {
            format!(
                "cannot start the EVM node {}: `cargo xtask demo` brings one, or give --anvil",
                anvil.display()
            )
        })?;
        self.step(
            "chain",
            &format!("anvil listens at {}; RPB contract {}, no model", chain.rpc_url(), chain.contract()),
        )?;

        let source = self.dir.join("model.safetensors");
        let (published, publish_time) = tokio::task::block_in_place(|| self.publish(&source))?;
        self.set_on_chain(&chain, published.digest).await?;

        let mut seeders = self.start_seeders(&published).await?;
        let addresses: Vec<_> = seeders.iter().map(|seeder| seeder.address.clone()).collect();
        let stopped = &mut seeders[HOLDINGS.len() - 1];
        let process_id = stopped.process_id().map_or("?".to_owned(), |id| id.to_string());
        stopped.kill().await.context("cannot stop a seeder")?;
        self.step(
            "failure",
            &format!(
                "seeder 3 (process {process_id}) is killed: shards {} are nowhere now",
                list(HOLDINGS[2])
            ),
        )?;

        let mut config = node::Config::new(self.dir.join("node"));
        // This story has a cast of its own.
        config.mdns = false;
        config.peers = addresses.clone();
        let mut contract = chain_reader::Config::new(chain.rpc_url().clone(), chain.contract());
        contract.block_tag = BlockTag::Finalized;
        config.chain = Some(contract);
        let loaded = self.fetch(config).await?;
        self.report_liars(&loaded.report.sources, &addresses)?;
        self.prove(&source, &loaded)?;
        self.output.answer(&Answer::Demo(DemoDone {
            manifest: Text::of(published.digest),
            total_size_bytes: published.manifest.total_size_bytes(),
            publish_ms: answer_ms(publish_time),
            fetch_ms: answer_ms(loaded.report.elapsed),
            fetched_bytes: loaded.report.fetched_bytes,
            rebuilt_bytes: loaded.report.rebuilt_bytes,
            wasted_bytes: loaded.report.wasted_bytes,
        }))
    }

    fn step(&self, name: &str, text: &str) -> Result<()> {
        self.output.tell(&format!("{name:<9}{text}"))
    }

    fn publish(&self, source: &Path) -> Result<(Published, Duration)> {
        model::write(source, self.size_bytes)
            .with_context(|| format!("cannot write {}", source.display()))?;
        let cache = Cache::open(&self.dir.join("publisher"))?;
        let options = Options { model_kind: "simplenet".to_owned(), ..Options::default() };
        let progress = ByteProgress::new(self.output, "encoding");
        let started = Instant::now();
        let published =
            encode::publish(&cache, &Input::File(source.to_owned()), &options, &|done, total| {
                progress.update(done, total);
            })?;
        let elapsed = started.elapsed();
        drop(progress);
        let manifest = &published.manifest;
        let size_bytes = manifest.total_size_bytes();
        self.step(
            "publish",
            &format!(
                "{} safetensors file in {} data + {} parity shards, in {} ({})",
                show_size(size_bytes),
                manifest.data(),
                manifest.parity(),
                show_duration(elapsed),
                show_rate(size_bytes, elapsed)
            ),
        )?;
        self.step("", &format!("manifest {}", published.digest))?;
        Ok((published, elapsed))
    }

    async fn set_on_chain(&self, chain: &Devnet, digest: Digest) -> Result<()> {
        let signer = Signer::from_private_key(chain.owner_key())?;
        let config = SubmitConfig::new(chain.rpc_url().clone(), chain.contract());
        let set = set_mature_model(&config, &signer, digest, U256::ZERO).await?;
        chain.mine(2).await?;
        self.step("", &format!("setMatureModel in block {}, final two blocks later", set.block_number()))
    }

    /// Three honest seeders, each with some of the shards, and one that has all and lies.
    async fn start_seeders(&self, published: &Published) -> Result<Vec<Seeder>> {
        let all = self.dir.join("blobs");
        tokio::task::block_in_place(|| export_all(&self.dir.join("publisher"), published, &all))?;
        let manifest = &published.manifest;
        let small = || std::iter::once(published.digest).chain(manifest.pieces().map(|pieces| pieces.index));
        let mut seeders = Vec::new();
        for (index, shards) in HOLDINGS.iter().enumerate() {
            let dir = self.dir.join(format!("seeder-{}", index + 1));
            let held = shards.iter().filter_map(|shard| manifest.shards().get(*shard as usize));
            let blobs: Vec<_> = small().chain(held.map(|shard| shard.digest)).collect();
            let folder = dir.join("blobs");
            seeder::link_some(&all, &folder, &blobs)?;
            let args = ["serve", "--no-mdns", "--listen", LISTEN, "--blob-dir", utf8(&folder)?];
            seeders.push(Seeder::start(&dir, &args).await?);
            self.step(
                if index == 0 { "seeders" } else { "" },
                &format!("{} holds shards {}", index + 1, list(shards)),
            )?;
        }
        let dir = self.dir.join("liar");
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let digest = published.digest.to_string();
        let args = ["demo-liar", "--listen", LISTEN, "--blob-dir", utf8(&all)?, "--manifest", &digest];
        seeders.push(Seeder::start(&dir, &args).await?);
        self.step("", "4 holds all shards, and flips a bit in each piece it sends")?;
        Ok(seeders)
    }

    async fn fetch(&self, config: node::Config) -> Result<Loaded> {
        let node = Node::start(config).await?;
        let current = node.mature_model().await?;
        self.step(
            "fetch",
            &format!("the contract says {} at block {}", current.manifest, current.block_number),
        )?;
        let progress = FetchProgress::new(self.output);
        let memory = PeakMemory::start();
        let loaded = fetch::load(&node, current.manifest, &progress).await;
        progress.finish();
        node.shutdown().await;
        let (loaded, peak) = (loaded?, memory.end());
        self.step("", &fetch::summary(&loaded.report, loaded.model.manifest().total_size_bytes()))?;
        if let Some(peak_bytes) = peak {
            let peak = show_size(peak_bytes);
            self.step("", &format!("at most {peak} of memory, besides the page cache"))?;
        }
        Ok(loaded)
    }

    fn report_liars(&self, sources: &[SourceReport], addresses: &[Multiaddr]) -> Result<()> {
        for source in sources.iter().filter(|source| source.bad_bytes > 0) {
            let is_at = |address: &Multiaddr| address.to_string().ends_with(source.source.as_str());
            let name =
                addresses.iter().position(is_at).map_or("?".to_owned(), |index| (index + 1).to_string());
            let banned = if source.banned { " and was banned" } else { "" };
            let bad = show_size(source.bad_bytes);
            self.step("", &format!("seeder {name} sent {bad} of wrong bytes{banned}; none of them got in"))?;
        }
        Ok(())
    }

    fn prove(&self, source: &Path, loaded: &Loaded) -> Result<()> {
        let weights = loaded.model.weights();
        let tensors = model::read(weights).ok_or_else(|| {
            Damaged("the mapped weights are not the tensors that were published".to_owned())
        })?;
        self.step(
            "map",
            &format!(
                "{tensors} tensors in a read-only map; `{}` read in place, without a copy",
                model::PROBE
            ),
        )?;
        if !tokio::task::block_in_place(|| is_same(source, weights.as_ref()))? {
            return Err(Damaged("the mapped weights differ from the published file".to_owned()).into());
        }
        self.step(
            "proved",
            "contract → manifest → shards → weights: each byte hashed against the link before it,",
        )?;
        self.step("", "and all of them are those of the published file")
    }
}

/// Writes every blob of the model into one folder.
fn export_all(cache: &Path, published: &Published, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
    let blobs = Blobs::open(Cache::open(cache)?, Vec::new())?;
    let manifest = &published.manifest;
    let shards = manifest.shards().iter().map(|shard| shard.digest);
    for blob in
        std::iter::once(published.digest).chain(manifest.pieces().map(|pieces| pieces.index)).chain(shards)
    {
        seeder::export(&blobs, &blob, to)?;
    }
    Ok(())
}

fn is_same(source: &Path, weights: &[u8]) -> Result<bool> {
    let mut file = File::open(source).with_context(|| format!("cannot open {}", source.display()))?;
    let mut chunk = vec![0; 1 << 20];
    let mut rest = weights;
    loop {
        let len = file.read(&mut chunk).with_context(|| format!("cannot read {}", source.display()))?;
        match rest.split_at_checked(len) {
            Some((same, _)) if same != &chunk[..len] => return Ok(false),
            Some((_, after)) if len > 0 => rest = after,
            Some(_) => return Ok(rest.is_empty()),
            None => return Ok(false),
        }
    }
}

fn list(shards: &[u32]) -> String {
    shards.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")
}

fn utf8(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| Usage::new(format!("{} is not UTF-8", path.display())).into())
}

fn answer_ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
