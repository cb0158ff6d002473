//! `sealyard.json` beside `sectorstore.json`: what a storage path is told that Lotus has no word for.
//!
//! A file of its own, so that `sectorstore.json` stays Lotus's byte for byte, and nothing is lost when one of Lotus's
//! tools writes that again. Lotus looks only into the type directories and never sees it.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::disk;
use crate::error::StoreError;

/// The file's name in a storage path.
pub const KEEP_FILE: &str = "sealyard.json";

/// More than this is no `sealyard.json` (bytes).
const KEEP_BYTES_MAX: u64 = 1 << 16;

/// The file system's bytes that a path leaves alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeepFree {
    /// New files are placed only where this many bytes stay free on the file system; 0 = none are kept.
    #[serde(rename = "KeepFree", default)]
    pub bytes: u64,
}

impl KeepFree {
    /// Reads the `sealyard.json` of the storage path `dir`. None there: nothing is kept.
    ///
    /// # Errors
    /// When it is unreadable, larger than 64 KiB or not the JSON it should be.
    pub fn read(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join(KEEP_FILE);
        match disk::read_bounded(&path, KEEP_BYTES_MAX) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|source| StoreError::Json { path, source }),
            Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Ok(Self::default())
            }
            Err(error) => Err(error),
        }
    }

    /// Writes the file atomically; 0 bytes need none, and an old one then goes.
    ///
    /// # Errors
    /// When the disk refuses; the old file then still stands.
    pub fn write(self, dir: &Path) -> Result<(), StoreError> {
        let path = dir.join(KEEP_FILE);
        if self.bytes == 0 {
            return disk::remove(&path);
        }
        let bytes = serde_json::to_vec_pretty(&self).expect("a plain number always serialises");
        disk::replace(&path, &bytes)
    }
}
