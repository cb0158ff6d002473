//! Files that a peer asked to be deleted and that were kept, because no other copy could be shown to be whole. A list
//! for operators; it is in memory, and a peer that still wants the file gone asks again.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use sealtasks::{FileType, SectorId, StorageId};

/// Entries; beyond, the oldest goes.
const KEPT_MAX: usize = 10_000;

/// One file that was kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptFile {
    /// The path it lies in.
    pub path: StorageId,
    /// The sector.
    pub sector: SectorId,
    /// Which of its files.
    pub kind: FileType,
    /// Why it was not deleted.
    pub why: String,
    /// When that was last asked for.
    pub asked: SystemTime,
}

type Key = (StorageId, SectorId, FileType);

#[derive(Default)]
pub(crate) struct Kept(Mutex<BTreeMap<Key, KeptFile>>);

impl Kept {
    pub(crate) fn note(&self, file: KeptFile) {
        let mut kept = self.lock();
        let key = (file.path.clone(), file.sector, file.kind);
        if kept.len() >= KEPT_MAX && !kept.contains_key(&key) {
            let oldest = kept.iter().min_by_key(|(_, file)| file.asked).map(|(key, _)| key.clone());
            oldest.and_then(|key| kept.remove(&key));
        }
        kept.insert(key, file);
    }

    /// It was deleted after all.
    pub(crate) fn forget(&self, path: &StorageId, sector: SectorId, kind: FileType) {
        self.lock().remove(&(path.clone(), sector, kind));
    }

    pub(crate) fn list(&self) -> Vec<KeptFile> {
        self.lock().values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, KeptFile>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
