//! Where it happens: one published model in memory, and one measurement of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::cpus::Placement;
use super::results::{MANY, Run, Series, What};
use crate::bench::proc::kib_field;
use crate::bench::process::{self, Service, answer, command, command_on, ours_on};
use crate::bench::{files, helper};

/// The name of the file that is fetched, wherever it is.
const FILE: &str = "weights";
/// What the file, its published copy with parity, and all caches take, in tenths of the file.
const NEEDED_TENTHS: u64 = 10 + 14 + MANY as u64 * 10 + 6;

pub(super) struct Ground {
    pub(super) loader: PathBuf,
    pub(super) work: PathBuf,
    pub(super) size_bytes: u64,
    pub(super) version: String,
    manifest: String,
}

impl Ground {
    /// Makes the file and publishes it, before `until`.
    pub(super) fn lay_out(loader: PathBuf, work: PathBuf, size_bytes: u64, until: Instant) -> Result<Self> {
        files::fresh_dir(&work)?;
        require_room(&work, size_bytes)?;
        let mut ground = Self { loader, work, size_bytes, version: String::new(), manifest: String::new() };
        let (source, cache) = (ground.dir("source")?, ground.dir("cache")?);
        eprintln!("xtask: making {} MiB that cannot be compressed", size_bytes >> 20);
        files::make_source(&source.join(FILE), size_bytes)?;
        let log = ground.log("publish");
        let version = answer(command(&cache, &ground.loader).arg("--version"), &log, left(until))?;
        version.trim().clone_into(&mut ground.version);
        let mut publish = command(&cache, &ground.loader);
        publish.arg("publish").arg(source.join(FILE));
        publish.args(["--no-names", "--model-kind", "simplenet", "--cache-dir", "."]);
        answer(&mut publish, &log, left(until))?.trim().clone_into(&mut ground.manifest);
        Ok(ground)
    }

    fn dir(&self, name: &str) -> Result<PathBuf> {
        let dir = self.work.join(name);
        fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        Ok(dir)
    }

    fn log(&self, name: &str) -> PathBuf {
        self.work.join(format!("{name}.log"))
    }

    /// Touches as much memory as these fetches take: a virtual machine may have to get it from its host first.
    pub(super) fn touch(&self, series: Series, until: Instant) -> Result<()> {
        files::fresh_dir(&self.work.join("out"))?;
        let bytes = self.size_bytes * 9 / 8 * series.fetches as u64;
        let mut touch = process::ours(&self.work, helper::TOUCH);
        answer(touch.arg(bytes.to_string()), &self.log(helper::TOUCH), left(until)).map(drop)
    }

    /// A seeder of its own, and all fetches at once, each into a directory of its own.
    pub(super) fn measure(&self, placement: &Placement, series: Series, until: Instant) -> Result<Run> {
        files::fresh_dir(&self.work.join("out"))?;
        let seeder = self.start_seeder(placement, series.what, until)?;
        let (mut fetches, mut outputs) = (Vec::new(), Vec::new());
        for index in 0..series.fetches {
            let out = self.dir(&format!("out/{index}"))?;
            let mut fetch = match series.what {
                What::Loader => command_on(&placement.fetching, &out, &self.loader),
                What::TcpCopy => ours_on(&placement.fetching, &out, helper::RECEIVE),
            };
            match series.what {
                What::Loader => {
                    fetch.args(["fetch", "--no-mdns", "--no-listen", "--cache-dir", "."]);
                    fetch.args(["--manifest", &self.manifest, "--peer", &seeder.address]);
                    outputs.push(out.join("models").join(&self.manifest).join(FILE));
                }
                What::TcpCopy => {
                    fetch.args([&seeder.address, FILE]);
                    outputs.push(out.join(FILE));
                }
            }
            fetches.push(fetch);
        }
        let before = seeder.service.cpu()?;
        let usage = process::measure_together(&mut fetches, &self.log("fetch"), left(until))?;
        let seed_cpu = seeder.service.cpu()?.saturating_sub(before);
        // Not compared: `loader` has verified its bytes, and reading all of them again would take longer than the fetch.
        for output in outputs {
            let got = fs::metadata(&output).with_context(|| format!("cannot find {}", output.display()))?;
            if got.len() != self.size_bytes {
                bail!("{} has {} bytes, not {}", output.display(), got.len(), self.size_bytes);
            }
        }
        Ok(Run { wall: usage.wall, fetch_cpu: usage.cpu, seed_cpu })
    }

    fn start_seeder(&self, placement: &Placement, what: What, until: Instant) -> Result<Seeder> {
        let log = self.log("seed");
        let cpus = &placement.seeding;
        let service = match what {
            What::Loader => {
                let mut serve = command_on(cpus, &self.dir("cache")?, &self.loader);
                serve.args(["serve", "--no-mdns", "--cache-dir", ".", "--listen", "/ip4/127.0.0.1/tcp/0"]);
                Service::start(serve, &log)?
            }
            What::TcpCopy => {
                let mut send = ours_on(cpus, &self.work, helper::SEND);
                send.arg(self.work.join("source").join(FILE));
                Service::start(send, &log)?
            }
        };
        let is_address = |line: &str| match what {
            What::Loader => line.starts_with("/ip4/").then(|| line.to_owned()),
            What::TcpCopy => Some(line.to_owned()),
        };
        let address = service.wait_for(left(until), is_address)?;
        Ok(Seeder { service, address })
    }
}

struct Seeder {
    service: Service,
    address: String,
}

fn left(until: Instant) -> Duration {
    until.saturating_duration_since(Instant::now())
}

/// Whoever runs out of memory in the middle is killed without a word.
fn require_room(work: &Path, size_bytes: u64) -> Result<()> {
    let needed = size_bytes / 10 * NEEDED_TENTHS;
    let room =
        rustix::fs::statvfs(work).with_context(|| format!("cannot ask {} for its room", work.display()))?;
    let meminfo = fs::read_to_string("/proc/meminfo").context("cannot read /proc/meminfo")?;
    let memory = kib_field(&meminfo, "MemAvailable").map_or(u64::MAX, |kib| kib << 10);
    for (what, there) in [("room in --dir", room.f_bavail.saturating_mul(room.f_frsize)), ("memory", memory)]
    {
        if there < needed {
            bail!(
                "{} MiB need {} MiB of {what}, and there are {} MiB: say a smaller --size{}",
                size_bytes >> 20,
                needed >> 20,
                there >> 20,
                if what == "memory" { "" } else { ", or another --dir" }
            );
        }
    }
    Ok(())
}
