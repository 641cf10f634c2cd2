//! This project.

use std::process::Command;
use std::rc::Rc;

use anyhow::{Context as _, Result};

use super::{Contender, Ground, OURS, OURS_NOT_SYNCED, version};
use crate::bench::compare::files::copy_dir;
use crate::bench::compare::process::{Service, answer, command};

/// What the cache calls the key of a node. Two nodes with one key would be one peer.
const IDENTITY: &str = "identity";

/// Twice: as it comes, and told not to wait for the disk.
pub(super) fn start(ground: &Ground, seeders: usize) -> Result<Vec<Contender>> {
    let loader = ground.loader.as_ref().context("it was not built")?;
    let log = ground.log("loader");
    let first = ground.seed_dir("loader-0")?;
    let mut publish = command(&first, loader);
    publish.arg("publish").arg(&ground.source).args(["--model-kind", "simplenet", "--cache-dir", "."]);
    let manifest = answer(&mut publish, &log, ground.limit)?.trim().to_owned();

    let mut dirs = vec![first.clone()];
    for index in 1..seeders {
        let dir = ground.seed_dir(&format!("loader-{index}"))?;
        copy_dir(&first, &dir, IDENTITY)?;
        dirs.push(dir);
    }
    let mut services = Vec::new();
    let mut addresses = Vec::new();
    for dir in &dirs {
        let mut serve = command(dir, loader);
        serve.args(["serve", "--cache-dir", ".", "--listen", "/ip4/127.0.0.1/tcp/0"]);
        let service = Service::start(serve, &log)?;
        let is_address = |line: &str| line.starts_with("/ip4/").then(|| line.to_owned());
        addresses.push(service.wait_for(ground.limit, is_address)?);
        services.push(service);
    }

    let fetch = |flags: &[&str]| -> Command {
        let mut fetch = command(&ground.out, loader);
        fetch.args(["fetch", "--cache-dir", ".", "--manifest", &manifest]).args(flags);
        fetch.args(addresses.iter().flat_map(|address| ["--peer", address]));
        fetch
    };
    let seeders = Rc::<[Service]>::from(services);
    let contender = |name, flags: &[&str], is_durable| -> Result<Contender> {
        Ok(Contender {
            name,
            version: version(loader, &["--version"], "`cargo build --release -p loader-cli`")?,
            seeders: Rc::clone(&seeders),
            fetch: vec![fetch(flags)],
            output: ground.out.join("models").join(&manifest).join("weights"),
            is_durable,
        })
    };
    Ok(vec![contender(OURS, &[], true)?, contender(OURS_NOT_SYNCED, &["--no-fsync"], false)?])
}
