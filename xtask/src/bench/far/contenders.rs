//! Those that fetch: how their seeders are started, and how each fetches through a relay.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::getpid;

use crate::bench::files::copy_dir;
use crate::bench::process::{self, Service, answer, command};
use crate::bench::{helper, proc};
use crate::setup;

pub(super) const OURS: &str = "loader";
pub(super) const LIBTORRENT: &str = "libtorrent";
/// Reads, sends, receives, writes, and asks for nothing: what relay and machine can do.
pub(super) const TCP_COPY: &str = "tcp-copy";
/// Ours, in virtual time.
pub(super) const SIMULATION: &str = "simulation";
/// What `--only` may name.
pub(super) const NAMES: [&str; 4] = [OURS, LIBTORRENT, TCP_COPY, SIMULATION];
/// Those of them that are measured.
pub(super) const MEASURED: [&str; 3] = [OURS, LIBTORRENT, TCP_COPY];

/// What the cache calls the key of a node. Two nodes with one key would be one peer.
const IDENTITY: &str = "identity";
/// The name of the file that is fetched, wherever it is.
pub(super) const FILE: &str = "weights";
/// How long any step outside of the measurement may take.
const LIMIT: Duration = Duration::from_secs(300);

/// Where everything is.
pub(super) struct Ground {
    /// The repository.
    pub(super) root: PathBuf,
    /// Our own program, if it takes part.
    pub(super) loader: Option<PathBuf>,
    /// The simulation, if it takes part.
    pub(super) sim: Option<PathBuf>,
    /// Everything is in here.
    pub(super) work: PathBuf,
    /// The file that is fetched, alone in its directory.
    pub(super) source: PathBuf,
    /// Every fetch begins in this directory, empty.
    pub(super) out: PathBuf,
}

impl Ground {
    pub(super) fn log(&self, name: &str) -> PathBuf {
        self.work.join(format!("{name}.log"))
    }

    fn seed_dir(&self, name: &str) -> Result<PathBuf> {
        let dir = self.work.join("seeds").join(name);
        fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        Ok(dir)
    }
}

/// One that is ready: its seeders run.
pub(super) struct Contender {
    pub(super) name: &'static str,
    pub(super) version: String,
    /// Where its seeders listen.
    pub(super) addresses: Vec<SocketAddr>,
    how: How,
    _seeders: Vec<Service>,
}

enum How {
    /// With the identity of each seeder.
    Loader {
        program: PathBuf,
        manifest: String,
        peer_ids: Vec<String>,
    },
    Torrent {
        python: PathBuf,
        script: PathBuf,
        torrent: PathBuf,
    },
    Copy,
}

/// What one fetch has used.
pub(super) struct Fetched {
    pub(super) wall: Duration,
    /// Of the whole process.
    pub(super) cpu: Duration,
    /// Of our own process, meanwhile.
    pub(super) relay_cpu: Duration,
}

/// Starts so many seeders.
pub(super) fn start(name: &'static str, ground: &Ground, seeders: usize) -> Result<Contender> {
    match name {
        OURS => loader(ground, seeders),
        LIBTORRENT => torrent(ground, seeders),
        _ => tcp_copy(ground),
    }
}

fn loader(ground: &Ground, seeders: usize) -> Result<Contender> {
    let program = ground.loader.clone().context("it was not built")?;
    let first = ground.seed_dir("loader-0")?;
    let log = ground.log(OURS);
    let version = answer(command(&first, &program).arg("--version"), &log, LIMIT)?;
    let mut publish = command(&first, &program);
    publish.arg("publish").arg(&ground.source);
    publish.args(["--no-names", "--model-kind", "simplenet", "--cache-dir", "."]);
    let manifest = answer(&mut publish, &log, LIMIT)?.trim().to_owned();
    let mut dirs = vec![first.clone()];
    for index in 1..seeders {
        let dir = ground.seed_dir(&format!("loader-{index}"))?;
        // Nobody serves it yet: what a seeder leaves there cannot be copied.
        copy_dir(&first, &dir, IDENTITY)?;
        dirs.push(dir);
    }
    let (mut services, mut addresses, mut peer_ids) = (Vec::new(), Vec::new(), Vec::new());
    for dir in &dirs {
        let mut serve = command(dir, &program);
        serve.args(["serve", "--no-mdns", "--cache-dir", ".", "--listen", "/ip4/127.0.0.1/tcp/0"]);
        let service = Service::start(serve, &log)?;
        let (port, peer_id) = service.wait_for(LIMIT, port_and_peer)?;
        addresses.push(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        peer_ids.push(peer_id);
        services.push(service);
    }
    let how = How::Loader { program, manifest, peer_ids };
    Ok(Contender { name: OURS, version: version.trim().to_owned(), addresses, how, _seeders: services })
}

/// Of `/ip4/127.0.0.1/tcp/PORT/p2p/PEER`.
fn port_and_peer(line: &str) -> Option<(u16, String)> {
    let (port, peer) = line.strip_prefix("/ip4/127.0.0.1/tcp/")?.split_once("/p2p/")?;
    Some((port.parse().ok()?, peer.to_owned()))
}

fn torrent(ground: &Ground, seeders: usize) -> Result<Contender> {
    let package = ground.root.join("xtask/bench");
    let environment = ground.root.join("target/bench-venv");
    let python = setup::virtual_environment(&environment, &package.join("requirements.txt"))?;
    let script = package.join("libtorrent_peer.py");
    let (log, dir) = (ground.log(LIBTORRENT), ground.seed_dir(LIBTORRENT)?);
    let ask = "import libtorrent; print('libtorrent', libtorrent.__version__)";
    let version = answer(command(&dir, &python).args(["-c", ask]), &log, LIMIT)?;
    let torrent = dir.join("torrent");
    let mut make = command(&dir, &python);
    answer(make.arg(&script).arg("make").arg(&ground.source).arg(&torrent), &log, LIMIT)?;
    let source_dir = ground.source.parent().context("the source has no directory")?;
    let (mut services, mut addresses) = (Vec::new(), Vec::new());
    for _ in 0..seeders {
        let mut seed = command(&dir, &python);
        seed.arg(&script).arg("seed").arg(&torrent).arg(source_dir);
        let service = Service::start(seed, &log)?;
        let port: u16 = service.wait_for(LIMIT, |line| line.parse().ok())?;
        addresses.push(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        services.push(service);
    }
    let how = How::Torrent { python, script, torrent };
    Ok(Contender { name: LIBTORRENT, version: version.trim().to_owned(), addresses, how, _seeders: services })
}

/// From one seeder only, however many there are.
fn tcp_copy(ground: &Ground) -> Result<Contender> {
    let mut send = process::ours(&ground.seed_dir(TCP_COPY)?, helper::SEND);
    send.arg(&ground.source);
    let service = Service::start(send, &ground.log(TCP_COPY))?;
    let address = service.wait_for(LIMIT, |line| line.parse().ok())?;
    Ok(Contender {
        name: TCP_COPY,
        version: TCP_COPY.to_owned(),
        addresses: vec![address],
        how: How::Copy,
        _seeders: vec![service],
    })
}

impl Contender {
    /// Fetches from the first seeders, through relays at these addresses. See [`super::options::HELP`] for what is timed.
    pub(super) fn fetch(&self, ground: &Ground, relays: &[SocketAddr], limit: Duration) -> Result<Fetched> {
        let log = ground.log(&format!("{}-fetch", self.name));
        let ours = || proc::cpu_time(getpid());
        let before = ours()?;
        let usage = process::measure(&mut [self.fetch_command(&ground.out, relays)], &log, limit)?;
        let relay_cpu = ours()?.saturating_sub(before);
        let wall = match &self.how {
            How::Loader { .. } | How::Copy => usage.wall,
            // It knows itself when it began.
            How::Torrent { .. } => last_seconds(&log)?,
        };
        Ok(Fetched { wall, cpu: usage.cpu, relay_cpu })
    }

    fn fetch_command(&self, out: &Path, relays: &[SocketAddr]) -> Command {
        match &self.how {
            How::Copy => {
                let mut receive = process::ours(out, helper::RECEIVE);
                receive.args(relays.iter().take(1).map(SocketAddr::to_string)).arg(FILE);
                receive
            }
            How::Loader { program, manifest, peer_ids } => {
                let mut fetch = command(out, program);
                // Nobody comes back to it beside the relay, as to a node behind a NAT.
                fetch.args(["fetch", "--no-mdns", "--no-listen", "--cache-dir", ".", "--manifest", manifest]);
                for (relay, peer_id) in relays.iter().zip(peer_ids) {
                    fetch.arg("--peer").arg(format!(
                        "/ip4/{}/tcp/{}/p2p/{peer_id}",
                        relay.ip(),
                        relay.port()
                    ));
                }
                fetch
            }
            How::Torrent { python, script, torrent } => {
                let mut fetch = command(out, python);
                fetch.arg(script).arg("fetch").arg(torrent).arg(".");
                fetch.args(relays.iter().map(|relay| relay.port().to_string()));
                fetch
            }
        }
    }

    /// The file that a fetch leaves.
    pub(super) fn output(&self, ground: &Ground) -> PathBuf {
        match &self.how {
            How::Loader { manifest, .. } => ground.out.join("models").join(manifest).join("weights"),
            How::Torrent { .. } | How::Copy => ground.out.join(FILE),
        }
    }
}

/// The last line of what was said, as seconds.
fn last_seconds(log: &Path) -> Result<Duration> {
    let said = fs::read_to_string(log).with_context(|| format!("cannot read {}", log.display()))?;
    let last = said.lines().next_back().unwrap_or_default();
    match last.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()) {
        Some(wall) => Ok(wall),
        None => bail!("a fetch has not said how long it took, but `{last}`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seeder_says_its_port_and_who_it_is() {
        let line = "/ip4/127.0.0.1/tcp/4201/p2p/12D3KooWExample";
        assert_eq!(port_and_peer(line), Some((4201, "12D3KooWExample".to_owned())));
        assert_eq!(port_and_peer("/ip4/127.0.0.1/udp/4201/quic-v1/p2p/12D3KooWExample"), None);
        assert_eq!(port_and_peer("listening"), None);
    }
}
