//! What lies in a parameter directory.

use std::path::{Path, PathBuf};

use sealtasks::SectorSize;

use super::{DigestCache, ParamFile, Purpose, generate, needed};

/// How closely to look.
#[derive(Debug)]
pub enum Check<'a> {
    /// Only at digests that are remembered: quick.
    Quick(&'a DigestCache),
    /// At every digest; those not remembered are computed, about a second per GiB.
    Digests(&'a mut DigestCache),
}

/// Who made a file, as its digest tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The published one.
    Published,
    /// Generated with our published, insecure seed.
    Generated,
}

/// One needed file in one directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileStatus {
    /// Which file, as published.
    pub file: ParamFile,
    /// Where it lies or would lie.
    pub path: PathBuf,
    /// What is there.
    pub state: FileState,
}

/// What is found under a parameter file's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileState {
    /// It is there and its digest is right.
    Right {
        /// Its length.
        bytes: u64,
    },
    /// It is there; its digest has not been looked at.
    Unchecked {
        /// Its length.
        bytes: u64,
    },
    /// A download has begun.
    Incomplete {
        /// What has arrived.
        bytes: u64,
    },
    /// Nothing is there.
    Missing,
    /// It was generated here: good for proofs that are verified with the key beside it, and nowhere else.
    Generated {
        /// Its length.
        bytes: u64,
    },
    /// Something else lies there under this name.
    WrongDigest {
        /// The digest found.
        found: String,
    },
    /// It cannot be read.
    Unreadable {
        /// What the system said.
        reason: String,
    },
}

impl FileState {
    /// Whether it is the published file for certain.
    pub const fn is_right(&self) -> bool {
        matches!(self, Self::Right { .. })
    }

    /// Who made it, where that is known.
    pub const fn origin(&self) -> Option<Origin> {
        match self {
            Self::Right { .. } => Some(Origin::Published),
            Self::Generated { .. } => Some(Origin::Generated),
            Self::Unchecked { .. }
            | Self::Incomplete { .. }
            | Self::Missing
            | Self::WrongDigest { .. }
            | Self::Unreadable { .. } => None,
        }
    }
}

/// The files that sealing sectors of `size` needs, as they are in `directory`.
pub fn status(directory: &Path, size: SectorSize, mut check: Check<'_>) -> Vec<FileStatus> {
    let look = |file: ParamFile| {
        let path = directory.join(&file.name);
        let state = state_of(&path, &file, size, &mut check);
        FileStatus { file, path, state }
    };
    needed(size, Purpose::Prove).into_iter().map(look).collect()
}

/// Where the bytes of an unfinished download are kept.
pub(super) fn part_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    name.into()
}

fn state_of(path: &Path, file: &ParamFile, size: SectorSize, check: &mut Check<'_>) -> FileState {
    let unreadable = |error: std::io::Error| FileState::Unreadable { reason: error.to_string() };
    let bytes = match std::fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return std::fs::metadata(part_path(path))
                .map_or(FileState::Missing, |part| FileState::Incomplete { bytes: part.len() });
        }
        Err(error) => return unreadable(error),
    };
    let found = match check {
        Check::Quick(cache) => match cache.known(path) {
            Some(digest) => digest,
            None => return FileState::Unchecked { bytes },
        },
        Check::Digests(cache) => match cache.digest(path) {
            Ok(digest) => digest,
            Err(error) => return unreadable(error),
        },
    };
    if found == file.digest {
        FileState::Right { bytes }
    } else if generate::is_ours(path, size, &found) {
        FileState::Generated { bytes }
    } else {
        FileState::WrongDigest { found }
    }
}
