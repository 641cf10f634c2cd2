//! The demo's lying seeder: it has everything, and flips a bit in each piece that it sends.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use clap::Args;
use manifest::{Digest, Have, HaveChange, Manifest, PieceSet};
use p2p_blob::{Blob, Identity, Multiaddr, ReadOutcome, Store};
use serde_json::json;
use store::{BlobDir, BlobReader};

/// Serve a folder of blobs with a bit flipped in each piece. Part of the demo.
#[derive(Debug, Args)]
pub(crate) struct Liar {
    /// The folder.
    #[arg(long, value_name = "DIR")]
    blob_dir: PathBuf,
    /// The model whose shards are lied about.
    #[arg(long, value_name = "DIGEST")]
    manifest: Digest,
    /// Where to listen.
    #[arg(long, value_name = "MULTIADDR")]
    listen: Multiaddr,
}

pub(crate) async fn run(flags: &Liar) -> Result<()> {
    let dir = BlobDir::open(&flags.blob_dir)?;
    let held = dir.lookup(&flags.manifest)?.context("the folder does not have the manifest")?;
    let mut bytes = vec![0; usize::try_from(held.size_bytes())?];
    held.read_at(0, &mut bytes)?;
    let store = LyingStore { dir, digest: flags.manifest, manifest: Manifest::parse(&bytes)? };
    let config = p2p_blob::Config::new(Identity::ephemeral()).with_listen(vec![flags.listen.clone()]);
    let (client, _task) = p2p_blob::start(config, Arc::new(store))?;
    let mut addresses = client.listen_addrs();
    for address in &*addresses.wait_for(|addresses| !addresses.is_empty()).await? {
        println!("{}", json!({"address": address.to_string()}));
    }
    // Whoever has started it ends it.
    std::future::pending().await
}

struct LyingStore {
    dir: BlobDir,
    digest: Digest,
    manifest: Manifest,
}

impl Store for LyingStore {
    fn open(&self, _: Option<&Digest>, blob: &Digest) -> io::Result<Option<Arc<dyn Blob>>> {
        let is_shard = self.manifest.shards().iter().any(|shard| shard.digest == *blob);
        Ok(self.dir.lookup(blob)?.map(|held| Arc::new(LyingBlob { held, is_shard }) as Arc<dyn Blob>))
    }

    fn have(&self, manifest: &Digest, _: u64) -> io::Result<Option<Have>> {
        let shards = (0..).zip(self.manifest.shards());
        let all = shards.map(|(shard, _)| PieceSet::all(self.manifest.piece_count(shard))).collect();
        Ok((*manifest == self.digest).then_some(Have { version: 1, change: HaveChange::Holds(all) }))
    }
}

struct LyingBlob {
    held: BlobReader,
    is_shard: bool,
}

impl Blob for LyingBlob {
    fn size_bytes(&self) -> u64 {
        self.held.size_bytes()
    }

    fn is_whole(&self) -> bool {
        true
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<ReadOutcome> {
        self.held.read_at(offset, buf)?;
        if let (true, Some(first)) = (self.is_shard, buf.first_mut()) {
            *first ^= 1;
        }
        Ok(ReadOutcome::Held)
    }
}
