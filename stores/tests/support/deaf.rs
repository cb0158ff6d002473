//! An index that at some time stops telling where files are, as one does that cannot be reached.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use sealtasks::{
    ActorId, FileTypes, FsStat, HealthReport, PathType, SectorDecl, SectorId, SectorSize, SectorStorageInfo,
    StorageId, StorageInfo,
};
use stores::{CopyKind, Index, IndexError, MemIndex};

/// The world's index until it is deaf.
pub struct Deaf {
    index: Arc<MemIndex>,
    deaf: AtomicBool,
}

impl Deaf {
    pub fn over(index: &Arc<MemIndex>) -> Arc<Self> {
        Arc::new(Self { index: Arc::clone(index), deaf: AtomicBool::new(false) })
    }

    /// From now on nobody is told where a file is.
    pub fn is_deaf(&self) {
        self.deaf.store(true, Ordering::SeqCst);
    }
}

#[async_trait]
impl Index for Deaf {
    async fn attach(&self, info: StorageInfo, stat: FsStat) -> Result<(), IndexError> {
        self.index.attach(info, stat).await
    }

    async fn detach(&self, id: &StorageId, url: &str) -> Result<(), IndexError> {
        self.index.detach(id, url).await
    }

    async fn info(&self, id: &StorageId) -> Result<StorageInfo, IndexError> {
        self.index.info(id).await
    }

    async fn report_health(&self, id: &StorageId, report: HealthReport) -> Result<(), IndexError> {
        self.index.report_health(id, report).await
    }

    async fn declare(
        &self,
        id: &StorageId,
        sector: SectorId,
        types: FileTypes,
        copy: CopyKind,
    ) -> Result<(), IndexError> {
        self.index.declare(id, sector, types, copy).await
    }

    async fn declare_batch(&self, id: &StorageId, files: &[(SectorDecl, bool)]) -> Result<(), IndexError> {
        self.index.declare_batch(id, files).await
    }

    async fn files(&self, id: &StorageId) -> Result<Vec<SectorDecl>, IndexError> {
        self.index.files(id).await
    }

    async fn drop_files(&self, id: &StorageId, sector: SectorId, types: FileTypes) -> Result<(), IndexError> {
        self.index.drop_files(id, sector, types).await
    }

    async fn find(
        &self,
        sector: SectorId,
        types: FileTypes,
        fetch: Option<SectorSize>,
    ) -> Result<Vec<SectorStorageInfo>, IndexError> {
        if self.deaf.load(Ordering::SeqCst) {
            return Err(IndexError::Remote("it is deaf".into()));
        }
        self.index.find(sector, types, fetch).await
    }

    async fn best_alloc(
        &self,
        types: FileTypes,
        size: SectorSize,
        path_type: PathType,
        miner: ActorId,
    ) -> Result<Vec<StorageInfo>, IndexError> {
        self.index.best_alloc(types, size, path_type, miner).await
    }
}
