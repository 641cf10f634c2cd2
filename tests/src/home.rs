//! A user with a home directory, who runs `loader`.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

use crate::{Fetched, Killer, Model, Outcome, Process, Tree, soon, tools};

/// A home directory: the cache is at its usual place in it, and there are no settings.
#[derive(Debug)]
pub struct Home {
    dir: TempDir,
}

impl Default for Home {
    fn default() -> Self {
        Self::new()
    }
}

impl Home {
    /// A new one, which is gone when this value is.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    /// A path in it.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A path in the cache.
    pub fn cache(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path(".cache/loader").join(name)
    }

    /// `loader` with these arguments, in this directory, knowing nothing of the caller's environment. It does not look
    /// for peers in the local network: those of other tests are there.
    pub fn command<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Command {
        self.own(Command::new(tools::loader()), args)
    }

    /// The same run by the killer, which ends it in place of a call.
    pub fn command_killed<A: AsRef<OsStr>>(
        &self,
        killer: &Killer,
        at: u64,
        args: impl IntoIterator<Item = A>,
    ) -> Command {
        self.own(killer.command(at, &tools::loader()), args)
    }

    fn own<A: AsRef<OsStr>>(&self, mut command: Command, args: impl IntoIterator<Item = A>) -> Command {
        command
            .env_clear()
            .env("HOME", self.dir.path())
            .env("LOADER_NO_MDNS", "true")
            .current_dir(self.dir.path())
            .args(args);
        command
    }

    /// Starts `loader --json` with these arguments.
    pub fn start<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Process {
        let mut command = self.command(["--json"]);
        command.args(args);
        Process::start(command)
    }

    /// Waits until the partial model in the cache has so many verified bytes.
    ///
    /// # Panics
    /// When that does not come, and when a model is finished.
    pub async fn verifies(&self, bytes: u64) {
        let has = |entry: &Value| entry["verified_bytes"].as_u64().is_some_and(|verified| verified >= bytes);
        let verified = async {
            loop {
                let entries = self.run(["cache", "ls"]).await.expect(0).answers();
                assert!(entries.iter().all(|entry| entry["finished"] == false), "{entries:?}");
                if entries.iter().any(has) {
                    return;
                }
            }
        };
        soon("verified pieces", verified).await;
    }

    /// Runs `loader --json` with these arguments to its end.
    pub async fn run<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Outcome {
        self.start(args).outcome().await
    }

    /// Runs `loader` with these arguments to its end.
    pub async fn plain<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Outcome {
        Process::start(self.command(args)).outcome().await
    }

    /// Runs `loader` with these arguments at a terminal, where these answers are typed at its prompts. All that it writes
    /// there is `stdout`.
    pub async fn at_terminal(&self, answers: &[&str], args: &[&str]) -> Outcome {
        let [interpreter, script] = tools::terminal();
        let mut command = Command::new(interpreter);
        command.env_clear().env("HOME", self.dir.path()).current_dir(self.dir.path());
        command.arg(script).args(answers).arg("--").arg(tools::loader()).args(args);
        Process::start(command).outcome().await
    }

    /// Starts to fetch the model from these peers, by its digest. Looks for others for a second only.
    pub fn start_fetch(&self, model: &Model, peers: &[&str]) -> Process {
        let peers = peers.iter().flat_map(|peer| ["--peer", peer]);
        self.start(["fetch", "--wait", "1s", "--manifest", &model.id].into_iter().chain(peers))
    }

    /// Fetches the model from these peers, by its digest, and compares the weights.
    ///
    /// # Panics
    /// When that fails.
    pub async fn fetch(&self, model: &Model, peers: &[&str]) -> Fetched {
        let fetched = Fetched::of(self.start_fetch(model, peers).outcome().await);
        self.assert_has(model, &fetched);
        fetched
    }

    /// Fails the test unless the fetched file is at its place in this cache, read-only, and the model's weights; or the
    /// fetched folder, with the model's files.
    ///
    /// # Panics
    /// When it is not.
    pub fn assert_has(&self, model: &Model, fetched: &Fetched) {
        assert_eq!(fetched.manifest, model.id);
        assert_eq!(fetched.total_size_bytes, model.weights.len() as u64);
        let dir = self.cache("models").join(&model.id);
        let files = model.manifest.files();
        if files.is_empty() {
            assert_eq!(fetched.path, dir.join("weights"));
            assert!(fetched.path.metadata().unwrap().permissions().readonly());
            assert!(
                std::fs::read(&fetched.path).unwrap() == model.weights,
                "other bytes than were published"
            );
            return;
        }
        assert_eq!(
            fetched.path,
            if files.len() == 1 { dir.join("files").join(files[0].path()) } else { dir.join("files") }
        );
        let bytes = |file: &manifest::ModelFile| {
            let range = file.range();
            model.weights[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()].to_vec()
        };
        let tree = files.iter().map(|file| (file.path().to_string(), bytes(file)));
        Tree(tree.collect()).assert_is(&dir.join("files"));
    }

    /// Fails the test unless nothing of a model is in the cache.
    ///
    /// # Panics
    /// When something is.
    pub fn assert_has_nothing_of(&self, id: &str) {
        for left in [format!("manifests/{id}.json"), format!("models/{id}"), format!("partial/{id}")] {
            assert!(!self.cache(&left).exists(), "{left} is left in the cache");
        }
    }
}
