//! Attackers that say that they hold a model, in a process of their own.

use tempfile::TempDir;
use tokio::process::Command;

use crate::{Fetched, Model, Process, Source};

/// Peers with names of their own that attack those who fetch a model. Dropping it ends them.
#[derive(Debug)]
pub struct Liars {
    process: Process,
    addresses: Vec<String>,
    // Gone after the process.
    _folder: TempDir,
}

impl Liars {
    /// So many that do what the attack with this name is. `program` is the attacker; each hub is a node that tells others of
    /// its share of them.
    ///
    /// # Panics
    /// When they do not come up.
    pub async fn start(program: &str, attack: &str, model: &Model, count: usize, hubs: &[String]) -> Self {
        let folder = model.folder(&model.shards_but(&[]));
        let mut command = Command::new(program);
        command.args([attack, &model.id, "127.0.0.1"]).arg(folder.path()).arg(count.to_string()).args(hubs);
        let mut process = Process::start(command);
        let all = |text: &str| addresses(text).count() >= count;
        let addresses = addresses(&process.prints(all).await).map(str::to_owned).collect();
        if !hubs.is_empty() {
            process.prints(|text| lines(text, "told") >= count).await;
        }
        Self { process, addresses, _folder: folder }
    }

    /// Where others find them.
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// Waits until somebody has connected to so many of them.
    ///
    /// # Panics
    /// When nobody does.
    pub async fn connected(&mut self, count: usize) {
        self.process.prints(|text| lines(text, "connected") >= count).await;
    }

    /// Waits until somebody has left so many of them.
    ///
    /// # Panics
    /// When nobody does.
    pub async fn left(&mut self, count: usize) {
        self.process.prints(|text| lines(text, "left") >= count).await;
    }

    /// What those contributed that were sources of a fetch.
    ///
    /// # Panics
    /// When an address has no name.
    pub fn of<'a>(&self, fetched: &'a Fetched) -> Vec<&'a Source> {
        let ids: Vec<&str> = self.addresses.iter().map(|one| one.rsplit_once("/p2p/").unwrap().1).collect();
        fetched.sources.iter().filter(|source| ids.contains(&source.source.as_str())).collect()
    }
}

/// Whole lines that are addresses.
fn addresses(text: &str) -> impl Iterator<Item = &str> {
    text[..text.rfind('\n').unwrap_or(0)].lines().filter(|line| line.starts_with('/'))
}

fn lines(text: &str, like: &str) -> usize {
    text.lines().filter(|line| *line == like).count()
}
