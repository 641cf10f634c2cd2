//! rqbit: BitTorrent v1 in Rust.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::{Contender, FILE, Ground, free_port, version};
use crate::bench::process::{Service, command};

pub(super) fn start(ground: &Ground, seeders: usize) -> Result<Contender> {
    let version = version("rqbit", &["--version"], "`cargo install rqbit --locked`")?;
    let log = ground.log("rqbit");
    let mut services = Vec::new();
    let mut peers = Vec::new();
    let mut magnet = String::new();
    for index in 0..seeders {
        let dir = ground.seed_dir(&format!("rqbit-{index}"))?;
        let port = free_port()?;
        let mut share = rqbit_alone(&dir);
        share.args(["--http-api-listen-addr", "127.0.0.1:0", "--listen-port", &port.to_string()]);
        share.arg("share").arg(&ground.source);
        let service = Service::start(share, &log)?;
        // All of them make the same torrent.
        magnet =
            service.wait_for(ground.limit, |line| line.find("magnet:").map(|at| line[at..].to_owned()))?;
        peers.push(format!("127.0.0.1:{port}"));
        services.push(service);
    }
    let mut fetch = rqbit_alone(&ground.out);
    fetch.args(["download", "--exit-on-finish", "--disable-http-api", "--output-folder", "."]);
    fetch.args(["--initial-peers", &peers.join(","), &magnet]);
    Ok(Contender {
        name: "rqbit",
        version,
        seeders: services.into(),
        fetch: vec![fetch],
        output: ground.out.join(FILE),
        is_durable: false,
    })
}

/// rqbit that looks for nobody else.
pub(crate) fn rqbit_alone(dir: &Path) -> Command {
    let mut rqbit = command(dir, "rqbit");
    rqbit.args(["--disable-dht", "--disable-lsd", "--disable-trackers", "--disable-upnp-port-forward"]);
    rqbit.args(["--listen-ip", "127.0.0.1"]);
    rqbit
}
