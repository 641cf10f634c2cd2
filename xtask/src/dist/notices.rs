//! The licences of all that the binary is made of.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

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
        let mut found = licences(&package.dir)?;
        let beside = root.join(format!("deploy/licences/{}.txt", package.name));
        if found.is_empty() && beside.exists() {
            found.push(read(&beside)?);
        }
        let note = match found.is_empty() {
            true if !["MIT", "Apache-2.0"].iter().any(|ours| package.licence.contains(ours)) => {
                bail!(
                    "{title} is {} and has no text of it: put it into {}",
                    package.licence,
                    beside.display()
                )
            }
            true => " (no file in the package: see LICENSE-MIT and LICENSE-APACHE)",
            false => "",
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

#[cfg(test)]
mod tests {
    use super::super::write;
    use super::*;

    #[test]
    fn a_package_without_a_text_needs_one_of_ours_or_one_beside() {
        let root = tempfile::tempdir().unwrap();
        let beside = root.path().join("deploy/licences");
        write(&beside.join("LGPL-2.1.txt"), b"the library's").unwrap();
        let package = |licence: &str| Package {
            name: "a".to_owned(),
            version: "1.0.0".to_owned(),
            licence: licence.to_owned(),
            dir: root.path().to_owned(),
            checksum: Some("00".to_owned()),
        };
        let text = |licence| of(root.path(), &[package(licence)]);
        assert!(text("MIT OR Apache-2.0").unwrap().contains("see LICENSE-MIT"));
        assert!(text("BSD-3-Clause").unwrap_err().to_string().contains("a.txt"));
        write(&beside.join("a.txt"), b"redistribution and use").unwrap();
        assert!(text("BSD-3-Clause").unwrap().contains("a 1.0.0\n"));
    }
}
