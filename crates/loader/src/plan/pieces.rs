//! The state of every piece, and what follows from it for shards and stripes.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use manifest::{Cell, Codec, Geometry, PieceId};

use super::SourceKey;

/// Where a piece stands. Whether it was asked of somebody is known to the planner's requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PieceState {
    /// Not here.
    Missing,
    /// Here, in memory: being checked, written or rebuilt.
    Checking,
    /// Written, in a shard that is checked as a whole and is not complete yet.
    Stored,
    /// Written and right.
    Good,
}

/// How much of a shard is still missing, for a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardState {
    /// Index of the shard.
    pub shard: u32,
    /// Pieces that are not verified.
    pub missing_pieces: u32,
    /// All its pieces.
    pub pieces: u32,
}

/// What the failed or passed check of a whole shard says about sources.
#[derive(Debug, Default)]
pub(super) struct ShardVerdict {
    /// The one that must have sent wrong bytes; proven once the shard is right without it.
    pub(super) suspended: Vec<SourceKey>,
    /// Sent wrong bytes, proven.
    pub(super) liars: Vec<SourceKey>,
}

#[derive(Debug)]
pub(super) struct Pieces {
    pub(super) geometry: Geometry,
    indexed: bool,
    states: Vec<PieceState>,
    /// Number of good or padding cells of each stripe.
    known_cells: Vec<u16>,
    /// For each shard, no piece before this one is missing and unasked.
    first_open: Vec<u32>,
    /// For each shard, pieces that are neither stored nor good.
    absent: Vec<u32>,
    /// Pieces of the weights that are not good.
    missing_total: usize,
    /// Pieces in memory.
    checking: usize,
    /// Pieces that may have become possible to rebuild.
    candidates: BTreeSet<PieceId>,
    /// Rebuilding gave wrong bytes for these: it is not tried again.
    no_rebuild: HashSet<PieceId>,
    /// Who sent which wrong bytes for a piece.
    wrong: HashMap<PieceId, Vec<(SourceKey, u64)>>,
    /// Shards whose index is suspect: their pieces are not checked one by one.
    whole: HashSet<u32>,
    /// For shards checked as a whole: who brought pieces (`None`: rebuilt).
    contributors: HashMap<u32, BTreeSet<Option<SourceKey>>>,
    /// For shards checked as a whole: who alone brought wrong ones.
    suspects: HashMap<u32, Vec<SourceKey>>,
    /// Shards that are fetched from one source at a time, to find out who lies.
    solo: HashSet<u32>,
    full_shards: VecDeque<u32>,
    checking_shards: usize,
    /// Pieces of the rebuilds under way, each with the number of its rebuild.
    rebuilding: HashMap<PieceId, u64>,
    rebuilds: HashMap<u64, usize>,
    next_rebuild: u64,
}

impl Pieces {
    pub(super) fn new(geometry: Geometry, indexed: bool) -> Self {
        let manifest = geometry.manifest();
        let shards = manifest.shards().len();
        #[expect(clippy::cast_possible_truncation, reason = "a manifest has at most 65,536 shards")]
        let absent: Vec<u32> = (0..shards as u32).map(|shard| manifest.piece_count(shard)).collect();
        let padding = |cell: &Cell| *cell == Cell::Padding;
        #[expect(clippy::cast_possible_truncation, reason = "a stripe has at most 256 cells")]
        let known_cells = (0..geometry.stripe_count())
            .map(|stripe| geometry.cells(stripe).filter(padding).count() as u16)
            .collect();
        let mut pieces = Self {
            indexed,
            states: vec![PieceState::Missing; geometry.piece_total() as usize],
            known_cells,
            first_open: vec![0; shards],
            absent,
            missing_total: 0,
            checking: 0,
            candidates: BTreeSet::new(),
            no_rebuild: HashSet::new(),
            wrong: HashMap::new(),
            whole: HashSet::new(),
            contributors: HashMap::new(),
            suspects: HashMap::new(),
            solo: HashSet::new(),
            full_shards: VecDeque::new(),
            checking_shards: 0,
            rebuilding: HashMap::new(),
            rebuilds: HashMap::new(),
            next_rebuild: 0,
            geometry,
        };
        pieces.missing_total =
            pieces.needed_shards().map(|shard| pieces.absent[shard as usize] as usize).sum();
        pieces
    }

    /// Data shards that are fetched: not padding only, and the first with their digest.
    pub(super) fn needed_shards(&self) -> impl Iterator<Item = u32> {
        (0..self.geometry.manifest().data_shard_count()).filter(|shard| self.is_needed(*shard))
    }

    fn is_needed(&self, shard: u32) -> bool {
        let first = PieceId { shard, piece: 0 };
        self.geometry.canonical(shard) == shard
            && self.geometry.weights_of(first).is_some_and(|weights| !weights.is_empty())
    }

    pub(super) fn is_indexed(&self, shard: u32) -> bool {
        self.indexed && !self.whole.contains(&shard)
    }

    pub(super) fn is_done(&self) -> bool {
        self.missing_total == 0
    }

    /// Whether nothing is being checked.
    pub(super) fn is_quiet(&self) -> bool {
        self.checking == 0 && self.checking_shards == 0 && self.full_shards.is_empty()
    }

    pub(super) fn state(&self, piece: PieceId) -> PieceState {
        self.states[self.geometry.flat(piece)]
    }

    pub(super) fn is_missing(&self, piece: PieceId) -> bool {
        self.state(piece) == PieceState::Missing
    }

    pub(super) fn is_good(&self, piece: PieceId) -> bool {
        self.state(piece) == PieceState::Good
    }

    pub(super) fn first_open(&self, shard: u32) -> u32 {
        self.first_open[shard as usize]
    }

    /// Whether no piece of the shard is missing and unasked.
    pub(super) fn is_closed(&self, shard: u32) -> bool {
        self.first_open(shard) >= self.geometry.manifest().piece_count(shard)
    }

    /// Whether some piece of the shard is neither stored nor good.
    pub(super) fn has_missing(&self, shard: u32) -> bool {
        self.absent[shard as usize] > 0
    }

    pub(super) fn close_until(&mut self, shard: u32, piece: u32) {
        self.first_open[shard as usize] = piece;
    }

    /// A piece may be missing and unasked again.
    pub(super) fn reopen(&mut self, piece: PieceId) {
        let first = &mut self.first_open[piece.shard as usize];
        *first = (*first).min(piece.piece);
    }

    pub(super) fn missing_shards(&self) -> Vec<ShardState> {
        let manifest = self.geometry.manifest();
        let state = |shard| {
            let pieces = manifest.piece_count(shard);
            let good = |piece: &u32| self.state(PieceId { shard, piece: *piece }) == PieceState::Good;
            #[expect(clippy::cast_possible_truncation, reason = "a count of u32 values")]
            let missing_pieces = pieces - (0..pieces).filter(good).count() as u32;
            ShardState { shard, missing_pieces, pieces }
        };
        self.needed_shards().map(state).filter(|state| state.missing_pieces > 0).collect()
    }

    pub(super) fn arrived(&mut self, piece: PieceId) {
        if self.is_missing(piece) {
            self.set(piece, PieceState::Checking);
        }
    }

    pub(super) fn set_good(&mut self, piece: PieceId) {
        if self.state(piece) == PieceState::Good {
            return;
        }
        self.set(piece, PieceState::Good);
        if self.is_needed(piece.shard) {
            self.missing_total -= 1;
        }
        for (stripe, row) in self.geometry.stripes_of(piece) {
            self.known_cells[stripe] += 1;
            self.find_candidates(stripe, row);
        }
    }

    /// A piece is right: says who sent other bytes for it.
    pub(super) fn proven(&mut self, piece: PieceId, source: Option<SourceKey>) -> Vec<SourceKey> {
        self.set_good(piece);
        let wrong = self.wrong.remove(&piece).unwrap_or_default();
        wrong.into_iter().map(|(liar, _)| liar).filter(|liar| Some(*liar) != source).collect()
    }

    pub(super) fn stored(&mut self, piece: PieceId, source: Option<SourceKey>) {
        self.set(piece, PieceState::Stored);
        self.contributors.entry(piece.shard).or_default().insert(source);
        if self.absent[piece.shard as usize] == 0 {
            self.full_shards.push_back(piece.shard);
        }
    }

    pub(super) fn next_full_shard(&mut self) -> Option<u32> {
        let shard = self.full_shards.pop_front()?;
        self.checking_shards += 1;
        Some(shard)
    }

    /// A piece is wrong. Returns whether that makes the index suspect: two sources sent the same bytes.
    pub(super) fn bad(&mut self, piece: PieceId, source: Option<SourceKey>, fingerprint: u64) -> bool {
        self.set(piece, PieceState::Missing);
        let Some(source) = source else {
            self.no_rebuild.insert(piece);
            return false;
        };
        self.recheck_candidate(piece);
        let wrong = self.wrong.entry(piece).or_default();
        let suspect = wrong.iter().any(|(other, print)| *other != source && *print == fingerprint);
        wrong.push((source, fingerprint));
        if suspect {
            self.wrong.retain(|other, _| other.shard != piece.shard);
            self.whole.insert(piece.shard);
            self.empty_shard(piece.shard);
        }
        suspect
    }

    /// A whole shard was checked.
    pub(super) fn shard_checked(&mut self, shard: u32, good: bool) -> ShardVerdict {
        self.checking_shards = self.checking_shards.saturating_sub(1);
        let contributors = self.contributors.remove(&shard).unwrap_or_default();
        let pieces = 0..self.geometry.manifest().piece_count(shard);
        if good {
            for piece in pieces {
                self.set_good(PieceId { shard, piece });
            }
            self.solo.remove(&shard);
            let mut liars = self.suspects.remove(&shard).unwrap_or_default();
            liars.retain(|liar| !contributors.contains(&Some(*liar)));
            return ShardVerdict { liars, suspended: Vec::new() };
        }
        self.empty_shard(shard);
        let sources: Vec<SourceKey> = contributors.iter().filter_map(|source| *source).collect();
        match sources[..] {
            [] => self.no_rebuild.extend(pieces.map(|piece| PieceId { shard, piece })),
            [source] => {
                self.suspects.entry(shard).or_default().push(source);
                return ShardVerdict { suspended: vec![source], liars: Vec::new() };
            }
            _ => {
                self.solo.insert(shard);
            }
        }
        ShardVerdict::default()
    }

    /// Whether a source may be asked for pieces of this shard while `asked` are being asked.
    pub(super) fn may_join(&self, shard: u32, source: SourceKey, asked: &[SourceKey]) -> bool {
        let alone = |other: &Option<SourceKey>| *other == Some(source);
        !self.solo.contains(&shard)
            || (asked.iter().all(|other| *other == source)
                && self.contributors.get(&shard).is_none_or(|sources| sources.iter().all(alone)))
    }

    pub(super) fn is_solo(&self, shard: u32) -> bool {
        self.solo.contains(&shard)
    }

    pub(super) fn known_cells(&self, stripe: usize) -> u32 {
        u32::from(self.known_cells[stripe])
    }

    pub(super) fn pop_candidate(&mut self) -> Option<PieceId> {
        self.candidates.pop_first()
    }

    pub(super) fn may_rebuild(&self, piece: PieceId) -> bool {
        self.is_missing(piece) && !self.no_rebuild.contains(&piece)
    }

    pub(super) fn start_rebuild(&mut self, pieces: &[PieceId]) {
        self.next_rebuild += 1;
        self.rebuilds.insert(self.next_rebuild, pieces.len());
        for piece in pieces {
            self.set(*piece, PieceState::Checking);
            self.rebuilding.insert(*piece, self.next_rebuild);
        }
    }

    /// A rebuilt piece was checked: returns how many rebuilds are complete with that.
    pub(super) fn rebuilt(&mut self, piece: PieceId) -> usize {
        let Some(rebuild) = self.rebuilding.remove(&piece) else { return 0 };
        let Some(left) = self.rebuilds.get_mut(&rebuild) else { return 0 };
        *left -= 1;
        if *left > 0 {
            return 0;
        }
        self.rebuilds.remove(&rebuild);
        1
    }

    /// Puts a piece that is missing among those to try to rebuild.
    fn recheck_candidate(&mut self, piece: PieceId) {
        if self.is_needed(piece.shard) {
            self.candidates.insert(piece);
        }
    }

    /// A cell of `stripe`, that of `row`, became known: which pieces could it help to rebuild?
    fn find_candidates(&mut self, stripe: usize, row: u32) {
        let data = self.geometry.manifest().data();
        let rows = match self.geometry.manifest().codec() {
            Codec::Rs if self.known_cells(stripe) >= data => 0..data,
            Codec::Replica if row >= data => (row - data) % data..(row - data) % data + 1,
            _ => return,
        };
        let cells: Vec<Cell> = self.geometry.cells(stripe).collect();
        for row in rows {
            if let Cell::Piece { piece, .. } = cells[row as usize]
                && self.is_missing(piece)
            {
                self.candidates.insert(piece);
            }
        }
    }

    /// All pieces of a shard are missing again.
    fn empty_shard(&mut self, shard: u32) {
        for piece in 0..self.geometry.manifest().piece_count(shard) {
            let piece = PieceId { shard, piece };
            self.recheck_candidate(piece);
            match self.state(piece) {
                PieceState::Good => {
                    for (stripe, _) in self.geometry.stripes_of(piece) {
                        self.known_cells[stripe] -= 1;
                    }
                    if self.is_needed(shard) {
                        self.missing_total += 1;
                    }
                    self.set(piece, PieceState::Missing);
                }
                PieceState::Stored => self.set(piece, PieceState::Missing),
                PieceState::Missing | PieceState::Checking => {}
            }
        }
    }

    fn set(&mut self, piece: PieceId, state: PieceState) {
        let flat = self.geometry.flat(piece);
        let old = std::mem::replace(&mut self.states[flat], state);
        let is_absent = |state| matches!(state, PieceState::Missing | PieceState::Checking);
        match (is_absent(old), is_absent(state)) {
            (true, false) => self.absent[piece.shard as usize] -= 1,
            (false, true) => self.absent[piece.shard as usize] += 1,
            _ => {}
        }
        self.checking += usize::from(state == PieceState::Checking);
        self.checking -= usize::from(old == PieceState::Checking);
        if state == PieceState::Missing {
            self.reopen(piece);
        }
    }
}
