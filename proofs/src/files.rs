//! The paths a request names, checked before they are used, and made durable before a report speaks of them.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use sealtasks::{FileType, SectorFiles};

use crate::TaskError;

/// The files of one request, asked for on behalf of one task.
pub(crate) struct Files<'a> {
    /// The task's short code, for messages.
    pub task: &'static str,
    /// What the request named.
    pub named: &'a SectorFiles,
}

impl Files<'_> {
    /// The path of `kind`, which may or may not exist yet.
    pub fn path(&self, kind: FileType) -> Result<&Path, TaskError> {
        let path: &PathBuf =
            self.named.0.get(&kind).ok_or(TaskError::FileNotNamed { task: self.task, kind })?;
        if path.is_absolute() {
            Ok(path)
        } else {
            Err(TaskError::FileNotAbsolute { kind, path: path.clone() })
        }
    }

    /// The path of `kind`, where something must lie.
    pub fn existing(&self, kind: FileType) -> Result<&Path, TaskError> {
        let path = self.path(kind)?;
        match std::fs::metadata(path) {
            Ok(_) => Ok(path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(TaskError::FileMissing { task: self.task, kind, path: path.to_owned() })
            }
            Err(source) => Err(TaskError::Io { doing: "looking at", path: path.to_owned(), source }),
        }
    }
}

/// Puts a sealed file and a cache directory with its files on stable storage: the report of a task must not outlast, in
/// a power cut, the files that it speaks of.
pub(crate) fn make_durable(sealed: &Path, cache: &Path) -> Result<(), TaskError> {
    let failed = |source| TaskError::Io { doing: "listing", path: cache.to_owned(), source };
    for entry in std::fs::read_dir(cache).map_err(failed)? {
        sync(&entry.map_err(failed)?.path())?;
    }
    sync(cache)?;
    sync(sealed)?;
    [cache, sealed].into_iter().filter_map(Path::parent).try_for_each(sync)
}

/// Puts one file, or the names in one directory, on stable storage.
pub(crate) fn sync(path: &Path) -> Result<(), TaskError> {
    let failed = |source| TaskError::Io { doing: "opening", path: path.to_owned(), source };
    sync_all(&File::open(path).map_err(failed)?, path)
}

/// The same for an open file; `path` is for the message.
pub(crate) fn sync_all(file: &File, path: &Path) -> Result<(), TaskError> {
    file.sync_all().map_err(|source| TaskError::Io { doing: "syncing", path: path.to_owned(), source })
}

/// Removes one file.
pub(crate) fn remove(path: &Path) -> Result<(), TaskError> {
    let failed = |source| TaskError::Io { doing: "removing", path: path.to_owned(), source };
    std::fs::remove_file(path).map_err(failed)
}
