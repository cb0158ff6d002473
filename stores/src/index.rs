//! The sector index as its users see it: which path holds which files, and where new ones may go.
//!
//! The index lives in the manager ([`crate::MemIndex`]); a worker reaches it over the wire through an adapter that is
//! written in the room `worker`. This file holds the contract alone: no state, no I/O.

use async_trait::async_trait;
use sealtasks::{
    ActorId, FileType, FileTypes, FsStat, HealthReport, PathType, SectorDecl, SectorId, SectorSize,
    SectorStorageInfo, StorageId, StorageInfo,
};

/// Whether a declared file is the primary copy. The bool on the wire: `true` is primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CopyKind {
    /// A copy that could be dropped.
    Secondary,
    /// The copy that counts.
    Primary,
}

impl CopyKind {
    /// Whether this is the primary copy.
    pub const fn is_primary(self) -> bool {
        matches!(self, Self::Primary)
    }
}

impl From<bool> for CopyKind {
    fn from(primary: bool) -> Self {
        if primary { Self::Primary } else { Self::Secondary }
    }
}

/// Whether a path suits somebody.
pub type Suits<'a> = dyn for<'id> Fn(&'id StorageId) -> bool + Sync + 'a;

/// What stores ask of the index. Lotus's `Storage*` methods, with a batched declare between Sealyards.
#[async_trait]
pub trait Index: Send + Sync + 'static {
    /// Adds a path, or to a known one its URLs; settings are overwritten, files and health are kept.
    async fn attach(&self, info: StorageInfo, stat: FsStat) -> Result<(), IndexError>;
    /// Takes one URL of a path away; with the last one the path and all its declarations go.
    async fn detach(&self, id: &StorageId, url: &str) -> Result<(), IndexError>;
    /// One path.
    async fn info(&self, id: &StorageId) -> Result<StorageInfo, IndexError>;
    /// A path's heartbeat.
    async fn report_health(&self, id: &StorageId, report: HealthReport) -> Result<(), IndexError>;
    /// Files of one sector that lie in a path. A secondary copy can be raised to primary, never lowered.
    async fn declare(
        &self,
        id: &StorageId,
        sector: SectorId,
        types: FileTypes,
        copy: CopyKind,
    ) -> Result<(), IndexError>;
    /// [`Index::declare`] of files that were just made or brought there, by whoever asks now: an attempt at a task that is
    /// over by now is refused.
    async fn declare_made(
        &self,
        id: &StorageId,
        sector: SectorId,
        types: FileTypes,
        copy: CopyKind,
    ) -> Result<(), IndexError> {
        self.declare(id, sector, types, copy).await
    }
    /// [`Index::declare`] of what a scan found, for many sectors; `true` marks primary copies.
    async fn declare_batch(&self, id: &StorageId, files: &[(SectorDecl, bool)]) -> Result<(), IndexError>;
    /// All files of a path have been declared: what the index only remembers of it from before is not there.
    /// An index that remembers nothing, as Lotus's, has nothing to do.
    async fn declared_all(&self, _id: &StorageId) -> Result<(), IndexError> {
        Ok(())
    }
    /// What the index believes to lie in a path, by sector: over Lotus's wire its part of `StorageList`.
    async fn files(&self, id: &StorageId) -> Result<Vec<SectorDecl>, IndexError>;
    /// Files that no longer lie in a path.
    async fn drop_files(&self, id: &StorageId, sector: SectorId, types: FileTypes) -> Result<(), IndexError>;
    /// Files of another process's path that are older than what there is of them elsewhere, or are about to be. Lotus's index
    /// can only forget them until that path is scanned again.
    async fn supersede(&self, id: &StorageId, sector: SectorId, types: FileTypes) -> Result<(), IndexError> {
        self.drop_files(id, sector, types).await
    }
    /// Paths with copies of a file that are listed nowhere because they are older than another one. An index that does not tell,
    /// as Lotus's, has none.
    async fn older(&self, _sector: SectorId, _kind: FileType) -> Result<Vec<SectorStorageInfo>, IndexError> {
        Ok(Vec::new())
    }
    /// Holders of any of `types`, by weight (highest first), then id; with `fetch` followed by paths that all of
    /// `types` of a sector of that size could be fetched to.
    async fn find(
        &self,
        sector: SectorId,
        types: FileTypes,
        fetch: Option<SectorSize>,
    ) -> Result<Vec<SectorStorageInfo>, IndexError>;
    /// Paths with room for new files, best (available × weight) first.
    ///
    /// # Errors
    /// [`IndexError::NoPath`] when there is none.
    async fn best_alloc(
        &self,
        types: FileTypes,
        size: SectorSize,
        path_type: PathType,
        miner: ActorId,
    ) -> Result<Vec<StorageInfo>, IndexError>;
    /// The first of them that `suits`, if any does. The answer of [`Index::best_alloc`] would be thousands of paths, of which
    /// a process has a few. `suits` must not ask the index.
    async fn first_alloc(
        &self,
        types: FileTypes,
        size: SectorSize,
        path_type: PathType,
        miner: ActorId,
        suits: &Suits<'_>,
    ) -> Result<Option<StorageId>, IndexError> {
        match self.best_alloc(types, size, path_type, miner).await {
            Ok(paths) => Ok(paths.into_iter().map(|info| info.id).find(suits)),
            Err(IndexError::NoPath) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Why the index refused. The texts of the first three are Lotus's, since its clients see them.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// No such path.
    #[error("sector store not found")]
    UnknownStorage {
        /// The id asked for.
        id: StorageId,
    },
    /// A heartbeat of a path that was never attached, or not since the manager started: declare it again.
    #[error("health report for unknown storage: {id}")]
    UnknownHealth {
        /// The id.
        id: StorageId,
    },
    /// Nowhere to put it.
    #[error("no good path found")]
    NoPath,
    /// A path attached without any URL could be reached by nobody.
    #[error("storage path {id} was attached without a URL; expected at least one")]
    NoUrl {
        /// The id.
        id: StorageId,
    },
    /// The URL to be detached is none of the path's.
    #[error("storage path {id} is not served at {url:?}; its URLs are {known}")]
    UrlMismatch {
        /// The id.
        id: StorageId,
        /// The URL as given.
        url: String,
        /// The URLs it has, joined by a space.
        known: String,
    },
    /// More paths than the index can number.
    #[error("{count} storage paths were attached; the index holds no more")]
    TooManyPaths {
        /// How many there are.
        count: usize,
    },
    /// More files than the index can number.
    #[error("storage path {id} has {count} sectors; the index holds no more")]
    TooManyFiles {
        /// The path.
        id: StorageId,
        /// How many sectors it has.
        count: usize,
    },
    /// The sector is being sealed again, and these files were not made by that: they may be what was lost.
    #[error("path {id} holds files of sector {sector} that its rebuild has not made; they are left alone")]
    Kept {
        /// The path.
        id: StorageId,
        /// The sector.
        sector: SectorId,
    },
    /// The index could not be reached, or what it answered made no sense.
    #[error("the index did not answer")]
    Remote(#[source] Box<dyn std::error::Error + Send + Sync>),
}
