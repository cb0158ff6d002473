//! Finds things by key: from a key's hash to the position where the thing is kept.
//!
//! Eight bytes an entry; keys stay where the things are. It has no order, and nothing here can be walked, so that no
//! decision can come to depend on one.

use std::hint::black_box;
use std::num::NonZeroU32;

/// From hashes to positions, counted from 1. Open addressing: an entry stands at the first free place from where its hash points.
#[derive(Debug, Default)]
pub(crate) struct Index {
    /// Per place, 0 or the upper half of the hash and the position.
    places: Box<[u64]>,
    len: usize,
}

/// Mixes a number so that its upper bits depend on all of it.
pub(crate) fn hash(value: u64) -> u64 {
    let mixed = (value ^ value >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

/// The hash of two numbers in this order, or of one that is added to a hash.
pub(crate) fn hash_with(before: u64, value: u64) -> u64 {
    hash(before.rotate_left(25) ^ hash(value))
}

/// The hash of a text.
pub(crate) fn hash_text(text: &str) -> u64 {
    let words = text.as_bytes().chunks(8).map(|chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        u64::from_le_bytes(word)
    });
    words.fold(hash(text.len() as u64), |before, word| {
        (before.rotate_left(25) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    })
}

impl Index {
    /// Fewest places, a power of two.
    const LEAST: usize = 16;

    /// The position of the thing with this hash that `is` accepts.
    pub(crate) fn find(&self, hash: u64, is: impl Fn(NonZeroU32) -> bool) -> Option<NonZeroU32> {
        let at = self.seek(hash, is)?;
        position(self.places[at])
    }

    /// Reads the place that the hash points to, which is then at hand.
    pub(crate) fn touch(&self, hash: u64) {
        if !self.places.is_empty() {
            black_box(self.places[self.home(hash)]);
        }
    }

    /// Adds a thing that is not there yet.
    pub(crate) fn insert(&mut self, hash: u64, position: NonZeroU32) {
        if (self.len + 1) * 4 > self.places.len() * 3 {
            self.grow();
        }
        self.len += 1;
        self.put(hash & TAG | u64::from(position.get()));
    }

    /// Removes the thing at this position.
    ///
    /// # Panics
    /// If it is not there: that would be a defect of the scheduler itself.
    pub(crate) fn remove(&mut self, hash: u64, position: NonZeroU32) {
        let hole = self.seek(hash, |found| found == position).expect("what is removed is there");
        self.len -= 1;
        let mask = self.places.len() - 1;
        let (mut hole, mut next) = (hole, (hole + 1) & mask);
        while self.places[next] != 0 {
            // What stands at or before the hole by its own hash fills it; what would come to stand too early stays.
            let way = next.wrapping_sub(self.home(self.places[next])) & mask;
            if way >= next.wrapping_sub(hole) & mask {
                self.places[hole] = self.places[next];
                hole = next;
            }
            next = (next + 1) & mask;
        }
        self.places[hole] = 0;
    }

    fn seek(&self, hash: u64, is: impl Fn(NonZeroU32) -> bool) -> Option<usize> {
        if self.places.is_empty() {
            return None;
        }
        let mask = self.places.len() - 1;
        let mut at = self.home(hash);
        while self.places[at] != 0 {
            if (self.places[at] ^ hash) & TAG == 0 && position(self.places[at]).is_some_and(&is) {
                return Some(at);
            }
            at = (at + 1) & mask;
        }
        None
    }

    fn put(&mut self, entry: u64) {
        let mask = self.places.len() - 1;
        let mut at = self.home(entry);
        while self.places[at] != 0 {
            at = (at + 1) & mask;
        }
        self.places[at] = entry;
    }

    fn grow(&mut self) {
        let size = (self.places.len() * 2).max(Self::LEAST);
        let before = std::mem::replace(&mut self.places, vec![0; size].into());
        before.iter().filter(|entry| **entry != 0).for_each(|entry| self.put(*entry));
    }

    /// The place that a hash points to: its upper bits, so that growing keeps the order of places.
    fn home(&self, hash: u64) -> usize {
        (hash >> (u64::BITS - self.places.len().trailing_zeros())) as usize
    }
}

/// The part of an entry that is the hash's.
const TAG: u64 = !(u32::MAX as u64);

fn position(entry: u64) -> Option<NonZeroU32> {
    NonZeroU32::new((entry & !TAG) as u32)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against a map: keys that collide on purpose, inserted and removed in any order.
        #[test]
        fn it_finds_what_is_there_and_nothing_else(steps in prop::collection::vec((any::<bool>(), 0..200u64), 1..600)) {
            let (mut index, mut map, mut keys) = (Index::default(), BTreeMap::new(), Vec::new());
            let hash_of = |key: u64| hash(key % 40);
            for (insert, key) in steps {
                let found = index.find(hash_of(key), |position| keys[position.get() as usize - 1] == key);
                prop_assert_eq!(found, map.get(&key).copied());
                match found {
                    None if insert => {
                        keys.push(key);
                        let position = NonZeroU32::new(keys.len() as u32).expect("one was pushed");
                        index.insert(hash_of(key), position);
                        map.insert(key, position);
                    }
                    Some(position) if !insert => {
                        index.remove(hash_of(key), position);
                        map.remove(&key);
                    }
                    _ => {}
                }
                prop_assert_eq!(index.len, map.len());
            }
            for (key, position) in map {
                prop_assert_eq!(index.find(hash_of(key), |found| keys[found.get() as usize - 1] == key), Some(position));
            }
        }
    }
}
