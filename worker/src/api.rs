//! What a worker answers: [`WorkerApi`] over a [`WorkerHandle`], and the router that serves it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use axum::Router;
use rpc::api::{Missing, StoragePath, WorkerInfo, WorkerResources};
use rpc::beat::{Beat, Beaten};
use rpc::extension::{ExecutorSetting, Hello, WorkerState};
use rpc::versions::WORKER_VERSION;
use rpc::{ApiError, ApiResult, Job, PushStreams, WorkerApi, rpc_router, worker_methods};
use sealtasks::{
    CallId, FileType, PathOrder, PathReport, ScrubOrder, ScrubbedFile, SectorId, StorageId, TaskType,
    TransferChange, TransferReport, WorkerId,
};
use stores::{Index as _, Looking, PeerTokens, StoreError, VerifyToken, fetch_router};

use crate::auth::ManagerTokens;
use crate::error::chain;
use crate::worker::WorkerHandle;
use crate::{call, resources, scrub};

/// File types that `Remove` removes. Source: Lotus's worker, which leaves update files alone.
const REMOVED: [FileType; 3] = [FileType::Sealed, FileType::Cache, FileType::Unsealed];

impl WorkerHandle {
    /// Everything that this worker serves on its port: `/rpc/v0`, the push streams of pieces, and `/remote`.
    pub fn router(&self, tokens: Arc<ManagerTokens>) -> Router {
        let streams = PushStreams::new();
        let methods = worker_methods(Arc::new(self.clone()), streams.clone());
        let verify = Arc::clone(&tokens) as Arc<dyn VerifyToken>;
        let shared = self.shared();
        let tokens_for_peers = Arc::clone(&shared.tickets) as Arc<dyn PeerTokens>;
        let looking = Looking { tokens: tokens_for_peers, tls: shared.trust.config() };
        let files = fetch_router(Arc::clone(&shared.local), verify, looking, Some(Arc::new(self.clone())));
        rpc_router(methods, tokens, streams).merge(files)
    }
}

fn store(error: StoreError) -> ApiError {
    ApiError::refused(chain(&error))
}

#[async_trait]
impl WorkerApi for WorkerHandle {
    async fn version(&self) -> ApiResult<u32> {
        Ok(WORKER_VERSION)
    }

    async fn session(&self) -> ApiResult<WorkerId> {
        if self.shared().closed.is_cancelled() {
            return Ok(WorkerId::CLOSED);
        }
        // Lotus's words; its manager shows the worker as disabled on any error.
        if self.shared().is_enabled() { Ok(self.id()) } else { Err(ApiError::refused("worker disabled")) }
    }

    async fn process_session(&self) -> ApiResult<WorkerId> {
        Ok(if self.shared().closed.is_cancelled() { WorkerId::CLOSED } else { self.id() })
    }

    async fn info(&self) -> ApiResult<WorkerInfo> {
        let shared = self.shared();
        let swap = shared.swap;
        let memory = tokio::task::spawn_blocking(move || resources::memory(swap))
            .await
            .map_err(|_| ApiError::refused("the memory could not be measured"))?;
        let resources = WorkerResources {
            mem_used: memory.used,
            mem_swap_used: memory.swap_used,
            ..shared.resources.clone()
        };
        Ok(WorkerInfo { hostname: shared.name.clone(), ignore_resources: shared.ignore_resources, resources })
    }

    async fn task_types(&self) -> ApiResult<BTreeSet<TaskType>> {
        Ok(self.shared().offer.tasks())
    }

    async fn paths(&self) -> ApiResult<Vec<StoragePath>> {
        let paths = self.shared().local.paths().into_iter();
        Ok(paths
            .map(|path| StoragePath {
                id: path.id,
                weight: path.stanza.weight,
                local_path: path.dir.to_string_lossy().into_owned(),
                can_seal: path.stanza.can_seal,
                can_store: path.stanza.can_store,
            })
            .collect())
    }

    async fn start(&self, job: Job) -> ApiResult<CallId> {
        call::accept(self.shared(), job).await
    }

    async fn abort(&self, call: CallId) -> ApiResult<()> {
        if self.shared().calls.stop(call) {
            Ok(())
        } else {
            Err(ApiError::refused(format!("worker {} holds no call {call}", self.shared().name)))
        }
    }

    async fn task_enable(&self, task: TaskType) -> ApiResult<()> {
        if !self.shared().offer.enable(task) {
            let name = &self.shared().name;
            return Err(ApiError::refused(format!("worker {name} was not started with {task}")));
        }
        self.shared().changed();
        Ok(())
    }

    async fn task_disable(&self, task: TaskType) -> ApiResult<()> {
        self.shared().offer.disable(task);
        self.shared().changed();
        Ok(())
    }

    async fn remove(&self, sector: SectorId) -> ApiResult<()> {
        for kind in REMOVED {
            match self.shared().remote.remove_here(sector, kind, &[]).await {
                Ok(()) | Err(StoreError::NotFound { .. }) => {}
                // The last copy goes only by a permit, which this method does not carry.
                Err(error) => return Err(store(error)),
            }
        }
        Ok(())
    }

    async fn storage_local(&self) -> ApiResult<BTreeMap<StorageId, PathBuf>> {
        Ok(self.shared().local.paths().into_iter().map(|path| (path.id, path.dir)).collect())
    }

    async fn storage_add_local(&self, path: PathBuf) -> ApiResult<()> {
        self.shared().local.attach_path(&path).await.map_err(store)?;
        self.shared().changed();
        Ok(())
    }

    async fn storage_detach_local(&self, path: PathBuf) -> ApiResult<()> {
        self.shared().local.detach_path(&path).await.map_err(store)?;
        self.shared().changed();
        Ok(())
    }

    async fn storage_detach_all(&self) -> ApiResult<()> {
        let shared = self.shared();
        for path in shared.local.paths() {
            for url in &shared.urls {
                shared.index.detach(&path.id, url).await.map_err(|error| ApiError::refused(chain(&error)))?;
            }
        }
        Ok(())
    }

    async fn storage_redeclare_local(&self, path: Option<StorageId>, missing: Missing) -> ApiResult<()> {
        self.shared().local.redeclare(path.as_ref(), missing == Missing::Drop).await.map_err(store)?;
        Ok(())
    }

    async fn enabled(&self) -> ApiResult<bool> {
        Ok(self.shared().is_enabled())
    }

    async fn set_enabled(&self, enabled: bool) -> ApiResult<()> {
        self.shared().enabled.store(enabled, Ordering::Relaxed);
        self.shared().changed();
        Ok(())
    }

    async fn wait_quiet(&self) -> ApiResult<()> {
        self.shared().wait_quiet().await;
        Ok(())
    }

    async fn shutdown(&self) -> ApiResult<()> {
        self.begin_to_stop();
        // In a task of its own, so that the answer does not wait for executors to die.
        let own = self.clone();
        tokio::spawn(async move { own.stop_now().await });
        Ok(())
    }

    async fn hello(&self, _hello: Hello) -> ApiResult<Option<Hello>> {
        let hello = Hello::of_this_build(concat!("sealyard ", env!("CARGO_PKG_VERSION")));
        let served = self.shared().managers.as_ref().and_then(|managers| managers.served());
        Ok(Some(hello.rehearsing(self.shared().executor.rehearsal.is_some()).of_reign(served)))
    }

    async fn state(&self) -> ApiResult<WorkerState> {
        let state = self.shared().state().await;
        // As with the session: managers ask this alone.
        Ok(WorkerState { session: self.process_session().await?, ..state })
    }

    async fn beat(&self, beat: Beat) -> ApiResult<Beaten> {
        let state = self.state().await?;
        Ok(self.shared().beats.answer(beat, state))
    }

    async fn path_order(&self, order: PathOrder) -> ApiResult<PathReport> {
        let report = self.shared().remote.carry_out(order).await.map_err(store)?;
        self.shared().changed();
        Ok(report)
    }

    async fn scrub(&self, order: ScrubOrder) -> ApiResult<Vec<ScrubbedFile>> {
        scrub::scrub(self.shared(), order).await
    }

    async fn transfers(&self, change: TransferChange) -> ApiResult<TransferReport> {
        change.check().map_err(|error| ApiError::refused(error.to_string()))?;
        self.shared().remote.change_limits(change).await.map_err(store)
    }

    async fn settings(&self) -> ApiResult<Vec<ExecutorSetting>> {
        let shared = self.shared();
        let spares = ExecutorSetting {
            task: None,
            name: "spare executors".to_owned(),
            value: shared.spares.told().unwrap_or_else(|| "none".to_owned()),
            origin: "[executor] spare in config.toml".to_owned(),
        };
        Ok(shared.settings.iter().cloned().chain([spares]).collect())
    }
}
