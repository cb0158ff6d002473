//! Who holds what, packed: 32 bytes per sector with its first two holders in them, in a hash table, and per path the list of
//! its sectors. About 15 to 27 bytes a file with three files a sector.
//!
//! Never knows what a path is: paths are slots, numbered by whoever asks. Invariants: an entry is in the table exactly
//! while it has a holder; a holder's `place` is where the entry's position stands in the list of its slot.

use std::collections::HashMap;

use sealtasks::{FileTypes, SectorDecl, SectorId};

use super::entries::{ENTRIES_MAX, Entries, Entry};
use super::held::{Held, Kind};

/// Sectors that one path can have: 30 bits number them.
pub(super) const PATH_SECTORS_MAX: usize = (1 << 30) - 1;

/// Look-ups of a batch that are under way in the memory at once.
pub(super) const AHEAD: usize = 32;

/// With more miners than this, a hash table is asked for a miner's number.
const MINERS_LISTED: usize = 8;

/// No entry.
const NONE: u32 = u32::MAX;

#[derive(Default)]
pub(super) struct Holdings {
    entries: Entries,
    more: Vec<Vec<Held>>,
    more_free: Vec<u32>,
    miners: Vec<u64>,
    miner_numbers: HashMap<u64, u32>,
    /// By slot.
    paths: Vec<Vec<u32>>,
}

impl Holdings {
    /// So many sectors are about to come, if there are none yet.
    pub(super) fn expect(&mut self, count: usize) {
        self.entries.expect(count);
    }

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
        self.count(slot) + more <= PATH_SECTORS_MAX && self.entries.len() + more <= ENTRIES_MAX
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
                    // An earlier one of this part may have made it, or made it move.
                    let entry =
                        if self.is_at(*entry, decl.sector) { *entry } else { self.find_or_make(decl.sector) };
                    self.hold(entry, slot, decl.types, *kind);
                    let twin = |held: Held| {
                        held.slot() != slot && !held.primary().intersection(decl.types).is_empty()
                    };
                    if kind.is_primary() && self.holders(entry).any(twin) {
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

    /// Forgets the last `count` sectors of a slot; `false` when none are left. Told to `gone`.
    pub(super) fn sweep(&mut self, slot: u16, count: usize, gone: &mut Vec<SectorId>) -> bool {
        let Some(list) = self.paths.get_mut(usize::from(slot)) else { return false };
        let swept = list.split_off(list.len().saturating_sub(count));
        let left = !list.is_empty();
        if !left {
            *list = Vec::new();
        }
        for part in swept.chunks(AHEAD) {
            // Brought from the memory together, as for look-ups.
            std::hint::black_box(part.iter().map(|entry| self.holders(*entry).count()).sum::<usize>());
            for entry in part {
                gone.push(self.sector(*entry));
                self.vacate(*entry, slot);
            }
        }
        left
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
        self.entries.get(entry)
    }

    fn entry_mut(&mut self, entry: u32) -> &mut Entry {
        self.entries.get_mut(entry)
    }

    fn sector(&self, entry: u32) -> SectorId {
        let entry = self.entry(entry);
        SectorId::new(self.miners[entry.miner as usize], entry.number)
    }

    fn holders(&self, entry: u32) -> impl Iterator<Item = Held> + '_ {
        holders(self.entry(entry), &self.more)
    }

    fn held_mut(&mut self, entry: u32, slot: u16) -> Option<&mut Held> {
        let found = self.entries.get_mut(entry);
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
            self.entries.remove(entry);
        }
    }

    fn find(&self, sector: SectorId) -> Option<u32> {
        self.entries.find(self.miner_number(sector.miner.get())?, sector.number.get())
    }

    /// Whether an entry that was found a moment ago still is the sector's.
    fn is_at(&self, entry: u32, sector: SectorId) -> bool {
        let miner = self.miner_number(sector.miner.get());
        entry != NONE && miner.is_some_and(|miner| self.entries.is_at(entry, miner, sector.number.get()))
    }

    fn find_or_make(&mut self, sector: SectorId) -> u32 {
        if let Some(entry) = self.find(sector) {
            return entry;
        }
        let miner = self.number_miner(sector.miner.get());
        let Self { entries, more, paths, .. } = self;
        entries.make(miner, sector.number.get(), |entry, at| {
            for held in holders(entry, more) {
                paths[usize::from(held.slot())][held.place()] = at;
            }
        })
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

fn holders<'a>(entry: &'a Entry, more: &'a [Vec<Held>]) -> impl Iterator<Item = Held> + 'a {
    let more = (entry.more as usize).checked_sub(1).map_or(&[][..], |at| more[at].as_slice());
    entry.held.iter().chain(more).copied().filter(|held| !held.is_vacant())
}
