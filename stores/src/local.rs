//! The storage paths that are open in this process.
//!
//! [`Local`] opens and closes them, measures them, promises room on them, and knows which of a sector's files lie in
//! one of them. Never talks to a peer: what must be fetched is the business of [`crate::Remote`].
//!
//! Invariants: a path's id is open at most once; a file is declared only after it is whole and durable at its place;
//! what `sectorstore.json` says is read again only by `redeclare`. A crash loses reservations, nothing else.

mod acquire;
mod aside;
mod departures;
mod exact;
mod looking;
mod measure;
mod missing;
mod redeclare;
mod relocate;
mod removal;
mod reserve;
mod start;
mod survey;

pub(crate) use sealtasks::chain;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sealtasks::{FileTypes, FsStat, HealthReport, SectorDecl, StorageId, StorageInfo, StorageStanza};
use tokio::sync::{Mutex as AsyncMutex, oneshot};
use tokio::time::timeout;

pub use acquire::Acquired;
pub use departures::{BegunFile, Making};
pub(crate) use exact::Found;
pub use redeclare::RedeclareDiff;
pub(crate) use removal::Checked;
pub use removal::DeletePermit;
pub use reserve::Reservation;
pub use start::{PathProblem, START_DEADLINE};
pub use survey::FINDINGS_MAX;
pub(crate) use survey::Vouched;

use self::departures::{Begun, Departures, Scanning};
use self::looking::Looks;
use crate::config::StorageConfig;
use crate::disk;
use crate::error::StoreError;
use crate::fetch::arriving::Arriving;
use crate::index::{Index, IndexError};
use crate::keep::KeepFree;
use crate::kept::Kept;
use crate::layout::{self, Scan};
use crate::meta::StorageMeta;
use crate::rehearsal::{self, Rehearsal};
use crate::sent::Sent;
use crate::space::{Measured, Space};

/// A path must be read and scanned within this time.
const OPEN_DEADLINE: Duration = Duration::from_secs(120);

/// Files declared per call to the index.
const DECLARE_BATCH: usize = 100_000;

/// What a [`Local`] is made from.
pub struct LocalOptions {
    /// The process's `storage.json`.
    pub config: PathBuf,
    /// Base URLs under which this process serves `/remote`.
    pub urls: Vec<String>,
    /// The index that paths and files are declared to.
    pub index: Arc<dyn Index>,
}

/// The open storage paths of this process.
pub struct Local {
    config: PathBuf,
    urls: Vec<String>,
    index: Arc<dyn Index>,
    open: Mutex<BTreeMap<StorageId, OpenPath>>,
    /// Whether its paths are a rehearsal's.
    rehearsal: Option<Rehearsal>,
    /// Opening, closing and `storage.json` go one at a time.
    changing: AsyncMutex<()>,
    /// Paths become open one at a time, so that an id is never open twice.
    entering: AsyncMutex<()>,
    /// Deletions go one at a time, so that two of them cannot each count on the copy that the other deletes.
    removing: AsyncMutex<()>,
    kept: Kept,
    sent: Sent,
    departures: Departures,
    begun: Mutex<Begun>,
}

#[derive(Clone)]
struct OpenPath {
    dir: PathBuf,
    stanza: StorageStanza,
    space: Space,
    looks: Looks,
}

/// A storage path that was just opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenedPath {
    /// Its id.
    pub id: StorageId,
    /// Entries in it that are no sector files. They were left alone.
    pub foreign: Vec<PathBuf>,
    /// Leftovers of interrupted fetches. They were left alone, since on a shared mount another process may be writing
    /// them, and are not declared. What interrupted removals left is deleted in the background.
    pub partial: Vec<PathBuf>,
}

/// A storage path that is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalPath {
    /// Its id.
    pub id: StorageId,
    /// Its directory.
    pub dir: PathBuf,
    /// What its `sectorstore.json` says.
    pub stanza: StorageStanza,
}

impl Local {
    /// Opens a storage path: reads its `sectorstore.json`, attaches it to the index, creates missing type
    /// directories, scans them and declares what is there (as primary copies when the path is for storing, or when they were
    /// moved there and their sources may not be deleted yet).
    ///
    /// # Errors
    /// When the file is missing or damaged, the id is open already, the path hangs, or the index refuses.
    pub async fn open_path(&self, dir: &Path) -> Result<OpenedPath, StoreError> {
        let (contents, scanning) = self.read_contents(dir, Some(OPEN_DEADLINE)).await?;
        let _turn = self.changing.lock().await;
        self.open_one(dir, contents, scanning).await
    }

    /// Opens a storage path and adds it to `storage.json`.
    ///
    /// # Errors
    /// As [`Local::open_path`], and when `storage.json` cannot be written; the path then is not open either.
    pub async fn attach_path(&self, dir: &Path) -> Result<OpenedPath, StoreError> {
        let dir = std::path::absolute(dir).map_err(StoreError::io("resolve", dir))?;
        let (contents, scanning) = self.read_contents(&dir, Some(OPEN_DEADLINE)).await?;
        let _turn = self.changing.lock().await;
        let opened = self.open_one(&dir, contents, scanning).await?;
        let written = StorageConfig::read(&self.config).and_then(|mut config| {
            config.add(&dir);
            config.write(&self.config)
        });
        if let Err(error) = written {
            self.close_one(&dir).await?;
            return Err(error);
        }
        Ok(opened)
    }

    /// Takes a path out of the index and forgets it. Its files stay, and so does its line in `storage.json`.
    ///
    /// # Errors
    /// When it is not open, or the index refuses.
    pub async fn close_path(&self, dir: &Path) -> Result<(), StoreError> {
        let _turn = self.changing.lock().await;
        self.close_one(dir).await
    }

    /// Closes a path and takes it out of `storage.json`. Its files stay.
    ///
    /// # Errors
    /// As [`Local::close_path`], and when `storage.json` cannot be written.
    pub async fn detach_path(&self, dir: &Path) -> Result<(), StoreError> {
        let _turn = self.changing.lock().await;
        let dir = std::path::absolute(dir).map_err(StoreError::io("resolve", dir))?;
        let mut config = StorageConfig::read(&self.config)?;
        config.remove(&dir);
        self.close_one(&dir).await?;
        config.write(&self.config)
    }

    /// Closes every path, before shutting down.
    ///
    /// # Errors
    /// The first refusal of the index; the others are tried all the same.
    pub async fn close_all(&self) -> Result<(), StoreError> {
        let _turn = self.changing.lock().await;
        let mut result = Ok(());
        for path in self.paths() {
            result = result.and(self.close_one(&path.dir).await);
        }
        result
    }

    /// Reads `sectorstore.json` again, attaches the path again and declares what is there; with `drop_missing` files
    /// that the index knows but the disk does not have are dropped from it. All paths, or one.
    ///
    /// # Errors
    /// When the path is not open, its file is damaged or its id has changed, or the index refuses. Of several paths the
    /// first one's error; the others are declared all the same.
    pub async fn redeclare(
        &self,
        id: Option<&StorageId>,
        drop_missing: bool,
    ) -> Result<Vec<OpenedPath>, StoreError> {
        let wanted: Vec<_> =
            self.paths().into_iter().filter(|path| id.is_none_or(|id| *id == path.id)).collect();
        let each = wanted.iter().map(|path| self.redeclare_one(path, drop_missing));
        let done = futures_util::future::join_all(each).await;
        match id {
            Some(id) if done.is_empty() => Err(StoreError::NotOpen { id: id.clone() }),
            _ => done.into_iter().collect(),
        }
    }

    /// The open paths, by id.
    pub fn paths(&self) -> Vec<LocalPath> {
        let local = |(id, path): (&StorageId, &OpenPath)| LocalPath {
            id: id.clone(),
            dir: path.dir.clone(),
            stanza: path.stanza.clone(),
        };
        self.table().iter().map(local).collect()
    }

    /// How full an open path is: file system, reservations and its own limit together.
    ///
    /// # Errors
    /// When it is not open, cannot be measured, or hangs.
    pub async fn stat(&self, id: &StorageId) -> Result<FsStat, StoreError> {
        self.path(id)?.space.stat().await
    }

    /// Measures every path and reports it to the index, once. A path that cannot be measured is reported as broken.
    /// Returns the paths whose report the index refused: [`IndexError::UnknownHealth`] means to declare them again.
    pub async fn report_health(&self) -> Vec<(StorageId, IndexError)> {
        let report = |path: LocalPath| async move {
            let report = self.health_of(&path).await;
            let sent = self.index.report_health(&path.id, report).await;
            sent.err().map(|error| (path.id, error))
        };
        let reports = futures_util::future::join_all(self.paths().into_iter().map(report)).await;
        reports.into_iter().flatten().collect()
    }

    /// The same for somebody else who tells the index.
    pub async fn health(&self) -> Vec<(StorageId, HealthReport)> {
        let report = |path: LocalPath| async move {
            let report = self.health_of(&path).await;
            (path.id, report)
        };
        futures_util::future::join_all(self.paths().into_iter().map(report)).await
    }

    async fn health_of(&self, path: &LocalPath) -> HealthReport {
        let measured = match self.path(&path.id) {
            Ok(open) => open.space.measured().await,
            Err(error) => Err(error),
        };
        match measured {
            Ok(Measured { stat, old: Some(age), hangs: true }) => {
                let age = age.as_secs();
                let error = format!("{:?} does not answer; its figures are {age} s old", path.dir);
                HealthReport { stat, error: Some(error) }
            }
            Ok(measured) => HealthReport { stat: measured.stat, error: None },
            Err(error) => HealthReport { stat: FsStat::default(), error: Some(chain(&error)) },
        }
    }

    /// What a path says of itself and what lies in it, as a scan that is under way until the second part is dropped.
    async fn read_contents(
        &self,
        dir: &Path,
        limit: Option<Duration>,
    ) -> Result<(Contents, Scanning), StoreError> {
        let dir = std::path::absolute(dir).map_err(StoreError::io("resolve", dir))?;
        let scanning = self.departures.scanning();
        Ok((self.read_path(&dir, limit).await?, scanning))
    }

    async fn open_one(
        &self,
        dir: &Path,
        contents: Contents,
        scanning: Scanning,
    ) -> Result<OpenedPath, StoreError> {
        let dir = std::path::absolute(dir).map_err(StoreError::io("resolve", dir))?;
        let Contents { id, stanza, scan, keep_free } = contents;
        let _turn = self.entering.lock().await;
        if let Some(open) = self.table().get(&id) {
            return Err(StoreError::DuplicateId { id, open: open.dir.clone(), path: dir });
        }
        let space = Space::new(&dir, stanza.max_storage, keep_free, self.rehearsal);
        self.hold_begun(&id, &dir, &space);
        let stat = space.stat().await?;
        self.attach(&id, &stanza, stat).await?;
        self.declare_scan((&id, &stanza), &scan, &scanning).await?;
        self.table().insert(id.clone(), OpenPath { dir, stanza, space, looks: Looks::default() });
        for partial in &scan.partial {
            tracing::warn!(path = ?partial, "leftover of an interrupted fetch; replaced when its sector comes here again");
        }
        let removed = scan.removed.clone();
        // Nobody waits for it: a directory of a large sector takes long.
        tokio::task::spawn_blocking(move || removed.iter().for_each(|path| disk::discard(path)));
        Ok(opened(id, scan))
    }

    async fn close_one(&self, dir: &Path) -> Result<(), StoreError> {
        let dir = std::path::absolute(dir).map_err(StoreError::io("resolve", dir))?;
        let found = self.paths().into_iter().find(|path| path.dir == dir);
        let Some(path) = found else { return Err(StoreError::NotAttached { path: dir }) };
        for url in &self.urls {
            match self.index.detach(&path.id, url).await {
                // The index lives on without us, for example after a restart of the manager.
                Err(IndexError::UnknownStorage { .. } | IndexError::UrlMismatch { .. }) => {}
                done => done?,
            }
        }
        self.table().remove(&path.id);
        Ok(())
    }

    async fn redeclare_one(&self, path: &LocalPath, drop_missing: bool) -> Result<OpenedPath, StoreError> {
        let scanning = self.departures.scanning();
        let open = self.path(&path.id)?;
        // A disk that hangs keeps nobody from opening, closing or declaring other paths.
        let Contents { id, stanza, scan, keep_free } = self.read_again(&open).await?;
        if id != path.id {
            return Err(StoreError::MetaField {
                path: path.dir.join(crate::meta::META_FILE),
                field: "ID",
                value: id.to_string(),
                expected: "the id it was opened with; close the path and attach it again to change it",
            });
        }
        let _turn = self.changing.lock().await;
        // It may have been closed meanwhile, or another one opened with its id.
        let OpenPath { space, dir, .. } = self.path(&id)?;
        if dir != path.dir {
            return Err(StoreError::NotOpen { id });
        }
        space.set_limits(stanza.max_storage, keep_free);
        self.attach(&id, &stanza, space.stat().await?).await?;
        self.declare_scan((&id, &stanza), &scan, &scanning).await?;
        if drop_missing {
            self.drop_missing(&id, &scan).await?;
        }
        if let Some(open) = self.table().get_mut(&id) {
            open.stanza = stanza;
        }
        Ok(opened(id, scan))
    }

    async fn attach(&self, id: &StorageId, stanza: &StorageStanza, stat: FsStat) -> Result<(), StoreError> {
        let info = StorageInfo { id: id.clone(), urls: self.urls.clone(), stanza: stanza.clone() };
        Ok(self.index.attach(info, stat).await?)
    }

    async fn declare_scan(
        &self,
        (id, stanza): (&StorageId, &StorageStanza),
        scan: &Scan,
        scanning: &Scanning,
    ) -> Result<(), StoreError> {
        for foreign in &scan.foreign {
            tracing::warn!(path = ?foreign, "foreign file in a storage path is left alone");
        }
        let untold = self.untold(id, scan).await?;
        // What leaves during the scan must not be declared after it has left.
        let _turn = self.removing.lock().await;
        let there = |decl: &SectorDecl| {
            let decl = *decl;
            let types = decl.types.difference(scanning.absent(id, decl.sector));
            let types = types.difference(untold.get(&decl.sector).copied().unwrap_or_default());
            let moved = scan.moved.get(&decl.sector).copied().unwrap_or_default();
            by_copy_kind(types, stanza, moved)
                .map(move |(types, primary)| (SectorDecl { types, ..decl }, primary))
        };
        let files: Vec<_> = scan.files.iter().flat_map(there).collect();
        for batch in files.chunks(DECLARE_BATCH) {
            self.index.declare_batch(id, batch).await?;
        }
        Ok(self.index.declared_all(id).await?)
    }

    /// What an open path says of itself now, and what lies in it.
    async fn read_again(&self, path: &OpenPath) -> Result<Contents, StoreError> {
        let (dir, rehearses) = (path.dir.clone(), self.rehearses());
        path.look(OPEN_DEADLINE, "reading a storage path", move || Contents::read(&dir, rehearses, |_| ()))
            .await
    }

    async fn read_path(&self, dir: &Path, limit: Option<Duration>) -> Result<Contents, StoreError> {
        let (owned, rehearses) = (dir.to_owned(), self.rehearses());
        let reading = on_thread("reading a storage path", move || {
            Contents::read(&owned, rehearses, exact::put_back_doubted)
        });
        let Some(limit) = limit else {
            return reading.0.await.unwrap_or(Err(StoreError::Lost { what: reading.1 }));
        };
        reading.within(limit, dir).await
    }

    /// Whether its files are a rehearsal's.
    pub(crate) fn rehearses(&self) -> bool {
        self.rehearsal.is_some()
    }

    fn table(&self) -> MutexGuard<'_, BTreeMap<StorageId, OpenPath>> {
        // The table is changed by single inserts and removes: a panic elsewhere leaves it whole.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The directory of an open path.
    pub(crate) fn dir(&self, id: &StorageId) -> Result<PathBuf, StoreError> {
        Ok(self.path(id)?.dir)
    }

    /// Files came or went in this path: its next measurement is a new one.
    pub(crate) fn touched(&self, id: &StorageId) {
        if let Ok(path) = self.path(id) {
            path.space.touched();
        }
    }

    fn path(&self, id: &StorageId) -> Result<OpenPath, StoreError> {
        self.table().get(id).cloned().ok_or_else(|| StoreError::NotOpen { id: id.clone() })
    }
}

/// Files found in a path as copies that do not count, and as primary ones: all where it stores, else those that were `moved`
/// there.
fn by_copy_kind(
    types: FileTypes,
    stanza: &StorageStanza,
    moved: FileTypes,
) -> impl Iterator<Item = (FileTypes, bool)> + use<> {
    let primary = if stanza.can_store { types } else { types.intersection(moved) };
    [(types.difference(primary), false), (primary, true)].into_iter().filter(|(types, _)| !types.is_empty())
}

/// What a storage path says of itself, and what lies in it.
struct Contents {
    id: StorageId,
    stanza: StorageStanza,
    keep_free: u64,
    scan: Scan,
}

impl Contents {
    /// It must be of our world. Before it is scanned `first` is done. Blocks.
    fn read(dir: &Path, rehearses: bool, first: impl FnOnce(&Path)) -> Result<Self, StoreError> {
        let (id, stanza) = StorageMeta::read(dir)?.validate(dir)?;
        let keep_free = KeepFree::read(dir)?.bytes;
        first(dir);
        let (untold, moved) = (Arriving::untold(dir), Arriving::moved(dir));
        let scan = Scan { untold, moved, ..layout::scan(dir)? };
        rehearsal::claim(dir, rehearses, !scan.files.is_empty())?;
        Ok(Self { id, stanza, keep_free, scan })
    }
}

fn opened(id: StorageId, scan: Scan) -> OpenedPath {
    OpenedPath { id, foreign: scan.foreign, partial: scan.partial }
}

/// Work on a thread of its own, which a hanging mount may keep for ever without keeping the process from ending.
struct OnThread<T>(oneshot::Receiver<Result<T, StoreError>>, &'static str);

fn on_thread<T: Send + 'static>(
    what: &'static str,
    job: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> OnThread<T> {
    let (send, receive) = oneshot::channel();
    let run = move || {
        // The caller may have given up.
        let _ = send.send(job());
    };
    // A thread that cannot be started drops the sender: the caller sees `Lost`.
    if let Err(error) = std::thread::Builder::new().name("storage-path".to_owned()).spawn(run) {
        tracing::error!(%error, what, "no thread could be started");
    }
    OnThread(receive, what)
}

impl<T> OnThread<T> {
    async fn within(self, limit: Duration, path: &Path) -> Result<T, StoreError> {
        match timeout(limit, self.0).await {
            Ok(result) => result.unwrap_or(Err(StoreError::Lost { what: self.1 })),
            Err(_) => Err(StoreError::Hangs { path: path.to_owned(), seconds: limit.as_secs() }),
        }
    }
}
