//! How a model is fetched.

use std::time::Duration;

use crate::selection::Selection;
use crate::stream::Ahead;

/// The memory for piece buffers while the way to the sources takes no more.
pub(super) const USUAL_MEMORY_BYTES: u64 = 64 << 20;

/// How a model is fetched. The defaults are those of [`FetchOptions::default`].
#[derive(Debug, Clone)]
pub struct FetchOptions {
    pub(super) wait: Duration,
    pub(super) memory_bytes: u64,
    pub(super) threads: usize,
    pub(super) durable: bool,
    pub(super) single_blob_max_bytes: Option<u64>,
    pub(super) files: Selection,
    pub(super) ahead: Ahead,
}

impl Default for FetchOptions {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(8);
        Self {
            wait: Duration::from_secs(30),
            memory_bytes: 256 << 20,
            threads,
            durable: true,
            single_blob_max_bytes: None,
            files: Selection::default(),
            ahead: Ahead::default(),
        }
    }
}

impl FetchOptions {
    /// How long to wait for further sources when none can be asked for what is missing, and for another process that fills
    /// the same model without progress. Default: 30 s.
    #[must_use]
    pub fn with_wait(self, wait: Duration) -> Self {
        Self { wait, ..self }
    }

    /// The most memory for piece buffers. Half of it may be in flight, which bounds the throughput by the bandwidth-delay
    /// product: 64 MiB are 1.7 Gbit/s at 150 ms. More than 64 MiB are used only while what is under way to the sources takes
    /// more. Default: 256 MiB.
    #[must_use]
    pub fn with_memory_bytes(self, memory_bytes: u64) -> Self {
        Self { memory_bytes, ..self }
    }

    /// Threads that hash, write and rebuild, and one more while claims of an earlier run are hashed. Each costs a few MiB of
    /// buffers when it rebuilds. Default: one for each core, at most 8.
    #[must_use]
    pub fn with_threads(self, threads: usize) -> Self {
        Self { threads, ..self }
    }

    /// Whether loading waits until the model is on the disk. If not, a model that was fetched is hashed again when it
    /// is first used by another process. Default: yes; the wait is short, as writing begins with the first pieces.
    #[must_use]
    pub fn with_durable(self, durable: bool) -> Self {
        Self { durable, ..self }
    }

    /// Whether a digest may be that of the weights themselves, of so many bytes at most, as before there were manifests.
    /// They are loaded as a model of one shard. Default: no, a digest is a manifest's.
    #[must_use]
    pub fn with_single_blob_max_bytes(self, single_blob_max_bytes: impl Into<Option<u64>>) -> Self {
        Self { single_blob_max_bytes: single_blob_max_bytes.into(), ..self }
    }

    /// Which files are loaded: the pieces that hold them are fetched, and just they are put in place. Default: all.
    #[must_use]
    pub fn with_files(self, files: Selection) -> Self {
        Self { files, ..self }
    }

    /// What is fetched sooner than the rest, and may change meanwhile: for who reads the model while it arrives. Default:
    /// nothing in particular.
    #[must_use]
    pub fn with_ahead(self, ahead: Ahead) -> Self {
        Self { ahead, ..self }
    }

    /// Threads that hash, write and rebuild.
    pub fn threads(&self) -> usize {
        self.threads
    }
}
