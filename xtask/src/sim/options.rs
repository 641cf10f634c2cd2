//! What can be said after `cargo xtask sim`.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

/// Which swarms to simulate, and where to put what came of them.
#[derive(Debug, PartialEq)]
pub(super) struct Options {
    /// Fetchers of each flash crowd.
    pub(super) nodes: Vec<u32>,
    /// Fetchers of the swarms in which something is wrong.
    pub(super) hard_nodes: u32,
    pub(super) seed: u64,
    /// `None` is `docs/simulation`.
    pub(super) dir: Option<PathBuf>,
}

impl Options {
    pub(super) fn parse(args: &[OsString]) -> Result<Self> {
        let mut options = Self { nodes: vec![10, 100, 1000, 5000], hard_nodes: 1000, seed: 1, dir: None };
        let mut args = args.iter();
        while let Some(flag) = args.next() {
            let flag = flag.to_string_lossy();
            let value = args.next().with_context(|| format!("{flag} needs a value"))?;
            let text = value.to_string_lossy();
            match &*flag {
                "--nodes" => {
                    options.nodes = text.split(',').map(parse_nodes).collect::<Result<_>>()?;
                    options.hard_nodes = options.nodes.iter().copied().max().unwrap_or(1).min(1000);
                }
                "--seed" => options.seed = text.parse().with_context(|| format!("`{text}` is no seed"))?,
                "--dir" => options.dir = Some(value.into()),
                _ => bail!("`sim` takes --nodes, --seed and --dir, not `{flag}`"),
            }
        }
        Ok(options)
    }
}

fn parse_nodes(text: &str) -> Result<u32> {
    let nodes = text.parse().ok().filter(|nodes| (1..=100_000).contains(nodes));
    nodes.with_context(|| {
        format!("`{text}` is no number of nodes; write some from 1 to 100000, as in 10,1000")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options> {
        Options::parse(&line.split_whitespace().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn all_have_defaults_and_can_be_said() {
        assert_eq!(parse("").unwrap().nodes, [10, 100, 1000, 5000]);
        let options = parse("--nodes 3,40 --seed 7 --dir /d").unwrap();
        assert_eq!((options.nodes, options.hard_nodes, options.seed), (vec![3, 40], 40, 7));
        assert_eq!(options.dir, Some(PathBuf::from("/d")));
    }

    #[test]
    fn mistakes_are_told() {
        for (line, told) in [
            ("--nodes 0", "no number"),
            ("--seed x", "no seed"),
            ("--dir", "needs a value"),
            ("--fast 1", "--fast"),
        ] {
            let error = parse(line).unwrap_err().to_string();
            assert!(error.contains(told), "{line}: {error}");
        }
    }
}
