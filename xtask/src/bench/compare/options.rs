//! What can be said after `cargo xtask bench compare`.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

use super::contenders::NAMES;

/// What to measure, and where.
#[derive(Debug, PartialEq)]
pub(crate) struct Options {
    pub(crate) size_bytes: u64,
    pub(crate) rounds: usize,
    /// `None` is the directory of the build.
    pub(crate) dir: Option<PathBuf>,
    /// Contenders by name; all when it is empty.
    pub(crate) only: Vec<String>,
    /// Results that are drawn again: nothing is measured.
    pub(crate) redraw: Option<PathBuf>,
}

impl Options {
    pub(crate) fn parse(args: &[OsString]) -> Result<Self> {
        let mut options = Self { size_bytes: 2 << 30, rounds: 5, dir: None, only: Vec::new(), redraw: None };
        let mut args = args.iter();
        while let Some(flag) = args.next() {
            let flag = flag.to_string_lossy();
            let known = ["--size", "--rounds", "--dir", "--only", "--redraw"];
            if !known.contains(&&*flag) {
                bail!("`bench compare` takes {}, not `{flag}`", known.join(", "));
            }
            let value = args.next().with_context(|| format!("{flag} needs a value"))?;
            let text = value.to_string_lossy();
            match &*flag {
                "--size" => options.size_bytes = parse_size(&text)?,
                "--rounds" => options.rounds = parse_rounds(&text)?,
                "--dir" => options.dir = Some(value.into()),
                "--redraw" => options.redraw = Some(value.into()),
                _ => options.only = parse_names(&text)?,
            }
        }
        Ok(options)
    }

    pub(crate) fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == name)
    }
}

pub(crate) fn parse_size(text: &str) -> Result<u64> {
    let units = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];
    let size = units.iter().find_map(|(unit, bytes): &(_, u64)| {
        let number = text.strip_suffix(unit)?.parse::<u64>().ok()?;
        number.checked_mul(*bytes)
    });
    let size = size.filter(|size| *size > 0);
    size.with_context(|| format!("`{text}` is no size; write one such as 512MiB or 2GiB"))
}

pub(crate) fn parse_rounds(text: &str) -> Result<usize> {
    let rounds = text.parse().ok().filter(|rounds| (1..=100).contains(rounds));
    rounds.with_context(|| format!("`{text}` is no number of rounds; write one from 1 to 100"))
}

fn parse_names(text: &str) -> Result<Vec<String>> {
    let names: Vec<String> = text.split(',').map(str::to_owned).collect();
    match names.iter().find(|name| !NAMES.contains(&name.as_str())) {
        Some(unknown) => bail!("there is no contender `{unknown}`; there are {}", NAMES.join(", ")),
        None => Ok(names),
    }
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
        assert_eq!((options.size_bytes, options.rounds), (2 << 30, 5));
        assert!(options.wants("loader") && options.wants("curl"));
        let options = parse("--size 512MiB --rounds 2 --dir /d --only loader,curl").unwrap();
        assert_eq!((options.size_bytes, options.rounds), (512 << 20, 2));
        assert_eq!(options.dir, Some(PathBuf::from("/d")));
        assert!(options.wants("curl") && !options.wants("rqbit"));
    }

    #[test]
    fn mistakes_are_told() {
        for (line, told) in [
            ("--size 2GB", "no size"),
            ("--size 0GiB", "no size"),
            ("--size 99999999999GiB", "no size"),
            ("--rounds 0", "from 1 to 100"),
            ("--only loader,wget", "no contender `wget`"),
            ("--dir", "needs a value"),
            ("--fast", "not `--fast`"),
        ] {
            let error = parse(line).unwrap_err().to_string();
            assert!(error.contains(told), "{line}: {error}");
        }
    }
}
