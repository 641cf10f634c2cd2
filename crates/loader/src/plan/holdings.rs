//! What a source says to hold.

use manifest::{Geometry, PieceId};

use super::bits::Bits;
use super::order::Order;
use super::rarity::Rarity;

/// What a source holds of one shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holding {
    /// Not known: worth asking.
    Unknown,
    /// Nothing.
    None,
    /// All of it.
    All,
    /// The pieces whose bits are set: bit *i* of byte *i*/8, least significant first.
    Some(Vec<u8>),
}

impl Holding {
    fn has(&self, piece: u32) -> bool {
        self.byte(piece as usize / 8) >> (piece % 8) & 1 == 1
    }

    /// Whether it holds pieces `8 * at` and the seven after it, as bits.
    fn byte(&self, at: usize) -> u8 {
        match self {
            Self::Unknown | Self::All => u8::MAX,
            Self::None => 0,
            Self::Some(bits) => bits.get(at).copied().unwrap_or(0),
        }
    }

    /// What a source holds that says this of one shard and `other` of another one with the same bytes.
    pub(crate) fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::All, _) | (_, Self::All) => Self::All,
            (Self::Unknown, _) | (_, Self::Unknown) => Self::Unknown,
            (Self::None, other) | (other, Self::None) => other,
            (Self::Some(mut bits), Self::Some(others)) => {
                bits.iter_mut().zip(others).for_each(|(byte, other)| *byte |= other);
                Self::Some(bits)
            }
        }
    }

    /// The same in the shortest way, for a shard of so many pieces.
    fn simplified(self, pieces: u32) -> Self {
        let Self::Some(bits) = &self else { return self };
        let held: u32 = bits.iter().map(|byte| byte.count_ones()).sum();
        match held {
            0 => Self::None,
            held if held >= pieces => Self::All,
            _ => self,
        }
    }
}

/// What one source said, by shard and by place in the order. Until it says something, it may hold anything, and does
/// not count as a holder.
#[derive(Debug, Default)]
pub(super) struct Holdings {
    /// Empty until it said.
    shards: Vec<Holding>,
    places: Option<Bits>,
}

/// What the planner keeps up to date with every change of a source's holdings.
pub(super) struct Books<'a> {
    pub(super) geometry: &'a Geometry,
    pub(super) order: &'a Order,
    pub(super) rarity: &'a mut Rarity,
}

impl Holdings {
    /// Whether it says to hold nothing of this shard.
    pub(super) fn denies(&self, shard: u32) -> bool {
        matches!(self.shards.get(shard as usize), Some(Holding::None))
    }

    pub(super) fn has(&self, piece: PieceId) -> bool {
        self.shards.get(piece.shard as usize).is_none_or(|holding| holding.has(piece.piece))
    }

    /// Whether it holds every piece of the shard, as far as it said.
    pub(super) fn has_all(&self, shard: u32) -> bool {
        !matches!(self.shards.get(shard as usize), Some(Holding::Some(_) | Holding::None))
    }

    /// By place in the order, what it holds. `None`: it may be anything.
    pub(super) fn places(&self) -> Option<&Bits> {
        self.places.as_ref()
    }

    /// Takes in what it says of each shard. Of shards with the same bytes, any will do. Returns whether that is no more
    /// than further data pieces beside what it said before.
    pub(super) fn replace(&mut self, mut shards: Vec<Holding>, books: &mut Books<'_>) -> bool {
        let geometry = books.geometry;
        let manifest = geometry.manifest();
        shards.resize(manifest.shards().len(), Holding::Unknown);
        #[expect(clippy::cast_possible_truncation, reason = "a manifest has at most 65,536 shards")]
        for shard in (0..shards.len()).rev() {
            let holding = std::mem::replace(&mut shards[shard], Holding::None);
            let holding = holding.simplified(manifest.piece_count(shard as u32));
            let first = geometry.canonical(shard as u32) as usize;
            if first < shard {
                shards[first] = std::mem::replace(&mut shards[first], Holding::None).or(holding.clone());
            }
            shards[shard] = holding;
        }
        let mut is_growth = !self.shards.is_empty();
        let before = std::mem::take(&mut self.shards);
        for (shard, after) in (0..).zip(&shards) {
            let before = before.get(shard as usize).unwrap_or(&Holding::None);
            if before != after {
                is_growth &= shard < manifest.data_shard_count();
                is_growth &= self.change(shard, before, after, books);
            }
        }
        self.places.get_or_insert_with(|| Bits::new(books.order.len()));
        self.shards = shards;
        is_growth
    }

    /// One more piece. Returns whether that is news, of data.
    pub(super) fn add(&mut self, piece: PieceId, books: &mut Books<'_>) -> bool {
        let manifest = books.geometry.manifest();
        let Some(shard) = manifest.shards().get(piece.shard as usize).map(|_| piece.shard) else {
            return true;
        };
        let (first, count) = (books.geometry.canonical(shard), manifest.piece_count(shard));
        if piece.piece >= count || self.shards.is_empty() {
            return true;
        }
        for shard in [shard, first] {
            let holding = &mut self.shards[shard as usize];
            if holding.has(piece.piece) {
                continue;
            }
            if matches!(holding, Holding::None) {
                *holding = Holding::Some(vec![0; count.div_ceil(8) as usize]);
            }
            if let Holding::Some(bits) = holding
                && let Some(byte) = bits.get_mut(piece.piece as usize / 8)
            {
                *byte |= 1 << (piece.piece % 8);
            }
            *holding = std::mem::replace(holding, Holding::None).simplified(count);
            self.set(PieceId { shard, piece: piece.piece }, true, books);
        }
        shard < manifest.data_shard_count()
    }

    /// It is gone: it does not count as a holder any more, and what it will hold when it comes back is not known.
    pub(super) fn forget(&mut self, books: &mut Books<'_>) {
        for (shard, before) in (0..).zip(std::mem::take(&mut self.shards)) {
            self.change(shard, &before, &Holding::None, books);
        }
        self.places = None;
    }

    /// Returns whether nothing was lost.
    fn change(&mut self, shard: u32, before: &Holding, after: &Holding, books: &mut Books<'_>) -> bool {
        let count = books.geometry.manifest().piece_count(shard);
        let mut is_growth = true;
        for at in 0..count.div_ceil(8) {
            let (old, new) = (before.byte(at as usize), after.byte(at as usize));
            let mut changed = old ^ new;
            is_growth &= old & !new == 0;
            while changed != 0 {
                let bit = changed.trailing_zeros();
                changed &= changed - 1;
                let piece = PieceId { shard, piece: 8 * at + bit };
                if piece.piece < count {
                    self.set(piece, new >> bit & 1 == 1, books);
                }
            }
        }
        is_growth
    }

    fn set(&mut self, piece: PieceId, is_held: bool, books: &mut Books<'_>) {
        let Some(place) = books.order.place(piece) else { return };
        books.rarity.count(place, is_held);
        let places = self.places.get_or_insert_with(|| Bits::new(books.order.len()));
        if is_held { places.insert(place) } else { places.remove(place) }
    }
}
