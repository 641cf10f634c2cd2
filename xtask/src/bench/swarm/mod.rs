//! `cargo xtask bench swarm` and `sharing`: real processes in network namespaces, each with a line of limited speed.

mod crowd;
mod net;
mod sharing;

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use serde_json::Value;

use self::net::{Line, Net};
use super::options::Options;
use super::process::{self, Service};
use super::{blobs, files};
use crate::recipes;

/// The line of a node that fetches, where those of seeders are the limit: a gigabit.
const WIDE: Line = Line { up: 125_000_000, down: 125_000_000 };
/// The fastest line of a seeder.
const FAST: u64 = 20_000_000;
/// A seeder that is up has sent so much: handshakes, and what it holds.
const GREETING_BYTES: u64 = 12 << 10;
const LIMIT: Duration = Duration::from_secs(300);
const SIZE_BYTES: u64 = 512 << 20;

/// Some seeders, and one node that fetches from them.
struct Case {
    name: &'static str,
    seeders: Vec<Seeder>,
}

#[derive(Clone)]
struct Seeder {
    bytes_per_s: u64,
    /// The folder that it serves.
    folder: PathBuf,
    /// It accepts requests, and sends nothing.
    stalls: bool,
}

/// What one fetch took.
struct Run {
    wall: Duration,
    /// All that came over the line, headers included.
    received_bytes: u64,
}

struct Ground {
    loader: PathBuf,
    work: PathBuf,
    source: PathBuf,
    manifest: String,
}

/// `bench swarm`.
pub(crate) fn run(root: &Path, args: &[OsString]) -> Result<()> {
    let sim = recipes::release(root, "sim", "sim")?;
    measured(root, "swarm", args, |ground, shards, options, page| swarm(ground, shards, &sim, options, page))
}

/// `bench sharing`.
pub(crate) fn sharing(root: &Path, args: &[OsString]) -> Result<()> {
    measured(root, "sharing", args, |ground, _, options, page| {
        sharing::measure(ground, options.rounds, options.size_bytes, page)
    })
}

/// Publishes what is fetched, measures, and puts what came of it where it belongs.
fn measured(
    root: &Path,
    name: &str,
    args: &[OsString],
    measure: impl FnOnce(&Ground, &[String], &Options, &mut String) -> Result<()>,
) -> Result<()> {
    let options = Options::parse(args, SIZE_BYTES)?;
    net::require()?;
    let results = options.results(root)?;
    let loader = options.loader(root)?;
    let work = results.join(format!("{name}-work"));
    files::fresh_dir(&work)?;
    let source = work.join("weights");
    files::make_source(&source, options.size_bytes)?;
    let mut ground = Ground { loader, work, source, manifest: String::new() };
    let shards = publish(&mut ground)?;
    let mut page = format!("{} MiB, {} rounds, medians.\n", options.size_bytes >> 20, options.rounds);
    measure(&ground, &shards, &options, &mut page)?;
    files::remove_dir(&ground.work)?;
    files::save(&results.join(format!("{name}.md")), &page)?;
    println!("{page}");
    Ok(())
}

fn swarm(ground: &Ground, shards: &[String], sim: &Path, options: &Options, page: &mut String) -> Result<()> {
    for [plain, hard] in [slow_seeder(ground), stalled_shards(ground, shards)?] {
        let (before, after) =
            (measure(ground, &plain, options.rounds)?, measure(ground, &hard, options.rounds)?);
        report(page, [(&plain, before), (&hard, after)], options.size_bytes);
    }
    crowd::measure(ground, sim, options.rounds, options.size_bytes, page)
}

/// Publishes the source and makes a folder of all its blobs; gives the names of the shards.
fn publish(ground: &mut Ground) -> Result<Vec<String>> {
    let cache = ground.dir("published")?;
    let mut publish = process::command(&cache, &ground.loader);
    publish.arg("publish").arg(&ground.source).args([
        "--no-names",
        "--model-kind",
        "simplenet",
        "--cache-dir",
        ".",
    ]);
    ground.manifest = process::answer(&mut publish, &ground.log("publish"), LIMIT)?.trim().to_owned();
    let shards = blobs::take_apart(&cache, &ground.manifest, &ground.dir("blobs")?)?;
    files::remove_dir(&cache)?;
    Ok(shards)
}

/// Five seeders of everything, equally fast or one of them at a tenth of the others' speed: as fast together.
fn slow_seeder(ground: &Ground) -> [Case; 2] {
    let seeder = |bytes_per_s| Seeder { bytes_per_s, folder: ground.work.join("blobs"), stalls: false };
    let mut slow = vec![seeder(FAST); 4];
    slow.push(seeder(FAST / 10));
    let total: u64 = slow.iter().map(|seeder| seeder.bytes_per_s).sum();
    [
        Case { name: "five equal seeders", seeders: vec![seeder(total / 5); 5] },
        Case { name: "one of five at a tenth of the speed", seeders: slow },
    ]
}

/// A seeder for each shard; all well, or those of four data shards stalled.
fn stalled_shards(ground: &Ground, shards: &[String]) -> Result<[Case; 2]> {
    let mut seeders = Vec::new();
    let others = fs::read_dir(ground.work.join("blobs")).context("the blobs are gone")?;
    let names = others.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let names: Vec<String> = names.collect::<Result<_>>()?;
    for (index, shard) in shards.iter().enumerate() {
        let folder = ground.dir(&format!("shard-{index}"))?;
        for name in names.iter().filter(|name| *name == shard || !shards.contains(name)) {
            fs::hard_link(ground.work.join("blobs").join(name), folder.join(name))
                .with_context(|| format!("cannot link {name}"))?;
        }
        seeders.push(Seeder { bytes_per_s: FAST / 2, folder, stalls: false });
    }
    let mut stalled = seeders.clone();
    for seeder in stalled.iter_mut().take(8).step_by(2) {
        seeder.stalls = true;
    }
    Ok([
        Case { name: "14 seeders of a shard each", seeders },
        Case { name: "four of them, of data shards, stalled", seeders: stalled },
    ])
}

/// Fetches so many times, after one time that does not count.
fn measure(ground: &Ground, case: &Case, rounds: usize) -> Result<Vec<Run>> {
    let lines = case.seeders.iter().map(|seeder| Line { up: seeder.bytes_per_s, ..WIDE });
    let net = Net::new(&[WIDE].into_iter().chain(lines).collect::<Vec<_>>())?;
    let mut steady = Vec::new();
    for (index, seeder) in case.seeders.iter().enumerate().filter(|(_, seeder)| !seeder.stalls) {
        steady.push(serve(ground, &net, index, seeder, &[])?);
    }
    let mut runs = Vec::new();
    for round in 0..=rounds {
        let mut stalling = Vec::new();
        for (index, seeder) in case.seeders.iter().enumerate().filter(|(_, seeder)| seeder.stalls) {
            stalling.push((index + 1, serve(ground, &net, index, seeder, &[])?));
        }
        let addresses: Vec<&str> = steady
            .iter()
            .map(|(_, address)| address.as_str())
            .chain(stalling.iter().map(|(_, (_, address))| address.as_str()))
            .collect();
        let run = thread::scope(|scope| {
            let fetching = scope.spawn(|| fetch(ground, &net, &addresses));
            freeze_when_up(&net, &stalling, || fetching.is_finished())?;
            fetching.join().map_err(|_| anyhow!("a thread has panicked"))?
        })?;
        eprintln!("xtask: {}: round {round}: {:.2} s", case.name, run.wall.as_secs_f64());
        if round > 0 {
            runs.push(run);
        }
    }
    Ok(runs)
}

/// `prefix` is a program with arguments that runs the rest, or nothing.
fn serve(
    ground: &Ground,
    net: &Net,
    index: usize,
    seeder: &Seeder,
    prefix: &[&str],
) -> Result<(Service, String)> {
    let (node, dir) = (index + 1, ground.dir(&format!("seeder-{index}"))?);
    let mut serve = net.command(node, &dir, prefix, &ground.loader);
    let listen = format!("/ip4/{}/tcp/4201", net::address(node));
    serve
        .args(["serve", "--no-mdns", "--cache-dir", ".", "--listen", &listen, "--blob-dir"])
        .arg(&seeder.folder);
    let service = Service::start(serve, &ground.log("serve"))?;
    let address = service.wait_for(LIMIT, |line| line.starts_with("/ip4/").then(|| line.to_owned()))?;
    Ok((service, address))
}

/// Stops each of these seeders as soon as it has said what it holds.
fn freeze_when_up(
    net: &Net,
    seeders: &[(usize, (Service, String))],
    is_over: impl Fn() -> bool,
) -> Result<()> {
    let mut waiting = Vec::new();
    for (node, (service, _)) in seeders {
        waiting.push((*node, service, net.sent_bytes(*node)? + GREETING_BYTES));
    }
    while !waiting.is_empty() && !is_over() {
        let mut still = Vec::new();
        for (node, service, greeted_bytes) in waiting {
            match net.sent_bytes(node)? > greeted_bytes {
                true => service.freeze()?,
                false => still.push((node, service, greeted_bytes)),
            }
        }
        waiting = still;
    }
    Ok(())
}

/// A fetch at a node, into `out`.
fn fetch_command(
    ground: &Ground,
    net: &Net,
    node: usize,
    out: &Path,
    addresses: &[&str],
    prefix: &[&str],
) -> Command {
    let mut fetch = net.command(node, out, prefix, &ground.loader);
    fetch.args([
        "--json",
        "fetch",
        "--no-fsync",
        "--no-mdns",
        "--cache-dir",
        ".",
        "--manifest",
        &ground.manifest,
    ]);
    fetch.args(addresses.iter().flat_map(|address| ["--peer", address]));
    fetch
}

fn fetch(ground: &Ground, net: &Net, addresses: &[&str]) -> Result<Run> {
    let out = ground.work.join("out");
    files::fresh_dir(&out)?;
    let mut fetch = fetch_command(ground, net, 0, &out, addresses, &[]);
    let before = net.received_bytes(0)?;
    let started = Instant::now();
    let answer = process::answer(&mut fetch, &ground.log("fetch"), LIMIT)?;
    let wall = started.elapsed();
    let received_bytes = net.received_bytes(0)? - before;
    ground.require_fetched(&out, &answer)?;
    Ok(Run { wall, received_bytes })
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Two cases beside each other.
fn report(page: &mut String, cases: [(&Case, Vec<Run>); 2], size_bytes: u64) {
    let rows = cases.map(|(case, runs)| {
        let wall = median(runs.iter().map(|run| run.wall.as_secs_f64()).collect());
        let received = median(runs.iter().map(|run| run.received_bytes as f64).collect());
        (case.name, wall, received)
    });
    let (_, plain_wall, plain_received) = rows[0];
    page.push_str("\n| | s | × | received, of the model | over-fetch |\n|---|---|---|---|---|\n");
    for (name, wall, received) in rows {
        let _ = writeln!(
            page,
            "| {name} | {wall:.2} | {:.2} | {:.3} | {:.1} % |",
            wall / plain_wall,
            received / size_bytes as f64,
            100.0 * (received / plain_received - 1.0),
        );
    }
}

impl Ground {
    fn dir(&self, name: &str) -> Result<PathBuf> {
        let dir = self.work.join(name);
        fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        Ok(dir)
    }

    fn log(&self, name: &str) -> PathBuf {
        self.work.join(format!("{name}.log"))
    }

    /// A fetch into `out` has answered: fails when what it names is not the source.
    fn require_fetched(&self, out: &Path, answer: &str) -> Result<()> {
        let answer: Value = serde_json::from_str(answer.lines().last().unwrap_or_default())
            .context("the answer of a fetch is no JSON")?;
        let weights = answer["weights"].as_str().context("a fetch has no weights")?;
        files::require_same(&self.source, &out.join(weights))
    }
}
