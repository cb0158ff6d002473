//! The index in memory: the manager's answer to [`Index`], with Lotus's rules and a fixed order.
//!
//! State: a numbered slot per path, and per sector the few slots that hold files of it, six type bits and six primary
//! bits each. A path also keeps the set of its sectors, so that detaching costs what that path holds, not what the
//! index holds. Time is passed in as unix milliseconds. Nothing is durable: paths are declared again after a restart.
//!
//! Differences from Lotus, on purpose: a path of weight 0 (documented there as read-only) is offered for nothing new;
//! files of a path that is not attached cannot be declared; the order of answers is fixed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use async_trait::async_trait;
use sealtasks::{
    ActorId, FileTypes, FsStat, HealthReport, PathType, SectorDecl, SectorId, SectorSize, SectorStorageInfo,
    StorageId, StorageInfo,
};
use tokio::sync::watch;

use crate::index::{CopyKind, Index, IndexError};

/// A path silent for longer gets nothing new: five heartbeats of ten seconds. Source: Lotus `SkippedHeartbeatThresh`.
pub const HEARTBEAT_STALE_MS: u64 = 50_000;

/// Slots are numbered in 16 bits to keep a file's entry small.
const PATHS_MAX: usize = u16::MAX as usize;

/// Tells the time in unix milliseconds.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Told of every change, in order, while the index is locked: it must only pass the change on, never ask the index.
pub type Observer = Arc<dyn Fn(&IndexChange) + Send + Sync>;

/// One change of the index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IndexChange {
    /// A path was attached, or its settings, URLs or health changed.
    Path(StorageId),
    /// A path is gone with all its files.
    PathGone(StorageId),
    /// The files of these sectors in this path changed.
    Files {
        /// The path.
        id: StorageId,
        /// The sectors.
        sectors: Vec<SectorId>,
    },
}

/// A path as the index sees it now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathView {
    /// What was attached: id, URLs, settings.
    pub info: StorageInfo,
    /// The last reported fullness.
    pub stat: FsStat,
    /// Milliseconds since the last heartbeat.
    pub heartbeat_age_ms: u64,
    /// What the last heartbeat said is wrong, if anything.
    pub error: Option<String>,
    /// Whether new files may be sent there as far as health goes.
    pub healthy: bool,
    /// How many sectors have files there.
    pub sectors: usize,
}

/// The files of one sector in one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldFiles {
    /// The path.
    pub id: StorageId,
    /// What lies there.
    pub types: FileTypes,
    /// Which of them are primary copies.
    pub primary: FileTypes,
}

/// The in-memory index. Share it by `Arc`.
pub struct MemIndex {
    table: RwLock<Table>,
    clock: Clock,
    observer: Option<Observer>,
    generation: watch::Sender<u64>,
}

#[derive(Default)]
struct Table {
    slots: Vec<Option<PathSlot>>,
    by_id: BTreeMap<StorageId, u16>,
    held: HashMap<SectorId, Vec<Held>>,
}

struct PathSlot {
    info: StorageInfo,
    stat: FsStat,
    heartbeat_ms: u64,
    error: Option<String>,
    sectors: BTreeSet<SectorId>,
}

#[derive(Clone, Copy)]
struct Held {
    slot: u16,
    types: FileTypes,
    primary: FileTypes,
}

impl MemIndex {
    /// An empty index that reads the time from `clock`.
    pub fn new(clock: Clock) -> Self {
        Self { table: RwLock::default(), clock, observer: None, generation: watch::Sender::new(0) }
    }

    /// An empty index that also tells `observer` of every change.
    pub fn observed(clock: Clock, observer: Observer) -> Self {
        Self { observer: Some(observer), ..Self::new(clock) }
    }

    /// How many changes there were.
    pub fn generation(&self) -> u64 {
        *self.generation.borrow()
    }

    /// Wakes at every change; the value is [`MemIndex::generation`].
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    /// Every path with the files in it, as Lotus's `StorageList`.
    pub fn list(&self) -> BTreeMap<StorageId, Vec<SectorDecl>> {
        let table = self.read();
        let decls = |slot: u16| {
            let sectors = table.slot(slot).into_iter().flat_map(|path| &path.sectors);
            let held = |sector: &SectorId| table.held_in(*sector, slot).map(|held| (*sector, held.types));
            sectors.filter_map(held).map(|(sector, types)| SectorDecl { sector, types }).collect()
        };
        table.by_id.iter().map(|(id, slot)| (id.clone(), decls(*slot))).collect()
    }

    /// Every path, by id.
    pub fn paths(&self) -> Vec<PathView> {
        let (table, now) = (self.read(), (self.clock)());
        table.by_id.values().filter_map(|slot| table.slot(*slot)).map(|path| path.view(now)).collect()
    }

    /// One path.
    pub fn path_view(&self, id: &StorageId) -> Option<PathView> {
        let (table, now) = (self.read(), (self.clock)());
        table.by_id.get(id).and_then(|slot| table.slot(*slot)).map(|path| path.view(now))
    }

    /// Where the files of one sector lie, by path id.
    pub fn sector_files(&self, sector: SectorId) -> Vec<HeldFiles> {
        let table = self.read();
        let of = |held: &Held| {
            let id = table.slot(held.slot)?.info.id.clone();
            Some(HeldFiles { id, types: held.types, primary: held.primary })
        };
        let mut files: Vec<_> = table.held.get(&sector).into_iter().flatten().filter_map(of).collect();
        files.sort_by(|one, other| one.id.cmp(&other.id));
        files
    }

    /// The files in one path with the primary ones among them, by sector.
    pub fn path_files(&self, id: &StorageId) -> Vec<(SectorDecl, FileTypes)> {
        let table = self.read();
        let Some(slot) = table.by_id.get(id).copied() else { return Vec::new() };
        let decl = |sector: &SectorId| {
            let held = table.held_in(*sector, slot)?;
            Some((SectorDecl { sector: *sector, types: held.types }, held.primary))
        };
        table.slot(slot).into_iter().flat_map(|path| &path.sectors).filter_map(decl).collect()
    }

    fn read(&self) -> RwLockReadGuard<'_, Table> {
        // No operation panics halfway through a change, so a poisoned table is still whole.
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Called with the table locked, so that observers see changes in the order they happened.
    fn changed(&self, change: &IndexChange) {
        if let Some(observer) = &self.observer {
            observer(change);
        }
        self.generation.send_modify(|count| *count += 1);
    }
}

#[async_trait]
impl Index for MemIndex {
    async fn attach(&self, info: StorageInfo, stat: FsStat) -> Result<(), IndexError> {
        if info.urls.is_empty() {
            return Err(IndexError::NoUrl { id: info.id });
        }
        let id = info.id.clone();
        let mut table = self.write();
        table.attach(info, stat, (self.clock)())?;
        self.changed(&IndexChange::Path(id));
        Ok(())
    }

    async fn detach(&self, id: &StorageId, url: &str) -> Result<(), IndexError> {
        let mut table = self.write();
        let gone = table.detach(id, url)?;
        let id = id.clone();
        self.changed(&if gone { IndexChange::PathGone(id) } else { IndexChange::Path(id) });
        Ok(())
    }

    async fn info(&self, id: &StorageId) -> Result<StorageInfo, IndexError> {
        let table = self.read();
        let slot = table.slot_of(id)?;
        table
            .slot(slot)
            .map(|path| path.info.clone())
            .ok_or_else(|| IndexError::UnknownStorage { id: id.clone() })
    }

    async fn report_health(&self, id: &StorageId, report: HealthReport) -> Result<(), IndexError> {
        let mut table = self.write();
        let slot = table.by_id.get(id).copied();
        let path = slot.and_then(|slot| table.slots.get_mut(usize::from(slot))?.as_mut());
        let path = path.ok_or_else(|| IndexError::UnknownHealth { id: id.clone() })?;
        path.stat = report.stat;
        path.error = report.error.filter(|text| !text.is_empty());
        path.heartbeat_ms = (self.clock)();
        self.changed(&IndexChange::Path(id.clone()));
        Ok(())
    }

    async fn declare(
        &self,
        id: &StorageId,
        sector: SectorId,
        types: FileTypes,
        copy: CopyKind,
    ) -> Result<(), IndexError> {
        self.declare_batch(id, &[(SectorDecl { sector, types }, copy.is_primary())]).await
    }

    async fn declare_batch(&self, id: &StorageId, files: &[(SectorDecl, bool)]) -> Result<(), IndexError> {
        let mut table = self.write();
        let slot = table.slot_of(id)?;
        for (decl, primary) in files {
            table.declare(slot, *decl, CopyKind::from(*primary));
        }
        let sectors = files.iter().map(|(decl, _)| decl.sector).collect();
        self.changed(&IndexChange::Files { id: id.clone(), sectors });
        Ok(())
    }

    async fn files(&self, id: &StorageId) -> Result<Vec<SectorDecl>, IndexError> {
        self.read().slot_of(id)?;
        Ok(self.path_files(id).into_iter().map(|(decl, _)| decl).collect())
    }

    async fn drop_files(&self, id: &StorageId, sector: SectorId, types: FileTypes) -> Result<(), IndexError> {
        let mut table = self.write();
        let slot = table.slot_of(id)?;
        table.drop_files(slot, sector, types);
        self.changed(&IndexChange::Files { id: id.clone(), sectors: vec![sector] });
        Ok(())
    }

    async fn find(
        &self,
        sector: SectorId,
        types: FileTypes,
        fetch: Option<SectorSize>,
    ) -> Result<Vec<SectorStorageInfo>, IndexError> {
        let table = self.read();
        let (mut found, reach) = table.holders(sector, types);
        found.sort_by(|one, other| other.weight.cmp(&one.weight).then_with(|| one.id.cmp(&other.id)));
        if let Some(size) = fetch {
            found.extend(table.fetch_targets(sector, types, size, &reach, (self.clock)()));
        }
        Ok(found)
    }

    async fn best_alloc(
        &self,
        types: FileTypes,
        size: SectorSize,
        path_type: PathType,
        miner: ActorId,
    ) -> Result<Vec<StorageInfo>, IndexError> {
        let (table, now) = (self.read(), (self.clock)());
        let need = path_type.space_table().bytes(types, size);
        let suits = |path: &&PathSlot| {
            let stanza = &path.info.stanza;
            let kind = match path_type {
                PathType::Sealing => stanza.can_seal,
                PathType::Storage => stanza.can_store,
            };
            kind && path.takes_new(now, need) && stanza.filters.accepts_miner(miner)
        };
        let mut good: Vec<&PathSlot> =
            table.by_id.values().filter_map(|slot| table.slot(*slot)).filter(suits).collect();
        if good.is_empty() {
            return Err(IndexError::NoPath);
        }
        // Stable: equal scores stay in id order.
        good.sort_by_key(|path| std::cmp::Reverse(path.score()));
        Ok(good.into_iter().map(|path| path.info.clone()).collect())
    }
}

/// Where files of a sector may be fetched to, by groups.
enum Reach {
    Anywhere,
    Groups(BTreeSet<String>),
}

impl Table {
    fn slot_of(&self, id: &StorageId) -> Result<u16, IndexError> {
        self.by_id.get(id).copied().ok_or_else(|| IndexError::UnknownStorage { id: id.clone() })
    }

    fn slot(&self, slot: u16) -> Option<&PathSlot> {
        self.slots.get(usize::from(slot)).and_then(Option::as_ref)
    }

    fn held_in(&self, sector: SectorId, slot: u16) -> Option<&Held> {
        self.held.get(&sector)?.iter().find(|held| held.slot == slot)
    }

    fn attach(&mut self, info: StorageInfo, stat: FsStat, now: u64) -> Result<(), IndexError> {
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
    fn detach(&mut self, id: &StorageId, url: &str) -> Result<bool, IndexError> {
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

    fn declare(&mut self, slot: u16, decl: SectorDecl, copy: CopyKind) {
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

    fn drop_files(&mut self, slot: u16, sector: SectorId, types: FileTypes) {
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

    fn forget(&mut self, slot: u16, sector: SectorId) {
        if let Some(holders) = self.held.get_mut(&sector) {
            holders.retain(|held| held.slot != slot);
            if holders.is_empty() {
                self.held.remove(&sector);
            }
        }
    }

    fn holders(&self, sector: SectorId, types: FileTypes) -> (Vec<SectorStorageInfo>, Reach) {
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

    fn fetch_targets(
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
    fn view(&self, now: u64) -> PathView {
        PathView {
            info: self.info.clone(),
            stat: self.stat,
            heartbeat_age_ms: now.saturating_sub(self.heartbeat_ms),
            error: self.error.clone(),
            healthy: self.healthy(now),
            sectors: self.sectors.len(),
        }
    }

    fn healthy(&self, now: u64) -> bool {
        self.error.is_none() && now.saturating_sub(self.heartbeat_ms) <= HEARTBEAT_STALE_MS
    }

    fn takes_new(&self, now: u64, need: u64) -> bool {
        self.info.stanza.weight > 0 && self.healthy(now) && self.available() >= need
    }

    /// A negative figure from a peer counts as nothing.
    fn available(&self) -> u64 {
        u64::try_from(self.stat.available).unwrap_or(0)
    }

    fn score(&self) -> u128 {
        u128::from(self.available()) * u128::from(self.info.stanza.weight)
    }

    /// This path as a place for `types` of `sector`; weight 0 and not primary until a holder says otherwise.
    fn place(&self, sector: SectorId, types: FileTypes) -> SectorStorageInfo {
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
