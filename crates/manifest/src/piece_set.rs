//! Which pieces of a shard somebody holds, and what changes of that.

/// Which pieces of one shard: numbers below a count.
///
/// None of them, and all of them, take no memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PieceSet {
    count: u32,
    len: u32,
    /// Bit *i* of byte *i*/8 for piece *i*, least significant first; further bits are zero. Empty unless there is something
    /// between none and all.
    bits: Vec<u8>,
}

impl PieceSet {
    /// No piece of `count`.
    pub fn none(count: u32) -> Self {
        Self { count, len: 0, bits: Vec::new() }
    }

    /// Every piece of `count`.
    pub fn all(count: u32) -> Self {
        Self { count, len: count, bits: Vec::new() }
    }

    /// The pieces whose bits are set: bit *i* of byte *i*/8, least significant first. Bits from `count` on, and missing ones,
    /// are not in it.
    pub fn from_bits(count: u32, mut bits: Vec<u8>) -> Self {
        bits.resize(bitmap_bytes(count), 0);
        if let Some(last) = bits.last_mut()
            && !count.is_multiple_of(8)
        {
            *last &= (1 << (count % 8)) - 1;
        }
        let len = bits.iter().map(|byte| byte.count_ones()).sum();
        let mut set = Self { count, len, bits };
        set.shorten();
        set
    }

    /// How many pieces the shard has.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// How many of them are in the set.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether there is every one.
    pub fn is_all(&self) -> bool {
        self.len == self.count
    }

    /// Whether this piece is in the set.
    pub fn contains(&self, piece: u32) -> bool {
        piece < self.count && self.byte(piece as usize / 8) >> (piece % 8) & 1 == 1
    }

    /// Pieces `8 * at` and the seven after it, as bits.
    pub fn byte(&self, at: usize) -> u8 {
        match self.bits.get(at) {
            Some(byte) => *byte,
            None if self.is_all() && at < bitmap_bytes(self.count) => {
                let left = self.count as usize - 8 * at;
                if left >= 8 { u8::MAX } else { (1 << left) - 1 }
            }
            None => 0,
        }
    }

    /// The bits of [`Self::from_bits`].
    pub fn bytes(&self) -> impl Iterator<Item = u8> {
        (0..bitmap_bytes(self.count)).map(|at| self.byte(at))
    }

    /// The pieces in the set, in order.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        // Most bytes of a set with few pieces are zero.
        (0_u32..).zip(self.bytes()).filter(|(_, byte)| *byte != 0).flat_map(|(at, byte)| {
            (0..8).filter(move |bit| byte >> bit & 1 == 1).map(move |bit| 8 * at + bit)
        })
    }

    /// Adds a piece. Returns whether it is new; one that is not below the count changes nothing.
    pub fn insert(&mut self, piece: u32) -> bool {
        if piece >= self.count || self.contains(piece) {
            return false;
        }
        self.bits.resize(bitmap_bytes(self.count), 0);
        self.bits[piece as usize / 8] |= 1 << (piece % 8);
        self.len += 1;
        self.shorten();
        true
    }

    /// Takes a piece out. Returns whether it was in.
    pub fn remove(&mut self, piece: u32) -> bool {
        if !self.contains(piece) {
            return false;
        }
        if self.bits.is_empty() {
            self.bits = self.bytes().collect();
        }
        self.bits[piece as usize / 8] &= !(1 << (piece % 8));
        self.len -= 1;
        self.shorten();
        true
    }

    /// Adds all pieces of another set of the same shard.
    pub fn extend(&mut self, other: &Self) {
        if self.is_all() || other.is_empty() {
            return;
        }
        if self.is_empty() || other.is_all() {
            self.clone_from(other);
            return;
        }
        self.bits.iter_mut().zip(other.bytes()).for_each(|(byte, other)| *byte |= other);
        self.len = self.bits.iter().map(|byte| byte.count_ones()).sum();
        self.shorten();
    }

    fn shorten(&mut self) {
        if self.is_empty() || self.is_all() {
            self.bits = Vec::new();
        }
    }
}

fn bitmap_bytes(count: u32) -> usize {
    count.div_ceil(8) as usize
}

/// An answer to the question which pieces of a model somebody holds. HAVE of `docs/protocol.md`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Have {
    /// Grows with every change; to be given back when asking again.
    pub version: u64,
    /// What is held, by shard of the manifest.
    pub change: HaveChange,
}

/// What a [`Have`] tells: one set for each shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HaveChange {
    /// All that is held.
    Holds(Vec<PieceSet>),
    /// What was added after the version asked about.
    Gained(Vec<PieceSet>),
}

impl HaveChange {
    /// The sets, whatever they are of.
    pub fn shards(&self) -> &[PieceSet] {
        match self {
            Self::Holds(shards) | Self::Gained(shards) => shards,
        }
    }

    /// The same, to be changed.
    pub fn shards_mut(&mut self) -> &mut [PieceSet] {
        match self {
            Self::Holds(shards) | Self::Gained(shards) => shards,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// Counts at which bytes end, and others.
    fn counts() -> impl Strategy<Value = u32> {
        prop_oneof![Just(1u32), Just(7), Just(8), Just(9), Just(16), 1u32..70]
    }

    fn set(count: u32, pieces: &BTreeSet<u32>) -> PieceSet {
        let mut set = PieceSet::none(count);
        pieces.iter().for_each(|piece| assert_eq!(set.insert(*piece), *piece < count));
        set
    }

    proptest! {
        #[test]
        fn sets_are_what_they_say(
            (count, ones, others) in counts().prop_flat_map(|count| {
                let some = || prop_oneof![
                    proptest::collection::btree_set(0..count + 3, 0..20),
                    Just((0..count).collect::<BTreeSet<u32>>()),
                ];
                (Just(count), some(), some())
            }),
        ) {
            let below = |pieces: &BTreeSet<u32>| pieces.iter().copied().filter(|piece| *piece < count).collect::<BTreeSet<u32>>();
            let (one, other) = (set(count, &ones), set(count, &others));
            let (ones, others) = (below(&ones), below(&others));
            let is = |set: &PieceSet, pieces: &BTreeSet<u32>| {
                set.iter().eq(pieces.iter().copied())
                    && set.len() as usize == pieces.len()
                    && set.is_empty() == pieces.is_empty()
                    && set.is_all() == (pieces.len() == count as usize)
                    && (0..count + 20).all(|piece| set.contains(piece) == pieces.contains(&piece))
                    && *set == PieceSet::from_bits(count, set.bytes().collect())
            };
            prop_assert!(is(&one, &ones) && is(&other, &others));
            let mut both = one.clone();
            both.extend(&other);
            prop_assert!(is(&both, &ones.union(&others).copied().collect()));
            let mut less = one;
            others.iter().for_each(|piece| assert_eq!(less.remove(*piece), ones.contains(piece)));
            prop_assert!(is(&less, &ones.difference(&others).copied().collect()));
        }

        #[test]
        fn bits_that_do_not_fit_are_left_out(count in counts(), bits in proptest::collection::vec(any::<u8>(), 0..12)) {
            let set = PieceSet::from_bits(count, bits.clone());
            for piece in 0..200 {
                let is_set = bits.get(piece as usize / 8).is_some_and(|byte| byte >> (piece % 8) & 1 == 1);
                prop_assert_eq!(set.contains(piece), is_set && piece < count);
            }
        }
    }

    #[test]
    fn none_and_all_take_no_memory() {
        assert_eq!(PieceSet::from_bits(9, vec![0xFF, 0xFF]), PieceSet::all(9));
        assert_eq!(PieceSet::from_bits(9, vec![]), PieceSet::none(9));
        let mut set = PieceSet::all(9);
        set.remove(8);
        set.insert(8);
        assert!(set.is_all() && set.bits.capacity() == 0);
    }
}
