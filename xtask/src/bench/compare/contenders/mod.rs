//! Those that are compared: how each is started, fetches, and what it leaves.

mod loader;
mod rebuild;
mod rqbit;
mod sendme;
mod tcp_copy;
mod torrent;
mod web;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

pub(crate) use self::rqbit::rqbit_alone;
use crate::bench::process::Service;

/// The names of our own program, as it comes and told not to wait for the disk.
pub(crate) const OURS: &str = "loader";
pub(crate) const OURS_NOT_SYNCED: &str = "loader --no-fsync";

pub(crate) const REBUILDING: &str = "loader, 4 rows nowhere";

/// What `--only` may name.
pub(crate) const NAMES: [&str; 7] = [OURS, "rebuild", "libtorrent", "rqbit", "sendme", "curl", "tcp-copy"];

/// The name of the file that is fetched, wherever it is.
pub(crate) const FILE: &str = "weights";

/// Where everything is.
pub(crate) struct Ground {
    /// The repository.
    pub(crate) root: PathBuf,
    /// Our own program, if it takes part.
    pub(crate) loader: Option<PathBuf>,
    /// The file that is fetched, alone in its directory.
    pub(crate) source: PathBuf,
    /// Seeders have their directories here.
    pub(crate) seeds: PathBuf,
    /// Every fetch begins in this directory, empty.
    pub(crate) out: PathBuf,
    pub(crate) logs: PathBuf,
    /// How long any step may take that handles the whole file.
    pub(crate) limit: Duration,
}

impl Ground {
    /// A directory of its own for a seeder.
    fn seed_dir(&self, name: &str) -> Result<PathBuf> {
        let dir = self.seeds.join(name);
        std::fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        Ok(dir)
    }

    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.logs.join(format!("{name}.log"))
    }
}

/// One that is ready: its seeders run.
pub(crate) struct Contender {
    pub(crate) name: &'static str,
    pub(crate) version: String,
    pub(crate) seeders: Rc<[Service]>,
    /// Run one after the other, in the directory for what is fetched.
    pub(crate) fetch: Vec<Command>,
    /// The file that the fetch leaves.
    pub(crate) output: PathBuf,
    /// Whether the fetch itself ends only when the file would survive a power cut.
    pub(crate) is_durable: bool,
}

/// Starts `seeders` seeders of the one that `--only` calls `name`, which may fetch in several ways. An error is why it
/// cannot take part.
pub(crate) fn start(name: &str, ground: &Ground, seeders: usize) -> Result<Vec<Contender>> {
    match name {
        OURS => loader::start(ground, seeders),
        "rebuild" if seeders > 1 => bail!("it is measured with one seeder"),
        "rebuild" => Ok(vec![rebuild::start(ground)?]),
        "libtorrent" => Ok(vec![torrent::start(ground, seeders)?]),
        "rqbit" => Ok(vec![rqbit::start(ground, seeders)?]),
        _ if seeders > 1 => bail!("it fetches from one source only"),
        "sendme" => Ok(vec![sendme::start(ground)?]),
        "curl" => Ok(vec![web::start(ground)?]),
        _ => Ok(vec![tcp_copy::start(ground)?]),
    }
}

/// What a program says first about its version, without what is in parentheses; or how to get it.
pub(crate) fn version(program: impl AsRef<Path>, flags: &[&str], get_it: &str) -> Result<String> {
    let program = program.as_ref();
    let missing =
        || format!("`{}` is not installed, or does not run; get it with {get_it}", program.display());
    let output = Command::new(program).args(flags).output().with_context(missing)?;
    let said = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    let said = String::from_utf8_lossy(&said);
    let line = said.lines().next().filter(|_| output.status.success()).with_context(missing)?;
    Ok(line.split('(').next().unwrap_or(line).trim().to_owned())
}

/// A port that was free just now, for programs that cannot be told to choose one and say which.
pub(crate) fn free_port() -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("cannot listen")?;
    Ok(listener.local_addr().context("a listener has no address")?.port())
}
