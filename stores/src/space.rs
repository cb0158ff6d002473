//! The room on one storage path: what the file system says, what is promised to running tasks, what the path allows,
//! and what it keeps free.
//!
//! Measuring runs on a thread of its own, at most one per path, with a deadline: a mount that hangs costs one thread
//! and never blocks another path. The last sample is used while it is young enough, and to bridge a slow one; who asks
//! is told how old it is. Once a measurement is past its deadline nobody waits for it again: callers get the old sample,
//! or the refusal, at once, until it has ended.

use std::collections::BTreeMap;
use std::io;
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
use crate::rehearsal::Rehearsal;

/// A sample younger than this is not taken again.
const SAMPLE_FRESH: Duration = Duration::from_secs(1);
/// A sample older than this is not used even when no newer one can be had.
const SAMPLE_OLD_MAX: Duration = Duration::from_secs(300);
/// How long a caller waits for a sample before an older one must do.
const SAMPLE_DEADLINE: Duration = Duration::from_secs(5);

/// What new files never take of a file system, beside what the path keeps free: room for the journals, directories and
/// last steps by which a full disk is emptied (bytes, and at most this share of its size).
const ESCAPE_BYTES: u64 = 64 << 20;
const ESCAPE_SHARE: u64 = 100;

/// One file of one sector.
pub(crate) type FileKey = (SectorId, FileType);

/// The room on one path. Clones share it.
#[derive(Clone)]
pub(crate) struct Space {
    dir: PathBuf,
    probe: Probe,
    usage: Usage,
    deadline: Duration,
    ledger: Arc<Mutex<Ledger>>,
    sampling: Arc<AsyncMutex<()>>,
}

/// Asks the file system of a directory for its size and what is free, in bytes. Blocks.
type Probe = Arc<dyn Fn(&Path) -> io::Result<(u64, u64)> + Send + Sync>;

/// The bytes that all below a directory, or a file, takes. Blocks.
type Usage = fn(&Path) -> Result<u64, StoreError>;

fn ask_file_system(dir: &Path) -> io::Result<(u64, u64)> {
    let vfs = statvfs(dir).map_err(io::Error::from)?;
    let unit = vfs.fragment_size();
    Ok((vfs.blocks().saturating_mul(unit), vfs.blocks_available().saturating_mul(unit)))
}

/// How full a path is, and since when that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measured {
    /// The figures.
    pub stat: FsStat,
    /// The figures are this old, since no newer ones are to be had in time; `None` = they are fresh.
    pub old: Option<Duration>,
    /// The file system has not answered within its deadline.
    pub hangs: bool,
}

#[derive(Default)]
struct Ledger {
    max_storage: u64,
    keep_free: u64,
    under_way: Option<UnderWay>,
    tickets: u64,
    /// Promises per file. Several for one file describe the same bytes, so the largest counts.
    promised: BTreeMap<FileKey, BTreeMap<u64, u64>>,
    sample: Option<Sample>,
    stale: bool,
}

/// A measurement that has not ended.
#[derive(Clone, Copy)]
struct UnderWay {
    since: Instant,
    /// The file system has answered; what takes time is counting the files of a path with a limit.
    answered: bool,
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
    pub(crate) fn new(dir: &Path, max_storage: u64, keep_free: u64, rehearsal: Option<Rehearsal>) -> Self {
        let Some(rehearsal) = rehearsal else {
            return Self::probed(dir, max_storage, keep_free, Arc::new(ask_file_system));
        };
        let probe = Arc::new(move |dir: &Path| rehearsal.measure(dir));
        Self { usage: crate::rehearsal::lengths, ..Self::probed(dir, max_storage, keep_free, probe) }
    }

    fn probed(dir: &Path, max_storage: u64, keep_free: u64, probe: Probe) -> Self {
        let ledger = Ledger { max_storage, keep_free, ..Ledger::default() };
        Self {
            dir: dir.to_owned(),
            probe,
            usage: disk::usage,
            deadline: SAMPLE_DEADLINE,
            ledger: Arc::new(Mutex::new(ledger)),
            sampling: Arc::default(),
        }
    }

    /// The limits were changed in `sectorstore.json` or `sealyard.json`.
    pub(crate) fn set_limits(&self, max_storage: u64, keep_free: u64) {
        let mut ledger = self.ledger();
        ledger.max_storage = max_storage;
        ledger.keep_free = keep_free;
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
        self.measured().await.map(|measured| measured.stat)
    }

    /// The same, with the age of figures that are not fresh.
    pub(crate) async fn measured(&self) -> Result<Measured, StoreError> {
        let fresh = self.refresh(&[]).await?;
        let ledger = self.ledger();
        let stat = ledger.stat().ok_or(StoreError::Lost { what: "measuring a storage path" })?;
        let age = ledger.sample.as_ref().map(|sample| sample.taken.elapsed());
        let hangs = !fresh && ledger.under_way.is_some_and(|work| !work.answered);
        Ok(Measured { stat, old: age.filter(|_| !fresh), hangs })
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

    /// Promises room for a file that is being written already, whether it is there or not: an earlier life of this process had
    /// promised it.
    pub(crate) fn adopt(&self, key: FileKey, bytes: u64) -> Promise {
        let mut ledger = self.ledger();
        ledger.tickets += 1;
        let ticket = ledger.tickets;
        ledger.promised.entry(key).or_default().insert(ticket, bytes);
        // What of it is on disk is in no sample yet.
        ledger.stale = true;
        Promise { space: self.clone(), keys: vec![key], ticket }
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes sure that a usable sample is there which covers `extra` besides what is promised. False: it is an old one.
    async fn refresh(&self, extra: &[FileKey]) -> Result<bool, StoreError> {
        let overdue = {
            let ledger = self.ledger();
            if ledger.is_fresh(extra) {
                return Ok(true);
            }
            ledger.under_way.is_some_and(|work| work.since.elapsed() >= self.deadline)
        };
        // Nobody waits a second time for a measurement that is past its deadline.
        if !overdue && let Ok(done) = timeout(self.deadline, self.sample(extra)).await {
            return done.map(|()| true);
        }
        if !self.ledger().is_usable() {
            return Err(StoreError::Hangs { path: self.dir.clone(), seconds: self.deadline.as_secs() });
        }
        if !overdue {
            tracing::warn!(path = ?self.dir, "storage path answers slowly; an earlier measurement is used");
        }
        Ok(false)
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
            ledger.under_way = Some(UnderWay { since: Instant::now(), answered: false });
            let keys: Vec<_> = ledger.promised.keys().chain(extra).copied().collect();
            (keys, ledger.max_storage > 0)
        };
        let result = self.take_sample(keys, limited);
        let mut ledger = self.ledger();
        ledger.under_way = None;
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

    /// The file system has said how full it is: what follows is counting.
    fn answered(&self) {
        let mut ledger = self.ledger();
        if let Some(work) = &mut ledger.under_way {
            work.answered = true;
        }
    }

    fn take_sample(&self, keys: Vec<FileKey>, limited: bool) -> Result<Sample, StoreError> {
        let taken = Instant::now();
        let (capacity, fs_available) =
            (self.probe)(&self.dir).map_err(StoreError::io("measure", &self.dir))?;
        self.answered();
        let mut on_disk = BTreeMap::new();
        for (sector, kind) in keys {
            let here = (self.usage)(&layout::file(&self.dir, sector, kind))?;
            let arriving = (self.usage)(&layout::arriving(&self.dir, sector, kind))?;
            let labels = match kind {
                FileType::Unsealed => (self.usage)(&layout::labels(&self.dir, sector))?,
                _ => 0,
            };
            on_disk.insert((sector, kind), here.saturating_add(arriving).saturating_add(labels));
        }
        let used = if limited { Some((self.usage)(&self.dir)?) } else { None };
        Ok(Sample { taken, capacity, fs_available, used, on_disk })
    }
}

impl Ledger {
    fn is_fresh(&self, extra: &[FileKey]) -> bool {
        let covers = |sample: &Sample| extra.iter().all(|key| sample.on_disk.contains_key(key));
        // While one is being taken, the last sample is what was to be replaced.
        !self.stale
            && self.under_way.is_none()
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
        let escape = ESCAPE_BYTES.min(sample.capacity / ESCAPE_SHARE);
        let mut room = sample.fs_available.saturating_sub(self.keep_free.max(escape));
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

#[cfg(test)]
mod tests;
