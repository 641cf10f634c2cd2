//! Which pieces of a manifest's shards a peer holds: the answer to HAVE.

use super::{FramingError, take, v2};

/// The piece count that stands for "all of them".
const ALL: u32 = u32::MAX;
const FULL: u8 = 0;
const CHANGES: u8 = 1;
/// Status, version, full or changes.
const HEAD_BYTES: u64 = 1 + 8 + 1;

/// Which pieces of a manifest's shards somebody holds, verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Have {
    /// Grows with every change. To be given back as `since` the next time.
    pub version: u64,
    /// Whether this is all that is held; else it is what was added after the version asked about.
    pub is_full: bool,
    /// One entry per shard of the manifest, in index order.
    pub shards: Vec<Held>,
}

/// Which pieces of one shard somebody holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Held {
    /// Every piece.
    All,
    /// Some of them, or none.
    Pieces(PieceSet),
}

impl Held {
    /// No piece.
    pub fn none() -> Self {
        Self::Pieces(PieceSet::default())
    }

    /// Whether any piece is held.
    pub(crate) fn is_any(&self) -> bool {
        match self {
            Self::All => true,
            Self::Pieces(pieces) => pieces.bits.iter().any(|byte| *byte != 0),
        }
    }

    /// Whether piece number `piece` is held.
    pub fn contains(&self, piece: u32) -> bool {
        match self {
            Self::All => true,
            Self::Pieces(pieces) => pieces.contains(piece),
        }
    }
}

/// A set of piece numbers below a fixed count.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PieceSet {
    count: u32,
    /// Bit `i % 8` of byte `i / 8`, the least significant first; bits from `count` on are zero.
    bits: Vec<u8>,
}

impl PieceSet {
    /// The empty set of numbers below `count`.
    pub fn new(count: u32) -> Self {
        Self { count, bits: vec![0; bitmap_bytes(count)] }
    }

    /// The set of the numbers whose bits are set: number *i* is bit *i* mod 8 of byte *i* / 8, the least significant
    /// first. Bits from `count` on, and missing ones, are not in it.
    pub fn from_bits(count: u32, mut bits: Vec<u8>) -> Self {
        bits.resize(bitmap_bytes(count), 0);
        if let Some(last) = bits.last_mut()
            && !count.is_multiple_of(8)
        {
            *last &= (1 << (count % 8)) - 1;
        }
        Self { count, bits }
    }

    /// The bits of [`Self::from_bits`].
    pub fn bits(&self) -> &[u8] {
        &self.bits
    }

    /// Adds a number. One that is not below the count changes nothing.
    pub fn insert(&mut self, piece: u32) {
        if piece < self.count {
            self.bits[piece as usize / 8] |= 1 << (piece % 8);
        }
    }

    /// Whether the number is in the set.
    pub fn contains(&self, piece: u32) -> bool {
        self.bits.get(piece as usize / 8).is_some_and(|byte| byte >> (piece % 8) & 1 == 1)
    }
}

fn bitmap_bytes(count: u32) -> usize {
    count.div_ceil(8) as usize
}

impl Have {
    /// The frame, its length included.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut body = vec![v2::STATUS_OK];
        body.extend_from_slice(&self.version.to_be_bytes());
        body.push(if self.is_full { FULL } else { CHANGES });
        for held in &self.shards {
            match held {
                Held::All => body.extend_from_slice(&ALL.to_be_bytes()),
                Held::Pieces(pieces) => {
                    body.extend_from_slice(&pieces.count.to_be_bytes());
                    body.extend_from_slice(&pieces.bits);
                }
            }
        }
        v2::frame(&body)
    }

    /// The longest body of an answer about shards with these piece counts.
    pub(crate) fn max_body_bytes(piece_counts: &[u32]) -> u64 {
        HEAD_BYTES + piece_counts.iter().map(|count| 4 + bitmap_bytes(*count) as u64).sum::<u64>()
    }

    /// The answer whose body after the status is `rest`, about shards with these piece counts.
    pub(crate) fn decode(mut rest: &[u8], piece_counts: &[u32]) -> Result<Self, FramingError> {
        let found_bytes = 1 + rest.len() as u64;
        let too_short = || FramingError::AnswerLength {
            status: v2::STATUS_OK,
            found_bytes,
            expected_bytes: Self::max_body_bytes(piece_counts),
        };
        let version = take(&mut rest).map(u64::from_be_bytes).ok_or_else(too_short)?;
        let is_full = match take(&mut rest).ok_or_else(too_short)? {
            [FULL] => true,
            [CHANGES] => false,
            [kind] => return Err(wrong("kind", kind.into(), format!("{FULL} or {CHANGES}"))),
        };
        let mut shards = Vec::with_capacity(piece_counts.len());
        for &expected in piece_counts {
            let count = take(&mut rest).map(u32::from_be_bytes).ok_or_else(too_short)?;
            if count == ALL {
                shards.push(Held::All);
                continue;
            }
            if count != 0 && count != expected {
                return Err(wrong("piece count", count.into(), format!("0, {expected} or {ALL}")));
            }
            let (bits, after) = rest.split_at_checked(bitmap_bytes(count)).ok_or_else(too_short)?;
            rest = after;
            let spare = (8 - count % 8) % 8;
            let last = bits.last().copied().unwrap_or(0);
            if spare > 0 && last.leading_zeros() < spare {
                return Err(wrong("last bitmap byte", last.into(), format!("{spare} leading zero bits")));
            }
            shards.push(Held::Pieces(PieceSet { count, bits: bits.to_vec() }));
        }
        if !rest.is_empty() {
            return Err(wrong("length", found_bytes, format!("{}", found_bytes - rest.len() as u64)));
        }
        Ok(Self { version, is_full, shards })
    }
}

fn wrong(field: &'static str, found: u64, expected: String) -> FramingError {
    FramingError::Have { field, found, expected }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn held(count: u32) -> impl Strategy<Value = Held> {
        prop_oneof![
            Just(Held::All),
            Just(Held::none()),
            proptest::collection::vec(0..count, 0..20).prop_map(move |pieces| {
                let mut set = PieceSet::new(count);
                pieces.into_iter().for_each(|piece| set.insert(piece));
                Held::Pieces(set)
            }),
        ]
    }

    fn have() -> impl Strategy<Value = (Vec<u32>, Have)> {
        proptest::collection::vec(1u32..40, 0..12).prop_flat_map(|counts| {
            let shards = counts.iter().map(|count| held(*count)).collect::<Vec<_>>();
            (Just(counts), any::<u64>(), any::<bool>(), shards)
                .prop_map(|(counts, version, is_full, shards)| (counts, Have { version, is_full, shards }))
        })
    }

    proptest! {
        #[test]
        fn answers_round_trip((counts, have) in have()) {
            let frame = have.encode();
            prop_assert!(frame.len() as u64 - 4 <= Have::max_body_bytes(&counts));
            prop_assert_eq!(Have::decode(&frame[5..], &counts), Ok(have));
        }

        #[test]
        fn a_cut_or_longer_answer_is_refused((counts, have) in have(), cut in 1usize..20) {
            let body = have.encode().split_off(5);
            prop_assert!(Have::decode(&body[..body.len().saturating_sub(cut)], &counts).is_err());
            let mut longer = body;
            longer.push(0);
            prop_assert!(Have::decode(&longer, &counts).is_err());
        }

        #[test]
        fn any_bytes_decode_to_themselves_or_are_refused(
            rest in proptest::collection::vec(prop_oneof![Just(0u8), Just(0xFF), any::<u8>()], 0..60),
            counts in proptest::collection::vec(1u32..20, 0..4),
        ) {
            if let Ok(have) = Have::decode(&rest, &counts) {
                prop_assert_eq!(&have.encode()[5..], &rest[..]);
            }
        }
    }

    #[test]
    fn sets_hold_what_was_inserted() {
        let mut set = PieceSet::new(9);
        set.insert(8);
        set.insert(9);
        assert_eq!((0..32).filter(|piece| set.contains(*piece)).collect::<Vec<_>>(), [8]);
        assert!(Held::All.contains(1000) && !Held::none().contains(0));
    }

    #[test]
    fn sets_are_made_of_bits_that_fit() {
        let set = PieceSet::from_bits(9, vec![0b101, 0xFF, 0xFF]);
        assert_eq!(set.bits(), [0b101, 1]);
        assert_eq!(PieceSet::from_bits(9, Vec::new()), PieceSet::new(9));
        assert_eq!(PieceSet::from_bits(8, vec![0xFF]).bits(), [0xFF]);
    }

    #[test]
    fn what_does_not_fit_the_manifest_is_refused() {
        let mut set = PieceSet::new(9);
        set.insert(8);
        let have = Have { version: 1, is_full: true, shards: vec![Held::Pieces(set)] };
        let body = have.encode().split_off(5);
        assert!(Have::decode(&body, &[9]).is_ok());
        let field = |counts: &[u32], at: usize, value: u8| {
            let mut body = body.clone();
            body[at] = value;
            match Have::decode(&body, counts) {
                Err(FramingError::Have { field, .. }) => field,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(field(&[10], 0, 0), "piece count");
        assert_eq!(field(&[], 0, 0), "length");
        assert_eq!(field(&[9], 8, 7), "kind");
        assert_eq!(field(&[9], 14, 0b11), "last bitmap byte");
    }
}
