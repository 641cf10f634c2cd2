//! One load: how far it is, who gives what to it, and when which step was done.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use loader::{Event, Report};
use manifest::{Codec, PieceId, SourceId};
use p2p_blob::Transport;

use super::grid::{self, Grid};
use super::numbers::{Arrival, Counts, Scarcity};
use super::swarm::{LoadView, ModelView, Reused, SourceState, SourceView, Steps};

/// Sources that are remembered of one load.
const MAX_SOURCES: usize = 512;
/// The longest reason that is kept of a source that is gone.
const MAX_REASON_CHARS: usize = 200;

/// The state of a load.
#[derive(Debug, Default)]
pub(super) struct Load {
    pub(super) number: u64,
    pub(super) total_size_bytes: Option<u64>,
    pub(super) done_bytes: u64,
    pub(super) grid: Option<Grid>,
    /// Callers that wait for it.
    pub(super) callers: usize,
    pub(super) scarcity: Option<Scarcity>,
    sources: BTreeMap<SourceId, OneSource>,
    model: Option<ModelView>,
    steps: Steps,
    fetched_bytes: u64,
    rebuilt_bytes: u64,
    reused_bytes: u64,
    resumed_bytes: u64,
    wrong_bytes: u64,
    is_starved: bool,
    waits_for_another: bool,
    reused_from: Vec<Reused>,
    error: Option<String>,
}

/// What one source gave.
#[derive(Debug)]
struct OneSource {
    /// Of its cells in the grid.
    cell: u8,
    is_up: bool,
    is_banned: bool,
    transport: Option<Transport>,
    good_bytes: u64,
    wrong_bytes: u64,
    duplicate_bytes: u64,
    pieces: u64,
    reason: Option<String>,
}

impl Load {
    pub(super) fn new(number: u64) -> Self {
        let steps = Steps { began_at: Some(now_s()), ..Steps::default() };
        Self { number, steps, ..Self::default() }
    }

    /// Sources that are connected.
    pub(super) fn up(&self) -> impl Iterator<Item = &SourceId> {
        self.sources.iter().filter(|(_, source)| source.is_up).map(|(id, _)| id)
    }

    /// How many sources are banned.
    pub(super) fn banned(&self) -> usize {
        self.sources.values().filter(|source| source.is_banned).count()
    }

    /// Whether it has ended.
    pub(super) fn is_over(&self) -> bool {
        self.steps.mapped_at.is_some() || self.error.is_some()
    }

    /// Takes an event in, and counts it in all that the node has done. `transport` tells what a source is connected by.
    pub(super) fn on_event(
        &mut self,
        event: &Event<'_>,
        counts: &mut Counts,
        transport: impl Fn(&SourceId) -> Option<Transport>,
    ) {
        match event {
            Event::Manifest { manifest, .. } => {
                self.total_size_bytes = Some(manifest.total_size_bytes());
                self.model = Some(ModelView {
                    kind: manifest.model_kind().to_owned(),
                    size_bytes: manifest.total_size_bytes(),
                    data: manifest.data(),
                    parity: manifest.parity(),
                    data_shards: manifest.data_shard_count(),
                    codec: match manifest.codec() {
                        Codec::Rs => "Reed-Solomon",
                        Codec::Replica => "copies",
                    },
                    piece_size_bytes: manifest.pieces().map(|pieces| pieces.size_bytes),
                    files: manifest.files().len(),
                });
                self.steps.manifest_at.get_or_insert(now_s());
            }
            Event::Wanted { bytes } => self.total_size_bytes = Some(*bytes),
            Event::Filling { offer } => {
                self.grid = Some(Grid::new(offer));
                self.steps.filling_at = Some(now_s());
                self.waits_for_another = false;
            }
            Event::Waiting { .. } => self.waits_for_another = true,
            Event::Resumed { bytes } => {
                self.done_bytes += bytes;
                self.resumed_bytes += bytes;
                counts.resumed_bytes += bytes;
                counts.pieces_resumed += 1;
                self.steps.last_piece_at = Some(now_s());
            }
            Event::Reused { bytes } => {
                self.done_bytes += bytes;
                self.reused_bytes += bytes;
                counts.reused_bytes += bytes;
                counts.pieces_reused += self.grid.as_mut().map_or(0, |grid| grid.look(grid::REUSED));
                self.steps.last_piece_at = Some(now_s());
            }
            Event::PieceFetched { shard, piece, bytes, source } => {
                self.done_bytes += bytes;
                self.fetched_bytes += bytes;
                self.steps.last_piece_at = Some(now_s());
                let (mut cell, mut on) = (grid::OTHER, None);
                if let Some(source) = self.sources.get_mut(*source) {
                    source.good_bytes += bytes;
                    source.pieces += 1;
                    (cell, on) = (source.cell, source.transport);
                }
                counts.pieces_fetched += 1;
                counts.received(on.unwrap_or(Transport::Tcp), Arrival::Good, *bytes);
                if let Some(grid) = &mut self.grid {
                    match piece {
                        Some(piece) => grid.set(PieceId { shard: *shard, piece: *piece }, cell),
                        None => grid.set_shard(*shard, cell),
                    }
                }
            }
            Event::PieceRebuilt { shard, piece, bytes } => {
                self.done_bytes += bytes;
                self.rebuilt_bytes += bytes;
                counts.rebuilt_bytes += bytes;
                counts.pieces_rebuilt += 1;
                self.steps.last_piece_at = Some(now_s());
                if let Some(grid) = &mut self.grid {
                    grid.set(PieceId { shard: *shard, piece: *piece }, grid::REBUILT);
                }
            }
            Event::WrongBytes { source, bytes, .. } => {
                self.wrong_bytes += bytes;
                counts.pieces_wrong += 1;
                let source = self.sources.get_mut(*source);
                let on = source.map(|source| {
                    source.wrong_bytes += bytes;
                    source.transport
                });
                counts.received(on.flatten().unwrap_or(Transport::Tcp), Arrival::Wrong, *bytes);
            }
            Event::Duplicate { source, bytes } => {
                let source = self.sources.get_mut(*source);
                let on = source.map(|source| {
                    source.duplicate_bytes += bytes;
                    source.transport
                });
                counts.received(on.flatten().unwrap_or(Transport::Tcp), Arrival::Duplicate, *bytes);
            }
            Event::ShardWrong { shard } => {
                if let Some(grid) = &mut self.grid {
                    grid.set_shard(*shard, grid::MISSING);
                }
            }
            Event::SourceUp { source } => {
                let on = transport(source);
                if let Some(one) = self.source(source) {
                    (one.is_up, one.reason) = (true, None);
                    one.transport = on.or(one.transport);
                }
            }
            Event::SourceDown { source, reason } => {
                if let Some(one) = self.source(source) {
                    one.is_up = false;
                    one.reason = Some(reason.chars().take(MAX_REASON_CHARS).collect());
                }
            }
            Event::Banned { source } => {
                counts.bans += 1;
                if let Some(one) = self.source(source) {
                    one.is_banned = true;
                }
            }
            Event::Starved { is_starved } => self.is_starved = *is_starved,
            Event::Supply { rarest, needed } => {
                self.scarcity = Some(Scarcity { rarest: *rarest, needed: *needed });
            }
            Event::Worked { verifying, rebuilding } => {
                counts.verifying += *verifying;
                counts.rebuilding += *rebuilding;
            }
            Event::Finishing => self.steps.complete_at = Some(now_s()),
            _ => {}
        }
    }

    /// It has ended.
    pub(super) fn ended(&mut self, result: Result<&Report, String>) {
        match result {
            Ok(report) => {
                self.steps.mapped_at = Some(now_s());
                let reused = |(manifest, bytes): &(manifest::Digest, u64)| Reused {
                    manifest: manifest.to_string(),
                    bytes: *bytes,
                };
                self.reused_from = report.reused_from.iter().map(reused).collect();
            }
            Err(error) => self.error = Some(error),
        }
        if let Some(grid) = &mut self.grid {
            grid.close();
        }
        self.sources.values_mut().for_each(|source| source.is_up = false);
    }

    fn source(&mut self, id: &SourceId) -> Option<&mut OneSource> {
        let count = self.sources.len();
        if count >= MAX_SOURCES && !self.sources.contains_key(id) {
            return None;
        }
        let cell = u8::try_from(count).ok().and_then(|number| number.checked_add(grid::FIRST_SOURCE));
        let new = || OneSource {
            cell: cell.unwrap_or(grid::OTHER),
            is_up: false,
            is_banned: false,
            transport: None,
            good_bytes: 0,
            wrong_bytes: 0,
            duplicate_bytes: 0,
            pieces: 0,
            reason: None,
        };
        Some(self.sources.entry(id.clone()).or_insert_with(new))
    }

    /// For the page. `seen` tells the round trip in milliseconds to a source, and what has come from it.
    pub(super) fn view(
        &self,
        manifest: String,
        seen: impl Fn(&SourceId) -> Option<(Option<f64>, u64)>,
    ) -> LoadView {
        let view = |(id, one): (&SourceId, &OneSource)| {
            let seen = seen(id).filter(|_| one.is_up);
            SourceView {
                name: id.to_string(),
                cell: one.cell,
                state: match one {
                    OneSource { is_banned: true, .. } => SourceState::Banned,
                    OneSource { is_up: true, .. } => SourceState::Connected,
                    _ => SourceState::Gone,
                },
                transport: one.transport.map(Transport::name),
                round_trip_ms: seen.and_then(|(round_trip, _)| round_trip),
                received_bytes: seen.map(|(_, bytes)| bytes),
                good_bytes: one.good_bytes,
                wrong_bytes: one.wrong_bytes,
                duplicate_bytes: one.duplicate_bytes,
                pieces: one.pieces,
                reason: one.reason.clone(),
            }
        };
        LoadView {
            number: self.number,
            manifest,
            total_size_bytes: self.total_size_bytes,
            done_bytes: self.done_bytes.min(self.total_size_bytes.unwrap_or(u64::MAX)),
            fetched_bytes: self.fetched_bytes,
            rebuilt_bytes: self.rebuilt_bytes,
            reused_bytes: self.reused_bytes,
            resumed_bytes: self.resumed_bytes,
            wrong_bytes: self.wrong_bytes,
            is_starved: self.is_starved,
            waits_for_another: self.waits_for_another,
            model: self.model.clone(),
            steps: self.steps.clone(),
            scarcity: self.scarcity,
            sources: self.sources.iter().map(view).collect(),
            reused_from: self.reused_from.clone(),
            error: self.error.clone(),
        }
    }
}

/// Seconds since 1970, going by this machine's clock.
pub(super) fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_count_moves() {
        let (mut load, mut counts) = (Load::new(1), Counts::default());
        let (tcp, quic) = (SourceId::new("tcp"), SourceId::new("quic"));
        let on = |id: &SourceId| (id.as_str() == "quic").then_some(Transport::Quic);
        for source in [&tcp, &quic] {
            for event in [
                Event::SourceUp { source },
                Event::PieceFetched { shard: 0, piece: Some(0), bytes: 2, source },
                Event::WrongBytes { shard: Some(1), source, bytes: 3 },
                Event::Duplicate { source, bytes: 5 },
            ] {
                load.on_event(&event, &mut counts, on);
            }
        }
        for event in [
            Event::PieceRebuilt { shard: 1, piece: 0, bytes: 7 },
            Event::Reused { bytes: 11 },
            Event::Resumed { bytes: 13 },
            Event::Banned { source: &quic },
            Event::Worked { verifying: Duration::from_secs(1), rebuilding: Duration::from_secs(2) },
            Event::Supply { rarest: 9, needed: 10 },
        ] {
            load.on_event(&event, &mut counts, on);
        }
        for transport in Transport::ALL {
            assert_eq!(Arrival::ALL.map(|arrival| counts.received_bytes(transport, arrival)), [2, 3, 5]);
        }
        assert_eq!((counts.pieces_fetched, counts.pieces_wrong, counts.pieces_rebuilt), (2, 2, 1));
        assert_eq!((counts.rebuilt_bytes, counts.reused_bytes, counts.resumed_bytes), (7, 11, 13));
        assert_eq!((counts.pieces_resumed, counts.bans), (1, 1));
        assert_eq!((counts.verifying.as_secs(), counts.rebuilding.as_secs()), (1, 2));
        assert_eq!(load.scarcity, Some(Scarcity { rarest: 9, needed: 10 }));
        assert_eq!((load.up().count(), load.banned(), load.done_bytes), (2, 1, 2 * 2 + 7 + 11 + 13));
    }

    #[test]
    fn what_is_remembered_of_sources_is_bounded() {
        let (mut load, mut counts) = (Load::new(1), Counts::default());
        let reason = "x".repeat(100_000);
        for number in 0..2 * MAX_SOURCES {
            let source = SourceId::new(number.to_string());
            let event = Event::SourceDown { source: &source, reason: &reason };
            load.on_event(&event, &mut counts, |_| None);
        }
        let view = load.view(String::new(), |_| None);
        assert_eq!(view.sources.len(), MAX_SOURCES);
        let longest = view.sources.iter().filter_map(|source| source.reason.as_ref()).map(String::len).max();
        assert_eq!(longest, Some(MAX_REASON_CHARS));
        assert_eq!(view.sources.iter().filter(|source| source.cell != grid::OTHER).count(), 251);
    }
}
