//! The index in memory: the manager's answer to [`Index`], with Lotus's rules and a fixed order.
//!
//! State: a numbered slot per path, and per sector the few slots that hold files of it, packed for 10 million files; a
//! path also keeps the list of its sectors, so that detaching costs what that path holds, not what the index holds.
//! Time is passed in as unix milliseconds. Nothing here is durable: what a snapshot brings back is unconfirmed until
//! it is declared again, and nobody may delete anything because of it.
//!
//! Differences from Lotus, on purpose: a path of weight 0 (documented there as read-only) is offered for nothing new;
//! files of a path that is not attached cannot be declared; the order of answers is fixed; a URL that failed for two
//! hours is not named until it answers again; a copy older than another one is not listed beside it.

mod answers;
mod entries;
mod held;
mod packed;
mod path;
mod rank;
mod superseded;
mod table;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use sealtasks::{
    ActorId, FileType, FileTypes, FsStat, HealthReport, PathType, SectorDecl, SectorId, SectorSize,
    SectorStorageInfo, StorageId, StorageInfo,
};
use tokio::sync::watch;

pub use self::answers::{HeldFiles, PathView, Place, PrimaryConflict, UrlTrouble};
pub(crate) use self::answers::{Remembered, SilentUrl};
use self::held::Kind;
use self::path::PathSlot;
use self::table::{Table, Wanted};
use crate::index::{CopyKind, Index, IndexError, Suits};

/// A path silent for longer gets nothing new: five heartbeats of ten seconds. Source: Lotus `SkippedHeartbeatThresh`.
pub const HEARTBEAT_STALE_MS: u64 = 50_000;

/// A URL that failed for so long is set aside until it answers: two hours.
pub const URL_DEAD_MS: u64 = 2 * 60 * 60 * 1000;

/// Files that are declared while the index is locked: well below a millisecond.
const TURN: usize = 2048;

/// Files that are swept from a dead path while the index is locked, below a millisecond. Between turns others run, which on
/// a busy machine takes milliseconds: the fewer turns, the sooner it is over.
const SWEEP_TURN: usize = 8192;

/// The longest that a sweep stands back between two turns: waking up takes tens of microseconds, and of a million files in
/// 123 turns a fourth of the time that a detach may take is then left.
const STAND_BACK: Duration = Duration::from_millis(1);

/// Tells the time in unix milliseconds.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Told of every change, in order, while the index is locked: it must only pass the change on, never ask the index.
pub type Observer = Arc<dyn Fn(&IndexChange) + Send + Sync>;

/// One change of the index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IndexChange {
    /// A path was attached, or its settings, URLs or health changed.
    Path(StorageId),
    /// A path's health was reported, and is as it was.
    Same(StorageId),
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

/// The in-memory index. Share it by `Arc`.
pub struct MemIndex {
    table: RwLock<Table>,
    /// Readers that found it locked and have not come in yet.
    waiting: AtomicUsize,
    clock: Clock,
    observer: Option<Observer>,
    /// Changes of what a snapshot keeps.
    remembered: AtomicU64,
    generation: watch::Sender<u64>,
}

impl MemIndex {
    /// An empty index that reads the time from `clock`.
    pub fn new(clock: Clock) -> Self {
        Self {
            table: RwLock::default(),
            waiting: AtomicUsize::new(0),
            clock,
            observer: None,
            remembered: AtomicU64::new(0),
            generation: watch::Sender::new(0),
        }
    }

    /// An empty index that also tells `observer` of every change.
    pub fn observed(clock: Clock, observer: Observer) -> Self {
        Self { observer: Some(observer), ..Self::new(clock) }
    }

    /// How many changes there were.
    pub fn generation(&self) -> u64 {
        *self.generation.borrow()
    }

    /// How many changes there were of paths and files, health left aside: what a snapshot keeps.
    pub fn content_generation(&self) -> u64 {
        self.remembered.load(Ordering::Acquire)
    }

    /// From now on, or with `None` no longer, these files of the sector stay where they lie, but for these paths: whoever
    /// deletes one has it dropped first, and is refused. Nor is anybody told where they lie while some lie in another path:
    /// AddPiece, PreCommit1 and PreCommit2 write into what they find. The last call for a sector is the one that counts.
    pub fn keep(&self, sector: SectorId, types: FileTypes, but_for: Option<BTreeSet<StorageId>>) {
        self.write().keep(sector, types, but_for);
    }

    /// Wakes at every change; the value is [`MemIndex::generation`].
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    fn read(&self) -> RwLockReadGuard<'_, Table> {
        match self.table.try_read() {
            Ok(table) => return table,
            // No operation panics halfway through a change, so a poisoned table is still whole.
            Err(TryLockError::Poisoned(table)) => return table.into_inner(),
            Err(TryLockError::WouldBlock) => {}
        }
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        table
    }

    /// Stands back until those who wait to read have had their turn: whoever has just had the lock takes it again
    /// before others have woken up.
    fn let_readers_in(&self) {
        let begun = Instant::now();
        while self.waiting.load(Ordering::Relaxed) > 0 && begun.elapsed() < STAND_BACK {
            std::thread::yield_now();
        }
    }

    fn write(&self) -> RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// A change that a snapshot keeps.
    fn content_changed(&self, change: impl FnOnce() -> IndexChange) {
        self.remembered.fetch_add(1, Ordering::Release);
        self.changed(change);
    }

    /// Called with the table locked, so that observers see changes in the order they happened.
    fn changed(&self, change: impl FnOnce() -> IndexChange) {
        if let Some(observer) = &self.observer {
            observer(&change());
        }
        self.generation.send_modify(|count| *count += 1);
    }

    fn now(&self) -> u64 {
        (self.clock)()
    }

    /// [`Index::declare_made`] without waiting.
    ///
    /// # Errors
    /// As there.
    pub fn declare_now(
        &self,
        id: &StorageId,
        sector: SectorId,
        types: FileTypes,
        copy: CopyKind,
    ) -> Result<(), IndexError> {
        let primary = copy.is_primary();
        self.put(id, &[(SectorDecl { sector, types }, Kind::Declared { primary })])
    }

    fn put(&self, id: &StorageId, files: &[(SectorDecl, Kind)]) -> Result<(), IndexError> {
        for part in files.chunks(TURN) {
            let mut table = self.write();
            table.sweep(TURN);
            table.declare(id, part)?;
            let sectors = || part.iter().map(|(decl, _)| decl.sector).collect();
            self.content_changed(|| IndexChange::Files { id: id.clone(), sectors: sectors() });
        }
        Ok(())
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
        table.attach(info, stat, self.now())?;
        self.content_changed(|| IndexChange::Path(id));
        Ok(())
    }

    /// The path and its files are gone at once; what is left of them is swept away in turns, between which others ask.
    async fn detach(&self, id: &StorageId, url: &str) -> Result<(), IndexError> {
        let gone = {
            let mut table = self.write();
            let gone = table.detach(id, url)?;
            let id = id.clone();
            self.content_changed(|| if gone { IndexChange::PathGone(id) } else { IndexChange::Path(id) });
            gone
        };
        // A caller that gives up leaves the rest to the next ones that declare or detach something.
        while gone && self.write().sweep(SWEEP_TURN) {
            tokio::task::yield_now().await;
            self.let_readers_in();
        }
        Ok(())
    }

    async fn info(&self, id: &StorageId) -> Result<StorageInfo, IndexError> {
        let table = self.read();
        let found = table.path(id).map(|(_, path)| path.info.clone());
        found.ok_or_else(|| IndexError::UnknownStorage { id: id.clone() })
    }

    async fn report_health(&self, id: &StorageId, report: HealthReport) -> Result<(), IndexError> {
        let now = self.now();
        let mut table = self.write();
        // A remembered path, too, is to be attached and declared first.
        if !table.path(id).is_some_and(|(_, path)| path.confirmed) {
            return Err(IndexError::UnknownHealth { id: id.clone() });
        }
        let mut is_news = false;
        table.with_path(id, |path| is_news = path.report(report, now))?;
        self.changed(|| if is_news { IndexChange::Path(id.clone()) } else { IndexChange::Same(id.clone()) });
        Ok(())
    }

    async fn declare(
        &self,
        id: &StorageId,
        sector: SectorId,
        types: FileTypes,
        copy: CopyKind,
    ) -> Result<(), IndexError> {
        self.declare_now(id, sector, types, copy)
    }

    async fn declare_batch(&self, id: &StorageId, files: &[(SectorDecl, bool)]) -> Result<(), IndexError> {
        if files.is_empty() {
            return self.read().slot_of(id).map(drop);
        }
        let mut kinds = Vec::with_capacity(files.len().min(TURN));
        for part in files.chunks(TURN) {
            kinds.clear();
            kinds.extend(part.iter().map(|(decl, primary)| (*decl, Kind::Found { primary: *primary })));
            self.put(id, &kinds)?;
        }
        let now = self.now();
        self.write().with_path(id, |path| path.declares_on(now))
    }

    async fn declared_all(&self, id: &StorageId) -> Result<(), IndexError> {
        let waiting = {
            let table = self.read();
            table.unconfirmed(table.slot_of(id)?)
        };
        for part in waiting.chunks(TURN) {
            let mut table = self.write();
            for decl in part {
                table.drop_unconfirmed(id, *decl)?;
            }
            let sectors = || part.iter().map(|decl| decl.sector).collect();
            self.content_changed(|| IndexChange::Files { id: id.clone(), sectors: sectors() });
        }
        self.write().with_path(id, PathSlot::declared_all)
    }

    async fn files(&self, id: &StorageId) -> Result<Vec<SectorDecl>, IndexError> {
        let table = self.read();
        let slot = table.slot_of(id)?;
        let all = table.sectors(slot).into_iter();
        Ok(all.map(|(sector, held)| SectorDecl { sector, types: held.any() }).collect())
    }

    async fn drop_files(&self, id: &StorageId, sector: SectorId, types: FileTypes) -> Result<(), IndexError> {
        let mut table = self.write();
        table.drop_files(id, sector, types)?;
        self.content_changed(|| IndexChange::Files { id: id.clone(), sectors: vec![sector] });
        Ok(())
    }

    async fn supersede(&self, id: &StorageId, sector: SectorId, types: FileTypes) -> Result<(), IndexError> {
        self.supersede_copies(id, sector, types);
        Ok(())
    }

    async fn older(&self, sector: SectorId, kind: FileType) -> Result<Vec<SectorStorageInfo>, IndexError> {
        Ok(self.older_copies(sector, kind))
    }

    async fn find(
        &self,
        sector: SectorId,
        types: FileTypes,
        fetch: Option<SectorSize>,
    ) -> Result<Vec<SectorStorageInfo>, IndexError> {
        // One lock for both: who waits to write stands between two of one thread, and all three for ever.
        let table = self.read();
        match table.stray(sector, types) {
            Some(id) => Err(IndexError::Kept { id, sector }),
            None => Ok(self.search_in(&table, sector, types, fetch)),
        }
    }

    async fn best_alloc(
        &self,
        types: FileTypes,
        size: SectorSize,
        path_type: PathType,
        miner: ActorId,
    ) -> Result<Vec<StorageInfo>, IndexError> {
        let need = path_type.space_table().bytes(types, size);
        let wanted = Wanted { need, path_type, miner, now: self.now() };
        let table = self.read();
        let good: Vec<StorageInfo> = table.offers(wanted).map(|path| path.info.clone()).collect();
        if good.is_empty() { Err(IndexError::NoPath) } else { Ok(good) }
    }

    async fn first_alloc(
        &self,
        types: FileTypes,
        size: SectorSize,
        path_type: PathType,
        miner: ActorId,
        suits: &Suits<'_>,
    ) -> Result<Option<StorageId>, IndexError> {
        let need = path_type.space_table().bytes(types, size);
        let wanted = Wanted { need, path_type, miner, now: self.now() };
        let table = self.read();
        let first = table.offers(wanted).find(|path| suits(&path.info.id));
        Ok(first.map(|path| path.info.id.clone()))
    }
}
