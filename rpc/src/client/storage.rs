//! The storage methods of a manager on another machine.

use async_trait::async_trait;
use sealtasks::{FileTypes, PathOrder, PathReport, SectorId, StorageId, TransferChange};

use super::NO_PARAMS;
use super::manager::ManagerClient;
use crate::api::ApiResult;
use crate::sector_name::SectorName;
use crate::storage::{
    HostTransfers, LockedSector, PathHost, ScrubResult, SectorPlaces, StorageApi, StoragePathView,
    StoredSector,
};

#[async_trait]
impl StorageApi for ManagerClient {
    async fn storage_paths(&self) -> ApiResult<Vec<StoragePathView>> {
        self.caller().call("Sealyard.StoragePaths", &NO_PARAMS).await
    }

    async fn sector_places(&self, sector: SectorName) -> ApiResult<SectorPlaces> {
        self.caller().call("Sealyard.SectorPlaces", &(sector,)).await
    }

    async fn stored_sectors(
        &self,
        path: StorageId,
        after: Option<SectorId>,
        limit: u32,
    ) -> ApiResult<Vec<StoredSector>> {
        self.caller().call("Sealyard.StoredSectors", &(path, after, limit)).await
    }

    async fn lock_table(&self) -> ApiResult<Vec<LockedSector>> {
        self.caller().call("Sealyard.LockTable", &NO_PARAMS).await
    }

    async fn path_order(&self, host: PathHost, order: PathOrder) -> ApiResult<PathReport> {
        self.caller().call("Sealyard.OrderPaths", &(host, order)).await
    }

    async fn transfers(
        &self,
        worker: Option<String>,
        change: TransferChange,
    ) -> ApiResult<Vec<HostTransfers>> {
        self.caller().call("Sealyard.Transfers", &(worker, change)).await
    }

    async fn scrub_sector(&self, sector: SectorName) -> ApiResult<Vec<ScrubResult>> {
        self.caller().call("Sealyard.ScrubSector", &(sector,)).await
    }

    async fn scrub_results(&self, sector: Option<SectorName>) -> ApiResult<Vec<ScrubResult>> {
        self.caller().call("Sealyard.ScrubResults", &(sector,)).await
    }

    async fn move_sector(&self, sector: SectorName, types: FileTypes, to: StorageId) -> ApiResult<()> {
        self.caller().tell("Sealyard.MoveSector", &(sector, types, to)).await
    }
}
