//! This project.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;

use anyhow::{Context as _, Result};

use super::{Contender, Ground, OURS, OURS_NOT_SYNCED, version};
use crate::bench::files::copy_dir;
use crate::bench::process::{Service, answer, command};

/// What the cache calls the key of a node. Two nodes with one key would be one peer.
const IDENTITY: &str = "identity";

/// Twice: as it comes, and told not to wait for the disk.
pub(super) fn start(ground: &Ground, seeders: usize) -> Result<Vec<Contender>> {
    let first = ground.seed_dir("loader-0")?;
    let manifest = publish(ground, &first)?;
    let mut dirs = vec![first.clone()];
    for index in 1..seeders {
        let dir = ground.seed_dir(&format!("loader-{index}"))?;
        copy_dir(&first, &dir, IDENTITY)?;
        dirs.push(dir);
    }
    let mut services = Vec::new();
    let mut addresses = Vec::new();
    for dir in &dirs {
        let (service, address) = serve(ground, dir, &[])?;
        services.push(service);
        addresses.push(address);
    }
    let seeders = Rc::<[Service]>::from(services);
    Ok(vec![
        contender(ground, OURS, &manifest, Rc::clone(&seeders), &addresses, &[])?,
        Contender {
            is_durable: false,
            ..contender(ground, OURS_NOT_SYNCED, &manifest, seeders, &addresses, &["--no-fsync"])?
        },
    ])
}

/// Publishes the source into the cache `dir`; gives the manifest's digest.
pub(super) fn publish(ground: &Ground, dir: &Path) -> Result<String> {
    let mut publish = command(dir, program(ground)?);
    publish.arg("publish").arg(&ground.source).args([
        "--no-names",
        "--model-kind",
        "simplenet",
        "--cache-dir",
        ".",
    ]);
    Ok(answer(&mut publish, &ground.log(OURS), ground.limit)?.trim().to_owned())
}

/// A seeder of the cache `dir`, and where it listens.
pub(super) fn serve(ground: &Ground, dir: &Path, flags: &[&str]) -> Result<(Service, String)> {
    let mut serve = command(dir, program(ground)?);
    serve.args(["serve", "--no-mdns", "--cache-dir", ".", "--listen", "/ip4/127.0.0.1/tcp/0"]).args(flags);
    let service = Service::start(serve, &ground.log(OURS))?;
    let is_address = |line: &str| line.starts_with("/ip4/").then(|| line.to_owned());
    let address = service.wait_for(ground.limit, is_address)?;
    Ok((service, address))
}

/// One that fetches from these seeders, and waits for the disk.
pub(super) fn contender(
    ground: &Ground,
    name: &'static str,
    manifest: &str,
    seeders: Rc<[Service]>,
    addresses: &[String],
    flags: &[&str],
) -> Result<Contender> {
    let loader = program(ground)?;
    let mut fetch: Command = command(&ground.out, loader);
    fetch.args(["fetch", "--no-mdns", "--cache-dir", ".", "--manifest", manifest]).args(flags);
    fetch.args(addresses.iter().flat_map(|address| ["--peer", address]));
    Ok(Contender {
        name,
        version: version(loader, &["--version"], "`cargo build --release -p loader-cli`")?,
        seeders,
        fetch: vec![fetch],
        output: ground.out.join("models").join(manifest).join("weights"),
        is_durable: true,
    })
}

fn program(ground: &Ground) -> Result<&PathBuf> {
    ground.loader.as_ref().context("it was not built")
}
