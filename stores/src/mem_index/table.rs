//! The index's state and its rules, without locks, time or observers.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use sealtasks::{
    FileTypes, FsStat, PathType, SectorDecl, SectorId, SectorSize, SectorStorageInfo, StorageId, StorageInfo,
};

use super::{HEARTBEAT_STALE_MS, PathView};
use crate::index::{CopyKind, IndexError};

/// Slots are numbered in 16 bits to keep a file's entry small.
const PATHS_MAX: usize = u16::MAX as usize;

#[derive(Default)]
pub(super) struct Table {
    pub(super) slots: Vec<Option<PathSlot>>,
    pub(super) by_id: BTreeMap<StorageId, u16>,
    pub(super) held: HashMap<SectorId, Vec<Held>>,
}

pub(super) struct PathSlot {
    pub(super) info: StorageInfo,
    pub(super) stat: FsStat,
    pub(super) heartbeat_ms: u64,
    pub(super) error: Option<String>,
    pub(super) sectors: BTreeSet<SectorId>,
}

#[derive(Clone, Copy)]
pub(super) struct Held {
    pub(super) slot: u16,
    pub(super) types: FileTypes,
    pub(super) primary: FileTypes,
}

/// Where files of a sector may be fetched to, by groups.
pub(super) enum Reach {
    Anywhere,
    Groups(BTreeSet<String>),
}

impl Table {
    pub(super) fn slot_of(&self, id: &StorageId) -> Result<u16, IndexError> {
        self.by_id.get(id).copied().ok_or_else(|| IndexError::UnknownStorage { id: id.clone() })
    }

    pub(super) fn slot(&self, slot: u16) -> Option<&PathSlot> {
        self.slots.get(usize::from(slot)).and_then(Option::as_ref)
    }

    pub(super) fn held_in(&self, sector: SectorId, slot: u16) -> Option<&Held> {
        self.held.get(&sector)?.iter().find(|held| held.slot == slot)
    }

    pub(super) fn attach(&mut self, info: StorageInfo, stat: FsStat, now: u64) -> Result<(), IndexError> {
        let known =
            self.by_id.get(&info.id).and_then(|slot| self.slots.get_mut(usize::from(*slot))?.as_mut());
        if let Some(path) = known {
            let mut urls = std::mem::take(&mut path.info.urls);
            urls.extend(info.urls.iter().filter(|url| !urls.contains(url)).cloned().collect::<Vec<_>>());
            path.info = StorageInfo { urls, ..info };
            return Ok(());
        }
        let free = self.slots.iter().position(Option::is_none).unwrap_or(self.slots.len());
        let number = u16::try_from(free).map_err(|_| IndexError::TooManyPaths { count: PATHS_MAX })?;
        if free == self.slots.len() {
            self.slots.push(None);
        }
        self.by_id.insert(info.id.clone(), number);
        self.slots[free] =
            Some(PathSlot { info, stat, heartbeat_ms: now, error: None, sectors: BTreeSet::new() });
        Ok(())
    }

    /// Returns whether the path itself is gone.
    pub(super) fn detach(&mut self, id: &StorageId, url: &str) -> Result<bool, IndexError> {
        let slot = self.slot_of(id)?;
        let entry = self.slots.get_mut(usize::from(slot));
        let Some(path) = entry.and_then(Option::as_mut) else {
            return Err(IndexError::UnknownStorage { id: id.clone() });
        };
        let Some(position) = path.info.urls.iter().position(|known| known == url) else {
            let known = path.info.urls.join(" ");
            return Err(IndexError::UrlMismatch { id: id.clone(), url: url.to_owned(), known });
        };
        if path.info.urls.len() > 1 {
            path.info.urls.remove(position);
            return Ok(false);
        }
        let sectors = std::mem::take(&mut path.sectors);
        self.slots[usize::from(slot)] = None;
        self.by_id.remove(id);
        for sector in sectors {
            self.forget(slot, sector);
        }
        Ok(true)
    }

    pub(super) fn declare(&mut self, slot: u16, decl: SectorDecl, copy: CopyKind) {
        if decl.types.is_empty() {
            return;
        }
        let primary = if copy.is_primary() { decl.types } else { FileTypes::NONE };
        let holders = self.held.entry(decl.sector).or_default();
        match holders.iter_mut().find(|held| held.slot == slot) {
            Some(held) => {
                held.types = held.types | decl.types;
                held.primary = held.primary | primary;
            }
            None => holders.push(Held { slot, types: decl.types, primary }),
        }
        if let Some(path) = self.slots.get_mut(usize::from(slot)).and_then(Option::as_mut) {
            path.sectors.insert(decl.sector);
        }
    }

    pub(super) fn drop_files(&mut self, slot: u16, sector: SectorId, types: FileTypes) {
        let Some(holders) = self.held.get_mut(&sector) else { return };
        let Some(held) = holders.iter_mut().find(|held| held.slot == slot) else { return };
        held.types = held.types.difference(types);
        held.primary = held.primary.difference(types);
        if held.types.is_empty() {
            self.forget(slot, sector);
            if let Some(path) = self.slots.get_mut(usize::from(slot)).and_then(Option::as_mut) {
                path.sectors.remove(&sector);
            }
        }
    }

    pub(super) fn forget(&mut self, slot: u16, sector: SectorId) {
        if let Some(holders) = self.held.get_mut(&sector) {
            holders.retain(|held| held.slot != slot);
            if holders.is_empty() {
                self.held.remove(&sector);
            }
        }
    }

    pub(super) fn holders(&self, sector: SectorId, types: FileTypes) -> (Vec<SectorStorageInfo>, Reach) {
        let mut found = Vec::new();
        let mut groups = BTreeSet::new();
        let mut anywhere = false;
        for held in self.held.get(&sector).into_iter().flatten() {
            let here = held.types.intersection(types);
            let Some(path) = self.slot(held.slot).filter(|_| !here.is_empty()) else { continue };
            let stanza = &path.info.stanza;
            anywhere |= stanza.allow_to.is_empty();
            groups.extend(stanza.allow_to.iter().cloned());
            found.push(SectorStorageInfo {
                weight: stanza.weight.saturating_mul(here.len() as u64),
                primary: !held.primary.intersection(types).is_empty(),
                ..path.place(sector, here)
            });
        }
        (found, if anywhere { Reach::Anywhere } else { Reach::Groups(groups) })
    }

    pub(super) fn fetch_targets(
        &self,
        sector: SectorId,
        types: FileTypes,
        size: SectorSize,
        reach: &Reach,
        now: u64,
    ) -> Vec<SectorStorageInfo> {
        let need = PathType::Sealing.space_table().bytes(types, size);
        let suits = |(slot, path): &(u16, &PathSlot)| {
            let stanza = &path.info.stanza;
            let holds =
                self.held_in(sector, *slot).is_some_and(|held| !held.types.intersection(types).is_empty());
            let reachable = match reach {
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
        let slots = self.by_id.values().filter_map(|slot| Some((*slot, self.slot(*slot)?)));
        slots.filter(suits).map(|(_, path)| path.place(sector, types)).collect()
    }
}

impl PathSlot {
    pub(super) fn view(&self, now: u64) -> PathView {
        PathView {
            info: self.info.clone(),
            stat: self.stat,
            heartbeat_age_ms: now.saturating_sub(self.heartbeat_ms),
            error: self.error.clone(),
            healthy: self.healthy(now),
            sectors: self.sectors.len(),
        }
    }

    pub(super) fn healthy(&self, now: u64) -> bool {
        self.error.is_none() && now.saturating_sub(self.heartbeat_ms) <= HEARTBEAT_STALE_MS
    }

    pub(super) fn takes_new(&self, now: u64, need: u64) -> bool {
        self.info.stanza.weight > 0 && self.healthy(now) && self.available() >= need
    }

    /// A negative figure from a peer counts as nothing.
    pub(super) fn available(&self) -> u64 {
        u64::try_from(self.stat.available).unwrap_or(0)
    }

    pub(super) fn score(&self) -> u128 {
        u128::from(self.available()) * u128::from(self.info.stanza.weight)
    }

    /// This path as a place for `types` of `sector`; weight 0 and not primary until a holder says otherwise.
    pub(super) fn place(&self, sector: SectorId, types: FileTypes) -> SectorStorageInfo {
        let stanza = &self.info.stanza;
        let of = |base: &String| {
            let base = base.trim_end_matches('/').to_owned();
            types.iter().map(move |kind| format!("{base}/{kind}/{sector}")).collect::<Vec<_>>()
        };
        SectorStorageInfo {
            id: self.info.id.clone(),
            urls: self.info.urls.iter().flat_map(of).collect(),
            base_urls: self.info.urls.clone(),
            weight: 0,
            can_seal: stanza.can_seal,
            can_store: stanza.can_store,
            primary: false,
            filters: stanza.filters.clone(),
        }
    }
}
