//! The planner in a large swarm: 50 sources that hold some of 50,000 pieces each, and get more. Items are events, with
//! the actions that follow from them. One core: `cargo bench -p planner --bench plan`.
#![expect(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a benchmark of small numbers")]

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use divan::Bencher;
use divan::counter::ItemsCount;
use manifest::{Codec, Digest, Geometry, Manifest, PieceId, PieceSet, Pieces, Shard};
use planner::{Checked, PlanAction, PlanConfig, PlanEvent, Planner, RequestId, SourceKey};

const SOURCES: u32 = 50;
const PIECE_BYTES: u64 = 1 << 20;
const DATA: u32 = 10;

fn main() {
    divan::main();
}

/// All that is asked for arrives a millisecond later, and with each piece a source gets one more.
#[divan::bench(args = [256, 5_000, 50_000], sample_count = 5, sample_size = 1)]
fn fetch_from_50_sources(bencher: Bencher<'_, '_>, pieces: u32) {
    let geometry = geometry(pieces);
    let events = Swarm::new(&geometry).run();
    bencher
        .counter(ItemsCount::new(events))
        .with_inputs(|| Swarm::new(&geometry))
        .bench_local_values(Swarm::run);
}

/// A source says again what it holds, of which a hundredth is new.
#[divan::bench(args = [5_000, 50_000])]
fn hold_more(bencher: Bencher<'_, '_>, pieces: u32) {
    let geometry = geometry(pieces);
    let mut swarm = Swarm::new(&geometry);
    let mut part = 0;
    bencher.bench_local(|| {
        part = (part + 1) % 100;
        let shards = swarm.holdings(|piece| (piece.piece + piece.shard) % 100 <= part);
        swarm.planner.on_event(PlanEvent::Holds { source: SourceKey(7), shards }, swarm.now);
    });
}

struct Swarm {
    planner: Planner,
    now: Instant,
    asked: VecDeque<(RequestId, SourceKey, PieceId)>,
    events: usize,
    random: fastrand::Rng,
}

impl Swarm {
    fn new(geometry: &Geometry) -> Self {
        let now = Instant::now();
        let planner = Planner::new(geometry.clone(), true, PlanConfig::default(), now);
        let random = fastrand::Rng::with_seed(1);
        let mut swarm = Self { planner, now, asked: VecDeque::new(), events: 0, random };
        for source in (0..SOURCES).map(SourceKey) {
            swarm.tell(PlanEvent::Up { source, ranges: true });
            // The first has all; each of the others a part of its own.
            let shards = swarm.holdings(|piece| source.0 == 0 || piece.piece % SOURCES <= source.0 / 2);
            swarm.tell(PlanEvent::Holds { source, shards });
        }
        swarm
    }

    fn holdings(&self, holds: impl Fn(PieceId) -> bool) -> Vec<PieceSet> {
        let manifest = self.planner.geometry().manifest();
        let shards = 0..manifest.shards().len() as u32;
        let holding = |shard| {
            let count = manifest.piece_count(shard);
            let mut held = PieceSet::none(count);
            for piece in (0..count).filter(|piece| holds(PieceId { shard, piece: *piece })) {
                held.insert(piece);
            }
            held
        };
        shards.map(holding).collect()
    }

    fn tell(&mut self, event: PlanEvent) {
        self.events += 1;
        self.planner.on_event(event, self.now);
    }

    /// Returns how many events there were.
    fn run(mut self) -> usize {
        while !self.planner.is_done() {
            while let Some(action) = self.planner.poll_action(self.now) {
                match action {
                    PlanAction::Request { request, source, shard, pieces, .. } => {
                        self.asked.push_back((request, source, PieceId { shard, piece: pieces.start }));
                    }
                    PlanAction::Cancel { request } => self.asked.retain(|(other, _, _)| *other != request),
                    _ => {}
                }
            }
            self.now += Duration::from_millis(1);
            let Some((request, source, piece)) = self.asked.pop_front() else { continue };
            self.events += 1;
            if self.planner.arrived(request, piece, self.now) {
                self.tell(PlanEvent::Checked { piece, source: Some(source), outcome: Checked::Good });
            }
            self.tell(PlanEvent::Ended { request, failure: None });
            let gains = SourceKey(self.random.u32(1..SOURCES));
            self.tell(PlanEvent::Gained { source: gains, pieces: vec![piece] });
        }
        self.events
    }
}

fn geometry(pieces: u32) -> Geometry {
    let total_bytes = u64::from(pieces) * PIECE_BYTES;
    let row_bytes = total_bytes.div_ceil(u64::from(DATA));
    let shard = |index: u32| Shard {
        digest: Digest::of(&index.to_be_bytes()),
        size_bytes: row_bytes,
        is_parity: index >= DATA,
    };
    let shards = (0..DATA + 4).map(shard).collect();
    let pieces = Pieces { size_bytes: PIECE_BYTES as u32, index: Digest::ZERO };
    let kind = "simplenet".to_owned();
    let manifest = Manifest::new(kind, total_bytes, shards, DATA, 4, Codec::Rs, Some(pieces)).unwrap();
    Geometry::new(Arc::new(manifest))
}
