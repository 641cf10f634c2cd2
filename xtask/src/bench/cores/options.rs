//! What can be said after `cargo xtask bench cores`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::bench::compare::options::{parse_rounds, parse_size};

pub(super) const HELP: &str = "\
Fetch on 1, 2, 4, 8 … cores of this machine, up to all of them, one fetch and eight at once, and say where more cores stop
making it faster. In memory: no disk is waited for. A plain TCP copy on the same cores, which verifies nothing, is the floor.

  cargo xtask bench cores [OPTIONS]

  --loader FILE        This program, in place of the one that is built here. With it nothing else is needed: the binary of
                       these recipes and this one can be carried to another machine (`xtask bench cores --loader FILE`).
  --size 2GiB          Size of the file. Eleven times as much memory is needed, and as much room in --dir.
  --rounds 3           How often everything is measured, as far as there is time. Nobody warms up.
  --seconds-limit 420  Nothing is begun that would not end before; what was measured until then is the result.
  --dir DIR            Where it happens (/dev/shm/loader-cores): in memory, or a disk is measured. Removed at the end.
  --out FILE.json      Where the results are left, after each measurement; the table beside it, as .md
                       (target/bench/cores.json).

Cores are CPUs as the kernel counts them: one of each physical core, and the second threads of them only in rows that are
larger than that. The seeder is pinned to one half of them and all fetches to the other, as if they were two machines; in the
row of one core both share it. Each fetch has a cache of its own, nobody can connect to it, and its seeder was started for
the row: both count their threads by the CPUs they may use. The time goes from the start of the first fetch to the end of
the last, with all bytes verified.
";

/// What to measure, and where.
#[derive(Debug, PartialEq)]
pub(super) struct Options {
    /// `None` is built.
    pub(super) loader: Option<PathBuf>,
    pub(super) size_bytes: u64,
    pub(super) rounds: usize,
    pub(super) limit: Duration,
    pub(super) dir: PathBuf,
    /// `None` is in the directory of the build.
    pub(super) out: Option<PathBuf>,
}

impl Options {
    pub(super) fn parse(args: &[OsString]) -> Result<Self> {
        let mut options = Self {
            loader: None,
            size_bytes: 2 << 30,
            rounds: 3,
            limit: Duration::from_secs(420),
            dir: "/dev/shm/loader-cores".into(),
            out: None,
        };
        let mut args = args.iter();
        while let Some(flag) = args.next() {
            let flag = flag.to_string_lossy();
            let value = args.next().with_context(|| format!("{flag} needs a value"));
            let text = value.as_ref().map_or_else(|_| "".into(), |value| value.to_string_lossy());
            match &*flag {
                "--size" => options.size_bytes = parse_size(&text)?,
                "--rounds" => options.rounds = parse_rounds(&text)?,
                "--seconds-limit" => options.limit = parse_limit(&text)?,
                "--loader" => options.loader = Some(value?.into()),
                "--dir" => options.dir = value?.into(),
                "--out" => options.out = Some(value?.into()),
                _ => bail!("there is no `{flag}`; see `cargo xtask bench cores --help`"),
            }
        }
        Ok(options)
    }
}

fn parse_limit(text: &str) -> Result<Duration> {
    let seconds = text.parse().ok().filter(|seconds| (1..=86_400).contains(seconds));
    let seconds = seconds.with_context(|| format!("`{text}` is no limit; write seconds from 1 to 86400"))?;
    Ok(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options> {
        Options::parse(&line.split_whitespace().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn all_have_defaults_and_can_be_said() {
        let options = parse("").unwrap();
        assert_eq!((options.size_bytes, options.limit), (2 << 30, Duration::from_secs(420)));
        assert!(options.dir.starts_with("/dev/shm") && options.loader.is_none());
        let options =
            parse("--loader l --size 64MiB --rounds 1 --seconds-limit 9 --dir d --out o.json").unwrap();
        assert_eq!((options.size_bytes, options.rounds), (64 << 20, 1));
        assert_eq!((options.loader, options.out), (Some("l".into()), Some("o.json".into())));
        assert_eq!((options.limit, options.dir), (Duration::from_secs(9), "d".into()));
    }

    #[test]
    fn mistakes_are_told() {
        for (line, told) in [
            ("--size 2", "no size"),
            ("--loader", "needs a value"),
            ("--seconds-limit 0", "from 1 to 86400"),
            ("--fast 1", "there is no `--fast`"),
        ] {
            let error = parse(line).unwrap_err().to_string();
            assert!(error.contains(told), "{line}: {error}");
        }
    }
}
