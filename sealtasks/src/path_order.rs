//! What an operator asks of the process that has a storage path open, and what it answers. The same values travel from
//! the command line to the manager, on to the worker whose path it is, and into `stores`, which carries them out.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{FileType, FileTypes, SectorId, SectorRef, StorageId};

/// One order about the storage paths of one process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum PathOrder {
    /// Open this directory and remember it; with settings it is made a storage path first.
    Attach {
        /// The directory on the process's host, absolute.
        dir: PathBuf,
        /// Its settings, when it is to be made one.
        new: Option<NewPath>,
    },
    /// Close this directory and forget it. Files stay.
    Detach {
        /// The directory, as it was opened.
        dir: PathBuf,
    },
    /// Compare one path, or all, with the index.
    Compare {
        /// The path; `None` = all.
        id: Option<StorageId>,
    },
    /// Say to the index what lies in one path, or in all.
    Redeclare {
        /// The path; `None` = all.
        id: Option<StorageId>,
        /// Take out of the index what does not lie there.
        drop_missing: bool,
    },
    /// Say what lies in the paths and should not.
    Survey,
    /// Delete these leftovers, each of them only if a survey taken now still finds it and offers it.
    CleanUp {
        /// The files and directories, as a survey named them.
        entries: Vec<PathBuf>,
        /// Those of them that are older copies of files which tasks have changed since: they may have more than the newer ones.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        old: Vec<PathBuf>,
    },
    /// Say how large these files are, and since when they have not been changed.
    Measure {
        /// In which path, of which sector, which file.
        files: Vec<(StorageId, SectorId, FileType)>,
    },
    /// Take those of these files out of the index that do not lie there.
    DropMissing {
        /// In which path, of which sector, which file.
        files: Vec<(StorageId, SectorId, FileType)>,
    },
    /// Delete this file, the last copy included: the manager has made the permit for it durable.
    Discard {
        /// The sector.
        sector: SectorId,
        /// Which file.
        file: FileType,
        /// The path, one of the process's own.
        path: StorageId,
        /// Why it is no longer needed.
        reason: String,
    },
    /// Give these files of a sector that is sealed again names of their own, and take them out of the index. None is deleted.
    SetAside {
        /// The sector.
        sector: SectorId,
        /// Which files.
        types: FileTypes,
        /// In which path.
        path: StorageId,
    },
    /// Bring files of a sector into this path, then delete them where they were.
    Move {
        /// The sector.
        sector: SectorRef,
        /// Which files.
        types: FileTypes,
        /// The path, one of the process's own.
        to: StorageId,
    },
}

/// What came of a [`PathOrder`], in the same order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PathReport {
    /// It is open.
    Attached {
        /// Its id.
        id: StorageId,
        /// Entries in it that are no sector files; they were left alone.
        foreign: Vec<PathBuf>,
    },
    /// It is closed.
    Detached,
    /// How disk and index differ.
    Compared(Vec<PathDifference>),
    /// The index was told; the differences are those of before.
    Redeclared(Vec<PathDifference>),
    /// What should not be there.
    Surveyed(Vec<PathSurvey>),
    /// What was deleted, and what was kept and why.
    CleanedUp(Vec<CleanedEntry>),
    /// The size and age of each file, in the order in which they were named.
    Measured(Vec<FileMeasure>),
    /// What was taken out of the index.
    Dropped(Vec<(StorageId, SectorId, FileType)>),
    /// It is gone.
    Discarded,
    /// The files lie there now.
    Moved,
    /// Where they lie now.
    SetAside(Vec<PathBuf>),
}

/// Settings of a storage path that is to be made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NewPath {
    /// Preference among paths; 0 = read-only.
    pub weight: u64,
    /// The most it may hold, in bytes; 0 = no limit of its own.
    pub max_storage: u64,
    /// Bytes of its file system that new files leave free; 0 = none are kept.
    pub keep_free: u64,
    /// Sealing may use it.
    pub can_seal: bool,
    /// Finished sectors may live there.
    pub can_store: bool,
    /// Groups it belongs to.
    pub groups: Vec<String>,
    /// Groups its files may be fetched into.
    pub allow_to: Vec<String>,
}

/// How large a file or directory is, and its age; both 0 where it is not there, or its path does not answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FileMeasure {
    /// Bytes on disk.
    pub bytes: u64,
    /// Seconds since anything in it changed.
    pub age_s: u64,
}

/// How what lies in a path and what the index says of it differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathDifference {
    /// The path.
    pub id: StorageId,
    /// Its directory.
    pub dir: PathBuf,
    /// Sectors whose files are known as they lie.
    pub unchanged: u64,
    /// On disk and not in the index: declaring adds them, as primary copies in a path for storing.
    pub added: Vec<(SectorId, FileTypes)>,
    /// In the index and not on disk: dropping takes them out.
    pub missing: Vec<(SectorId, FileTypes)>,
}

/// What lies in one path and should not, or could not be told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathSurvey {
    /// The path.
    pub id: StorageId,
    /// Its directory.
    pub dir: PathBuf,
    /// Why it could not be looked at; its findings are then missing.
    pub error: Option<String>,
    /// The findings, by name.
    pub findings: Vec<Finding>,
}

/// One entry of a path that is not where or what it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The file or directory.
    pub entry: PathBuf,
    /// What is the matter with it.
    pub matter: Matter,
    /// The sector and type that its name tells, if it does.
    pub file: Option<(SectorId, FileType)>,
    /// Bytes on disk.
    pub bytes: u64,
    /// Seconds since anything in it changed.
    pub age_s: u64,
    /// Whether a clean-up may delete it.
    pub offered: bool,
    /// Why, or why not.
    pub reason: String,
}

/// What is the matter with an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Matter {
    /// A transfer that did not end.
    PartialFetch,
    /// A deletion that did not end.
    PartialRemoval,
    /// A temporary file of a write that did not end.
    Temporary,
    /// A sector's file that the index does not list here.
    NotInIndex,
    /// A sector's file whose place another one took.
    Replaced,
    /// A sector's file that a peer asked to be deleted, and that was kept.
    KeptFromDeletion,
    /// A file of a sector that an operator removed.
    RemovedSector,
    /// No sector's file, or of a sector that the manager has no record of.
    Foreign,
}

impl Matter {
    /// A few words for a listing.
    pub const fn words(self) -> &'static str {
        match self {
            Self::PartialFetch => "partial fetch",
            Self::PartialRemoval => "partial removal",
            Self::Temporary => "temporary file",
            Self::NotInIndex => "not in the index",
            Self::Replaced => "replaced",
            Self::KeptFromDeletion => "kept from deletion",
            Self::RemovedSector => "removed sector",
            Self::Foreign => "foreign",
        }
    }
}

/// What became of one entry that was to be cleaned up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CleanedEntry {
    /// The file or directory.
    pub entry: PathBuf,
    /// Bytes given back; 0 if it was kept.
    pub bytes: u64,
    /// Why it was kept; `None` = it is gone.
    pub kept: Option<String>,
}
