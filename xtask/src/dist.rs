//! `cargo xtask dist`: the archive of a release, the same to the byte for whoever builds the same commit with the same tools.

mod build;
mod notices;
mod packages;
mod sbom;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::tool::{self, C_COMPILER, Tool};

const VERSION: &str = env!("CARGO_PKG_VERSION");
const TAR: Tool = Tool { name: "tar", get_it: "GNU tar: `apt install tar`" };
const GZIP: Tool = Tool { name: "gzip", get_it: "`apt install gzip`" };
const SUMS: Tool = Tool { name: "sha256sum", get_it: "GNU coreutils: `apt install coreutils`" };
const GIT: Tool = Tool { name: "git", get_it: "`apt install git`" };

/// Shells, and where their completions belong.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "share/bash-completion/completions/loader"),
    ("zsh", "share/zsh/site-functions/_loader"),
    ("fish", "share/fish/vendor_completions.d/loader.fish"),
];

/// Files of the repository, and where they belong.
const FILES: [(&str, &str); 5] = [
    ("README.md", "share/doc/loader/README.md"),
    ("CHANGELOG.md", "share/doc/loader/CHANGELOG.md"),
    ("LICENSE-APACHE", "share/doc/loader/LICENSE-APACHE"),
    ("LICENSE-MIT", "share/doc/loader/LICENSE-MIT"),
    ("deploy/systemd/loader.env", "share/doc/loader/loader.env"),
];

/// `cargo xtask dist`: builds the archive into target/dist.
pub(crate) fn run(root: &Path) -> Result<()> {
    let archive = archive(root, "first")?;
    let name = archive.file_name().context("the archive has no name")?;
    let target = root.join("target/dist").join(name);
    copy(&archive, &target)?;
    let sum = sums(&root.join("target/dist"), &[PathBuf::from(name)])?;
    write(&target.with_added_extension("sha256"), sum.as_bytes())?;
    print!("{sum}");
    println!("{}", target.display());
    Ok(())
}

/// Builds the archive twice, from nothing the second time, and compares.
pub(crate) fn check(root: &Path) -> Result<()> {
    let first = archive(root, "first")?;
    remove(&root.join("target/dist/second"))?;
    let second = archive(root, "second")?;
    let read = |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    if read(&first)? != read(&second)? {
        bail!("two builds of one commit differ: compare {} and {}", first.display(), second.display());
    }
    println!("two builds of one commit are equal");
    Ok(())
}

/// The static binary of a release, built in target/dist/NAME.
pub(crate) fn binary(root: &Path, name: &str) -> Result<PathBuf> {
    build::binary(root, &root.join("target/dist").join(name))
}

/// The time of the commit, in seconds: that of all files.
pub(crate) fn commit_time(root: &Path) -> Result<String> {
    let mut git = Command::new("git");
    let time = tool::output(git.current_dir(root).args(["log", "-1", "--format=%ct"]))?;
    Ok(time.trim().to_owned())
}

/// Builds the archive in target/dist/NAME.
fn archive(root: &Path, name: &str) -> Result<PathBuf> {
    tool::require(&[C_COMPILER, TAR, GZIP, SUMS, GIT])?;
    let binary = binary(root, name)?;
    let out = root.join("target/dist").join(name).join("archive");
    let title = format!("loader-{VERSION}-{}", build::TRIPLE);
    let tree = out.join(&title);
    remove(&out)?;
    put(&binary, &tree.join("bin/loader"))?;
    for (from, to) in FILES {
        put(&root.join(from), &tree.join(to))?;
    }
    for unit in list(&root.join("deploy/systemd"))? {
        if unit.extension().is_some_and(|extension| extension == "service") {
            let name = unit.file_name().unwrap_or_default();
            put(&unit, &tree.join("lib/systemd/system").join(name))?;
        }
    }
    let pages = tree.join("share/man/man1");
    fs::create_dir_all(&pages).with_context(|| format!("cannot make {}", pages.display()))?;
    tool::run(Command::new(&binary).arg("man").arg(&pages))?;
    for (shell, to) in COMPLETIONS {
        let script = tool::output(Command::new(&binary).args(["completions", shell]))?;
        write(&tree.join(to), script.as_bytes())?;
    }
    let packages = packages::of_the_binary(root, build::TRIPLE)?;
    write(&tree.join("share/doc/loader/THIRD-PARTY-LICENCES.txt"), notices::of(root, &packages)?.as_bytes())?;
    write(&tree.join("share/doc/loader/sbom.cdx.json"), sbom::of(VERSION, &packages)?.as_bytes())?;
    let mut files = Vec::new();
    walk(&tree, Path::new(""), &mut files)?;
    files.sort();
    write(&tree.join("SHA256SUMS"), sums(&tree, &files)?.as_bytes())?;

    let (tar, archive) = (out.join(format!("{title}.tar")), out.join(format!("{title}.tar.gz")));
    let mut pack = Command::new(TAR.name);
    pack.arg("--create").arg("--file").arg(&tar).arg("--directory").arg(&out);
    pack.args(["--format=gnu", "--sort=name", "--owner=0", "--group=0", "--numeric-owner"]);
    pack.args(["--mode=u=rwX,go=rX", &format!("--mtime=@{}", commit_time(root)?), &title]);
    tool::run(&mut pack)?;
    // Without name and time, which are in its header else.
    tool::run(Command::new(GZIP.name).args(["--no-name", "--best", "--force"]).arg(&tar))?;
    Ok(archive)
}

/// The lines of `sha256sum` for files, told relative to the directory.
fn sums(dir: &Path, files: &[PathBuf]) -> Result<String> {
    tool::output(Command::new(SUMS.name).current_dir(dir).arg("--").args(files))
}

/// All files below `dir`, relative to it.
fn walk(dir: &Path, below: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for path in list(&dir.join(below))? {
        let relative = below.join(path.file_name().unwrap_or_default());
        match path.is_dir() {
            true => walk(dir, &relative, files)?,
            false => files.push(relative),
        }
    }
    Ok(())
}

/// What is in a directory, in order.
fn list(dir: &Path) -> Result<Vec<PathBuf>> {
    let fail = || format!("cannot list {}", dir.display());
    let entries = fs::read_dir(dir).with_context(fail)?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    let mut paths = paths.collect::<Result<Vec<_>, _>>().with_context(fail)?;
    paths.sort();
    Ok(paths)
}

/// Copies a file, its directories made.
pub(crate) fn put(from: &Path, to: &Path) -> Result<()> {
    directory_of(to)?;
    copy(from, to)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    Ok(())
}

/// Writes a file, its directories made.
#[expect(clippy::disallowed_methods, reason = "no file of a cache")]
pub(crate) fn write(to: &Path, bytes: &[u8]) -> Result<()> {
    directory_of(to)?;
    fs::write(to, bytes).with_context(|| format!("cannot write {}", to.display()))
}

fn directory_of(file: &Path) -> Result<()> {
    let dir = file.parent().context("a file has no directory")?;
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))
}

/// Removes a directory, if there is one.
pub(crate) fn remove(dir: &Path) -> Result<()> {
    if !dir.exists() {
        return Ok(());
    }
    fs::remove_dir_all(dir).with_context(|| format!("cannot remove {}", dir.display()))
}
