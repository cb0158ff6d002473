//! Directories that were sent whole: what a peer that cannot be asked for its files certainly received. On disk beside
//! `storage.json`, so that a restart between a peer's fetch and its DELETE forgets nothing.
//!
//! A directory counts as sent only as long as no file in it has changed since.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::disk;
use crate::error::StoreError;
use crate::local::chain;
use crate::members::Manifest;

/// The file's name beside `storage.json`.
const SENT_FILE: &str = "sent-directories.json";
/// A larger one is not ours (bytes).
const SENT_BYTES_MAX: u64 = 64 << 20;
/// Directories remembered; beyond, all are forgotten, and deletions that need them are refused.
const SENT_MAX: usize = 4096;

/// Clones share what they remember.
#[derive(Clone)]
pub(crate) struct Sent(Arc<Inner>);

struct Inner {
    file: PathBuf,
    dirs: Mutex<HashMap<PathBuf, Seen>>,
}

/// A directory as it was when its sending began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Seen {
    /// Names and lengths.
    pub(crate) files: Manifest,
    /// When the last of them was changed: seconds and nanoseconds.
    changed: (i64, i64),
}

impl Seen {
    /// Looks at a directory.
    ///
    /// # Errors
    /// When it cannot be listed or holds what no sector's directory does.
    pub(crate) fn of_dir(dir: &Path) -> Result<Self, StoreError> {
        let files = Manifest::of_dir(dir)?;
        let mut changed = (0, 0);
        for name in files.0.keys() {
            let path = dir.join(name);
            let found = fs::metadata(&path).map_err(StoreError::io("look at", &path))?;
            changed = changed.max((found.mtime(), found.mtime_nsec()));
        }
        Ok(Self { files, changed })
    }
}

impl Sent {
    /// Reads what an earlier life of this process remembered. A file that cannot be read counts as empty: deletions that
    /// need it are then refused.
    pub(crate) fn open(config: &Path) -> Self {
        let file = config.with_file_name(SENT_FILE);
        let read: Vec<(PathBuf, Seen)> = disk::read_list(&file, SENT_BYTES_MAX);
        Self(Arc::new(Inner { file, dirs: Mutex::new(read.into_iter().collect()) }))
    }

    /// The whole directory was taken from us. Blocks.
    pub(crate) fn note(&self, dir: PathBuf, seen: Seen) {
        let mut dirs = self.lock();
        if dirs.len() >= SENT_MAX {
            dirs.clear();
        }
        dirs.insert(dir, seen);
        let list: Vec<_> = dirs.iter().collect();
        if let Err(error) = disk::write_list(&self.0.file, &list) {
            tracing::warn!(error = chain(&error), "what was sent whole is forgotten when this process ends");
        }
    }

    /// Whether exactly these files were sent from there, and are still the same. Blocks.
    pub(crate) fn whole(&self, dir: &Path, files: &Manifest) -> bool {
        let seen = self.lock().get(dir).cloned();
        seen.is_some_and(|seen| seen.files == *files && Seen::of_dir(dir).is_ok_and(|now| now == seen))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PathBuf, Seen>> {
        self.0.dirs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
