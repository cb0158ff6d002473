//! Data that waits for sectors, and messages to the chain, in a backup. A piece is written once and never changed, so it is copied for the first
//! generation that has it and linked from there into the next ones. Never: decides which data is still needed; a manager
//! that takes over removes what no sector waits for.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::generation::{self, Generation, SavedFile};
use super::{BackupError, io_error, make_dir, sync_dir};
use crate::repo;

/// Brings what waits in `repo` into `making`; gives the files whose digests an earlier generation in `target` has.
///
/// To be called when the durable state has been copied: data that came later is more than that state needs, and data that
/// went since belongs to a sector that is proven.
/// The same with messages: one that was meant to be sent later than that is found on chain by whoever takes over.
pub(super) fn save(
    repo: &Path,
    target: &Path,
    making: &Path,
    pieces: Pieces,
) -> Result<Vec<SavedFile>, BackupError> {
    for name in names(repo, repo::MESSAGES, |name| name.ends_with(".json"))? {
        copy(&repo.join(&name), &making.join(&name))?;
    }
    let names = names(repo, repo::STAGING, |name| name.parse::<Uuid>().is_ok())?;
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let dir = making.join(repo::STAGING);
    make_dir(&dir)?;
    let earlier = earlier(target);
    let mut known = Vec::new();
    for name in names {
        let (from, to) = (repo.join(&name), making.join(&name));
        let saved = earlier.as_ref().and_then(|(dir, generation)| {
            let saved = generation.files().iter().find(|file| file.name == name)?;
            let whole = fs::metadata(&from).is_ok_and(|found| found.len() == saved.bytes);
            (whole && fs::hard_link(dir.join(&name), &to).is_ok()).then(|| saved.clone())
        });
        match saved {
            Some(saved) => known.push(saved),
            None => match pieces {
                Pieces::Copied => copy(&from, &to)?,
                Pieces::Linked => link(&from, &to)?,
            },
        }
    }
    sync_dir(&dir)?;
    Ok(known)
}

/// How data that waits gets into a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pieces {
    /// Onto the disk that the backup is on.
    Copied,
    /// As a second name of the same bytes: the generation is handed out from the repo's own disk.
    Linked,
}

/// As [`copy`].
fn link(from: &Path, to: &Path) -> Result<(), BackupError> {
    match fs::hard_link(from, to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("link", to)(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Data that is gone by now is needed by nobody.
fn copy(from: &Path, to: &Path) -> Result<(), BackupError> {
    match generation::copy(from, to) {
        Err(BackupError::Io { path, source, .. })
            if path == from && source.kind() == io::ErrorKind::NotFound =>
        {
            Ok(())
        }
        other => other,
    }
}

/// Relative names of whole files below the repo; those on their way have another form.
fn names(repo: &Path, below: &str, is_whole: fn(&str) -> bool) -> Result<Vec<PathBuf>, BackupError> {
    let dir = repo.join(below);
    let entries = match fs::read_dir(&dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(io_error("list", &dir))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(io_error("list", &dir))?.file_name();
        if name.to_str().is_some_and(is_whole) {
            names.push(Path::new(below).join(name));
        }
    }
    names.sort();
    Ok(names)
}

/// The newest generation whose manifest can be read.
fn earlier(target: &Path) -> Option<(PathBuf, Generation)> {
    let names = Generation::names(target).unwrap_or_default().into_iter();
    names.map(|name| target.join(name)).find_map(|dir| Some((dir.clone(), Generation::read(&dir).ok()?)))
}
