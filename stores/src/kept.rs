//! Files that a peer asked to be deleted and that were kept, because no other copy could be shown to be whole. A list
//! for operators, on disk beside `storage.json`; a peer that still wants the file gone asks again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use sealtasks::{FileType, SectorId, StorageId};
use serde::{Deserialize, Serialize};

use crate::disk;
use crate::local::chain;

/// The file's name beside `storage.json`.
const KEPT_FILE: &str = "kept-files.json";
/// A larger one is not ours (bytes).
const KEPT_BYTES_MAX: u64 = 64 << 20;
/// Entries; beyond, the oldest goes.
const KEPT_MAX: usize = 10_000;

/// One file that was kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

/// Clones share the list.
#[derive(Clone)]
pub(crate) struct Kept(Arc<Inner>);

struct Inner {
    file: PathBuf,
    files: Mutex<BTreeMap<Key, KeptFile>>,
}

impl Kept {
    /// Reads the list that an earlier life of this process left. One that cannot be read counts as empty.
    pub(crate) fn open(config: &Path) -> Self {
        let file = config.with_file_name(KEPT_FILE);
        let read: Vec<KeptFile> = disk::read_list(&file, KEPT_BYTES_MAX);
        let files = read.into_iter().map(|one| ((one.path.clone(), one.sector, one.kind), one)).collect();
        Self(Arc::new(Inner { file, files: Mutex::new(files) }))
    }

    /// Adds a file. Blocks.
    pub(crate) fn note(&self, file: KeptFile) {
        let mut kept = self.lock();
        let key = (file.path.clone(), file.sector, file.kind);
        if kept.len() >= KEPT_MAX && !kept.contains_key(&key) {
            let oldest = kept.iter().min_by_key(|(_, file)| file.asked).map(|(key, _)| key.clone());
            oldest.and_then(|key| kept.remove(&key));
        }
        kept.insert(key, file);
        self.save(&kept);
    }

    /// It is not there any more. Blocks.
    pub(crate) fn forget(&self, path: &StorageId, sector: SectorId, kind: FileType) {
        let mut kept = self.lock();
        if kept.remove(&(path.clone(), sector, kind)).is_some() {
            self.save(&kept);
        }
    }

    pub(crate) fn list(&self) -> Vec<KeptFile> {
        self.lock().values().cloned().collect()
    }

    fn save(&self, kept: &BTreeMap<Key, KeptFile>) {
        let list: Vec<_> = kept.values().collect();
        if let Err(error) = disk::write_list(&self.0.file, &list) {
            tracing::warn!(
                error = chain(&error),
                "the list of kept files is forgotten when this process ends"
            );
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, KeptFile>> {
        self.0.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
