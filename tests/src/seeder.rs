//! Seeders in processes of their own.

use std::ffi::OsStr;

use tempfile::TempDir;

use crate::{Home, Model, Process, TCP};

/// A `loader serve` that serves a folder of blobs. Dropping it kills it.
#[derive(Debug)]
pub struct Seeder {
    process: Process,
    address: String,
    // Gone after the process.
    _home: Home,
    _folder: TempDir,
}

impl Seeder {
    /// Serves the manifest, the piece index and these shards.
    ///
    /// # Panics
    /// When it does not come up.
    pub async fn start(model: &Model, shards: &[usize]) -> Self {
        Self::at(TCP, model, shards).await
    }

    /// The same at an address.
    ///
    /// # Panics
    /// When it does not come up.
    pub async fn at(listen: &str, model: &Model, shards: &[usize]) -> Self {
        Self::with(listen, model, shards, &[]).await
    }

    /// The same with further flags.
    ///
    /// # Panics
    /// When it does not come up.
    pub async fn with(listen: &str, model: &Model, shards: &[usize], flags: &[&str]) -> Self {
        let (home, folder) = (Home::new(), model.folder(shards));
        let serve = ["serve", "--listen", listen, "--blob-dir"].map(OsStr::new);
        let args = serve.into_iter().chain([folder.path().as_os_str()]).chain(flags.iter().map(OsStr::new));
        let mut process = Process::start(home.command(args));
        let address = process.first_line().await;
        Self { process, address, _home: home, _folder: folder }
    }

    /// Where others find it.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Its name in reports.
    ///
    /// # Panics
    /// When its address has none.
    pub fn id(&self) -> &str {
        self.address.rsplit_once("/p2p/").unwrap().1
    }

    /// Ends it at once.
    ///
    /// # Panics
    /// When that fails.
    pub async fn kill(self) {
        self.process.kill().await;
    }
}
