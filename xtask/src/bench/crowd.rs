//! `cargo xtask bench crowd`: many fetches of a small model at once, on one machine. What is measured is what finding
//! each other costs: bytes are few, and lines have no limit.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::compare::results::Spread;
use super::options::Options;
use super::process::{self, Service};
use super::{compare, files};

const FETCHES: usize = 60;
const SIZE_BYTES: u64 = 16 << 20;
const LIMIT: Duration = Duration::from_secs(300);
const FILE: &str = "weights";

/// Whom the fetches may connect to.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Crowd {
    Everybody,
    SeederOnly,
}

impl Crowd {
    fn name(self) -> &'static str {
        match self {
            Self::Everybody => "all find each other",
            Self::SeederOnly => "each asks the seeder only",
        }
    }
}

struct Run {
    wall_s: f64,
    cpu_s: f64,
    /// Of all fetches together.
    dial_failures: usize,
}

struct Ground {
    loader: PathBuf,
    work: PathBuf,
    manifest: String,
}

/// See the module's documentation.
pub(crate) fn run(root: &Path, args: &[OsString]) -> Result<()> {
    let options = Options::parse(args, SIZE_BYTES)?;
    let results = options.results(root)?;
    let work = results.join("crowd-work");
    let ground = Ground::lay_out(options.loader(root)?, work, options.size_bytes)?;
    let crowds = [Crowd::SeederOnly, Crowd::Everybody];
    let mut runs = [Vec::new(), Vec::new()];
    for round in 1..=options.rounds {
        for (crowd, runs) in crowds.iter().zip(&mut runs) {
            let run = ground.measure(*crowd)?;
            eprintln!("xtask: {}: round {round}: {:.2} s", crowd.name(), run.wall_s);
            runs.push(run);
        }
    }
    files::remove_dir(&ground.work)?;
    let machine = compare::machine::Machine::look(root)?;
    let mut page = format!(
        "{machine}. {FETCHES} fetches of {} MiB at once, one seeder, {} rounds. Medians, and the smallest and largest.\n",
        options.size_bytes >> 20,
        options.rounds
    );
    page.push_str(
        "\n| | s until the last is done | × | CPU-s of all fetches | failed dials |\n|---|---|---|---|---|\n",
    );
    let mut floor_s = None;
    for (crowd, runs) in crowds.iter().zip(&runs) {
        let spread =
            |of: &dyn Fn(&Run) -> f64| Spread::of(runs.iter().map(of)).context("nothing was measured");
        let (wall, cpu) = (spread(&|run| run.wall_s)?, spread(&|run| run.cpu_s)?);
        let failures = spread(&|run| run.dial_failures as f64)?;
        let floor_s = *floor_s.get_or_insert(wall.median);
        let _ = writeln!(
            page,
            "| {} | {:.2} ({:.2}–{:.2}) | {:.2} | {:.1} | {:.0} |",
            crowd.name(),
            wall.median,
            wall.min,
            wall.max,
            wall.median / floor_s,
            cpu.median,
            failures.median,
        );
    }
    files::save(&results.join("crowd.md"), &page)?;
    println!("{page}");
    Ok(())
}

impl Ground {
    /// Makes the file and publishes it.
    fn lay_out(loader: PathBuf, work: PathBuf, size_bytes: u64) -> Result<Self> {
        files::fresh_dir(&work)?;
        let mut ground = Self { loader, work, manifest: String::new() };
        let (source, cache) = (ground.dir("source")?, ground.dir("cache")?);
        files::make_source(&source.join(FILE), size_bytes)?;
        let mut publish = process::command(&cache, &ground.loader);
        publish.arg("publish").arg(source.join(FILE)).args([
            "--no-names",
            "--model-kind",
            "simplenet",
            "--cache-dir",
            ".",
        ]);
        process::answer(&mut publish, &ground.log("publish"), LIMIT)?.trim().clone_into(&mut ground.manifest);
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

    /// A seeder of its own, and all fetches at once, each with a cache of its own.
    fn measure(&self, crowd: Crowd) -> Result<Run> {
        files::fresh_dir(&self.work.join("out"))?;
        let log = self.log("fetch");
        File::create(&log).with_context(|| format!("cannot create {}", log.display()))?;
        let mut serve = process::command(&self.dir("cache")?, &self.loader);
        serve.args(["serve", "--no-mdns", "--cache-dir", ".", "--listen", "/ip4/127.0.0.1/tcp/0"]);
        let seeder = Service::start(serve, &self.log("serve"))?;
        let address = seeder.wait_for(LIMIT, |line| line.starts_with("/ip4/").then(|| line.to_owned()))?;
        let (_, id) = address.rsplit_once('/').context("the address of the seeder has no id")?;
        let mut fetches = Vec::new();
        for index in 0..FETCHES {
            let mut fetch = process::command(&self.dir(&format!("out/{index}"))?, &self.loader);
            fetch.env("RUST_LOG", "node=debug").args(["fetch", "--no-mdns", "--cache-dir", ".", "--listen"]);
            fetch.args(["/ip4/127.0.0.1/tcp/0", "--manifest", &self.manifest, "--peer", &address]);
            if crowd == Crowd::SeederOnly {
                fetch.args(["--allow-peer", id]);
            }
            fetches.push(fetch);
        }
        let usage = process::measure_together(&mut fetches, &log, LIMIT)?;
        let said = fs::read_to_string(&log).with_context(|| format!("cannot read {}", log.display()))?;
        for index in 0..FETCHES {
            let got = self.work.join(format!("out/{index}/models")).join(&self.manifest).join(FILE);
            files::require_same(&self.work.join("source").join(FILE), &got)?;
        }
        Ok(Run {
            wall_s: usage.wall.as_secs_f64(),
            cpu_s: usage.cpu.as_secs_f64(),
            dial_failures: said.matches("cannot be reached").count(),
        })
    }
}
