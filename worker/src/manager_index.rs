//! The sector index as a worker reaches it: through the manager. Keeps nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use rpc::storage::{CopyDeed, CopyState};
use rpc::{ApiError, ManagerApi};
use sealtasks::{
    ActorId, AttemptId, FileTypes, FsStat, HealthReport, PathType, SectorDecl, SectorId, SectorSize,
    SectorStorageInfo, StorageId, StorageInfo,
};
use stores::{CopyKind, Index, IndexError};

/// Most files declared in one call; a path with more takes several.
const DECLARE_BATCH: usize = 100_000;

tokio::task_local! {
    static ATTEMPT: AttemptId;
}

/// Runs `work`, whose deeds are those of this attempt: a manager that has given it up lists none of them.
pub(crate) async fn on_behalf_of<T>(attempt: Option<AttemptId>, work: impl Future<Output = T>) -> T {
    match attempt {
        Some(attempt) => ATTEMPT.scope(attempt, work).await,
        None => work.await,
    }
}

/// The manager's index.
pub struct ManagerIndex {
    manager: Arc<dyn ManagerApi>,
    /// Cleared when the manager turns out not to know batches: a Lotus.
    batches: AtomicBool,
    /// Managers that were joined after the first.
    changes: AtomicU64,
}

impl ManagerIndex {
    /// The index of this manager.
    pub fn new(manager: Arc<dyn ManagerApi>) -> Self {
        Self { manager, batches: AtomicBool::new(true), changes: AtomicU64::new(0) }
    }

    /// Another manager process may stand behind the address: try batches again.
    pub(crate) fn manager_changed(&self) {
        self.batches.store(true, Ordering::Relaxed);
        self.changes.fetch_add(1, Ordering::SeqCst);
    }

    /// How often another manager was found. It has risen before anything is declared to that one again.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::SeqCst)
    }
}

impl ManagerIndex {
    /// Tells what the attempt at work has done with files. `false`: there is none, or the manager knows no deeds.
    async fn tell_deed(
        &self,
        path: &StorageId,
        sector: SectorId,
        types: FileTypes,
        state: CopyState,
    ) -> Result<bool, IndexError> {
        let Ok(attempt) = ATTEMPT.try_with(|attempt| *attempt) else { return Ok(false) };
        let deed = CopyDeed { path: path.clone(), sector, types, state };
        match self.manager.storage_deed(attempt, deed).await {
            Ok(()) => Ok(true),
            // A Lotus, or a Sealyard of the version before.
            Err(error) if error.is_method_not_found() => Ok(false),
            Err(error) => Err(index_error(error)),
        }
    }
}

/// Turns the manager's words back into the errors they were made from, since stores decide by kind.
fn index_error(error: ApiError) -> IndexError {
    if words(&error).contains("no good path found") {
        return IndexError::NoPath;
    }
    kept(words(&error)).unwrap_or_else(|| IndexError::Remote(Box::new(error)))
}

/// What the words of [`IndexError::Kept`] say.
fn kept(words: &str) -> Option<IndexError> {
    let (before, after) = words.split_once(" holds files of sector ")?;
    let (sector, _) = after.split_once(" that its rebuild has not made")?;
    let (_, id) = before.rsplit_once("path ")?;
    Some(IndexError::Kept { id: id.parse().ok()?, sector: sector.parse().ok()? })
}

/// What the manager said, if it answered.
fn words(error: &ApiError) -> &str {
    match error {
        ApiError::Remote { message, .. } | ApiError::Refused { message } => message,
        ApiError::Unreachable { .. } | ApiError::Unauthorized { .. } | ApiError::Malformed { .. } => "",
    }
}

#[async_trait]
impl Index for ManagerIndex {
    async fn attach(&self, info: StorageInfo, stat: FsStat) -> Result<(), IndexError> {
        self.manager.storage_attach(info, stat).await.map_err(index_error)
    }

    async fn detach(&self, id: &StorageId, url: &str) -> Result<(), IndexError> {
        self.manager.storage_detach(id.clone(), url.to_owned()).await.map_err(index_error)
    }

    async fn info(&self, id: &StorageId) -> Result<StorageInfo, IndexError> {
        self.manager.storage_info(id.clone()).await.map_err(index_error)
    }

    async fn report_health(&self, id: &StorageId, report: HealthReport) -> Result<(), IndexError> {
        self.manager.storage_report_health(id.clone(), report).await.map_err(|error| {
            if words(&error).contains("health report for unknown storage") {
                IndexError::UnknownHealth { id: id.clone() }
            } else {
                index_error(error)
            }
        })
    }

    async fn declare(
        &self,
        id: &StorageId,
        sector: SectorId,
        types: FileTypes,
        copy: CopyKind,
    ) -> Result<(), IndexError> {
        // A single type a call, as Lotus workers do: a Lotus miner keys its index by the bit it is given.
        for kind in types.iter() {
            self.manager
                .storage_declare(id.clone(), sector, kind.into(), copy.is_primary())
                .await
                .map_err(index_error)?;
        }
        Ok(())
    }

    async fn declare_made(
        &self,
        id: &StorageId,
        sector: SectorId,
        types: FileTypes,
        copy: CopyKind,
    ) -> Result<(), IndexError> {
        let state = if copy.is_primary() { CopyState::Primary } else { CopyState::Secondary };
        if self.tell_deed(id, sector, types, state).await? {
            return Ok(());
        }
        self.declare(id, sector, types, copy).await
    }

    async fn supersede(&self, id: &StorageId, sector: SectorId, types: FileTypes) -> Result<(), IndexError> {
        if self.tell_deed(id, sector, types, CopyState::Superseded).await? {
            return Ok(());
        }
        self.drop_files(id, sector, types).await
    }

    async fn declare_batch(&self, id: &StorageId, files: &[(SectorDecl, bool)]) -> Result<(), IndexError> {
        for batch in files.chunks(DECLARE_BATCH) {
            if self.batches.load(Ordering::Relaxed) {
                match self.manager.storage_declare_batch(id.clone(), batch.to_vec()).await {
                    Ok(()) => continue,
                    Err(error) if error.is_method_not_found() => self.batches.store(false, Ordering::Relaxed),
                    Err(error) => return Err(index_error(error)),
                }
            }
            for (file, primary) in batch {
                self.declare(id, file.sector, file.types, CopyKind::from(*primary)).await?;
            }
        }
        Ok(())
    }

    async fn declared_all(&self, id: &StorageId) -> Result<(), IndexError> {
        if !self.batches.load(Ordering::Relaxed) {
            return Ok(());
        }
        match self.manager.storage_declared_all(id.clone()).await {
            Err(error) if !error.is_method_not_found() => Err(index_error(error)),
            _ => Ok(()),
        }
    }

    async fn files(&self, id: &StorageId) -> Result<Vec<SectorDecl>, IndexError> {
        match self.manager.storage_files(id.clone()).await {
            Err(error) if error.is_method_not_found() => {}
            answer => return answer.map_err(index_error),
        }
        // Lotus knows no question about one path alone.
        let mut all = self.manager.storage_list().await.map_err(index_error)?;
        Ok(all.remove(id).unwrap_or_default())
    }

    async fn drop_files(&self, id: &StorageId, sector: SectorId, types: FileTypes) -> Result<(), IndexError> {
        for kind in types.iter() {
            self.manager.storage_drop(id.clone(), sector, kind.into()).await.map_err(index_error)?;
        }
        Ok(())
    }

    async fn find(
        &self,
        sector: SectorId,
        types: FileTypes,
        fetch: Option<SectorSize>,
    ) -> Result<Vec<SectorStorageInfo>, IndexError> {
        self.manager.storage_find(sector, types, fetch).await.map_err(index_error)
    }

    async fn best_alloc(
        &self,
        types: FileTypes,
        size: SectorSize,
        path_type: PathType,
        miner: ActorId,
    ) -> Result<Vec<StorageInfo>, IndexError> {
        self.manager.storage_best_alloc(types, size, path_type, miner).await.map_err(index_error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_manager_refuses_is_told_by_its_words() {
        let (id, sector) = ("p-1".parse().expect("an id"), SectorId::new(1000, 7));
        let told = IndexError::Kept { id, sector };
        let remote = |message: String| index_error(ApiError::Remote { code: 1, message });
        let back = remote(format!("MGR000: {told}; try again"));
        assert!(
            matches!(&back, IndexError::Kept { id, sector: of } if id.as_str() == "p-1" && *of == sector)
        );
        assert!(matches!(remote(IndexError::NoPath.to_string()), IndexError::NoPath));
        let other = remote("path p-1 holds files of sector 7".to_owned());
        assert!(matches!(other, IndexError::Remote(_)), "{other}");
    }
}
