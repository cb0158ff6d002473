//! Directories that were sent whole: what a peer that cannot be asked for its files certainly received. Kept in memory;
//! after a restart nothing is known to have been sent.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::members::Manifest;

/// Directories remembered; beyond, all are forgotten, and deletions that need them are refused.
const SENT_MAX: usize = 4096;

/// Clones share what they remember.
#[derive(Clone, Default)]
pub(super) struct Sent(Arc<Mutex<HashMap<PathBuf, Manifest>>>);

impl Sent {
    /// The whole directory was taken from us.
    pub(super) fn note(&self, dir: PathBuf, files: Manifest) {
        let mut sent = self.lock();
        if sent.len() >= SENT_MAX {
            sent.clear();
        }
        sent.insert(dir, files);
    }

    /// Whether exactly these files were sent from there.
    pub(super) fn whole(&self, dir: &Path, files: &Manifest) -> bool {
        self.lock().get(dir) == Some(files)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PathBuf, Manifest>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
