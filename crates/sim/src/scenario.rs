//! What is simulated.

use crate::clock::{MS, Time};

/// A swarm that fetches one model from its first seeder, beginning all at once.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// Nodes that fetch.
    pub nodes: u32,
    /// Decides everything that is random.
    pub seed: u64,
    /// Pieces of the model, of 1 MiB each.
    pub pieces: u64,
    /// What the first seeder can send.
    pub seeder_bytes_per_s: u64,
    /// What each fetcher can send.
    pub upload_bytes_per_s: u64,
    /// What each fetcher can receive.
    pub download_bytes_per_s: u64,
    /// One way between two nodes, at least and at most, in milliseconds.
    pub latency_ms: (u64, u64),
    /// Of a flow, what is sent and has not arrived, at least and at most: it begins with the least.
    pub window_bytes: (u64, u64),
    /// Nodes begin at a random time before this one, in milliseconds.
    pub start_ms: u64,
    /// Sources that a node knows, the first seeder included.
    pub neighbours: u32,
    /// Answers that a server sends at one time at most; by its speed they may be fewer.
    pub places: usize,
    /// How often a node asks its sources what they hold, in milliseconds.
    pub have_interval_ms: u64,
    /// Fetchers that leave at a random time before they could be done, of a hundred.
    pub leaving_percent: u32,
    /// Fetchers that send wrong bytes, of a hundred.
    pub lying_percent: u32,
    /// Fetchers that accept requests and send nothing, of a hundred.
    pub stalled_percent: u32,
    /// Each fetcher reads the weights from their start while they arrive, and wants so many pieces from where it is first; 0:
    /// none in particular.
    pub read_ahead: u32,
}

/// The size of a piece.
pub const PIECE_BYTES: u64 = 1 << 20;

/// What is sent in one go.
pub const CHUNK_BYTES: u64 = 128 << 10;

/// Each answer that is sent gets so much in a second.
const BYTES_PER_PLACE: u64 = 512 << 10;
const MIN_PLACES: usize = 2;
/// Answers that a node sends at one time while it fetches itself.
const PLACES_WHILE_FETCHING: usize = 8;

impl Default for Scenario {
    fn default() -> Self {
        Self {
            nodes: 1000,
            seed: 1,
            pieces: 256,
            seeder_bytes_per_s: 5_000_000,
            upload_bytes_per_s: 5_000_000,
            download_bytes_per_s: 5_000_000,
            latency_ms: (2, 50),
            window_bytes: (128 << 10, 2 << 20),
            start_ms: 1000,
            neighbours: 50,
            places: 128,
            have_interval_ms: 1000,
            leaving_percent: 0,
            lying_percent: 0,
            stalled_percent: 0,
            read_ahead: 0,
        }
    }
}

impl Scenario {
    /// Bytes of the model.
    pub fn model_bytes(&self) -> u64 {
        self.pieces * PIECE_BYTES
    }

    /// The fluid lower bound: the model's size over the smallest of what the seeder sends, what a node receives, and
    /// what all together send per node. In seconds.
    pub fn bound_s(&self) -> f64 {
        let total = self.seeder_bytes_per_s + u64::from(self.nodes) * self.upload_bytes_per_s;
        let per_node = total as f64 / f64::from(self.nodes);
        let slowest = per_node.min(self.seeder_bytes_per_s as f64).min(self.download_bytes_per_s as f64);
        self.model_bytes() as f64 / slowest
    }

    /// How many answers are sent at one time at this speed.
    pub(crate) fn places(&self, bytes_per_s: u64, is_fetching: bool) -> usize {
        let by_speed = usize::try_from(bytes_per_s / BYTES_PER_PLACE).unwrap_or(usize::MAX).max(MIN_PLACES);
        let most = if is_fetching { self.places.min(PLACES_WHILE_FETCHING) } else { self.places };
        most.min(by_speed)
    }

    pub(crate) fn latency(&self, random: &mut fastrand::Rng) -> Time {
        random.u64(self.latency_ms.0 * MS..=self.latency_ms.1 * MS)
    }
}
