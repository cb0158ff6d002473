//! `storage.json`: which storage paths a process opens. Lotus's file, kept in the repo.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::disk;
use crate::error::StoreError;

/// More than this is no `storage.json` (bytes).
const CONFIG_BYTES_MAX: u64 = 16 << 20;

/// The list of storage paths.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StorageConfig {
    /// The paths in the order they were attached.
    #[serde(rename = "StoragePaths", default)]
    pub storage_paths: Option<Vec<ConfiguredPath>>,
}

/// One entry of `storage.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfiguredPath {
    /// The directory, absolute.
    #[serde(rename = "Path")]
    pub path: PathBuf,
}

impl StorageConfig {
    /// Reads `file`. A missing file is an empty list.
    ///
    /// # Errors
    /// When it is unreadable or not the JSON it should be.
    pub fn read(file: &Path) -> Result<Self, StoreError> {
        match disk::read_bounded(file, CONFIG_BYTES_MAX) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|source| StoreError::Json { path: file.to_owned(), source }),
            Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Ok(Self::default())
            }
            Err(error) => Err(error),
        }
    }

    /// Replaces `file` atomically (temporary file, fsync, rename).
    ///
    /// # Errors
    /// When the disk refuses; the old file then still stands.
    pub fn write(&self, file: &Path) -> Result<(), StoreError> {
        let complete = Self {
            storage_paths: Some(self.paths().map(|path| ConfiguredPath { path: path.to_owned() }).collect()),
        };
        let bytes = serde_json::to_vec_pretty(&complete)
            .map_err(|source| StoreError::Json { path: file.to_owned(), source })?;
        disk::replace(file, &bytes)
    }

    /// The directories.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.storage_paths.iter().flatten().map(|entry| entry.path.as_path())
    }

    /// Adds `dir`; an entry that is there already stays the only one.
    pub fn add(&mut self, dir: &Path) {
        if !self.paths().any(|known| known == dir) {
            self.storage_paths.get_or_insert_default().push(ConfiguredPath { path: dir.to_owned() });
        }
    }

    /// Takes `dir` away.
    pub fn remove(&mut self, dir: &Path) {
        if let Some(paths) = &mut self.storage_paths {
            paths.retain(|entry| entry.path != dir);
        }
    }
}
