//! A small map in one piece of memory, for what a worker has few of: one read where a tree would take three, and no
//! allocation each time that it becomes empty and is filled again.

use std::hint::black_box;

/// Entries in the order of their keys. Inserting and removing move what lies behind: meant for some dozens.
#[derive(Clone, Debug)]
pub(crate) struct Flat<K, V>(Vec<(K, V)>);

impl<K: Ord + Copy, V> Flat<K, V> {
    pub(crate) fn get(&self, key: K) -> Option<&V> {
        // One after another: with so few that costs less than to be wrong about every other comparison.
        self.0.iter().find(|(other, _)| *other == key).map(|(_, value)| value)
    }

    pub(crate) fn get_mut(&mut self, key: K) -> Option<&mut V> {
        self.0.iter_mut().find(|(other, _)| *other == key).map(|(_, value)| value)
    }

    /// The value, which is made first where there is none.
    pub(crate) fn get_or_insert_with(&mut self, key: K, make: impl FnOnce() -> V) -> &mut V {
        let at = self.find(key).unwrap_or_else(|at| {
            self.0.insert(at, (key, make()));
            at
        });
        &mut self.0[at].1
    }

    pub(crate) fn remove(&mut self, key: K) {
        if let Ok(at) = self.find(key) {
            self.0.remove(at);
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (K, &V)> + '_ {
        self.0.iter().map(|(key, value)| (*key, value))
    }

    /// Reads a few of its entries, after which most of it is at hand.
    pub(crate) fn touch(&self) {
        let (middle, last) = (self.0.len() / 2, self.0.len().saturating_sub(1));
        black_box((self.key_at(0), self.key_at(middle), self.key_at(last)));
    }

    fn key_at(&self, at: usize) -> Option<K> {
        self.0.get(at).map(|(key, _)| *key)
    }

    /// Where the key stands, or where it would.
    fn find(&self, key: K) -> Result<usize, usize> {
        self.0.binary_search_by(|(other, _)| other.cmp(&key))
    }
}

impl<K, V> Default for Flat<K, V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against a map of the standard library.
        #[test]
        fn it_holds_what_a_map_holds(steps in prop::collection::vec((1..3u8, 0..20u8, any::<u8>()), 0..200)) {
            let (mut flat, mut map) = (Flat::default(), BTreeMap::new());
            for (step, key, value) in steps {
                match step {
                    1 => {
                        flat.remove(key);
                        map.remove(&key);
                    }
                    _ => prop_assert_eq!(flat.get_or_insert_with(key, || value), map.entry(key).or_insert(value)),
                }
                prop_assert_eq!(flat.get(key), map.get(&key));
                prop_assert_eq!(flat.get_mut(key), map.get_mut(&key));
            }
            prop_assert!(flat.iter().eq(map.iter().map(|(key, value)| (*key, value))));
        }
    }
}
