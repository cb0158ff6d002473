//! Sectors in a hash table that holds the entries themselves: asking for one touches one place in the memory, where an index
//! of positions would touch three. 32 bytes an entry, of which seven to fourteen sixteenths are used.
//!
//! Never knows who holds what. A position is good until an entry is made; whoever keeps some is told where they moved.

use std::hash::{BuildHasher, RandomState};

use super::held::Held;

/// The table grows in so many parts, each in its own moment, so that none of them is long.
const SHARDS: usize = 256;
/// Bits of a position that say where in its shard.
const WITHIN: u32 = 24;
/// Entries of all shards together, half of what positions can tell apart: no shard then outgrows its own, since the hash
/// spreads them evenly.
pub(super) const ENTRIES_MAX: usize = 1 << 31;
/// Places of a shard's first allocation.
const LEAST: usize = 8;

/// In place of a miner: no entry was ever here, or one was and look-ups go on behind it.
const VACANT: u32 = u32::MAX;
const GONE: u32 = u32::MAX - 1;

/// One sector with its first two holders. Aligned so that it lies in one cache line.
#[derive(Clone, Copy)]
#[repr(align(32))]
pub(super) struct Entry {
    pub(super) number: u64,
    pub(super) miner: u32,
    /// One more than the index of the list of further holders; 0 = none.
    pub(super) more: u32,
    pub(super) held: [Held; 2],
}

impl Entry {
    fn none(miner: u32) -> Self {
        Self { number: 0, miner, more: 0, held: [Held::default(); 2] }
    }
}

pub(super) struct Entries {
    shards: Vec<Shard>,
    seed: u64,
    live: usize,
}

/// The number of places is a power of two, and at least one in eight is vacant.
#[derive(Default)]
struct Shard {
    places: Box<[Entry]>,
    live: usize,
    gone: usize,
}

impl Default for Entries {
    fn default() -> Self {
        let shards = (0..SHARDS).map(|_| Shard::default()).collect();
        Self { shards, seed: RandomState::new().hash_one(0), live: 0 }
    }
}

impl Entries {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.live
    }

    /// Makes room for so many at once, in a table that is new: growing to that would move most of them several times.
    pub(super) fn expect(&mut self, count: usize) {
        if self.live > 0 {
            return;
        }
        let each = (count.min(ENTRIES_MAX) / SHARDS * 8 / 7 + 1).next_power_of_two().max(LEAST);
        for shard in &mut self.shards {
            *shard = Shard { places: vec![Entry::none(VACANT); each].into_boxed_slice(), ..Shard::default() };
        }
    }

    /// The position of a sector.
    pub(super) fn find(&self, miner: u32, number: u64) -> Option<u32> {
        let hash = mixed(self.seed, miner, number);
        let shard = shard_of(hash);
        Some(position(shard, self.shards[shard].find(hash, miner, number)?))
    }

    /// Whether the sector still has this position.
    pub(super) fn is_at(&self, at: u32, miner: u32, number: u64) -> bool {
        let entry = self.get(at);
        entry.miner == miner && entry.number == number
    }

    /// Makes an entry for a sector that has none. `moved` is told the new position of each entry that had to move.
    pub(super) fn make(&mut self, miner: u32, number: u64, moved: impl FnMut(&Entry, u32)) -> u32 {
        let hash = mixed(self.seed, miner, number);
        let at = shard_of(hash);
        let shard = &mut self.shards[at];
        if !shard.has_room() {
            shard.grow(self.seed, at, moved);
        }
        self.live += 1;
        position(at, shard.put(hash, Entry { number, ..Entry::none(miner) }))
    }

    /// Forgets an entry. The others keep their positions.
    pub(super) fn remove(&mut self, at: u32) {
        self.shards[(at >> WITHIN) as usize].remove(within(at));
        self.live -= 1;
    }

    pub(super) fn get(&self, at: u32) -> &Entry {
        &self.shards[(at >> WITHIN) as usize].places[within(at)]
    }

    pub(super) fn get_mut(&mut self, at: u32) -> &mut Entry {
        &mut self.shards[(at >> WITHIN) as usize].places[within(at)]
    }
}

impl Shard {
    fn find(&self, hash: u64, miner: u32, number: u64) -> Option<usize> {
        let mask = self.places.len().checked_sub(1)?;
        let mut at = hash as usize & mask;
        loop {
            let entry = &self.places[at];
            if entry.number == number && entry.miner == miner {
                return Some(at);
            }
            if entry.miner == VACANT {
                return None;
            }
            at = (at + 1) & mask;
        }
    }

    /// Whether one more may be put: one place in eight stays vacant, or look-ups would go far, and at last for ever.
    fn has_room(&self) -> bool {
        (self.live + self.gone + 1) * 8 <= self.places.len() * 7
    }

    fn put(&mut self, hash: u64, entry: Entry) -> usize {
        let mask = self.places.len() - 1;
        let mut at = hash as usize & mask;
        while self.places[at].miner < GONE {
            at = (at + 1) & mask;
        }
        if self.places[at].miner == GONE {
            self.gone -= 1;
        }
        self.places[at] = entry;
        self.live += 1;
        at
    }

    /// Twice as many places, or as many again where half of them are only gone.
    fn grow(&mut self, seed: u64, shard: usize, mut moved: impl FnMut(&Entry, u32)) {
        let before = self.places.len();
        let count = if self.live * 2 > before { before * 2 } else { before }.max(LEAST);
        let fresh = vec![Entry::none(VACANT); count].into_boxed_slice();
        let old = std::mem::replace(&mut self.places, fresh);
        (self.live, self.gone) = (0, 0);
        for entry in old.iter().filter(|entry| entry.miner < GONE) {
            let at = self.put(mixed(seed, entry.miner, entry.number), *entry);
            moved(entry, position(shard, at));
        }
    }

    fn remove(&mut self, at: usize) {
        let mask = self.places.len() - 1;
        self.live -= 1;
        if self.places[(at + 1) & mask].miner != VACANT {
            self.places[at] = Entry::none(GONE);
            self.gone += 1;
            return;
        }
        self.places[at] = Entry::none(VACANT);
        // Nothing is looked for behind these any more.
        let mut before = at.wrapping_sub(1) & mask;
        while self.places[before].miner == GONE {
            self.places[before] = Entry::none(VACANT);
            self.gone -= 1;
            before = before.wrapping_sub(1) & mask;
        }
    }
}

fn position(shard: usize, within: usize) -> u32 {
    // ENTRIES_MAX keeps both in their bits.
    (shard as u32) << WITHIN | within as u32
}

fn within(at: u32) -> usize {
    (at & ((1 << WITHIN) - 1)) as usize
}

/// The lowest bits say where in a shard.
fn shard_of(hash: u64) -> usize {
    (hash >> 56) as usize % SHARDS
}

/// Two folded multiplications: sector numbers are small and dense, and every bit of the hash is used.
fn mixed(seed: u64, miner: u32, number: u64) -> u64 {
    let fold = |one: u64, other: u64| {
        let product = u128::from(one) * u128::from(other);
        product as u64 ^ (product >> 64) as u64
    };
    // The first digits of pi and of e, odd.
    let first = fold(number ^ seed, 0x3243_f6a8_885a_308d ^ u64::from(miner));
    fold(first ^ seed.rotate_left(32), 0x2b7e_1516_28ae_d2a7)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Entries come and go; each is found where it was said to be, and nothing else is.
    #[test]
    fn positions_hold_through_growth_and_removal() {
        let mut entries = Entries::default();
        let mut known = BTreeMap::<u64, u32>::new();
        let mut random = 7_u64;
        for round in 0..60_000_u64 {
            random = mixed(random, 1, round);
            let number = random % 20_000;
            match known.remove(&number) {
                Some(at) => entries.remove(at),
                None => {
                    let at = entries.make(3, number, |entry, at| {
                        *known.get_mut(&entry.number).expect("only what is there moves") = at;
                    });
                    known.insert(number, at);
                }
            }
        }
        assert_eq!(entries.len(), known.len());
        for number in 0..20_000 {
            assert_eq!(entries.find(3, number), known.get(&number).copied(), "{number}");
            assert_eq!(entries.find(4, number), None);
        }
        for at in known.into_values() {
            entries.remove(at);
        }
        assert_eq!(entries.len(), 0);
        assert!((0..20_000).all(|number| entries.find(3, number).is_none()));
    }

    /// A table that was told how many come moves none of them, and is told so once: what is there stays.
    #[test]
    fn what_is_expected_has_room() {
        let (mut entries, mut moves) = (Entries::default(), 0);
        entries.expect(20_000);
        let places: Vec<_> = (0..10_000).map(|number| entries.make(0, number, |_, _| moves += 1)).collect();
        assert_eq!(moves, 0);
        entries.expect(20_000);
        for (number, at) in (0..).zip(places) {
            assert_eq!(entries.find(0, number), Some(at), "{number}");
        }
    }

    /// A table that is filled and emptied again and again does not grow for it.
    #[test]
    fn what_is_gone_makes_room() {
        let mut entries = Entries::default();
        let mut places = Vec::new();
        for round in 0..20_u64 {
            let all: Vec<_> = (0..5000).map(|number| (number, round * 5000 + number)).collect();
            for (_, number) in &all {
                entries.make(0, *number, |_, _| {});
            }
            for (_, number) in all {
                let at = entries.find(0, number).expect("it was made");
                entries.remove(at);
            }
            places.push(entries.shards.iter().map(|shard| shard.places.len()).sum::<usize>());
        }
        let (first, last) = (places[0], places[places.len() - 1]);
        assert!(last <= first * 2, "{places:?}");
    }
}
