//! The licences of all that the binary is made of.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::list;
use super::packages::Package;

/// How the names of files with licences begin, in capitals.
const NAMES: [&str; 6] = ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE"];

/// What is in the binary and is no package.
const BESIDE: &str = "\
The binary is linked statically with these, too:

  - the Rust standard library: MIT OR Apache-2.0
  - libgcc: GPL-3.0-or-later WITH GCC-exception-3.1
  - the GNU C library (glibc): LGPL-2.1-or-later, below. To link it with another glibc, build it from its source with
    `cargo xtask dist`.
";

/// The text: each package with its licence, and each text of a licence once, with the packages that it is of.
pub(super) fn of(root: &Path, packages: &[Package]) -> Result<String> {
    let mut text = String::from("What the binary `loader` is made of, and under which licences.\n\n");
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in packages.iter().filter(|package| !package.is_ours()) {
        let title = format!("{} {}", package.name, package.version);
        let found = licences(&package.dir)?;
        let note = if found.is_empty() {
            " (no file in the package: see LICENSE-MIT and LICENSE-APACHE)"
        } else {
            ""
        };
        writeln!(text, "  - {title}: {}{note}", package.licence)?;
        for licence in found {
            texts.entry(licence).or_default().push(title.clone());
        }
    }
    write!(text, "\n{BESIDE}")?;
    let lgpl = root.join("deploy/licences/LGPL-2.1.txt");
    texts.entry(read(&lgpl)?).or_default().push("the GNU C library".to_owned());
    let mut texts: Vec<_> = texts.into_iter().collect();
    texts.sort_by(|(a, of_a), (b, of_b)| (of_a, a).cmp(&(of_b, b)));
    for (licence, of) in texts {
        let line = "-".repeat(100);
        write!(text, "\n{line}\n{}\n{line}\n\n{licence}\n", of.join(", "))?;
    }
    Ok(text)
}

/// The texts in a package, in the order of their files' names.
fn licences(dir: &Path) -> Result<Vec<String>> {
    let is_one = |path: &&std::path::PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_uppercase();
        path.is_file() && NAMES.iter().any(|start| name.starts_with(start))
    };
    list(dir)?.iter().filter(is_one).map(|path| read(path)).collect()
}

/// Without the ends of lines in which copies of one text differ.
fn read(path: &Path) -> Result<String> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let text = String::from_utf8_lossy(&bytes);
    Ok(text.trim_matches('\n').lines().map(str::trim_end).collect::<Vec<_>>().join("\n"))
}
