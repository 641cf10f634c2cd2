//! `cargo xtask kills`: the end-to-end tests of that name, with more kills at random moments.

use std::ffi::OsString;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use crate::{recipes, tool};

/// How many kills at random moments, and from which seed.
#[derive(Debug, PartialEq)]
struct Options {
    kills: u64,
    /// `None` is another one each time.
    seed: Option<u64>,
}

pub(crate) fn run(root: &Path, args: &[OsString]) -> Result<()> {
    let options = Options::parse(args)?;
    tool::require(&[tool::C_COMPILER])?;
    let loader = recipes::build_for_tests(root)?;
    let mut test = tool::cargo(root, &["test"]);
    test.args(["--workspace", "--test", "e2e", "--", "--nocapture", "kills::"])
        .env("LOADER_BIN", loader)
        .env("LOADER_KILLS", options.kills.to_string());
    if let Some(seed) = options.seed {
        test.env("LOADER_KILLS_SEED", seed.to_string());
    }
    tool::run(&mut test)
}

impl Options {
    fn parse(args: &[OsString]) -> Result<Self> {
        let mut options = Self { kills: 200, seed: None };
        let mut args = args.iter();
        while let Some(flag) = args.next() {
            let flag = flag.to_string_lossy();
            let value = args.next().with_context(|| format!("{flag} needs a value"))?.to_string_lossy();
            let number = || value.parse().with_context(|| format!("`{value}` is no number"));
            match &*flag {
                "--kills" => options.kills = number()?,
                "--seed" => options.seed = Some(number()?),
                _ => bail!("`kills` takes --kills and --seed, not `{flag}`"),
            }
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options> {
        Options::parse(&line.split_whitespace().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn all_have_defaults_and_mistakes_are_told() {
        assert_eq!(parse("").unwrap(), Options { kills: 200, seed: None });
        assert_eq!(parse("--seed 7 --kills 20").unwrap(), Options { kills: 20, seed: Some(7) });
        for (line, told) in [("--seed x", "no number"), ("--kills", "needs a value"), ("--fast 1", "--fast")]
        {
            let error = parse(line).unwrap_err().to_string();
            assert!(error.contains(told), "{line}: {error}");
        }
    }
}
