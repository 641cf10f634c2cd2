//! Seeders in processes of their own, and the folders of blobs they serve.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use manifest::Digest;
use p2p_blob::Multiaddr;
use serde_json::Value;
use store::{BlobReader, Blobs};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// A seeder listens in milliseconds; a loaded machine gets this long.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// How much of a blob is copied at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// A running seeder; it ends with this value.
pub(super) struct Seeder {
    child: Child,
    pub(super) address: Multiaddr,
}

impl Seeder {
    /// A `loader` that serves a folder of blobs. Its own files are in `dir`.
    pub(super) async fn serving(loader: &Path, dir: &Path, folder: &Path, listen: &str) -> Result<Self> {
        // The user's settings are not for the demo.
        let settings = dir.join("loader.toml");
        File::create(&settings).with_context(|| format!("cannot make {}", settings.display()))?;
        let mut command = Command::new(loader);
        command.arg("--json").arg("--config").arg(settings).arg("--cache-dir").arg(dir.join("cache"));
        command.args(["serve", "--no-mdns", "--listen", listen, "--blob-dir"]).arg(folder);
        Self::start(dir, command).await
    }

    /// This program again, as the liar about the shards of a manifest.
    pub(super) async fn lying(dir: &Path, folder: &Path, manifest: Digest, listen: &str) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe().context("cannot find this program")?);
        command
            .args(["liar", "--listen", listen, "--manifest", &manifest.to_string(), "--blob-dir"])
            .arg(folder);
        Self::start(dir, command).await
    }

    /// Waits until it says where it listens.
    async fn start(dir: &Path, mut command: Command) -> Result<Self> {
        let log_path = dir.join("log");
        let log = File::create(&log_path).with_context(|| format!("cannot make {}", log_path.display()))?;
        command.env_clear();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).kill_on_drop(true);
        let mut child = command.spawn().context("cannot start a seeder")?;
        let address = timeout(START_TIMEOUT, address(&mut child)).await.ok().flatten();
        let address = address.ok_or_else(|| {
            let log = fs::read_to_string(&log_path).unwrap_or_default();
            anyhow!("a seeder did not say where it listens; it said: {}", log.trim())
        })?;
        Ok(Self { child, address })
    }

    /// Ends it at once, as a machine that loses its power.
    pub(super) async fn kill(&mut self) -> io::Result<()> {
        self.child.kill().await
    }

    pub(super) fn process_id(&self) -> Option<u32> {
        self.child.id()
    }
}

/// The address in the first line of the child's stdout.
async fn address(child: &mut Child) -> Option<Multiaddr> {
    let mut line = String::new();
    BufReader::new(child.stdout.take()?).read_line(&mut line).await.ok()?;
    let answer: Value = serde_json::from_str(&line).ok()?;
    answer.get("address")?.as_str()?.parse().ok()
}

/// Copies a blob into a folder, as a file named by its digest.
pub(super) fn export(blobs: &Blobs, blob: &Digest, dir: &Path) -> Result<()> {
    let held = blobs.lookup(blob)?.with_context(|| format!("the publisher has lost blob {blob}"))?;
    let path = dir.join(blob.to_string());
    copy(&held, &path).with_context(|| format!("cannot write {}", path.display()))
}

fn copy(held: &BlobReader, path: &Path) -> io::Result<()> {
    let mut file = File::create(path)?;
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut offset = 0;
    while offset < held.size_bytes() {
        let len = usize::try_from(held.size_bytes() - offset).unwrap_or(usize::MAX).min(CHUNK_BYTES);
        held.read_at(offset, &mut chunk[..len])?;
        file.write_all(&chunk[..len])?;
        offset += len as u64;
    }
    Ok(())
}

/// Makes a folder with some of the blobs of another one, without copying their bytes.
pub(super) fn link_some(from: &Path, to: &Path, blobs: &[Digest]) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
    for blob in blobs {
        let (from, to) = (from.join(blob.to_string()), to.join(blob.to_string()));
        fs::hard_link(&from, &to).with_context(|| format!("cannot link {}", to.display()))?;
    }
    Ok(())
}
