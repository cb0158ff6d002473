//! The paths a request names, checked before they are used.

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
