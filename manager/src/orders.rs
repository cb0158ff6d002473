//! The operator's part of the API: each order goes to the driver, which decides and commits it. Never: decides.

use async_trait::async_trait;
use rpc::SectorName;
use rpc::api::ApiResult;
use rpc::operator::{
    AbortView, CapsTarget, CapsView, OperatorApi, PriorityView, Removal, WorkerMode, WorkerRest,
};
use rpc::subject::Subject;
use sealtasks::CapSpec;

use crate::driver::{Input, Leave};
use crate::service::Service;

/// Who gave an order, where nobody said.
const UNKNOWN: &str = "someone";

/// Somebody's name for the record, on one line.
fn signed(by: &str) -> String {
    let by: String = by.chars().filter(|letter| !letter.is_control()).collect();
    match by.trim() {
        "" => UNKNOWN.to_owned(),
        by => by.to_owned(),
    }
}

#[async_trait]
impl OperatorApi for Service {
    async fn set_worker_mode(&self, worker: String, mode: WorkerMode, by: String) -> ApiResult<WorkerRest> {
        self.ask(|reply| Input::WorkerMode { worker, mode, by: signed(&by), reply }).await
    }

    async fn worker_rest(&self, worker: String) -> ApiResult<WorkerRest> {
        self.view(move |driver| driver.worker_rest(&worker)).await?
    }

    async fn change_caps(
        &self,
        target: CapsTarget,
        changes: Vec<CapSpec>,
        by: String,
    ) -> ApiResult<CapsView> {
        self.ask(|reply| Input::Caps { target, changes, by: signed(&by), reply }).await
    }

    async fn set_priority(&self, what: Subject, priority: i64, by: String) -> ApiResult<PriorityView> {
        self.ask(|reply| Input::Priority { what, priority, by: signed(&by), reply }).await
    }

    async fn remove_sector(&self, sector: SectorName, removal: Removal, by: String) -> ApiResult<()> {
        let sector = self.sector_id(sector).await?;
        let leave = match removal {
            Removal::UnlessOnChain => Leave::Asked(self.check_nothing_on_chain(sector).await?),
            Removal::AlthoughOnChain => Leave::Explicit,
        };
        self.ask(|reply| Input::RemoveSector { sector, leave, by: signed(&by), reply }).await
    }

    async fn abort(&self, what: Subject, by: String) -> ApiResult<AbortView> {
        self.ask(|reply| Input::AbortWork { what, by: signed(&by), reply }).await
    }
}
