//! What happens, in order.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use bytesize::ByteSize;
use chain_reader::{BlockTag, Devnet, Signer, SubmitConfig, U256, set_mature_model};
use loader::Selection;
use loader::SourceReport;
use loader::encode::{self, Folder, Input, Options, Published};
use manifest::Digest;
use node::{Loaded, Node};
use p2p_blob::Multiaddr;
use store::{Blobs, Cache};

use crate::bar::Bar;
use crate::memory::PeakMemory;
use crate::model;
use crate::seeder::{self, Seeder};

const CONTRACT_JSON: &str = include_str!("../../../tests/contracts/RPB.json");
const LISTEN: &str = "/ip4/127.0.0.1/tcp/0";
/// Which shards of ten data and four parity ones each honest seeder holds. The last one will be stopped.
const HOLDINGS: [&[u32]; 3] = [&[0, 1, 2, 3, 10, 11], &[4, 5, 6, 7, 12, 13], &[8, 9]];

pub(super) struct Story<'a> {
    /// Everything is in there.
    pub(super) dir: &'a Path,
    /// The `loader` command.
    pub(super) loader: &'a Path,
    pub(super) size_bytes: u64,
}

impl Story<'_> {
    pub(super) async fn tell(&self, anvil: &Path) -> Result<()> {
        let chain = Devnet::start(anvil, CONTRACT_JSON).await.with_context(|| {
            format!(
                "cannot start the EVM node {}: `cargo xtask demo` brings one, or give --anvil",
                anvil.display()
            )
        })?;
        step(
            "chain",
            &format!("anvil listens at {}; RPB contract {}, no model", chain.rpc_url(), chain.contract()),
        );

        let source = self.dir.join("model");
        let published = tokio::task::block_in_place(|| self.publish(&source))?;
        self.set_on_chain(&chain, published.digest).await?;

        let mut seeders = self.start_seeders(&published).await?;
        let addresses: Vec<_> = seeders.iter().map(|seeder| seeder.address.clone()).collect();
        let stopped = &mut seeders[HOLDINGS.len() - 1];
        let process_id = stopped.process_id().map_or("?".to_owned(), |id| id.to_string());
        stopped.kill().await.context("cannot stop a seeder")?;
        step(
            "failure",
            &format!(
                "seeder 3 (process {process_id}) is killed: shards {} are nowhere now",
                list(HOLDINGS[2])
            ),
        );

        let contract = chain_reader::Config::new(chain.rpc_url().clone(), chain.contract());
        let config = node::Config::new(self.dir.join("node"))
            // This story has a cast of its own.
            .with_mdns(false)
            .with_peers(addresses.clone())
            .with_chain(contract.with_block_tag(BlockTag::Finalized));
        let loaded = self.fetch(config).await?;
        self.report_liars(&loaded.report.sources, &addresses)?;
        self.prove(&source, &loaded)
    }

    fn publish(&self, source: &Path) -> Result<Published> {
        model::write(source, self.size_bytes)
            .with_context(|| format!("cannot write {}", source.display()))?;
        let folder = Folder::list(source, &Selection::default())?;
        let cache = Cache::open(&self.dir.join("publisher"))?;
        let options = Options::default().with_model_kind("simplenet".to_owned());
        let started = Instant::now();
        let bar = Bar::new("publish");
        let update = |done_bytes, total_bytes| bar.update(done_bytes, total_bytes);
        let published = encode::publish(&cache, &Input::Folder(folder), &options, &update)?;
        drop(bar);
        let elapsed = started.elapsed();
        let manifest = &published.manifest;
        let size_bytes = manifest.total_size_bytes();
        step(
            "publish",
            &format!(
                "a folder of {} files, {}, in {} data + {} parity shards, in {} ({})",
                manifest.files().len(),
                show_size(size_bytes),
                manifest.data(),
                manifest.parity(),
                show_duration(elapsed),
                show_rate(size_bytes, elapsed)
            ),
        );
        step("", &format!("manifest {}", published.digest));
        Ok(published)
    }

    async fn set_on_chain(&self, chain: &Devnet, digest: Digest) -> Result<()> {
        let signer = Signer::from_private_key(chain.owner_key())?;
        let config = SubmitConfig::new(chain.rpc_url().clone(), chain.contract());
        let set = set_mature_model(&config, &signer, digest, U256::ZERO).await?;
        chain.mine(2).await?;
        step("", &format!("setMatureModel in block {}, final two blocks later", set.block_number()));
        Ok(())
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
            seeders.push(Seeder::serving(self.loader, &dir, &folder, LISTEN).await?);
            step(
                if index == 0 { "seeders" } else { "" },
                &format!("{} holds shards {}", index + 1, list(shards)),
            );
        }
        let dir = self.dir.join("liar");
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        seeders.push(Seeder::lying(&dir, &all, published.digest, LISTEN).await?);
        step("", "4 holds all shards, and flips a bit in each piece it sends");
        Ok(seeders)
    }

    async fn fetch(&self, config: node::Config) -> Result<Loaded> {
        let node = Node::start(config).await?;
        let current = node.mature_model().await?;
        step("fetch", &format!("the contract says {} at block {}", current.manifest, current.block_number));
        let memory = PeakMemory::start();
        let bar = Bar::new("fetch");
        let loaded = node.load(current.manifest, &bar).await;
        drop(bar);
        node.shutdown().await;
        let (loaded, peak) = (loaded?, memory.end());
        let (report, size_bytes) = (&loaded.report, loaded.model.manifest().total_size_bytes());
        step(
            "",
            &format!(
                "{} verified and mapped in {} ({}): {} fetched, {} rebuilt",
                show_size(size_bytes),
                show_duration(report.elapsed),
                show_rate(size_bytes, report.elapsed),
                show_size(report.fetched_bytes),
                show_size(report.rebuilt_bytes)
            ),
        );
        if let Some(peak_bytes) = peak {
            let peak = show_size(peak_bytes);
            step("", &format!("at most {peak} of memory, besides the page cache"));
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
            step("", &format!("seeder {name} sent {bad} of wrong bytes{banned}; none of them got in"));
        }
        Ok(())
    }

    fn prove(&self, source: &Path, loaded: &Loaded) -> Result<()> {
        let tensors = model::read(&loaded.model)
            .ok_or_else(|| anyhow!("the mapped weights are not the tensors that were published"))?;
        let path = loaded.model.path();
        step(
            "map",
            &format!(
                "{tensors} tensors in a read-only map; `{}` read in place, without a copy",
                model::PROBE
            ),
        );
        step("", &format!("a runtime opens {}", path.display()));
        for file in loaded.model.files() {
            let mapped = loaded.model.file(file.path)?;
            let mapped = mapped.ok_or_else(|| anyhow!("{} is not there", file.path))?;
            let original = source.join(file.path);
            if !tokio::task::block_in_place(|| is_same(&original, mapped.as_ref()))? {
                bail!("{} differs from the published file", file.path);
            }
        }
        step(
            "proved",
            "contract → manifest → shards → weights: each byte hashed against the link before it,",
        );
        step("", "and all of them are those of the published files");
        Ok(())
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

fn step(name: &str, text: &str) {
    println!("{name:<9}{text}");
}

fn show_size(bytes: u64) -> String {
    ByteSize::b(bytes).display().iec().to_string()
}

fn show_duration(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

/// In MB/s, 10^6 bytes a second, as networks and disks are rated.
fn show_rate(bytes: u64, time: Duration) -> String {
    format!("{:.0} MB/s", bytes as f64 / time.as_secs_f64().max(0.001) / 1e6)
}
