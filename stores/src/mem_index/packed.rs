//! Who holds what, packed: 32 bytes per sector with its first two holders in them, a hash table of sector numbers, and
//! per path the list of its sectors. About 13 to 20 bytes a file with three files a sector, below 50 with one.
//!
//! Never knows what a path is: paths are slots, numbered by whoever asks. Invariants: an entry is in the hash table
//! exactly while it has a holder; a holder's `place` is where the entry stands in the list of its slot.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;
use sealtasks::{FileTypes, SectorDecl, SectorId};

use super::held::{Held, Kind};

/// Sectors that one path, or all together, can have: 30 bits number a path's, 32 all.
pub(super) const PATH_SECTORS_MAX: usize = (1 << 30) - 1;
const ENTRIES_MAX: usize = u32::MAX as usize - 1;

/// Entries that are allocated together, so that growing copies nothing.
const CHUNK: usize = 4096;

/// The hash table grows in so many parts, each in its own moment: none of them takes a millisecond at 10 million.
const SHARDS: usize = 256;

/// Look-ups of a batch that are under way in the memory at once.
pub(super) const AHEAD: usize = 32;

/// With more miners than this, a hash table is asked for a miner's number.
const MINERS_LISTED: usize = 8;

/// No entry.
const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, Default)]
struct Entry {
    number: u64,
    miner: u32,
    /// One more than the index of the list of further holders; 0 = none.
    more: u32,
    held: [Held; 2],
}

pub(super) struct Holdings {
    shards: Vec<HashTable<u32>>,
    chunks: Vec<Box<[Entry]>>,
    /// Entries ever handed out.
    used: usize,
    free: Vec<u32>,
    more: Vec<Vec<Held>>,
    more_free: Vec<u32>,
    miners: Vec<u64>,
    miner_numbers: HashMap<u64, u32>,
    /// By slot.
    paths: Vec<Vec<u32>>,
    seed: u64,
}

impl Default for Holdings {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| HashTable::new()).collect(),
            chunks: Vec::new(),
            used: 0,
            free: Vec::new(),
            more: Vec::new(),
            more_free: Vec::new(),
            miners: Vec::new(),
            miner_numbers: HashMap::new(),
            paths: Vec::new(),
            seed: RandomState::new().hash_one(0),
        }
    }
}

impl Holdings {
    /// The holders of a sector, in the order they came.
    pub(super) fn of(&self, sector: SectorId) -> impl Iterator<Item = Held> + '_ {
        self.find(sector).into_iter().flat_map(|entry| self.holders(entry))
    }

    /// The holders of many sectors.
    pub(super) fn of_many(&self, sectors: &[SectorId], mut each: impl FnMut(SectorId, Held)) {
        for part in sectors.chunks(AHEAD) {
            let known = self.find_ahead(part.iter().copied());
            for (sector, entry) in part.iter().zip(known).filter(|(_, entry)| *entry != NONE) {
                self.holders(entry).for_each(|held| each(*sector, held));
            }
        }
    }

    /// The entries of up to [`AHEAD`] sectors. The look-ups do not depend on each other, so the memory serves them
    /// together.
    fn find_ahead(&self, sectors: impl Iterator<Item = SectorId>) -> [u32; AHEAD] {
        let mut known = [NONE; AHEAD];
        for (entry, sector) in known.iter_mut().zip(sectors) {
            *entry = self.find(sector).unwrap_or(NONE);
        }
        known
    }

    pub(super) fn in_slot(&self, sector: SectorId, slot: u16) -> Option<Held> {
        self.of(sector).find(|held| held.slot() == slot)
    }

    /// How many sectors have files in a slot.
    pub(super) fn count(&self, slot: u16) -> usize {
        self.paths.get(usize::from(slot)).map_or(0, Vec::len)
    }

    /// Whether so many more sectors could be declared in a slot.
    pub(super) fn has_room(&self, slot: u16, more: usize) -> bool {
        self.count(slot) + more <= PATH_SECTORS_MAX && self.used + more <= ENTRIES_MAX
    }

    /// The sectors of a slot with their files, in no order.
    pub(super) fn sectors(&self, slot: u16) -> impl Iterator<Item = (SectorId, Held)> + '_ {
        let list = self.paths.get(usize::from(slot)).map_or(&[][..], Vec::as_slice);
        list.iter().filter_map(move |entry| {
            let held = self.holders(*entry).find(|held| held.slot() == slot)?;
            Some((self.sector(*entry), held))
        })
    }

    /// Files that came to lie in a slot. The caller has asked [`Holdings::has_room`]. Sectors of which another slot has
    /// a primary copy of the same type, too, are added to `doubled`.
    pub(super) fn add(&mut self, slot: u16, batch: &[(SectorDecl, Kind)], doubled: &mut Vec<SectorId>) {
        for part in batch.chunks(AHEAD) {
            let known = self.find_ahead(part.iter().map(|(decl, _)| decl.sector));
            for (entry, (decl, kind)) in known.iter().zip(part) {
                if !decl.types.is_empty() {
                    // An earlier one of this part may have made it.
                    let entry = if *entry == NONE { self.find_or_make(decl.sector) } else { *entry };
                    self.hold(entry, slot, decl.types, *kind);
                    let twin = |held: Held| {
                        held.slot() != slot && !held.primary().intersection(decl.types).is_empty()
                    };
                    if *kind == (Kind::Declared { primary: true }) && self.holders(entry).any(twin) {
                        doubled.push(decl.sector);
                    }
                }
            }
        }
    }

    /// Files that no longer lie in a slot.
    pub(super) fn take(&mut self, slot: u16, sector: SectorId, types: FileTypes) {
        let Some(entry) = self.find(sector) else { return };
        let Some(held) = self.held_mut(entry, slot) else { return };
        if held.any().difference(types).is_empty() {
            let place = held.place();
            self.unlist(slot, place);
            self.vacate(entry, slot);
        } else {
            held.take(types);
        }
    }

    /// The list of a slot, which is then empty: what [`Holdings::sweep`] goes through.
    pub(super) fn unlist_all(&mut self, slot: u16) -> Vec<u32> {
        self.paths.get_mut(usize::from(slot)).map(std::mem::take).unwrap_or_default()
    }

    /// Forgets the last `count` entries of a list that [`Holdings::unlist_all`] gave.
    pub(super) fn sweep(&mut self, slot: u16, list: &mut Vec<u32>, count: usize, gone: &mut Vec<SectorId>) {
        let from = list.len().saturating_sub(count);
        for entry in list.drain(from..) {
            gone.push(self.sector(entry));
            self.vacate(entry, slot);
        }
    }

    fn hold(&mut self, entry: u32, slot: u16, types: FileTypes, kind: Kind) {
        match self.held_mut(entry, slot) {
            Some(held) => held.apply(types, kind),
            None => {
                let mut held = Held::new(slot, self.list(slot, entry));
                held.apply(types, kind);
                self.push(entry, held);
            }
        }
    }

    fn list(&mut self, slot: u16, entry: u32) -> usize {
        let slot = usize::from(slot);
        if self.paths.len() <= slot {
            self.paths.resize_with(slot + 1, Vec::new);
        }
        self.paths[slot].push(entry);
        self.paths[slot].len() - 1
    }

    fn unlist(&mut self, slot: u16, place: usize) {
        let Some(list) = self.paths.get_mut(usize::from(slot)) else { return };
        list.swap_remove(place);
        if let Some(moved) = list.get(place).copied()
            && let Some(held) = self.held_mut(moved, slot)
        {
            held.set_place(place);
        }
    }

    fn entry(&self, entry: u32) -> &Entry {
        let at = entry as usize;
        &self.chunks[at / CHUNK][at % CHUNK]
    }

    fn entry_mut(&mut self, entry: u32) -> &mut Entry {
        let at = entry as usize;
        &mut self.chunks[at / CHUNK][at % CHUNK]
    }

    fn sector(&self, entry: u32) -> SectorId {
        let entry = self.entry(entry);
        SectorId::new(self.miners[entry.miner as usize], entry.number)
    }

    fn holders(&self, entry: u32) -> impl Iterator<Item = Held> + '_ {
        let entry = self.entry(entry);
        let more = (entry.more as usize).checked_sub(1).map_or(&[][..], |at| self.more[at].as_slice());
        entry.held.iter().chain(more).copied().filter(|held| !held.is_vacant())
    }

    fn held_mut(&mut self, entry: u32, slot: u16) -> Option<&mut Held> {
        let at = entry as usize;
        let found = &mut self.chunks[at / CHUNK][at % CHUNK];
        let more = (found.more as usize).checked_sub(1);
        let rest = more.map_or(&mut [][..], |at| self.more[at].as_mut_slice());
        found.held.iter_mut().chain(rest).find(|held| held.slot() == slot && !held.is_vacant())
    }

    fn push(&mut self, entry: u32, held: Held) {
        let at = self.entry(entry);
        if let Some(vacant) = at.held.iter().position(|held| held.is_vacant()) {
            self.entry_mut(entry).held[vacant] = held;
            return;
        }
        let more = match (at.more as usize).checked_sub(1) {
            Some(more) => more,
            None => {
                let more = self.more_free.pop().unwrap_or(self.more.len() as u32) as usize;
                if more == self.more.len() {
                    self.more.push(Vec::new());
                }
                self.entry_mut(entry).more = more as u32 + 1;
                more
            }
        };
        self.more[more].push(held);
    }

    /// Takes a holder out of an entry, and the entry out of the table with its last one.
    fn vacate(&mut self, entry: u32, slot: u16) {
        let mut held = self.entry(entry).held;
        let here = |held: &Held| held.slot() == slot && !held.is_vacant();
        let inline = held.iter().position(here);
        if let Some(more) = (self.entry(entry).more as usize).checked_sub(1) {
            let list = &mut self.more[more];
            match inline {
                Some(at) => held[at] = list.remove(0),
                None => list.retain(|held| !here(held)),
            }
            let over = list.is_empty();
            let found = self.entry_mut(entry);
            found.held = held;
            if over {
                found.more = 0;
                self.more_free.push(more as u32);
            }
            return;
        }
        match inline {
            Some(0) => held = [held[1], Held::default()],
            Some(_) => held[1] = Held::default(),
            None => return,
        }
        self.entry_mut(entry).held = held;
        if held[0].is_vacant() {
            self.forget(entry);
        }
    }

    fn find(&self, sector: SectorId) -> Option<u32> {
        let miner = self.miner_number(sector.miner.get())?;
        let number = sector.number.get();
        let hash = self.hash(miner, number);
        let same = |entry: &u32| {
            let entry = self.entry(*entry);
            entry.number == number && entry.miner == miner
        };
        self.shards[shard_of(hash)].find(hash, same).copied()
    }

    fn find_or_make(&mut self, sector: SectorId) -> u32 {
        if let Some(entry) = self.find(sector) {
            return entry;
        }
        let miner = self.number_miner(sector.miner.get());
        let number = sector.number.get();
        let entry = self.free.pop().unwrap_or_else(|| {
            if self.used == self.chunks.len() * CHUNK {
                self.chunks.push(vec![Entry::default(); CHUNK].into_boxed_slice());
            }
            self.used += 1;
            // has_room keeps this below ENTRIES_MAX.
            self.used as u32 - 1
        });
        *self.entry_mut(entry) = Entry { number, miner, ..Entry::default() };
        let (seed, hash) = (self.seed, self.hash(miner, number));
        let chunks = &self.chunks;
        let rehash = |entry: &u32| {
            let at = *entry as usize;
            let entry = &chunks[at / CHUNK][at % CHUNK];
            mixed(seed, entry.miner, entry.number)
        };
        self.shards[shard_of(hash)].insert_unique(hash, entry, rehash);
        entry
    }

    fn forget(&mut self, entry: u32) {
        let Entry { number, miner, .. } = *self.entry(entry);
        let hash = self.hash(miner, number);
        if let Ok(found) = self.shards[shard_of(hash)].find_entry(hash, |known| *known == entry) {
            found.remove();
        }
        self.free.push(entry);
    }

    fn hash(&self, miner: u32, number: u64) -> u64 {
        mixed(self.seed, miner, number)
    }

    fn miner_number(&self, miner: u64) -> Option<u32> {
        if self.miners.len() <= MINERS_LISTED {
            return self.miners.iter().position(|known| *known == miner).map(|at| at as u32);
        }
        self.miner_numbers.get(&miner).copied()
    }

    /// Numbers are never given back: there are as many miners as an operator has, or at worst as entries.
    fn number_miner(&mut self, miner: u64) -> u32 {
        self.miner_number(miner).unwrap_or_else(|| {
            let number = self.miners.len() as u32;
            self.miners.push(miner);
            self.miner_numbers.insert(miner, number);
            number
        })
    }
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

/// hashbrown takes the lowest bits and the highest seven.
fn shard_of(hash: u64) -> usize {
    (hash >> 40) as usize % SHARDS
}
