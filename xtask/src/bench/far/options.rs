//! What can be said after `cargo xtask bench far`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::contenders::{LIBTORRENT, NAMES, OURS, SIMULATION};
use super::relay::Distance;
use crate::bench::compare::options::{parse_rounds, parse_size};

pub(super) const HELP: &str = "\
Fetch with `loader` and libtorrent over distance, on one machine: through a relay that delays what goes through it by half
the round trip in each direction, and lets through no more than the line. Every combination of the values is a row; in it
both take turns.

  cargo xtask bench far [OPTIONS]

  --rtt 20,60,150      Round trips in milliseconds.
  --line 1,4           Lines in Gbit/s, of the fetching machine, the same both ways; three decimals at most. Headers of TCP
                       and IP do not count.
  --size 64MiB,512MiB  Sizes of the file.
  --seeders 1          How many seeders, all at the same distance, and all behind the one line.
  --window none        The most that is on its way in one connection, such as 4MiB, where Linux ends a TCP window unless
                       told otherwise; `none` is no end.
  --all                Round trips 0,20,60,150, lines 0.2,1,4, sizes 1MiB,64MiB,512MiB,2GiB, seeders 1,4, windows
                       none,4MiB, as far as nothing else is said: three hours and more.
  --rounds 2           How often each of a row fetches. Nobody warms up.
  --only NAME,NAME     Of loader, libtorrent, simulation, and tcp-copy, which is left out unless it is named. The simulation
                       is the planner of this repository in virtual time: without connecting, encryption, disk and CPU
                       time, with one connection, and with one seeder only. A TCP copy from one seeder shows what the
                       relay and the machine can do.
  --loader FILE        This program, in place of the one that is built here.
  --dir DIR            Where files are fetched to, and results are left (target/bench).
  --out FILE.json      Where the results are left instead; the plot and the table beside it, as .svg and .md.

The time of `loader` is that of the whole command, with an empty cache, until the file is on the disk. That of libtorrent
goes from adding the torrent to its last piece being verified and written, without waiting for the disk, without its
interpreter's start and end; it dials half a second after that start. A file that is not the one that was to be fetched,
and bytes that came by another way than the relay, end the recipe. docs/benchmarks.md tells more.
";

/// What to measure, and where.
#[derive(Debug, PartialEq)]
pub(super) struct Options {
    pub(super) round_trips: Vec<Duration>,
    pub(super) lines_bytes_per_s: Vec<u64>,
    pub(super) sizes_bytes: Vec<u64>,
    pub(super) seeders: Vec<usize>,
    pub(super) windows_bytes: Vec<Option<u64>>,
    pub(super) rounds: usize,
    /// By name.
    pub(super) only: Vec<String>,
    /// `None` is built.
    pub(super) loader: Option<PathBuf>,
    /// `None` is the directory of the build.
    pub(super) dir: Option<PathBuf>,
    /// `None` is in that directory.
    pub(super) out: Option<PathBuf>,
}

impl Options {
    pub(super) fn parse(args: &[OsString]) -> Result<Self> {
        let is_all = args.iter().any(|arg| arg == "--all");
        let texts = if is_all {
            ["0,20,60,150", "0.2,1,4", "1MiB,64MiB,512MiB,2GiB", "1,4", "none,4MiB"]
        } else {
            ["20,60,150", "1,4", "64MiB,512MiB", "1", "none"]
        };
        let mut options = Self {
            round_trips: list(texts[0], parse_round_trip)?,
            lines_bytes_per_s: list(texts[1], parse_line)?,
            sizes_bytes: list(texts[2], parse_size)?,
            seeders: list(texts[3], parse_seeders)?,
            windows_bytes: list(texts[4], parse_window)?,
            rounds: 2,
            only: [OURS, LIBTORRENT, SIMULATION].map(str::to_owned).into(),
            loader: None,
            dir: None,
            out: None,
        };
        let mut args = args.iter().filter(|arg| *arg != "--all");
        while let Some(flag) = args.next() {
            let flag = flag.to_string_lossy();
            let value = args.next().with_context(|| format!("{flag} needs a value"));
            let text = value.as_ref().map_or_else(|_| "".into(), |value| value.to_string_lossy());
            match &*flag {
                "--rtt" => options.round_trips = list(&text, parse_round_trip)?,
                "--line" => options.lines_bytes_per_s = list(&text, parse_line)?,
                "--size" => options.sizes_bytes = list(&text, parse_size)?,
                "--seeders" => options.seeders = list(&text, parse_seeders)?,
                "--window" => options.windows_bytes = list(&text, parse_window)?,
                "--rounds" => options.rounds = parse_rounds(&text)?,
                "--only" => options.only = list(&text, parse_name)?,
                "--loader" => options.loader = Some(value?.into()),
                "--dir" => options.dir = Some(value?.into()),
                "--out" => options.out = Some(value?.into()),
                _ => bail!("there is no `{flag}`; see `cargo xtask bench far --help`"),
            }
        }
        Ok(options)
    }

    pub(super) fn wants(&self, name: &str) -> bool {
        self.only.iter().any(|only| only == name)
    }

    /// Every combination that has to do with the line.
    pub(super) fn distances(&self) -> Vec<Distance> {
        let mut distances = Vec::new();
        for window_bytes in self.windows_bytes.iter().copied() {
            for bytes_per_s in self.lines_bytes_per_s.iter().copied() {
                for round_trip in self.round_trips.iter().copied() {
                    distances.push(Distance { round_trip, bytes_per_s, window_bytes });
                }
            }
        }
        distances
    }
}

fn list<T>(text: &str, parse: impl Fn(&str) -> Result<T>) -> Result<Vec<T>> {
    text.split(',').map(parse).collect()
}

fn parse_round_trip(text: &str) -> Result<Duration> {
    let ms = text.parse().ok().filter(|ms| *ms <= 2000);
    let ms = ms.with_context(|| format!("`{text}` is no round trip; write milliseconds from 0 to 2000"))?;
    Ok(Duration::from_millis(ms))
}

/// Gbit/s, to the Mbit/s.
fn parse_line(text: &str) -> Result<u64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let number = |text: &str| text.parse::<u64>().ok().filter(|number| *number <= 1000);
    let mbit = match part.len() {
        0 => number(whole).map(|gbit| gbit * 1000),
        1..=3 => number(whole).zip(number(&format!("{part:0<3}"))).map(|(gbit, mbit)| gbit * 1000 + mbit),
        _ => None,
    };
    let mbit = mbit.filter(|mbit| (1..=100_000).contains(mbit));
    let mbit =
        mbit.with_context(|| format!("`{text}` is no line; write Gbit/s from 0.001 to 100, such as 0.2"))?;
    Ok(mbit * 125_000)
}

fn parse_seeders(text: &str) -> Result<usize> {
    let seeders = text.parse().ok().filter(|seeders| (1..=16).contains(seeders));
    seeders.with_context(|| format!("`{text}` is no number of seeders; write one from 1 to 16"))
}

fn parse_window(text: &str) -> Result<Option<u64>> {
    if text == "none" { Ok(None) } else { parse_size(text).map(Some) }
}

fn parse_name(text: &str) -> Result<String> {
    if !NAMES.contains(&text) {
        bail!("there is no contender `{text}`; there are {}", NAMES.join(", "));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options> {
        Options::parse(&line.split_whitespace().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn every_combination_is_a_row() {
        let options = parse("--rtt 0,150 --line 0.2,4 --window none,4MiB --only loader").unwrap();
        assert_eq!(options.distances().len(), 8);
        let last = Distance {
            round_trip: Duration::from_millis(150),
            bytes_per_s: 500_000_000,
            window_bytes: Some(4 << 20),
        };
        assert_eq!(options.distances()[7], last);
        assert_eq!(options.distances()[0].bytes_per_s, 25_000_000);
        assert!(options.wants("loader") && !options.wants("libtorrent"));
        let default = parse("").unwrap();
        assert!(default.wants("libtorrent") && default.wants("simulation") && !default.wants("tcp-copy"));
        assert_eq!(options.sizes_bytes, [64 << 20, 512 << 20]);
    }

    #[test]
    fn all_is_what_is_not_said_otherwise() {
        let options = parse("--rtt 20 --all --size 1MiB").unwrap();
        assert_eq!((options.round_trips.len(), options.sizes_bytes.len()), (1, 1));
        assert_eq!((options.seeders, options.lines_bytes_per_s.len()), (vec![1, 4], 3));
    }

    #[test]
    fn mistakes_are_told() {
        for (line, told) in [
            ("--rtt 2001", "no round trip"),
            ("--line 0", "no line"),
            ("--line 1.0005", "no line"),
            ("--line .x", "no line"),
            ("--seeders 0", "from 1 to 16"),
            ("--window 4MB", "no size"),
            ("--only curl", "no contender `curl`"),
            ("--out", "needs a value"),
            ("--size", "no size"),
            ("--fast 1", "no `--fast`"),
        ] {
            let error = parse(line).unwrap_err().to_string();
            assert!(error.contains(told), "{line}: {error}");
        }
    }
}
