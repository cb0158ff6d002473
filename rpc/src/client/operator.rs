//! The operator's methods of a manager on another machine.

use async_trait::async_trait;
use sealtasks::CapSpec;

use super::manager::ManagerClient;
use crate::api::ApiResult;
use crate::operator::{
    AbortView, CapsTarget, CapsView, OperatorApi, PriorityView, Removal, WorkerMode, WorkerRest,
};
use crate::sector_name::SectorName;
use crate::subject::Subject;

#[async_trait]
impl OperatorApi for ManagerClient {
    async fn set_worker_mode(&self, worker: String, mode: WorkerMode, by: String) -> ApiResult<WorkerRest> {
        self.caller().call("Sealyard.SetWorkerMode", &(worker, mode, by)).await
    }

    async fn worker_rest(&self, worker: String) -> ApiResult<WorkerRest> {
        self.caller().call("Sealyard.WorkerRest", &(worker,)).await
    }

    async fn change_caps(
        &self,
        target: CapsTarget,
        changes: Vec<CapSpec>,
        by: String,
    ) -> ApiResult<CapsView> {
        self.caller().call("Sealyard.ChangeCaps", &(target, changes, by)).await
    }

    async fn set_priority(&self, what: Subject, priority: i64, by: String) -> ApiResult<PriorityView> {
        self.caller().call("Sealyard.SetPriority", &(what, priority, by)).await
    }

    async fn remove_sector(&self, sector: SectorName, removal: Removal, by: String) -> ApiResult<()> {
        self.caller().tell("Sealyard.RemoveSector", &(sector, removal, by)).await
    }

    async fn abort(&self, what: Subject, by: String) -> ApiResult<AbortView> {
        self.caller().call("Sealyard.AbortWork", &(what, by)).await
    }
}
