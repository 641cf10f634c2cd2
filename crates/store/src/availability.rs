//! The offered piece sets of a model that is being filled, and their changes by version.

use std::collections::VecDeque;
use std::time::{SystemTime, UNIX_EPOCH};

use manifest::{Geometry, Have, HaveChange, PieceId, PieceSet};

/// Changes remembered, so that a peer that polls gets only those. About 100 KiB.
const MAX_HISTORY: usize = 8192;

/// Verified pieces by canonical shard, with a version that grows by one with each change.
#[derive(Debug)]
pub(super) struct Availability {
    shards: Vec<PieceSet>,
    version: u64,
    /// The latest additions, one a version, up to `version`.
    history: VecDeque<PieceId>,
}

impl Availability {
    /// No piece. `first_version` is larger than any version of an earlier one for the same model.
    pub(super) fn new(geometry: &Geometry, first_version: u64) -> Self {
        let manifest = geometry.manifest();
        let shards = (0..).zip(manifest.shards());
        let shards = shards.map(|(shard, _)| PieceSet::none(manifest.piece_count(shard))).collect();
        Self { shards, version: first_version, history: VecDeque::new() }
    }

    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// Adds a piece of a canonical shard.
    pub(super) fn add(&mut self, piece: PieceId) {
        if !self.shards.get_mut(piece.shard as usize).is_some_and(|shard| shard.insert(piece.piece)) {
            return;
        }
        self.version += 1;
        self.history.push_back(piece);
        if self.history.len() > MAX_HISTORY {
            self.history.pop_front();
        }
    }

    /// Removes all pieces of a canonical shard. The next answer to every peer is a full one.
    pub(super) fn forget(&mut self, shard: u32) {
        let Some(shard) = self.shards.get_mut(shard as usize).filter(|shard| !shard.is_empty()) else {
            return;
        };
        *shard = PieceSet::none(shard.count());
        self.version += 1;
        self.history.clear();
    }

    /// Removes a piece of a canonical shard. The next answer to every peer is a full one.
    pub(super) fn remove(&mut self, piece: PieceId) {
        if self.shards.get_mut(piece.shard as usize).is_some_and(|shard| shard.remove(piece.piece)) {
            self.version += 1;
            self.history.clear();
        }
    }

    /// Whether these pieces of a canonical shard are held.
    pub(super) fn has(&self, shard: u32, mut pieces: std::ops::Range<u32>) -> bool {
        let Some(shard) = self.shards.get(shard as usize) else { return false };
        pieces.end <= shard.count() && (shard.is_all() || pieces.all(|piece| shard.contains(piece)))
    }

    pub(super) fn is_whole(&self, shard: u32) -> bool {
        self.shards.get(shard as usize).is_some_and(PieceSet::is_all)
    }

    /// The changes after version `since`, or the full piece sets when that version is not known any more.
    pub(super) fn since(&self, since: u64, geometry: &Geometry) -> Have {
        let known_from = self.version - self.history.len() as u64;
        let mut change = match (known_from..=self.version).contains(&since) {
            true => {
                // The history is in memory, so its positions fit.
                let skipped = usize::try_from(since - known_from).unwrap_or(usize::MAX);
                HaveChange::Gained(self.added(self.history.iter().skip(skipped)))
            }
            false => HaveChange::Holds(self.shards.clone()),
        };
        let shards = change.shards_mut();
        for (shard, at) in (0..).zip(0..shards.len()) {
            let first = geometry.canonical(shard) as usize;
            if first != at {
                shards[at] = shards[first].clone();
            }
        }
        Have { version: self.version, change }
    }

    /// The piece sets of changes: of a shard that has become complete, all of it.
    fn added<'a>(&self, additions: impl Iterator<Item = &'a PieceId>) -> Vec<PieceSet> {
        let mut added: Vec<PieceSet> =
            self.shards.iter().map(|shard| PieceSet::none(shard.count())).collect();
        for piece in additions {
            let (shard, added) = (&self.shards[piece.shard as usize], &mut added[piece.shard as usize]);
            if shard.is_all() {
                added.clone_from(shard);
            } else {
                added.insert(piece.piece);
            }
        }
        added
    }
}

/// The first version: larger than all of an earlier run, unless the clock was set back. Then a peer may get changes to a
/// state that it never had, and its requests fail.
pub(super) fn first_version() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_nanos()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use manifest::Manifest;
    use proptest::prelude::*;

    use super::*;

    /// Three data shards of 9, 9 and 1 pieces, the first two of equal content, and no parity.
    fn geometry() -> Geometry {
        let hash = |fill: char| fill.to_string().repeat(64);
        let json = format!(
            r#"{{"version":1,"model_kind":"simplenet","total_size":1217,"merkle_root":"{root}",
                "erasure":{{"data":3,"parity":0,"codec":"rs"}},
                "pieces":{{"size":64,"index":"{index}"}},
                "shards":[{{"index":0,"hash":"{a}","size":576,"is_parity":false}},
                          {{"index":1,"hash":"{a}","size":576,"is_parity":false}},
                          {{"index":2,"hash":"{b}","size":65,"is_parity":false}}]}}"#,
            root = root([&hash('a'), &hash('a'), &hash('b')]),
            index = hash('c'),
            a = hash('a'),
            b = hash('b'),
        );
        Geometry::new(Arc::new(Manifest::parse(json.as_bytes()).unwrap()))
    }

    fn root(leaves: [&str; 3]) -> String {
        let leaves: Vec<manifest::Digest> = leaves.iter().map(|leaf| leaf.parse().unwrap()).collect();
        manifest::merkle::root(&leaves).unwrap().to_string()
    }

    #[derive(Debug, Clone)]
    enum Step {
        Add(u32, u32),
        Forget(u32),
        /// A reader asks for what is new to it.
        Ask(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            8 => (prop_oneof![Just(0u32), Just(2)], 0u32..10).prop_map(|(shard, piece)| Step::Add(shard, piece)),
            1 => prop_oneof![Just(0u32), Just(2)].prop_map(Step::Forget),
            4 => (0usize..3).prop_map(Step::Ask),
        ];
        proptest::collection::vec(step, 0..80)
    }

    /// The state of a peer that merges answers.
    #[derive(Clone)]
    struct Reader {
        version: u64,
        shards: Vec<PieceSet>,
    }

    impl Reader {
        fn take(&mut self, answer: Have) {
            self.version = answer.version;
            match answer.change {
                HaveChange::Holds(shards) => self.shards = shards,
                HaveChange::Gained(shards) => {
                    self.shards.iter_mut().zip(&shards).for_each(|(known, gained)| known.extend(gained));
                }
            }
        }

        fn pieces(&self) -> BTreeSet<(u32, u32)> {
            let shards = (0..).zip(&self.shards);
            shards.flat_map(|(shard, pieces)| pieces.iter().map(move |piece| (shard, piece))).collect()
        }
    }

    proptest! {
        /// A peer that merges answers knows the exact piece sets, however often it polls.
        #[test]
        fn readers_that_merge_answers_know_what_is_held(steps in steps(), first in 1u64..1 << 60) {
            let geometry = geometry();
            let mut held = Availability::new(&geometry, first);
            let mut model = BTreeSet::new();
            let mut readers = vec![Reader { version: 0, shards: Vec::new() }; 3];
            let mut last_version = first;
            for step in steps {
                match step {
                    Step::Add(shard, piece) => {
                        let is_new = piece < geometry.manifest().piece_count(shard)
                            && model.insert((shard, piece));
                        if is_new && shard == 0 {
                            model.insert((1, piece));
                        }
                        held.add(PieceId { shard, piece });
                        prop_assert_eq!(held.version(), last_version + u64::from(is_new));
                    }
                    Step::Forget(shard) => {
                        held.forget(shard);
                        model.retain(|(of, _)| *of != shard && (shard != 0 || *of != 1));
                    }
                    Step::Ask(reader) => {
                        let reader = &mut readers[reader];
                        let answer = held.since(reader.version, &geometry);
                        prop_assert!(is_full(&answer) || reader.version >= first);
                        reader.take(answer);
                        prop_assert_eq!(reader.pieces(), model.clone());
                    }
                }
                prop_assert!(held.version() >= last_version);
                last_version = held.version();
            }
        }
    }

    fn is_full(answer: &Have) -> bool {
        matches!(answer.change, HaveChange::Holds(_))
    }

    #[test]
    fn versions_that_are_not_known_get_everything() {
        let geometry = geometry();
        let mut held = Availability::new(&geometry, 1000);
        held.add(PieceId { shard: 0, piece: 3 });
        for (since, expected) in [(0, true), (999, true), (1000, false), (1001, false), (1002, true)] {
            assert_eq!(is_full(&held.since(since, &geometry)), expected, "{since}");
        }
        held.forget(0);
        assert!(is_full(&held.since(1001, &geometry)), "what was taken away is no addition");
        assert!(!is_full(&held.since(1002, &geometry)));
        held.forget(0);
        assert_eq!(held.version(), 1002, "there was nothing to take away");
    }

    #[test]
    fn the_history_is_bounded() {
        let geometry = geometry();
        let mut held = Availability::new(&geometry, 1);
        // Adding and forgetting clears it, so it is filled by hand.
        held.history.extend(std::iter::repeat_n(PieceId { shard: 0, piece: 0 }, MAX_HISTORY));
        held.version += MAX_HISTORY as u64;
        held.add(PieceId { shard: 2, piece: 0 });
        assert_eq!(held.history.len(), MAX_HISTORY);
        assert!(is_full(&held.since(1, &geometry)) && !is_full(&held.since(2, &geometry)));
    }

    #[test]
    fn a_shard_that_became_whole_is_told_as_such() {
        let geometry = geometry();
        let mut held = Availability::new(&geometry, 1);
        held.add(PieceId { shard: 2, piece: 0 });
        held.add(PieceId { shard: 2, piece: 1 });
        assert!(held.is_whole(2) && held.has(2, 0..2) && !held.has(2, 0..3));
        let all = [PieceSet::none(9), PieceSet::none(9), PieceSet::all(2)];
        assert_eq!(held.since(1, &geometry).change.shards(), all);
    }
}
