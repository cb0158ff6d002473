//! The room on one storage path: what the file system says, what is promised to running tasks, what the path allows.
//!
//! Measuring runs on a thread of its own, at most one per path, with a deadline: a mount that hangs costs one thread
//! and never blocks another path. The last sample is used while it is young enough, and to bridge a slow one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::statvfs::statvfs;
use sealtasks::{FileType, FsStat, SectorId};
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard, oneshot};
use tokio::time::timeout;

use crate::disk;
use crate::error::StoreError;
use crate::layout;

/// A sample younger than this is not taken again.
const SAMPLE_FRESH: Duration = Duration::from_secs(1);
/// A sample older than this is not used even when no newer one can be had.
const SAMPLE_OLD_MAX: Duration = Duration::from_secs(300);
/// How long a caller waits for a sample before an older one must do.
const SAMPLE_DEADLINE: Duration = Duration::from_secs(5);

/// One file of one sector.
pub(crate) type FileKey = (SectorId, FileType);

/// The room on one path. Clones share it.
#[derive(Clone)]
pub(crate) struct Space {
    dir: PathBuf,
    ledger: Arc<Mutex<Ledger>>,
    sampling: Arc<AsyncMutex<()>>,
}

#[derive(Default)]
struct Ledger {
    max_storage: u64,
    tickets: u64,
    /// Promises per file. Several for one file describe the same bytes, so the largest counts.
    promised: BTreeMap<FileKey, BTreeMap<u64, u64>>,
    sample: Option<Sample>,
    stale: bool,
}

#[derive(Clone)]
struct Sample {
    taken: Instant,
    capacity: u64,
    fs_available: u64,
    /// Disk usage of the whole path; measured only when the path has a limit.
    used: Option<u64>,
    /// Bytes already on disk of promised files.
    on_disk: BTreeMap<FileKey, u64>,
}

impl Space {
    pub(crate) fn new(dir: &Path, max_storage: u64) -> Self {
        let ledger = Ledger { max_storage, ..Ledger::default() };
        Self { dir: dir.to_owned(), ledger: Arc::new(Mutex::new(ledger)), sampling: Arc::default() }
    }

    /// The limit was changed in `sectorstore.json`.
    pub(crate) fn set_max(&self, max_storage: u64) {
        let mut ledger = self.ledger();
        ledger.max_storage = max_storage;
        ledger.stale = true;
    }

    /// Files came or went: the next question is answered by a new sample.
    pub(crate) fn touched(&self) {
        self.ledger().stale = true;
    }

    /// How full the path is.
    ///
    /// # Errors
    /// When it cannot be measured, or hangs and no sample younger than five minutes is known.
    pub(crate) async fn stat(&self) -> Result<FsStat, StoreError> {
        self.refresh(&[]).await?;
        self.ledger().stat().ok_or(StoreError::Lost { what: "measuring a storage path" })
    }

    /// Promises `files` (bytes each) at once or not at all. What lies on disk already is not asked for again.
    ///
    /// # Errors
    /// [`StoreError::NoSpace`] naming each file's need; otherwise as [`Space::stat`].
    pub(crate) async fn promise(&self, files: &[(FileKey, u64)]) -> Result<Promise, StoreError> {
        let keys: Vec<FileKey> = files.iter().map(|(key, _)| *key).collect();
        self.refresh(&keys).await?;
        let mut ledger = self.ledger();
        let lost = StoreError::Lost { what: "measuring a storage path" };
        let available = u64::try_from(ledger.stat().ok_or(lost)?.available).unwrap_or(0);
        let mut need = 0_u64;
        let mut parts = Vec::new();
        for ((sector, kind), bytes) in files {
            let more = ledger.open_need((*sector, *kind), *bytes);
            need = need.saturating_add(more);
            parts.push(format!("{kind} {more} of {bytes}"));
        }
        if need > available {
            let sector = files.first().map_or(SectorId::new(0, 0), |((sector, _), _)| *sector);
            let detail = parts.join(", ");
            return Err(StoreError::NoSpace { sector, path: self.dir.clone(), need, available, detail });
        }
        ledger.tickets += 1;
        let ticket = ledger.tickets;
        for (key, bytes) in files {
            ledger.promised.entry(*key).or_default().insert(ticket, *bytes);
        }
        Ok(Promise { space: self.clone(), keys, ticket })
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes sure that a usable sample is there which covers `extra` besides what is promised.
    async fn refresh(&self, extra: &[FileKey]) -> Result<(), StoreError> {
        if self.ledger().is_fresh(extra) {
            return Ok(());
        }
        match timeout(SAMPLE_DEADLINE, self.sample(extra)).await {
            Ok(done) => done,
            Err(_) if self.ledger().is_usable() => {
                tracing::warn!(path = ?self.dir, "storage path answers slowly; an earlier measurement is used");
                Ok(())
            }
            Err(_) => Err(StoreError::Hangs { path: self.dir.clone(), seconds: SAMPLE_DEADLINE.as_secs() }),
        }
    }

    async fn sample(&self, extra: &[FileKey]) -> Result<(), StoreError> {
        let turn = Arc::clone(&self.sampling).lock_owned().await;
        if self.ledger().is_fresh(extra) {
            return Ok(());
        }
        let (send, receive) = oneshot::channel();
        let (space, extra) = (self.clone(), extra.to_vec());
        let job = move || {
            let result = space.measure(&extra, &turn);
            // The caller may have given up; the sample is in the ledger all the same.
            let _ = send.send(result);
        };
        std::thread::Builder::new()
            .name("storage-stat".to_owned())
            .spawn(job)
            .map_err(StoreError::io("start a thread to measure", &self.dir))?;
        receive.await.unwrap_or(Err(StoreError::Lost { what: "measuring a storage path" }))
    }

    /// Holds its turn while it blocks, so that a hanging mount never gathers threads.
    fn measure(&self, extra: &[FileKey], _turn: &OwnedMutexGuard<()>) -> Result<(), StoreError> {
        let (keys, limited) = {
            let mut ledger = self.ledger();
            // Whatever changes from here on is not in this sample.
            ledger.stale = false;
            let keys: Vec<_> = ledger.promised.keys().chain(extra).copied().collect();
            (keys, ledger.max_storage > 0)
        };
        let result = self.take_sample(keys, limited);
        let mut ledger = self.ledger();
        match result {
            Ok(sample) => {
                ledger.sample = Some(sample);
                Ok(())
            }
            Err(error) => {
                ledger.stale = true;
                Err(error)
            }
        }
    }

    fn take_sample(&self, keys: Vec<FileKey>, limited: bool) -> Result<Sample, StoreError> {
        let taken = Instant::now();
        let vfs = statvfs(&self.dir).map_err(|errno| StoreError::io("measure", &self.dir)(errno.into()))?;
        let unit = vfs.fragment_size();
        let mut on_disk = BTreeMap::new();
        for (sector, kind) in keys {
            let here = disk::usage(&layout::file(&self.dir, sector, kind))?;
            let arriving = disk::usage(&layout::arriving(&self.dir, sector, kind))?;
            on_disk.insert((sector, kind), here.saturating_add(arriving));
        }
        let used = if limited { Some(disk::usage(&self.dir)?) } else { None };
        Ok(Sample {
            taken,
            capacity: vfs.blocks().saturating_mul(unit),
            fs_available: vfs.blocks_available().saturating_mul(unit),
            used,
            on_disk,
        })
    }
}

impl Ledger {
    fn is_fresh(&self, extra: &[FileKey]) -> bool {
        let covers = |sample: &Sample| extra.iter().all(|key| sample.on_disk.contains_key(key));
        !self.stale
            && self.sample.as_ref().is_some_and(|one| one.taken.elapsed() < SAMPLE_FRESH && covers(one))
    }

    fn is_usable(&self) -> bool {
        self.sample.as_ref().is_some_and(|sample| sample.taken.elapsed() < SAMPLE_OLD_MAX)
    }

    /// What a further promise of `bytes` for this file adds to what is promised and on disk.
    fn open_need(&self, key: FileKey, bytes: u64) -> u64 {
        let on_disk = self.sample.as_ref().and_then(|sample| sample.on_disk.get(&key)).copied().unwrap_or(0);
        let promised = self.promised.get(&key).and_then(|all| all.values().max()).copied().unwrap_or(0);
        bytes.saturating_sub(on_disk.max(promised))
    }

    fn stat(&self) -> Option<FsStat> {
        let sample = self.sample.as_ref()?;
        let open = |(key, tickets): (&FileKey, &BTreeMap<u64, u64>)| {
            let promised = tickets.values().max().copied().unwrap_or(0);
            promised.saturating_sub(sample.on_disk.get(key).copied().unwrap_or(0))
        };
        let reserved = self.promised.iter().map(open).fold(0_u64, u64::saturating_add);
        let mut room = sample.fs_available;
        let mut used = 0;
        if self.max_storage > 0 {
            used = sample.used.unwrap_or(0);
            room = room.min(self.max_storage.saturating_sub(used));
        }
        Some(FsStat {
            capacity: signed(sample.capacity),
            available: signed(room.saturating_sub(reserved)),
            fs_available: signed(sample.fs_available),
            reserved: signed(reserved),
            max: signed(self.max_storage),
            used: signed(used),
        })
    }
}

/// Room promised on one path until this is dropped.
pub(crate) struct Promise {
    space: Space,
    keys: Vec<FileKey>,
    ticket: u64,
}

impl Drop for Promise {
    fn drop(&mut self) {
        let mut ledger = self.space.ledger();
        for key in &self.keys {
            if let Some(tickets) = ledger.promised.get_mut(key) {
                tickets.remove(&self.ticket);
                if tickets.is_empty() {
                    ledger.promised.remove(key);
                }
            }
        }
        // What was written under the promise is in neither figure until the path is measured again.
        ledger.stale = true;
    }
}

/// Lotus's fields are signed; no disk comes near the bound.
fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
