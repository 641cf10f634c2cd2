//! This project, when nobody has four of the ten data shards: they are rebuilt from parity.

use std::fs;
use std::rc::Rc;

use anyhow::{Context as _, Result};

use super::{Contender, Ground, REBUILDING, loader};
use crate::bench::blobs;
use crate::bench::files::remove_dir;
use crate::bench::process::Service;

/// How many rows nobody has. As many parity shards are published.
const LOST_ROWS: usize = 4;

pub(super) fn start(ground: &Ground) -> Result<Contender> {
    let cache = ground.seed_dir("rebuild-cache")?;
    let manifest = loader::publish(ground, &cache)?;
    let blobs = ground.seed_dir("rebuild-blobs")?;
    let names = blobs::take_apart(&cache, &manifest, &blobs)?;
    for lost in &names[..LOST_ROWS] {
        fs::remove_file(blobs.join(lost)).with_context(|| format!("cannot remove {lost}"))?;
    }
    remove_dir(&cache)?;
    let empty = ground.seed_dir("rebuild-seeder")?;
    let (service, address) = loader::serve(ground, &empty, &["--blob-dir", "../rebuild-blobs"])?;
    let seeders = Rc::<[Service]>::from([service]);
    loader::contender(ground, REBUILDING, &manifest, seeders, &[address], &[])
}
