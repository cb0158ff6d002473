//! The world's index as a node reaches it through something that fails: it stops telling where files are, or loses a
//! declaration in the worst moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use sealtasks::{
    ActorId, FileTypes, FsStat, HealthReport, PathType, SectorDecl, SectorId, SectorSize, SectorStorageInfo,
    StorageId, StorageInfo,
};
use stores::{CopyKind, Index, IndexError, MemIndex};

pub struct Through {
    index: Arc<MemIndex>,
    deaf: AtomicBool,
    /// When files of the first path are dropped, their declarations in the second one are lost.
    loses: Option<(StorageId, StorageId)>,
}

impl Through {
    /// Fails in nothing until it is told to.
    pub fn to(index: &Arc<MemIndex>) -> Arc<Self> {
        Arc::new(Self { index: Arc::clone(index), deaf: AtomicBool::new(false), loses: None })
    }

    /// Loses the declarations in `lost` in the moment in which those in `ours` are dropped.
    pub fn losing(index: &Arc<MemIndex>, ours: StorageId, lost: StorageId) -> Arc<Self> {
        let (index, deaf) = (Arc::clone(index), AtomicBool::new(false));
        Arc::new(Self { index, deaf, loses: Some((ours, lost)) })
    }

    /// From now on nobody is told where a file is.
    pub fn is_deaf(&self) {
        self.deaf.store(true, Ordering::SeqCst);
    }
}

#[async_trait]
impl Index for Through {
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
        if let Some((_, lost)) = self.loses.as_ref().filter(|(ours, _)| ours == id) {
            self.index.drop_files(lost, sector, types).await?;
        }
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
