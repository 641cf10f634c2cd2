//! The folder of four files fetched with what a user would pick instead. Who is not there is left out, with the reason.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::LIMIT;
use crate::bench::compare::contenders::{free_port, rqbit_alone, version};
use crate::bench::process::{self, Service, answer, command};
use crate::bench::{files, helper};
use crate::setup;

/// What the stand-in of the hub calls the folder.
const MODEL: &str = "bench/model";
/// Where `hf` then has it: the stand-in knows one commit.
const SNAPSHOT: &str = "hub/models--bench--model/snapshots/cccccccccccccccccccccccccccccccccccccccc";

/// One that is ready: its seeder runs.
pub(super) struct Other {
    pub(super) name: &'static str,
    pub(super) version: String,
    pub(super) verifies: &'static str,
    /// Run one after the other, in [`Ground::out`].
    fetch: Vec<Command>,
    /// Where the files are then.
    fetched: PathBuf,
    _seeder: Option<Service>,
    /// Until the commands end, and until the files would survive a power cut.
    pub(super) ended: Vec<Duration>,
    pub(super) on_disk: Vec<Duration>,
}

/// Where it happens.
pub(super) struct Ground<'a> {
    /// The repository.
    pub(super) root: &'a Path,
    /// The folder, with nothing but files in it.
    pub(super) source: &'a Path,
    pub(super) size_bytes: u64,
    /// For seeders.
    pub(super) work: PathBuf,
    /// Every fetch begins in this directory, empty.
    pub(super) out: PathBuf,
}

/// All who can take part, and why others cannot.
pub(super) fn start(ground: &Ground<'_>) -> Result<(Vec<Other>, Vec<String>)> {
    files::fresh_dir(&ground.work)?;
    files::fresh_dir(&ground.out)?;
    let (mut others, mut left_out) = (Vec::new(), Vec::new());
    for (name, started) in
        [("hf download", hub(ground)), ("libtorrent", libtorrent(ground)), ("rqbit", rqbit(ground))]
    {
        match started {
            Ok(started) => others.extend(started),
            Err(error) => {
                eprintln!("xtask: leaving out {name}: {error:#}");
                left_out.push(format!("{name}: {error:#}"));
            }
        }
    }
    Ok((others, left_out))
}

/// The interpreter with the packages of these recipes.
fn python(ground: &Ground<'_>) -> Result<PathBuf> {
    let requirements = ground.root.join("xtask/bench/requirements.txt");
    setup::virtual_environment(&ground.root.join("target/bench-venv"), &requirements)
}

/// Twice: as it comes, and with the command that hashes what it has fetched.
fn hub(ground: &Ground<'_>) -> Result<Vec<Other>> {
    let python = python(ground)?;
    let hf = python.with_file_name("hf");
    let ask = ["-c", "import huggingface_hub as hub; print('huggingface_hub', hub.__version__)"];
    let version = version(&python, &ask, "see xtask/bench/requirements.txt")?;
    let mut serve = command(&ground.work, &python);
    serve.arg(ground.root.join("xtask/bench/hub.py")).arg(ground.source);
    let seeder = Service::start(serve, &ground.log("hub"))?;
    let port: u16 = seeder.wait_for(LIMIT, |line| line.parse().ok())?;
    let run = |args: &[&str]| {
        let mut run = command(&ground.out, &hf);
        run.args(args).arg(MODEL).env("HF_ENDPOINT", format!("http://127.0.0.1:{port}"));
        run.env("HF_HOME", &ground.out);
        for setting in ["XET", "UPDATE_CHECK", "TELEMETRY", "PROGRESS_BARS"] {
            run.env(format!("HF_HUB_DISABLE_{setting}"), "1");
        }
        run
    };
    let other = |name, verifies, fetch, seeder| Other {
        name,
        version: version.clone(),
        verifies,
        fetch,
        fetched: ground.out.join(SNAPSHOT),
        _seeder: seeder,
        ended: Vec::new(),
        on_disk: Vec::new(),
    };
    let (download, verify) = (["download"].as_slice(), ["cache", "verify"].as_slice());
    Ok(vec![
        other("hf download", "only the length of each file", vec![run(download)], Some(seeder)),
        other(
            "hf download, then hf cache verify",
            "afterwards, by what the server says",
            vec![run(download), run(verify)],
            None,
        ),
    ])
}

fn libtorrent(ground: &Ground<'_>) -> Result<Vec<Other>> {
    let python = python(ground)?;
    let ask = ["-c", "import libtorrent; print('libtorrent', libtorrent.__version__)"];
    let version = version(&python, &ask, "see xtask/bench/requirements.txt")?;
    let (torrent, log) = (ground.work.join("torrent"), ground.log("libtorrent"));
    let peer = |dir: &Path, mode| {
        let mut peer = command(dir, &python);
        peer.arg(ground.root.join("xtask/bench/libtorrent_peer.py")).arg(mode);
        peer
    };
    answer(peer(&ground.work, "make").arg(ground.source).arg(&torrent), &log, LIMIT)?;
    // A torrent of a folder holds the folder's name.
    let parts = ground.source.parent().zip(ground.source.file_name());
    let (parent, name) = parts.context("the folder is in no other")?;
    let mut seed = peer(&ground.work, "seed");
    seed.arg(&torrent).arg(parent);
    let seeder = Service::start(seed, &log)?;
    let port: u16 = seeder.wait_for(LIMIT, |line| line.parse().ok())?;
    let mut fetch = peer(&ground.out, "fetch");
    fetch.arg(&torrent).arg(".").arg(port.to_string());
    Ok(vec![ground.torrent("libtorrent", version, fetch, seeder, ground.out.join(name))])
}

fn rqbit(ground: &Ground<'_>) -> Result<Vec<Other>> {
    let version = version("rqbit", &["--version"], "`cargo install rqbit --locked`")?;
    let port = free_port()?;
    let mut share = rqbit_alone(&ground.work);
    share.args(["--http-api-listen-addr", "127.0.0.1:0", "--listen-port", &port.to_string()]);
    share.arg("share").arg(ground.source);
    let seeder = Service::start(share, &ground.log("rqbit"))?;
    let magnet = seeder.wait_for(LIMIT, |line| line.find("magnet:").map(|at| line[at..].to_owned()))?;
    let mut fetch = rqbit_alone(&ground.out);
    fetch.args(["download", "--exit-on-finish", "--disable-http-api", "--output-folder", "."]);
    fetch.args(["--initial-peers", &format!("127.0.0.1:{port}"), &magnet]);
    Ok(vec![ground.torrent("rqbit", version, fetch, seeder, ground.out.clone())])
}

impl Ground<'_> {
    fn log(&self, name: &str) -> PathBuf {
        self.work.join(format!("{name}.log"))
    }

    fn torrent(
        &self,
        name: &'static str,
        version: String,
        fetch: Command,
        seeder: Service,
        fetched: PathBuf,
    ) -> Other {
        Other {
            name,
            version,
            verifies: "as it arrives",
            fetch: vec![fetch],
            fetched,
            _seeder: Some(seeder),
            ended: Vec::new(),
            on_disk: Vec::new(),
        }
    }
}

impl Other {
    /// One fetch into an empty directory, with memory that was just used.
    pub(super) fn measure(&mut self, ground: &Ground<'_>, counts: bool) -> Result<()> {
        files::fresh_dir(&ground.out)?;
        let log = ground.log("fetch");
        let mut touch = process::ours(&ground.out, helper::TOUCH);
        answer(touch.arg((ground.size_bytes * 5 / 4).to_string()), &log, LIMIT)?;
        let ended = process::measure(&mut self.fetch, &log, LIMIT)?.wall;
        let started = Instant::now();
        let fetched = self.files(ground)?;
        for (_, file) in &fetched {
            files::make_durable(file)?;
        }
        if counts {
            self.ended.push(ended);
            self.on_disk.push(ended + started.elapsed());
        }
        for (wanted, got) in &fetched {
            files::require_same(wanted, got)?;
        }
        files::fresh_dir(&ground.out)
    }

    /// Each file of the source, and what was fetched of it.
    fn files(&self, ground: &Ground<'_>) -> Result<Vec<(PathBuf, PathBuf)>> {
        let context = || format!("cannot list {}", ground.source.display());
        let entries = fs::read_dir(ground.source).with_context(context)?;
        let pair = |entry: io::Result<fs::DirEntry>| {
            let entry = entry.with_context(context)?;
            Ok((entry.path(), self.fetched.join(entry.file_name())))
        };
        entries.map(pair).collect()
    }
}
