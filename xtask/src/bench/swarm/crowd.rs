//! A flash crowd: nodes that begin at the same moment with one seeder, beside a simulation of the same swarm.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use serde_json::Value;

use super::net::{Line, Net};
use super::{Ground, LIMIT, Seeder, fetch_command, serve};
use crate::bench::{files, process};
use crate::tool;

/// Nodes that fetch.
const NODES: usize = 10;
/// What each line carries, in each direction.
const BYTES_PER_S: u64 = 10_000_000;
/// The pieces of the models that are published and simulated.
const PIECE_BYTES: u64 = 1 << 20;

/// What a crowd took.
struct Outcome {
    /// When the last node was done.
    last: Duration,
    /// What the seeder put on its line, headers included.
    seeder_bytes: u64,
}

/// Lets the crowd fetch so many times, simulates it, and writes both down.
pub(super) fn measure(
    ground: &Ground,
    sim: &Path,
    rounds: usize,
    size_bytes: u64,
    page: &mut String,
) -> Result<()> {
    let mut outcomes = Vec::new();
    for round in 1..=rounds {
        let outcome = once(ground)?;
        eprintln!("xtask: ten nodes at once: round {round}: {:.2} s", outcome.last.as_secs_f64());
        outcomes.push(outcome);
    }
    outcomes.sort_by_key(|outcome| outcome.last);
    let median = &outcomes[outcomes.len() / 2];
    let scenario = format!(
        "nodes={NODES},pieces={},seeder={BYTES_PER_S},up={BYTES_PER_S},down={BYTES_PER_S}",
        size_bytes / PIECE_BYTES
    );
    let answer = tool::output(Command::new(sim).arg(&scenario))?;
    let simulated: Value =
        serde_json::from_str(&answer).context("a simulation has not answered with JSON")?;
    let number = |name: &str| {
        simulated[name].as_f64().with_context(|| format!("a simulation has not answered with {name}"))
    };
    let bound_s = size_bytes as f64 / BYTES_PER_S as f64;
    page.push_str("\n| ten nodes at once, 10 MB/s each way | s | × bound | models sent by the seeder |\n|---|---|---|---|\n");
    let mut row = |name: &str, seconds: f64, models: f64| {
        let _ = writeln!(page, "| {name} | {seconds:.2} | {:.2} | {models:.2} |", seconds / bound_s);
    };
    row(
        "real processes, until the last is done",
        median.last.as_secs_f64(),
        median.seeder_bytes as f64 / size_bytes as f64,
    );
    row("simulated, until 99 % are done", number("p99_s")?, number("seeder_models")?);
    Ok(())
}

fn once(ground: &Ground) -> Result<Outcome> {
    let net = Net::new(&[Line { up: BYTES_PER_S, down: BYTES_PER_S }; NODES + 1])?;
    let everything = Seeder { bytes_per_s: BYTES_PER_S, folder: ground.work.join("blobs"), stalls: false };
    // Node 0 fetches everywhere else; here the seeder is the last one.
    let (_seeder, address) = serve(ground, &net, NODES - 1, &everything, &[])?;
    let before = net.sent_bytes(NODES)?;
    let started = Instant::now();
    let done = thread::scope(|scope| {
        let fetch = |node: usize| {
            let out = ground.work.join(format!("crowd-{node}"));
            files::fresh_dir(&out)?;
            let mut fetch = fetch_command(ground, &net, node, &out, &[&address], &[]);
            let answer = process::answer(&mut fetch, &ground.log(&format!("crowd-{node}")), LIMIT)?;
            let took = started.elapsed();
            ground.require_fetched(&out, &answer)?;
            files::remove_dir(&out)?;
            Ok(took)
        };
        let running: Vec<_> = (0..NODES).map(|node| scope.spawn(move || fetch(node))).collect();
        let join = |one: thread::ScopedJoinHandle<'_, Result<Duration>>| {
            one.join().map_err(|_| anyhow!("a thread has panicked"))?
        };
        running.into_iter().map(join).collect::<Result<Vec<Duration>>>()
    })?;
    let last = done.into_iter().max().unwrap_or_default();
    Ok(Outcome { last, seeder_bytes: net.sent_bytes(NODES)? - before })
}
