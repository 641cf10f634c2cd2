//! How many sources hold each piece, kept up to date with every change.

use super::bits::Bits;

/// Pieces that this many hold, or more, are equally common.
const COMMON: usize = 31;

/// Counts holders by place in the order.
#[derive(Debug)]
pub(super) struct Rarity {
    holders: Vec<u16>,
    /// By number of holders, the pieces that have so many, and how many these are.
    levels: Vec<(Bits, u32)>,
}

impl Rarity {
    /// Of so many pieces, which nobody holds.
    pub(super) fn new(pieces: u32) -> Self {
        let mut all = Bits::new(pieces);
        (0..pieces).for_each(|place| all.insert(place));
        Self { holders: vec![0; pieces as usize], levels: vec![(all, pieces)] }
    }

    /// One more source holds the piece at this place, or one fewer.
    pub(super) fn count(&mut self, place: u32, is_held: bool) {
        let Some(holders) = self.holders.get_mut(place as usize) else { return };
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
        self.levels[before].0.remove(place);
        self.levels[before].1 -= 1;
        self.levels[after].0.insert(place);
        self.levels[after].1 += 1;
    }

    /// Of these places the one whose piece the fewest hold; of several the first.
    pub(super) fn rarest(&self, places: &Bits) -> Option<u32> {
        let levels = self.levels.iter().filter(|(_, count)| *count > 0);
        levels.map(|(level, _)| level.first_common(places)).find_map(|place| place)
    }

    #[cfg(test)]
    pub(super) fn holders(&self, place: u32) -> u16 {
        self.holders[place as usize]
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
            places in prop::collection::btree_set(0_u32..90, 0..30),
        ) {
            let mut rarity = Rarity::new(90);
            let mut counts = [0_i32; 90];
            for (place, is_held) in changes {
                let count = &mut counts[place as usize];
                if is_held || *count > 0 {
                    *count += if is_held { 1 } else { -1 };
                    rarity.count(place, is_held);
                }
            }
            let mut bits = Bits::new(90);
            places.iter().for_each(|place| bits.insert(*place));
            let expected = places.iter().min_by_key(|place| (counts[**place as usize].min(31), **place));
            prop_assert_eq!(rarity.rarest(&bits), expected.copied());
        }
    }
}
