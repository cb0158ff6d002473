//! The index's state and its rules, without locks, time or observers.

use std::collections::{BTreeMap, BTreeSet};

use sealtasks::{
    ActorId, FileTypes, FsStat, PathType, SectorDecl, SectorId, SectorSize, SectorStorageInfo, StorageId,
    StorageInfo,
};

use super::held::{Held, Kind};
use super::packed::Holdings;
use super::path::PathSlot;
use super::rank::{Ranking, Row};
use super::superseded::Superseded;
use crate::index::IndexError;

/// Slots are numbered in 16 bits to keep a file's entry small.
const PATHS_MAX: usize = u16::MAX as usize;

#[derive(Default)]
pub(super) struct Table {
    slots: Vec<Option<PathSlot>>,
    by_id: BTreeMap<StorageId, u16>,
    files: Holdings,
    ranking: Ranking,
    /// Slots of detached paths whose files are still listed: dead at once, swept bit by bit, and given to no other path
    /// until then.
    dying: Vec<u16>,
    /// Sectors of which some type has two or more primary copies.
    doubled: BTreeSet<SectorId>,
    /// Copies that are listed nowhere though they are there.
    pub(super) superseded: Superseded,
    /// Sectors whose replica stays where it lies, but for these paths.
    kept: BTreeMap<SectorId, (FileTypes, BTreeSet<StorageId>)>,
}

/// Where files of a sector may be fetched to, by groups.
pub(super) enum Reach {
    Anywhere,
    Groups(BTreeSet<String>),
}

/// What is wanted of a path for new files.
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    pub(super) need: u64,
    pub(super) path_type: PathType,
    pub(super) miner: ActorId,
    pub(super) now: u64,
}

impl Table {
    pub(super) fn slot_of(&self, id: &StorageId) -> Result<u16, IndexError> {
        self.by_id.get(id).copied().ok_or_else(|| IndexError::UnknownStorage { id: id.clone() })
    }

    pub(super) fn slot(&self, slot: u16) -> Option<&PathSlot> {
        self.slots.get(usize::from(slot)).and_then(Option::as_ref)
    }

    fn slot_mut(&mut self, slot: u16) -> Option<&mut PathSlot> {
        self.slots.get_mut(usize::from(slot)).and_then(Option::as_mut)
    }

    pub(super) fn path(&self, id: &StorageId) -> Option<(u16, &PathSlot)> {
        let slot = *self.by_id.get(id)?;
        Some((slot, self.slot(slot)?))
    }

    /// Every path, by id.
    pub(super) fn paths(&self) -> impl Iterator<Item = (u16, &PathSlot)> {
        self.by_id.values().filter_map(|slot| Some((*slot, self.slot(*slot)?)))
    }

    /// The holders of a sector in living paths.
    pub(super) fn held(&self, sector: SectorId) -> impl Iterator<Item = (Held, &PathSlot)> {
        self.files.of(sector).filter_map(|held| Some((held, self.slot(held.slot())?)))
    }

    /// The same for many sectors.
    pub(super) fn held_many(&self, sectors: &[SectorId], mut each: impl FnMut(SectorId, Held, &PathSlot)) {
        self.files.of_many(sectors, |sector, held| {
            if let Some(path) = self.slot(held.slot()) {
                each(sector, held, path);
            }
        });
    }

    pub(super) fn count(&self, slot: u16) -> usize {
        self.files.count(slot)
    }

    /// The sectors of a slot with their files, in no order.
    pub(super) fn sectors_unsorted(&self, slot: u16) -> impl Iterator<Item = (SectorId, Held)> {
        self.files.sectors(slot)
    }

    /// The same, by sector.
    pub(super) fn sectors(&self, slot: u16) -> Vec<(SectorId, Held)> {
        let mut all: Vec<_> = self.files.sectors(slot).collect();
        all.sort_unstable_by_key(|(sector, _)| *sector);
        all
    }

    pub(super) fn attach(&mut self, info: StorageInfo, stat: FsStat, now: u64) -> Result<(), IndexError> {
        let slot = match self.by_id.get(&info.id).copied() {
            Some(slot) => {
                if let Some(path) = self.slot_mut(slot) {
                    path.attach_again(info, stat, now);
                }
                slot
            }
            None => self.occupy(PathSlot::new(info, stat, now))?,
        };
        self.rank(slot);
        Ok(())
    }

    /// A path that a snapshot tells of, unless it is attached already.
    pub(super) fn restore(&mut self, info: StorageInfo, stat: FsStat) -> Result<u16, IndexError> {
        match self.by_id.get(&info.id) {
            Some(slot) => Ok(*slot),
            None => self.occupy(PathSlot::remembered(info, stat)),
        }
    }

    fn occupy(&mut self, path: PathSlot) -> Result<u16, IndexError> {
        if self.by_id.len() + self.dying.len() >= PATHS_MAX {
            // Rather a long moment than a refusal.
            while self.sweep(usize::MAX) {}
        }
        let vacant = |(at, slot): (usize, &Option<PathSlot>)| {
            let number = u16::try_from(at).ok()?;
            (slot.is_none() && !self.dying.contains(&number)).then_some(at)
        };
        let free = self.slots.iter().enumerate().find_map(vacant).unwrap_or(self.slots.len());
        let number = u16::try_from(free).ok().filter(|_| free < PATHS_MAX);
        let number = number.ok_or(IndexError::TooManyPaths { count: PATHS_MAX })?;
        if free == self.slots.len() {
            self.slots.push(None);
        }
        self.by_id.insert(path.info.id.clone(), number);
        self.slots[free] = Some(path);
        Ok(number)
    }

    /// Returns whether the path itself is gone. Its files are then found no more; [`Table::sweep`] takes them away.
    pub(super) fn detach(&mut self, id: &StorageId, url: &str) -> Result<bool, IndexError> {
        let slot = self.slot_of(id)?;
        let path = self.slot_mut(slot).ok_or_else(|| IndexError::UnknownStorage { id: id.clone() })?;
        let Some(position) = path.info.urls.iter().position(|known| known == url) else {
            let known = path.info.urls.join(" ");
            return Err(IndexError::UrlMismatch { id: id.clone(), url: url.to_owned(), known });
        };
        if path.info.urls.len() > 1 {
            path.remove_url(position);
            return Ok(false);
        }
        self.slots[usize::from(slot)] = None;
        self.by_id.remove(id);
        self.ranking.remove(slot);
        self.dying.push(slot);
        Ok(true)
    }

    /// Takes up to `count` entries of dead paths away. Returns whether there is more to do.
    pub(super) fn sweep(&mut self, count: usize) -> bool {
        let Some(slot) = self.dying.last().copied() else { return false };
        let mut gone = Vec::new();
        if !self.files.sweep(slot, count, &mut gone) {
            self.dying.pop();
        }
        if !self.doubled.is_empty() {
            gone.into_iter().for_each(|sector| self.count_primaries(sector));
        }
        !self.dying.is_empty()
    }

    /// Changes a path by `change` and puts it where it then belongs among those offered for new files.
    pub(super) fn with_path(
        &mut self,
        id: &StorageId,
        change: impl FnOnce(&mut PathSlot),
    ) -> Result<(), IndexError> {
        let slot = self.slot_of(id)?;
        if let Some(path) = self.slot_mut(slot) {
            change(path);
        }
        self.rank(slot);
        Ok(())
    }

    fn rank(&mut self, slot: u16) {
        let Some(path) = self.slots.get(usize::from(slot)).and_then(Option::as_ref) else { return };
        let stanza = &path.info.stanza;
        if stanza.weight == 0 {
            self.ranking.remove(slot);
            return;
        }
        let row = Row {
            score: path.score(),
            available: path.available(),
            fresh_until: path.fresh_until(),
            slot,
            can_seal: stanza.can_seal,
            can_store: stanza.can_store,
            picky: !stanza.filters.allow_miners.is_empty() || !stanza.filters.deny_miners.is_empty(),
        };
        let id = |slot: u16| Some(&self.slots.get(usize::from(slot))?.as_ref()?.info.id);
        self.ranking.put(row, |one, other| id(one).cmp(&id(other)));
    }

    /// Paths for new files, best first.
    pub(super) fn offers(&self, wanted: Wanted) -> impl Iterator<Item = &PathSlot> {
        let suits = move |row: &&Row| {
            let kind = match wanted.path_type {
                PathType::Sealing => row.can_seal,
                PathType::Storage => row.can_store,
            };
            kind && row.takes(wanted.now, wanted.need)
        };
        let rows = self.ranking.rows().iter().filter(suits);
        rows.filter_map(move |row| {
            let path = self.slot(row.slot)?;
            (!row.picky || path.info.stanza.filters.accepts_miner(wanted.miner)).then_some(path)
        })
    }

    /// So many sectors are about to be declared, if there are none yet.
    pub(super) fn expect(&mut self, count: usize) {
        self.files.expect(count);
    }

    pub(super) fn declare(&mut self, id: &StorageId, files: &[(SectorDecl, Kind)]) -> Result<(), IndexError> {
        if self.superseded.is_empty() {
            return self.list(id, files);
        }
        let files = self.listable(id, files);
        self.list(id, &files)?;
        self.hide_older(id, &files);
        Ok(())
    }

    fn list(&mut self, id: &StorageId, files: &[(SectorDecl, Kind)]) -> Result<(), IndexError> {
        let slot = self.slot_of(id)?;
        if !self.files.has_room(slot, files.len()) {
            return Err(IndexError::TooManyFiles { id: id.clone(), count: self.files.count(slot) });
        }
        let mut doubled = Vec::new();
        self.files.add(slot, files, &mut doubled);
        doubled.into_iter().for_each(|sector| self.count_primaries(sector));
        Ok(())
    }

    /// They are there no more.
    pub(super) fn drop_files(
        &mut self,
        id: &StorageId,
        sector: SectorId,
        types: FileTypes,
    ) -> Result<(), IndexError> {
        let dropped = self.take_out(id, sector, types);
        if !matches!(dropped, Err(IndexError::Kept { .. })) {
            self.superseded.take(id, sector, types);
        }
        dropped
    }

    /// They are listed no more.
    pub(super) fn take_out(
        &mut self,
        id: &StorageId,
        sector: SectorId,
        types: FileTypes,
    ) -> Result<(), IndexError> {
        let slot = self.slot_of(id)?;
        if self.is_kept(slot, id, sector, types) {
            return Err(IndexError::Kept { id: id.clone(), sector });
        }
        self.files.take(slot, sector, types);
        if !self.doubled.is_empty() {
            self.count_primaries(sector);
        }
        Ok(())
    }

    pub(super) fn keep(&mut self, sector: SectorId, types: FileTypes, but_for: Option<BTreeSet<StorageId>>) {
        match but_for {
            Some(but_for) => self.kept.insert(sector, (types, but_for)),
            None => self.kept.remove(&sector),
        };
    }

    /// Whether something of these files lies there and must not go.
    fn is_kept(&self, slot: u16, id: &StorageId, sector: SectorId, types: FileTypes) -> bool {
        let held = || self.files.in_slot(sector, slot).map(Held::any).unwrap_or_default();
        let kept = self.kept.get(&sector).filter(|(_, but_for)| !but_for.contains(id));
        kept.is_some_and(|(kept, _)| !held().intersection(types).intersection(*kept).is_empty())
    }

    /// A path that holds some of a sector's kept files, is not named, and stands against telling where these files lie.
    pub(super) fn stray(&self, sector: SectorId, types: FileTypes) -> Option<StorageId> {
        let (kept, but_for) = self.kept.get(&sector)?;
        if types.intersection(*kept).is_empty() {
            return None;
        }
        let holds = |(held, _): &(Held, &PathSlot)| !held.any().intersection(*kept).is_empty();
        let mut holders = self.held(sector).filter(holds).map(|(_, path)| &path.info.id);
        holders.find(|id| !but_for.contains(*id)).cloned()
    }

    /// Drops what is still unconfirmed of these files.
    pub(super) fn drop_unconfirmed(&mut self, id: &StorageId, decl: SectorDecl) -> Result<(), IndexError> {
        let slot = self.slot_of(id)?;
        let waiting = self.files.in_slot(decl.sector, slot).map(Held::unconfirmed).unwrap_or_default();
        self.files.take(slot, decl.sector, decl.types.intersection(waiting));
        Ok(())
    }

    /// The sectors in a path with files that nobody has declared, by sector.
    pub(super) fn unconfirmed(&self, slot: u16) -> Vec<SectorDecl> {
        let waiting = |(sector, held): (SectorId, Held)| SectorDecl { sector, types: held.unconfirmed() };
        let mut all: Vec<_> =
            self.files.sectors(slot).map(waiting).filter(|decl| !decl.types.is_empty()).collect();
        all.sort_unstable();
        all
    }

    /// Sectors with two or more primary copies of one type.
    pub(super) fn doubled(&self) -> impl Iterator<Item = SectorId> {
        self.doubled.iter().copied()
    }

    /// The types of a sector with two or more primary copies.
    pub(super) fn conflict(&self, sector: SectorId) -> FileTypes {
        let (mut once, mut twice) = (FileTypes::NONE, FileTypes::NONE);
        for (held, _) in self.held(sector) {
            twice = twice | once.intersection(held.primary());
            once = once | held.primary();
        }
        twice
    }

    fn count_primaries(&mut self, sector: SectorId) {
        if self.conflict(sector).is_empty() {
            self.doubled.remove(&sector);
        } else {
            self.doubled.insert(sector);
        }
    }

    /// The holders of any of `types` in no order, and where these files may be fetched to.
    pub(super) fn holders(&self, sector: SectorId, types: FileTypes) -> Vec<SectorStorageInfo> {
        let place = |(held, path): (Held, &PathSlot)| path.holder(held, sector, types);
        self.held(sector).filter_map(place).collect()
    }

    pub(super) fn reach(&self, sector: SectorId, types: FileTypes) -> Reach {
        let mut groups = BTreeSet::new();
        for (held, path) in self.held(sector) {
            if !held.any().intersection(types).is_empty() {
                let allow_to = &path.info.stanza.allow_to;
                if allow_to.is_empty() {
                    return Reach::Anywhere;
                }
                groups.extend(allow_to.iter().cloned());
            }
        }
        Reach::Groups(groups)
    }

    pub(super) fn fetch_targets(
        &self,
        sector: SectorId,
        types: FileTypes,
        size: SectorSize,
        now: u64,
    ) -> Vec<SectorStorageInfo> {
        let need = PathType::Sealing.space_table().bytes(types, size);
        let reach = self.reach(sector, types);
        let suits = |(slot, path): &(u16, &PathSlot)| {
            let stanza = &path.info.stanza;
            let held = self.files.in_slot(sector, *slot);
            let holds = held.is_some_and(|held| !held.any().intersection(types).is_empty());
            let reachable = match &reach {
                Reach::Anywhere => true,
                Reach::Groups(groups) => stanza.groups.iter().any(|group| groups.contains(group)),
            };
            !holds
                && reachable
                && stanza.can_seal
                && stanza.filters.accepts_miner(sector.miner)
                && !stanza.filters.accepted(types).is_empty()
                && path.takes_new(now, need)
        };
        self.paths().filter(suits).map(|(_, path)| path.place(sector, types)).collect()
    }
}
