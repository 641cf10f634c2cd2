//! The state of every piece, of shards and of stripes.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use manifest::{Cell, Codec, Geometry, PieceId};

use super::SourceKey;
use super::bits::Bits;
use super::order::Order;
use super::trials::{Trial, Trials};
use super::whole_shards::{Verdict, WholeShards};

/// The state of a piece. Whether it is in flight is known to [`Requests`](super::requests::Requests).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PieceState {
    /// Not here, perhaps in flight.
    Missing,
    /// Here, in memory: being checked, written or rebuilt.
    Checking,
    /// On the disk, recorded by an earlier run or suspect: being hashed before it counts.
    Claimed,
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

#[derive(Debug)]
pub(super) struct Pieces {
    pub(super) geometry: Geometry,
    pub(super) order: Arc<Order>,
    pub(super) whole: WholeShards,
    indexed: bool,
    /// Data shards that are fetched: not padding only, and the first with their digest.
    needed: Vec<u32>,
    states: Vec<PieceState>,
    /// The positions of the pieces that are wanted; `None` when all are.
    pub(super) wanted: Option<Bits>,
    /// The positions of the wanted pieces that are missing.
    pub(super) missing_positions: Bits,
    /// Number of good or padding cells of each stripe.
    known_cells: Vec<u16>,
    /// For each shard, pieces that are neither stored nor good.
    absent: Vec<u32>,
    /// Wanted pieces that are not good.
    pub(super) missing_total: usize,
    /// Pieces in memory.
    checking: usize,
    /// Pieces on the disk that are being hashed.
    claimed: usize,
    /// Pieces that may have become possible to rebuild.
    candidates: BTreeSet<PieceId>,
    /// Parity whose columns may have become complete.
    spent: BTreeSet<PieceId>,
    /// Rebuilding gave wrong bytes for these: not tried again.
    no_rebuild: HashSet<PieceId>,
    /// Pieces that were hashed again since something rebuilt from them was wrong: once is enough.
    rehashed: HashSet<PieceId>,
    /// For each piece, which source sent wrong bytes, with their fingerprint.
    wrong: BTreeMap<PieceId, Vec<(SourceKey, u64)>>,
    /// The shard on trial, and the failed trials.
    pub(super) trials: Trials,
    /// Bytes that were fetched and were wrong.
    wasted_bytes: u64,
    /// Pieces of the rebuilds under way, each with the number of its rebuild.
    rebuilding: HashMap<PieceId, u64>,
    /// For each rebuild under way, how many of its pieces are not checked.
    rebuilds: HashMap<u64, usize>,
    next_rebuild: u64,
}

impl Pieces {
    pub(super) fn new(geometry: Geometry, indexed: bool, seed: u64) -> Self {
        let manifest = geometry.manifest();
        let is_needed = |shard: &u32| {
            let first = PieceId { shard: *shard, piece: 0 };
            geometry.canonical(*shard) == *shard
                && geometry.weights_of(first).is_some_and(|weights| !weights.is_empty())
        };
        let needed: Vec<u32> = (0..manifest.data_shard_count()).filter(is_needed).collect();
        let shards = (0..).zip(manifest.shards());
        let absent: Vec<u32> = shards.map(|(shard, _)| manifest.piece_count(shard)).collect();
        let padding = |cell: &Cell| *cell == Cell::Padding;
        #[expect(clippy::cast_possible_truncation, reason = "a stripe has at most 256 cells")]
        let known_cells = (0..geometry.stripe_count())
            .map(|stripe| geometry.cells(stripe).filter(padding).count() as u16)
            .collect();
        let order = Order::new(&geometry, &needed, indexed, seed);
        let mut missing_positions = Bits::new(order.len());
        (0..order.len()).for_each(|position| missing_positions.insert(position));
        Self {
            order: Arc::new(order),
            whole: WholeShards::default(),
            indexed,
            wanted: None,
            missing_positions,
            states: vec![PieceState::Missing; geometry.piece_total() as usize],
            known_cells,
            missing_total: needed.iter().map(|shard| absent[*shard as usize] as usize).sum(),
            absent,
            checking: 0,
            claimed: 0,
            candidates: BTreeSet::new(),
            spent: BTreeSet::new(),
            no_rebuild: HashSet::new(),
            rehashed: HashSet::new(),
            wrong: BTreeMap::new(),
            trials: Trials::default(),
            wasted_bytes: 0,
            rebuilding: HashMap::new(),
            rebuilds: HashMap::new(),
            next_rebuild: 0,
            needed,
            geometry,
        }
    }

    pub(super) fn needed_shards(&self) -> &[u32] {
        &self.needed
    }

    /// The positions of the wanted pieces that are missing.
    pub(super) fn missing_positions(&self) -> &Bits {
        &self.missing_positions
    }

    fn is_needed(&self, shard: u32) -> bool {
        self.needed.binary_search(&shard).is_ok()
    }

    pub(super) fn is_indexed(&self, shard: u32) -> bool {
        self.indexed && !self.trials.is_on(shard)
    }

    /// Whether a piece is left of a trial that has ended: no check of its shard will come.
    pub(super) fn is_left_of_trial(&self, piece: PieceId, source: Option<SourceKey>) -> bool {
        let is_of = |trial: Trial| trial.shard == piece.shard && Some(trial.source) == source;
        self.indexed && !self.trials.current().is_some_and(is_of)
    }

    /// Whether a shard is to come from one source alone.
    pub(super) fn is_one_source_per_shard(&self, shard: u32) -> bool {
        self.whole.is_one_source_per_shard() && !self.is_indexed(shard) && !self.whole.is_mixed(shard)
    }

    pub(super) fn is_done(&self) -> bool {
        self.missing_total == 0
    }

    /// Whether nothing is being checked or rebuilt.
    pub(super) fn is_quiet(&self) -> bool {
        self.checking == 0 && self.claimed == 0 && self.whole.is_quiet()
    }

    /// Pieces that have arrived and are not checked and written yet.
    pub(super) fn arrived_count(&self) -> usize {
        self.checking - self.rebuilding.len()
    }

    pub(super) fn rebuild_count(&self) -> usize {
        self.rebuilds.len()
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

    /// How many pieces of the shard are neither stored nor good.
    pub(super) fn absent(&self, shard: u32) -> u32 {
        self.absent[shard as usize]
    }

    /// Whether pieces of a shard have come, and not all.
    pub(super) fn is_begun(&self, shard: u32) -> bool {
        let absent = self.absent(shard);
        absent > 0 && absent < self.geometry.manifest().piece_count(shard)
    }

    pub(super) fn missing_shards(&self) -> Vec<ShardState> {
        let manifest = self.geometry.manifest();
        let state = |shard: &u32| {
            let pieces = manifest.piece_count(*shard);
            let is_missing = |piece: &u32| {
                let piece = PieceId { shard: *shard, piece: *piece };
                self.is_wanted(piece) && !self.is_good(piece)
            };
            #[expect(clippy::cast_possible_truncation, reason = "a count of u32 values")]
            let missing_pieces = (0..pieces).filter(is_missing).count() as u32;
            ShardState { shard: *shard, missing_pieces, pieces }
        };
        self.needed.iter().map(state).filter(|state| state.missing_pieces > 0).collect()
    }

    /// Returns whether the piece was missing: then it is being checked now.
    pub(super) fn arrived(&mut self, piece: PieceId, source: SourceKey) -> bool {
        let wanted = self.is_missing(piece);
        if wanted {
            self.set(piece, PieceState::Checking);
            if !self.is_indexed(piece.shard) {
                // At once, or another source could join a shard that is to come from this one alone.
                self.whole.add(piece.shard, Some(source));
            }
        }
        wanted
    }

    pub(super) fn set_good(&mut self, piece: PieceId) {
        if self.is_good(piece) {
            return;
        }
        self.set(piece, PieceState::Good);
        if self.is_wanted(piece) {
            self.missing_total -= 1;
        }
        for (stripe, row) in self.geometry.stripes_of(piece) {
            self.known_cells[stripe] += 1;
            self.find_candidates(stripe, row);
            self.find_spent(stripe);
        }
    }

    /// A piece is right: returns the sources that sent other bytes for it. A rebuilt one convicts nobody, since its inputs
    /// may come from the same source: one bad shard must not cost the only peer.
    pub(super) fn proven(&mut self, piece: PieceId, source: Option<SourceKey>) -> Vec<SourceKey> {
        self.set_good(piece);
        let wrong = self.wrong.remove(&piece).unwrap_or_default();
        if source.is_none() {
            return Vec::new();
        }
        wrong.into_iter().map(|(liar, _)| liar).filter(|liar| Some(*liar) != source).collect()
    }

    pub(super) fn stored(&mut self, piece: PieceId, source: Option<SourceKey>) {
        self.set(piece, PieceState::Stored);
        self.whole.add(piece.shard, source);
        if self.absent(piece.shard) == 0 {
            self.whole.complete(piece.shard);
        }
    }

    /// An earlier run recorded the piece as verified.
    pub(super) fn claim(&mut self, piece: PieceId) {
        if self.is_missing(piece) {
            self.set(piece, PieceState::Claimed);
        }
    }

    /// A claimed piece was hashed.
    pub(super) fn rechecked(&mut self, piece: PieceId, good: bool) {
        match self.state(piece) {
            PieceState::Claimed if good => self.set_good(piece),
            PieceState::Claimed => {
                self.set(piece, PieceState::Missing);
                self.recheck_candidate(piece);
            }
            PieceState::Missing | PieceState::Checking | PieceState::Stored | PieceState::Good => {}
        }
    }

    /// A rebuilt piece is wrong, and missing again. Returns its inputs that were not hashed since, now claimed. When there
    /// are none, it is not rebuilt again.
    pub(super) fn bad_rebuild(&mut self, piece: PieceId) -> Vec<PieceId> {
        self.set(piece, PieceState::Missing);
        let mut inputs = BTreeSet::new();
        for (stripe, _) in self.geometry.stripes_of(piece) {
            inputs.extend(self.geometry.cells(stripe).filter_map(|cell| match cell {
                Cell::Piece { piece, .. } => Some(piece),
                Cell::Padding => None,
            }));
        }
        inputs.retain(|input| self.is_good(*input) && self.is_indexed(input.shard));
        inputs.retain(|input| self.rehashed.insert(*input));
        if inputs.is_empty() {
            self.no_rebuild.insert(piece);
        } else {
            self.recheck_candidate(piece);
        }
        inputs.iter().for_each(|input| self.unset_good(*input, PieceState::Claimed));
        inputs.into_iter().collect()
    }

    /// A piece is wrong, and missing again. Returns whether two sources sent the same bytes.
    pub(super) fn bad(&mut self, piece: PieceId, source: SourceKey, fingerprint: u64) -> bool {
        self.set(piece, PieceState::Missing);
        self.wasted_bytes += self.geometry.piece_bytes(piece);
        self.recheck_candidate(piece);
        let wrong = self.wrong.entry(piece).or_default();
        let is_disputed = wrong.iter().any(|(other, print)| *other != source && *print == fingerprint);
        wrong.push((source, fingerprint));
        is_disputed
    }

    /// A piece of a shard that is now checked as a whole is wrong, and missing again.
    pub(super) fn drop_bad(&mut self, piece: PieceId) {
        self.set(piece, PieceState::Missing);
        self.wasted_bytes += self.geometry.piece_bytes(piece);
    }

    /// Bytes that were fetched and were wrong.
    /// Whether more than half a model was wasted: from then on, unproven sources get little.
    pub(super) fn is_frugal(&self) -> bool {
        2 * self.wasted_bytes > self.geometry.manifest().total_size_bytes()
    }

    /// The pieces of a shard that are missing.
    pub(super) fn missing_of(&self, shard: u32) -> impl Iterator<Item = PieceId> {
        let pieces =
            (0..self.geometry.manifest().piece_count(shard)).map(move |piece| PieceId { shard, piece });
        pieces.filter(|piece| self.is_missing(*piece))
    }

    /// Missing pieces of which somebody sent wrong bytes.
    pub(super) fn disputed(&self) -> impl Iterator<Item = PieceId> {
        self.wrong.keys().filter(|piece| self.is_missing(**piece)).copied()
    }

    /// A shard on trial was checked: it is good, or missing again. Returns the sources that had sent other bytes for it.
    pub(super) fn tried(&mut self, trial: Trial, good: bool) -> Vec<SourceKey> {
        let shard = trial.shard;
        if self.absent(shard) == 0 {
            // The verdict of `whole` is not needed.
            self.whole.checked(shard, true, true);
        }
        self.whole.forget(shard);
        let mut liars = BTreeSet::new();
        for piece in 0..self.geometry.manifest().piece_count(shard) {
            let piece = PieceId { shard, piece };
            if good {
                self.set_good(piece);
                liars.extend(self.wrong.remove(&piece).unwrap_or_default().into_iter().map(|(liar, _)| liar));
            } else if self.state(piece) == PieceState::Stored {
                self.drop_bad(piece);
                self.recheck_candidate(piece);
            }
        }
        liars.remove(&trial.source);
        liars.into_iter().collect()
    }

    /// The index is wrong: shards are checked as a whole from now on.
    pub(super) fn suspect_index(&mut self) {
        self.indexed = false;
        self.wrong.clear();
        self.want_whole_shards();
    }

    /// The missing pieces of which exactly one other source sent wrong bytes: a third opinion tells nothing more.
    pub(super) fn wrong_of_others(&self, source: SourceKey) -> impl Iterator<Item = PieceId> {
        let is_others = move |liars: &[(SourceKey, u64)]| matches!(liars, [(liar, _)] if *liar != source);
        let wrong =
            self.wrong.iter().filter(move |(piece, liars)| self.is_missing(**piece) && is_others(liars));
        wrong.map(|(piece, _)| *piece)
    }

    /// A whole shard was checked.
    pub(super) fn shard_checked(&mut self, shard: u32, good: bool) -> Verdict {
        let pieces = 0..self.geometry.manifest().piece_count(shard);
        let pieces = pieces.map(|piece| PieceId { shard, piece });
        let resumed = pieces.clone().any(|piece| self.is_good(piece));
        let verdict = self.whole.checked(shard, good, resumed);
        if good {
            pieces.for_each(|piece| self.set_good(piece));
            return verdict;
        }
        if verdict == Verdict::Rebuilt {
            self.no_rebuild.extend(pieces);
        }
        self.empty_shard(shard);
        verdict
    }

    /// All pieces of a shard are missing again, but for those in memory.
    pub(super) fn empty_shard(&mut self, shard: u32) {
        self.whole.forget(shard);
        for piece in 0..self.geometry.manifest().piece_count(shard) {
            let piece = PieceId { shard, piece };
            self.recheck_candidate(piece);
            match self.state(piece) {
                PieceState::Good => self.unset_good(piece, PieceState::Missing),
                PieceState::Stored => self.set(piece, PieceState::Missing),
                PieceState::Missing | PieceState::Checking | PieceState::Claimed => {}
            }
        }
    }

    /// A good piece counts as `state` again.
    fn unset_good(&mut self, piece: PieceId, state: PieceState) {
        for (stripe, _) in self.geometry.stripes_of(piece) {
            self.known_cells[stripe] -= 1;
        }
        if self.is_wanted(piece) {
            self.missing_total += 1;
        }
        self.set(piece, state);
    }

    pub(super) fn known_cells(&self, stripe: usize) -> u32 {
        u32::from(self.known_cells[stripe])
    }

    pub(super) fn pop_candidate(&mut self) -> Option<PieceId> {
        self.candidates.pop_first()
    }

    /// Whether a piece would be rebuilt, if enough were there.
    pub(super) fn may_rebuild(&self, piece: PieceId) -> bool {
        self.is_missing(piece) && !self.no_rebuild.contains(&piece) && !self.trials.is_on(piece.shard)
    }

    pub(super) fn start_rebuild(&mut self, pieces: &[PieceId]) {
        self.next_rebuild += 1;
        self.rebuilds.insert(self.next_rebuild, pieces.len());
        for piece in pieces {
            self.set(*piece, PieceState::Checking);
            self.rebuilding.insert(*piece, self.next_rebuild);
        }
    }

    /// A rebuilt piece was checked.
    pub(super) fn rebuilt(&mut self, piece: PieceId) {
        let Some(rebuild) = self.rebuilding.remove(&piece) else { return };
        let Some(left) = self.rebuilds.get_mut(&rebuild) else { return };
        *left -= 1;
        if *left == 0 {
            self.rebuilds.remove(&rebuild);
        }
    }

    /// Puts a piece among those to try to rebuild, if the weights need it.
    pub(super) fn recheck_candidate(&mut self, piece: PieceId) {
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

    /// A cell of `stripe` became known: can its parity be dropped? A shard that is checked as a whole stays whole.
    fn find_spent(&mut self, stripe: usize) {
        if self.known_cells(stripe) < self.geometry.manifest().data() || !self.has_all_data(stripe) {
            return;
        }
        for cell in self.geometry.cells(stripe).skip(self.geometry.manifest().data() as usize) {
            if let Cell::Piece { piece, .. } = cell
                && self.is_indexed(piece.shard)
                && !self.is_needed(piece.shard)
                && self.is_good(piece)
            {
                self.spent.insert(piece);
            }
        }
    }

    /// A good parity piece whose stripes have all their data: it counts as missing from now on.
    pub(super) fn pop_spent(&mut self) -> Option<PieceId> {
        while let Some(piece) = self.spent.pop_first() {
            let stripes = self.geometry.stripes_of(piece);
            if !self.is_good(piece) || !stripes.iter().all(|(stripe, _)| self.has_all_data(*stripe)) {
                continue;
            }
            self.unset_good(piece, PieceState::Missing);
            return Some(piece);
        }
        None
    }

    fn has_all_data(&self, stripe: usize) -> bool {
        let mut data = self.geometry.cells(stripe).take(self.geometry.manifest().data() as usize);
        data.all(|cell| match cell {
            Cell::Padding => true,
            Cell::Piece { piece, .. } => self.is_good(piece),
        })
    }

    fn set(&mut self, piece: PieceId, state: PieceState) {
        let flat = self.geometry.flat(piece);
        let old = std::mem::replace(&mut self.states[flat], state);
        let is_absent =
            |state| matches!(state, PieceState::Missing | PieceState::Checking | PieceState::Claimed);
        match (is_absent(old), is_absent(state)) {
            (true, false) => self.absent[piece.shard as usize] -= 1,
            (false, true) => self.absent[piece.shard as usize] += 1,
            _ => {}
        }
        if let Some(position) = self.order.position(piece) {
            match state {
                PieceState::Missing if self.is_wanted(piece) => self.missing_positions.insert(position),
                _ => self.missing_positions.remove(position),
            }
        }
        self.checking += usize::from(state == PieceState::Checking);
        self.checking -= usize::from(old == PieceState::Checking);
        self.claimed += usize::from(state == PieceState::Claimed);
        self.claimed -= usize::from(old == PieceState::Claimed);
    }
}
