//! The index in memory: the manager's answer to [`Index`], with Lotus's rules and a fixed order.
//!
//! State: a numbered slot per path, and per sector the few slots that hold files of it, six type bits and six primary
//! bits each. A path also keeps the set of its sectors, so that detaching costs what that path holds, not what the
//! index holds. Time is passed in as unix milliseconds. Nothing is durable: paths are declared again after a restart.
//!
//! Differences from Lotus, on purpose: a path of weight 0 (documented there as read-only) is offered for nothing new;
//! files of a path that is not attached cannot be declared; the order of answers is fixed.

mod table;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use async_trait::async_trait;
use sealtasks::{
    ActorId, FileTypes, FsStat, HealthReport, PathType, SectorDecl, SectorId, SectorSize, SectorStorageInfo,
    StorageId, StorageInfo,
};
use tokio::sync::watch;

use self::table::{Held, PathSlot, Table};
use crate::index::{CopyKind, Index, IndexError};

/// A path silent for longer gets nothing new: five heartbeats of ten seconds. Source: Lotus `SkippedHeartbeatThresh`.
pub const HEARTBEAT_STALE_MS: u64 = 50_000;

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
