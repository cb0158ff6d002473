//! A set of workers by their slots, as bits: adding one and taking the first are a look at one word each, without the
//! allocation that a tree makes whenever it is empty and gets its first entry.

/// Slots, in their order.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    words: Vec<u64>,
    len: usize,
    /// No word before this one has any.
    from: usize,
}

impl Slots {
    const BITS: usize = u64::BITS as usize;

    pub(crate) fn insert(&mut self, slot: usize) {
        let (word, bit) = (slot / Self::BITS, 1 << (slot % Self::BITS));
        if self.words.len() <= word {
            self.words.resize(word + 1, 0);
        }
        self.from = if self.len == 0 { word } else { self.from.min(word) };
        self.len += usize::from(self.words[word] & bit == 0);
        self.words[word] |= bit;
    }

    pub(crate) fn remove(&mut self, slot: usize) {
        if self.contains(slot) {
            self.words[slot / Self::BITS] &= !(1 << (slot % Self::BITS));
            self.len -= 1;
        }
    }

    pub(crate) fn contains(&self, slot: usize) -> bool {
        self.words.get(slot / Self::BITS).is_some_and(|word| word >> (slot % Self::BITS) & 1 == 1)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Takes the first one out.
    pub(crate) fn pop_first(&mut self) -> Option<usize> {
        let first = self.iter().next()?;
        self.from = first / Self::BITS;
        self.remove(first);
        Some(first)
    }

    /// In their order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        let words = if self.len == 0 { &[] } else { &self.words[self.from..] };
        words.iter().enumerate().filter(|(_, bits)| **bits != 0).flat_map(move |(at, bits)| {
            let mut left = *bits;
            std::iter::from_fn(move || {
                let bit = (left != 0).then(|| left.trailing_zeros())?;
                left &= left - 1;
                Some((self.from + at) * Self::BITS + bit as usize)
            })
        })
    }
}

impl Extend<usize> for Slots {
    fn extend<T: IntoIterator<Item = usize>>(&mut self, slots: T) {
        slots.into_iter().for_each(|slot| self.insert(slot));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against a set of the standard library.
        #[test]
        fn it_holds_what_a_set_holds(steps in prop::collection::vec((0..4u8, 0..300usize), 0..300)) {
            let (mut slots, mut set) = (Slots::default(), BTreeSet::new());
            for (step, slot) in steps {
                match step {
                    0 | 1 => {
                        slots.insert(slot);
                        set.insert(slot);
                    }
                    2 => {
                        slots.remove(slot);
                        set.remove(&slot);
                    }
                    _ => prop_assert_eq!(slots.pop_first(), set.pop_first()),
                }
                prop_assert_eq!((slots.contains(slot), slots.is_empty()), (set.contains(&slot), set.is_empty()));
            }
            prop_assert!(slots.iter().eq(set));
        }
    }
}
