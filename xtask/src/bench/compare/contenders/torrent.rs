//! libtorrent, through a small program in Python.

use anyhow::{Context as _, Result};

use super::{Contender, FILE, Ground, version};
use crate::bench::process::{Service, answer, command};
use crate::setup;

pub(super) fn start(ground: &Ground, seeders: usize) -> Result<Contender> {
    let package = ground.root.join("xtask/bench");
    let environment = ground.root.join("target/bench-venv");
    let python = setup::virtual_environment(&environment, &package.join("requirements.txt"))?;
    let ask = ["-c", "import libtorrent; print('libtorrent', libtorrent.__version__)"];
    let version = version(&python, &ask, "see xtask/bench/requirements.txt")?;
    let log = ground.log("libtorrent");
    let dir = ground.seed_dir("libtorrent")?;
    let torrent = dir.join("torrent");
    let peer = |dir, mode| {
        let mut peer = command(dir, &python);
        peer.arg(package.join("libtorrent_peer.py")).arg(mode);
        peer
    };
    answer(peer(&dir, "make").arg(&ground.source).arg(&torrent), &log, ground.limit)?;

    let source_dir = ground.source.parent().context("the source has no directory")?;
    let mut fetch = peer(&ground.out, "fetch");
    fetch.arg(&torrent).arg(".");
    let mut services = Vec::new();
    for _ in 0..seeders {
        let mut seed = peer(&dir, "seed");
        seed.arg(&torrent).arg(source_dir);
        let service = Service::start(seed, &log)?;
        let port: u16 = service.wait_for(ground.limit, |line| line.parse().ok())?;
        fetch.arg(port.to_string());
        services.push(service);
    }
    Ok(Contender {
        name: "libtorrent",
        version,
        seeders: services.into(),
        fetch: vec![fetch],
        output: ground.out.join(FILE),
        is_durable: false,
    })
}
