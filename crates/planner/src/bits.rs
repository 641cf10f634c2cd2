//! Sets of small numbers, 64 to a word.

/// Numbers below a fixed bound.
#[derive(Debug, Clone, Default)]
pub(super) struct Bits(Vec<u64>);

impl Bits {
    /// The empty set of numbers below `bound`.
    pub(super) fn new(bound: u32) -> Self {
        Self(vec![0; bound.div_ceil(64) as usize])
    }

    pub(super) fn insert(&mut self, number: u32) {
        self.0[number as usize / 64] |= 1 << (number % 64);
    }

    pub(super) fn remove(&mut self, number: u32) {
        self.0[number as usize / 64] &= !(1 << (number % 64));
    }

    pub(super) fn contains(&self, number: u32) -> bool {
        self.0[number as usize / 64] >> (number % 64) & 1 == 1
    }

    /// The numbers, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = u32> {
        (0_u32..).zip(&self.0).flat_map(|(at, word)| {
            let mut left = *word;
            std::iter::from_fn(move || {
                let bit = (left != 0).then(|| left.trailing_zeros())?;
                left &= left - 1;
                Some(64 * at + bit)
            })
        })
    }

    /// Bit *i* % 64 of word *i* / 64, least significant first.
    pub(super) fn words(&self) -> &[u64] {
        &self.0
    }

    /// Makes this `wanted` without `unwanted`, and only what `held` has, if that is given. Returns whether anything is
    /// in it.
    pub(super) fn assign(&mut self, wanted: &Self, unwanted: &Self, held: Option<&Self>) -> bool {
        let mut any = 0;
        let open = wanted.0.iter().zip(&unwanted.0).map(|(wanted, unwanted)| wanted & !unwanted);
        match held {
            Some(held) => {
                for ((word, open), held) in self.0.iter_mut().zip(open).zip(&held.0) {
                    *word = open & held;
                    any |= *word;
                }
            }
            None => {
                for (word, open) in self.0.iter_mut().zip(open) {
                    *word = open;
                    any |= open;
                }
            }
        }
        any != 0
    }

    /// Keeps only what is in both sets, if anything is. Returns whether that is so.
    pub(super) fn narrow(&mut self, to: &Self) -> bool {
        let any = self.first_common(to).is_some();
        if any {
            self.0.iter_mut().zip(&to.0).for_each(|(word, to)| *word &= to);
        }
        any
    }

    /// The smallest number that is in both sets.
    pub(super) fn first_common(&self, other: &Self) -> Option<u32> {
        let mut words = (0_u32..).zip(self.0.iter().zip(&other.0));
        words.find_map(|(at, (one, other))| {
            let both = one & other;
            (both != 0).then(|| 64 * at + both.trailing_zeros())
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bits(numbers: &[u32]) -> Bits {
        let mut bits = Bits::new(200);
        numbers.iter().for_each(|number| bits.insert(*number));
        bits
    }

    proptest! {
        #[test]
        fn sets_are_what_they_say(
            wanted in prop::collection::vec(0_u32..200, 0..40),
            unwanted in prop::collection::vec(0_u32..200, 0..40),
            held in prop::option::of(prop::collection::vec(0_u32..200, 0..40)),
            other in prop::collection::vec(0_u32..200, 0..40),
        ) {
            let mut open = Bits::new(200);
            let any = open.assign(&bits(&wanted), &bits(&unwanted), held.as_deref().map(bits).as_ref());
            let is_open = |number: &u32| wanted.contains(number)
                && !unwanted.contains(number)
                && held.as_ref().is_none_or(|held| held.contains(number));
            let expected: Vec<u32> = (0..200).filter(is_open).collect();
            let found: Vec<u32> = (0..200).filter(|number| open.contains(*number)).collect();
            prop_assert_eq!(&found, &expected);
            prop_assert_eq!(open.iter().collect::<Vec<_>>(), expected.clone());
            prop_assert_eq!(any, !expected.is_empty());
            let first = expected.iter().copied().find(|number| other.contains(number));
            prop_assert_eq!(open.first_common(&bits(&other)), first);
        }
    }
}
