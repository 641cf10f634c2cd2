//! How many sources hold each piece, kept up to date with every change.

use super::bits::Bits;

/// Pieces with this many holders, or more, are equally common.
const COMMON: usize = 31;

/// Counts holders by position in the order.
#[derive(Debug)]
pub(super) struct Rarity {
    holders: Vec<u16>,
    /// By number of holders, the set of pieces that have so many, and its size.
    levels: Vec<(Bits, u32)>,
}

impl Rarity {
    /// For so many pieces, without a holder.
    pub(super) fn new(pieces: u32) -> Self {
        let mut all = Bits::new(pieces);
        (0..pieces).for_each(|position| all.insert(position));
        Self { holders: vec![0; pieces as usize], levels: vec![(all, pieces)] }
    }

    /// One more source holds the piece at this position, or one fewer.
    pub(super) fn count(&mut self, position: u32, is_held: bool) {
        let Some(holders) = self.holders.get_mut(position as usize) else { return };
        let before = usize::from(*holders).min(COMMON);
        *holders = if is_held { holders.saturating_add(1) } else { holders.saturating_sub(1) };
        let after = usize::from(*holders).min(COMMON);
        if before == after {
            return;
        }
        let bound = u32::try_from(self.holders.len()).unwrap_or(u32::MAX);
        while self.levels.len() <= after {
            self.levels.push((Bits::new(bound), 0));
        }
        self.levels[before].0.remove(position);
        self.levels[before].1 -= 1;
        self.levels[after].0.insert(position);
        self.levels[after].1 += 1;
    }

    /// Of these positions the one whose piece has the fewest holders; among equals the first.
    pub(super) fn rarest(&self, positions: &Bits) -> Option<u32> {
        let levels = self.levels.iter().filter(|(_, count)| *count > 0);
        levels.map(|(level, _)| level.first_common(positions)).find_map(|position| position)
    }

    #[cfg(test)]
    pub(super) fn holders(&self, position: u32) -> u16 {
        self.holders[position as usize]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_rarest_is_found(
            changes in prop::collection::vec((0_u32..90, prop::bool::weighted(0.7)), 0..600),
            positions in prop::collection::btree_set(0_u32..90, 0..30),
        ) {
            let mut rarity = Rarity::new(90);
            let mut counts = [0_i32; 90];
            for (position, is_held) in changes {
                let count = &mut counts[position as usize];
                if is_held || *count > 0 {
                    *count += if is_held { 1 } else { -1 };
                    rarity.count(position, is_held);
                }
            }
            let mut bits = Bits::new(90);
            positions.iter().for_each(|position| bits.insert(*position));
            let expected = positions.iter().min_by_key(|position| (counts[**position as usize].min(31), **position));
            prop_assert_eq!(rarity.rarest(&bits), expected.copied());
        }
    }
}
