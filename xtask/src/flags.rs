//! Flags of recipes whose values are numbers.

use std::ffi::OsString;

use anyhow::{Context as _, Result, bail};

/// The values of these flags, in their order; `None` of one that is not given.
pub(crate) fn numbers<const N: usize>(
    recipe: &str,
    flags: [&str; N],
    args: &[OsString],
) -> Result<[Option<u64>; N]> {
    let (mut values, mut args) = ([None; N], args.iter());
    while let Some(flag) = args.next() {
        let flag = flag.to_string_lossy();
        let Some(at) = flags.iter().position(|known| *known == flag) else {
            bail!("`{recipe}` takes {}, not `{flag}`", flags.join(" and "));
        };
        let value = args.next().with_context(|| format!("{flag} needs a value"))?.to_string_lossy();
        values[at] = Some(value.parse().with_context(|| format!("`{value}` is no number"))?);
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<[Option<u64>; 2]> {
        let args: Vec<_> = line.split_whitespace().map(OsString::from).collect();
        numbers("soak", ["--seconds", "--seed"], &args)
    }

    #[test]
    fn what_is_given_counts_and_mistakes_are_told() {
        assert_eq!(parse("").unwrap(), [None, None]);
        assert_eq!(parse("--seed 7 --seconds 20").unwrap(), [Some(20), Some(7)]);
        for (line, told) in [
            ("--seed x", "no number"),
            ("--seconds", "needs a value"),
            ("--fast 1", "--seconds and --seed, not"),
        ] {
            let error = parse(line).unwrap_err().to_string();
            assert!(error.contains(told), "{line}: {error}");
        }
    }
}
