//! How much memory a stretch of work takes at most.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

const INTERVAL: Duration = Duration::from_millis(10);

/// Looks at this process's anonymous memory (`RssAnon`: not the map of the weights) until it is asked for the peak.
pub(super) struct PeakMemory {
    sampler: Option<JoinHandle<()>>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    ended: AtomicBool,
    peak_bytes: AtomicU64,
}

impl PeakMemory {
    pub(super) fn start() -> Self {
        let shared = Arc::new(Shared::default());
        let sampled = Arc::clone(&shared);
        // Without a thread there is no figure, which is all that depends on it.
        let sampler = std::thread::Builder::new().name("memory".to_owned()).spawn(move || {
            while !sampled.ended.load(Ordering::Relaxed) {
                sampled.peak_bytes.fetch_max(anonymous_bytes().unwrap_or(0), Ordering::Relaxed);
                std::thread::park_timeout(INTERVAL);
            }
        });
        Self { sampler: sampler.ok(), shared }
    }

    /// The peak, where the system tells.
    pub(super) fn end(mut self) -> Option<u64> {
        self.shared.ended.store(true, Ordering::Relaxed);
        if let Some(sampler) = self.sampler.take() {
            sampler.thread().unpark();
            sampler.join().ok()?;
        }
        Some(self.shared.peak_bytes.load(Ordering::Relaxed)).filter(|peak| *peak > 0)
    }
}

fn anonymous_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib * 1024)
}
