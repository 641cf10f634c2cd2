//! A fetch of a node from which others fetch meanwhile, beside the same fetch when nobody does.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::net::{self, Line, Net};
use super::{Ground, LIMIT, Seeder, fetch_command, median, serve};
use crate::bench::{files, process};

/// Nodes that fetch from the one that fetches, and can reach nobody else.
const OTHERS: usize = 8;
const FETCHER: usize = 0;
const SEEDER: usize = 1;

/// What limits the fetch.
struct Case {
    name: &'static str,
    line: Line,
    /// What the commands of the fetching node, and of all others, begin with.
    fetcher: &'static [&'static str],
    seeder: &'static [&'static str],
    others: &'static [&'static str],
}

const CASES: [Case; 2] = [
    Case {
        name: "lines of 30 MB/s",
        line: Line { up: 30_000_000, down: 30_000_000 },
        fetcher: &[],
        seeder: &[],
        others: &["nice", "-n", "19"],
    },
    Case {
        name: "its one core",
        line: Line { up: 4_000_000_000, down: 4_000_000_000 },
        fetcher: &["taskset", "-c", "0"],
        seeder: &["taskset", "-c", "1"],
        others: &["taskset", "-c", "1", "nice", "-n", "19"],
    },
];

struct Run {
    wall: Duration,
    /// What the node put on its line, headers included.
    sent_bytes: u64,
}

/// Fetches so many times alone and with others, and writes both down.
pub(super) fn measure(ground: &Ground, rounds: usize, size_bytes: u64, page: &mut String) -> Result<()> {
    page.push_str(
        "\n| the fetch is limited by | others that fetch from it | s | × | it sent, models |\n|---|---|---|---|---|\n",
    );
    for case in &CASES {
        let mut alone_s = f64::NAN;
        for others in [0, OTHERS] {
            let runs = rounds_of(ground, case, others, rounds)?;
            let wall_s = median(runs.iter().map(|run| run.wall.as_secs_f64()).collect());
            let sent = median(runs.iter().map(|run| run.sent_bytes as f64).collect()) / size_bytes as f64;
            if others == 0 {
                alone_s = wall_s;
            }
            let ratio = wall_s / alone_s;
            let _ = writeln!(page, "| {} | {others} | {wall_s:.2} | {ratio:.2} | {sent:.2} |", case.name);
        }
    }
    Ok(())
}

/// Fetches so many times, after one time that does not count.
fn rounds_of(ground: &Ground, case: &Case, others: usize, rounds: usize) -> Result<Vec<Run>> {
    let net = Net::new(&vec![case.line; 2 + others])?;
    for other in 2..2 + others {
        for out_of_reach in (SEEDER..2 + others).filter(|node| *node != other) {
            net.separate(other, out_of_reach)?;
        }
    }
    let everything = Seeder { bytes_per_s: case.line.up, folder: ground.work.join("blobs"), stalls: false };
    let (_seeder, address) = serve(ground, &net, SEEDER - 1, &everything, case.seeder)?;
    let mut runs = Vec::new();
    for round in 0..=rounds {
        let run = once(ground, &net, case, others, &address)?;
        let (wall, sent) = (run.wall.as_secs_f64(), run.sent_bytes >> 20);
        eprintln!("xtask: {}, {others} others: round {round}: {wall:.2} s, sent {sent} MiB", case.name);
        if round > 0 {
            runs.push(run);
        }
    }
    Ok(runs)
}

fn once(ground: &Ground, net: &Net, case: &Case, others: usize, seeder: &str) -> Result<Run> {
    let listen = format!("/ip4/{}/tcp/4201", net::address(FETCHER));
    let mut fetching = Vec::new();
    for other in 2..2 + others {
        let out = ground.work.join(format!("other-{other}"));
        files::fresh_dir(&out)?;
        let command = fetch_command(ground, net, other, &out, &[&listen], case.others);
        fetching.push(process::Service::start(command, &ground.log("others"))?);
    }
    let out = ground.work.join("out");
    files::fresh_dir(&out)?;
    let mut fetch = fetch_command(ground, net, FETCHER, &out, &[seeder], case.fetcher);
    fetch.args(["--listen", &listen]);
    let before = net.sent_bytes(FETCHER)?;
    let started = Instant::now();
    let answer = process::answer(&mut fetch, &ground.log("sharing"), LIMIT)?;
    let wall = started.elapsed();
    let sent_bytes = net.sent_bytes(FETCHER)? - before;
    drop(fetching);
    ground.require_fetched(&out, &answer)?;
    Ok(Run { wall, sent_bytes })
}
