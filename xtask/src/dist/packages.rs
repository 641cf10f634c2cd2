//! The packages that the binary is made of.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::tool;

/// One of them.
#[derive(Debug)]
pub(super) struct Package {
    pub(super) name: String,
    pub(super) version: String,
    /// An SPDX expression.
    pub(super) licence: String,
    /// Where its files are.
    pub(super) dir: PathBuf,
    /// SHA-256 of what the registry has; `None` for our own.
    pub(super) checksum: Option<String>,
}

impl Package {
    pub(super) fn is_ours(&self) -> bool {
        self.checksum.is_none()
    }
}

/// All packages that are compiled into `loader`, by name and version.
pub(super) fn of_the_binary(root: &Path, triple: &str) -> Result<Vec<Package>> {
    let mut tree = tool::cargo(root, &["tree", "--package", "loader-cli", "--edges", "normal"]);
    let tree = tool::output(tree.args(["--prefix", "none", "--format", "{p}", "--target", triple]))?;
    let mut metadata = tool::cargo(root, &["metadata", "--format-version", "1"]);
    let metadata = tool::output(metadata.args(["--filter-platform", triple]))?;
    let metadata: Value = serde_json::from_str(&metadata).context("cargo metadata is not understood")?;
    let lock = fs::read_to_string(root.join("Cargo.lock")).context("cannot read Cargo.lock")?;
    let checksums = checksums(&lock)?;
    let mut known = BTreeMap::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let text = |field: &str| package[field].as_str().map(str::to_owned);
        let (Some(name), Some(version)) = (text("name"), text("version")) else { continue };
        known.insert((name, version), (text("license"), text("manifest_path")));
    }
    let named: BTreeSet<_> = tree.lines().filter_map(named).collect();
    let packages = named.into_iter().map(|(name, version)| {
        let key = (name, version);
        let (licence, manifest) = known.get(&key).with_context(|| format!("cargo does not know {key:?}"))?;
        let manifest = Path::new(manifest.as_deref().unwrap_or_default());
        Ok(Package {
            licence: licence.clone().with_context(|| format!("{key:?} names no licence"))?,
            dir: manifest.parent().with_context(|| format!("{key:?} is nowhere"))?.to_owned(),
            checksum: checksums.get(&key).cloned(),
            name: key.0,
            version: key.1,
        })
    });
    packages.collect()
}

/// Of a line such as `clap v4.6.9` or `node v0.1.0 (/path)`.
fn named(line: &str) -> Option<(String, String)> {
    let mut words = line.split(' ');
    let (name, version) = (words.next()?, words.next()?.strip_prefix('v')?);
    Some((name.to_owned(), version.to_owned()))
}

/// What the lock file says of packages of a registry.
fn checksums(lock: &str) -> Result<BTreeMap<(String, String), String>> {
    let lock: toml::Table = lock.parse().context("Cargo.lock is not understood")?;
    let packages = lock.get("package").and_then(toml::Value::as_array).into_iter().flatten();
    let known = packages.filter_map(|package| {
        let text = |field: &str| package.get(field)?.as_str().map(str::to_owned);
        Some(((text("name")?, text("version")?), text("checksum")?))
    });
    Ok(known.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_read_from_tree_and_lock() {
        assert_eq!(named("clap v4.6.9"), Some(("clap".to_owned(), "4.6.9".to_owned())));
        assert_eq!(named("node v0.1.0 (/anywhere)"), Some(("node".to_owned(), "0.1.0".to_owned())));
        assert_eq!(named(""), None);
        let lock = "[[package]]\nname = \"a\"\nversion = \"1.0.0\"\nchecksum = \"00ff\"\n\n[[package]]\nname = \"b\"\n\
                    version = \"0.1.0\"\n";
        let checksums = checksums(lock).unwrap();
        assert_eq!(
            checksums.into_iter().collect::<Vec<_>>(),
            [(("a".into(), "1.0.0".into()), "00ff".into())]
        );
    }
}
