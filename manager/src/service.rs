//! The manager's API: each method asks the driver, the index, the stores or the durable state. Never: decides, or
//! touches files itself.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use axum::http::{HeaderMap, StatusCode, header};
use rpc::api::{ManagerVersion, Missing, PledgeOptions, SectorLock, WorkerJob, WorkerStats};
use rpc::explain::{Explanation, Schedule};
use rpc::extension::{FetchTicket, FetchWish, Hello, JobView, ManagerOverview, SectorDetail, WorkerState};
use rpc::server::caller;
use rpc::storage::CopyDeed;
use rpc::subject::Subject;
use rpc::{
    ApiError, ApiResult, Grant, ManagerApi, Miners, Permission, Returned, Scope, SectorName, versions,
};
use sealtasks::{
    ActorId, AttemptId, CallId, FileTypes, FsStat, HealthReport, PathType, SectorDecl, SectorId,
    SectorNumber, SectorSize, SectorStorageInfo, StorageId, StorageInfo, WorkerId,
};
use stores::{Index as _, IndexError, LockOwner, LockWant};
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::answers;
use crate::driver::{Driver, Input, Reply};
use crate::explain;
use crate::shared::Shared;
use crate::workers::{chain_of, introduce, reach};

/// Seconds between blocks on the main network; Lotus's `Version` tells it.
const BLOCK_DELAY: u64 = 30;

/// The API. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Service(pub(crate) Arc<Shared>);

impl Service {
    /// Asks the driver to do something, and waits until it is durable.
    pub(crate) async fn ask<T>(&self, input: impl FnOnce(Reply<T>) -> Input) -> ApiResult<T> {
        if let Some(refusal) = self.0.standing.refusal() {
            return Err(refusal);
        }
        let (reply, answer) = oneshot::channel();
        self.0.inputs.send(input(reply)).await.map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())?
    }

    /// Looks at the driver's memory.
    pub(crate) async fn view<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Driver) -> T + Send + 'static,
    ) -> ApiResult<T> {
        let (reply, answer) = oneshot::channel();
        let view = move |driver: &Driver| drop(reply.send(look(driver)));
        self.0.inputs.send(Input::View(Box::new(view))).await.map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())
    }

    /// Whether a request over plain HTTP comes from an administrator; else the status to answer with.
    pub(crate) fn admits(&self, headers: &HeaderMap) -> Result<(), StatusCode> {
        let token = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = token.and_then(|value| value.strip_prefix("Bearer ")).ok_or(StatusCode::UNAUTHORIZED)?;
        match self.0.secret.verify(token.trim()) {
            Ok(permissions) if permissions.contains(&Permission::Admin) => Ok(()),
            Ok(_) => Err(StatusCode::FORBIDDEN),
            Err(_) => Err(StatusCode::UNAUTHORIZED),
        }
    }

    fn lock_owner(reason: &str) -> LockOwner {
        let worker = caller().and_then(|grant| grant.worker_token());
        let owner = worker.map_or_else(|| "API caller".to_owned(), |token| format!("worker token {token}"));
        LockOwner { owner, reason: reason.to_owned() }
    }
}

pub(crate) fn stopping() -> ApiError {
    ApiError::refused(
        "MGR050: the manager is stopping; its own output says why; start it again with `sealyard run`",
    )
}

/// An error for a peer: its text with its causes.
pub(crate) fn refusal(error: impl std::error::Error) -> ApiError {
    ApiError::refused(chain_of(&error))
}

#[async_trait]
impl ManagerApi for Service {
    async fn version(&self) -> ApiResult<ManagerVersion> {
        Ok(ManagerVersion {
            version: self.0.software.clone(),
            api_version: versions::MANAGER_VERSION,
            block_delay: BLOCK_DELAY,
        })
    }

    async fn auth_verify(&self, token: String) -> ApiResult<Vec<Permission>> {
        // A Lotus worker knows four words; the one for the token that it is shown to hand out files is the last.
        let grant = self.grant_of(&token).await?;
        Ok(match grant.scope {
            Some(Scope::Lotus(_)) => vec![Permission::Admin],
            Some(Scope::Fetch(_) | Scope::Worker { .. } | Scope::Call { .. }) | None => grant.permissions,
        })
    }

    async fn verify_token(&self, token: String) -> ApiResult<Grant> {
        self.grant_of(&token).await
    }

    async fn fetch_token(&self, wish: FetchWish) -> ApiResult<FetchTicket> {
        self.ticket_for(wish).await
    }

    async fn auth_new_worker(&self) -> ApiResult<String> {
        self.new_worker_token()
    }

    async fn auth_new(&self, permissions: Vec<Permission>) -> ApiResult<String> {
        self.0.secret.mint(&permissions).map_err(refusal)
    }

    async fn session(&self) -> ApiResult<Uuid> {
        Ok(self.0.session)
    }

    async fn actor_address(&self) -> ApiResult<ActorId> {
        Ok(self.0.miner.actor)
    }

    async fn actor_sector_size(&self, actor: ActorId) -> ApiResult<SectorSize> {
        if !self.0.miners.contains(actor) {
            let ours: Vec<String> = self.0.miners.all().map(|miner| miner.to_string()).collect();
            let ours = ours.join(", ");
            return Err(ApiError::refused(format!("MGR051: this manager serves {ours}, not {actor}")));
        }
        Ok(self.0.miner.sector_size)
    }

    async fn shutdown(&self) -> ApiResult<()> {
        self.0.shutdown_asked.cancel();
        Ok(())
    }

    async fn worker_connect(&self, url: String) -> ApiResult<()> {
        let joins_with = caller().and_then(|grant| grant.worker_token());
        let introduction = introduce(&self.0, &url, joins_with).await.map_err(refusal)?;
        self.check_session(introduction.session).await?;
        self.ask(|reply| Input::Registered { introduction: Box::new(introduction), reply }).await
    }

    async fn return_result(&self, call: CallId, returned: Returned) -> ApiResult<()> {
        self.check_returner(call).await?;
        if self.0.data_cids.take(call, &returned) {
            return Ok(());
        }
        self.ask(|reply| Input::Returned { call, returned: Box::new(returned), reply }).await
    }

    async fn storage_attach(&self, info: StorageInfo, stat: FsStat) -> ApiResult<()> {
        let index = &self.0.index;
        let is_new = index.path_view(&info.id).is_none();
        index.attach(info, stat).await.map_err(refusal)?;
        // The next run of this manager must know that such a path may come back, with files of which nobody else knows.
        if is_new {
            self.0.written.up_to_now(index).await;
        }
        Ok(())
    }

    async fn storage_detach(&self, id: StorageId, url: String) -> ApiResult<()> {
        match self.0.index.detach(&id, &url).await {
            // Lotus's answer: of several URLs one that is not there need not go. The only one is not taken for another.
            Err(IndexError::UrlMismatch { known, .. }) if known.contains(' ') => Ok(()),
            detached => detached.map_err(refusal),
        }
    }

    async fn storage_info(&self, id: StorageId) -> ApiResult<StorageInfo> {
        self.0.index.info(&id).await.map_err(refusal)
    }

    async fn storage_report_health(&self, id: StorageId, report: HealthReport) -> ApiResult<()> {
        self.0.index.report_health(&id, report).await.map_err(refusal)
    }

    async fn storage_declare(
        &self,
        id: StorageId,
        sector: SectorId,
        types: FileTypes,
        primary: bool,
    ) -> ApiResult<()> {
        self.declare_unnamed(id, sector, types, primary).await
    }

    async fn storage_declare_batch(&self, id: StorageId, files: Vec<(SectorDecl, bool)>) -> ApiResult<()> {
        self.0.index.declare_batch(&id, &files).await.map_err(refusal)
    }

    async fn storage_declared_all(&self, id: StorageId) -> ApiResult<()> {
        self.0.index.declared_all(&id).await.map_err(refusal)
    }

    async fn storage_drop(&self, id: StorageId, sector: SectorId, types: FileTypes) -> ApiResult<()> {
        match self.0.index.drop_files(&id, sector, types).await {
            // Lotus's answer: what is not there need not go. A worker that deletes a file must not be kept from it.
            Err(IndexError::UnknownStorage { .. }) => Ok(()),
            dropped => dropped.map_err(refusal),
        }
    }

    async fn storage_find(
        &self,
        sector: SectorId,
        types: FileTypes,
        fetch: Option<SectorSize>,
    ) -> ApiResult<Vec<SectorStorageInfo>> {
        self.0.index.find(sector, types, fetch).await.map_err(refusal)
    }

    async fn storage_best_alloc(
        &self,
        types: FileTypes,
        size: SectorSize,
        path_type: PathType,
        miner: ActorId,
    ) -> ApiResult<Vec<StorageInfo>> {
        self.0.index.best_alloc(types, size, path_type, miner).await.map_err(refusal)
    }

    async fn storage_files(&self, id: StorageId) -> ApiResult<Vec<SectorDecl>> {
        self.0.index.files(&id).await.map_err(refusal)
    }

    async fn storage_list(&self) -> ApiResult<BTreeMap<StorageId, Vec<SectorDecl>>> {
        Ok(self.0.index.list())
    }

    /// Over the wire a lock lasts as long as the call that takes it, so it is free again when this returns.
    async fn storage_lock(&self, sector: SectorId, read: FileTypes, write: FileTypes) -> ApiResult<()> {
        let want = LockWant { sector, read, write };
        let guard = self.0.locks.lock(want, Self::lock_owner("StorageLock")).await.map_err(refusal)?;
        drop(guard);
        Ok(())
    }

    async fn storage_try_lock(&self, sector: SectorId, read: FileTypes, write: FileTypes) -> ApiResult<bool> {
        if (read | write).is_empty() {
            return Ok(false);
        }
        let want = LockWant { sector, read, write };
        let guard = self.0.locks.try_lock(want, Self::lock_owner("StorageTryLock")).map_err(refusal)?;
        Ok(guard.is_some())
    }

    async fn storage_get_locks(&self) -> ApiResult<Vec<SectorLock>> {
        let held = self.0.locks.snapshot().into_iter();
        Ok(held
            .map(|view| SectorLock {
                sector: view.sector,
                write: view.write.map(u64::from),
                read: view.read.map(u64::from),
            })
            .collect())
    }

    async fn storage_local(&self) -> ApiResult<BTreeMap<StorageId, PathBuf>> {
        Ok(self.0.local.paths().into_iter().map(|path| (path.id, path.dir)).collect())
    }

    async fn storage_stat(&self, id: StorageId) -> ApiResult<FsStat> {
        self.0.remote.fs_stat(&id).await.map_err(refusal)
    }

    async fn storage_add_local(&self, path: PathBuf) -> ApiResult<()> {
        let opened = self.0.local.attach_path(&path).await.map_err(refusal)?;
        answers::warn_of_foreign(&opened);
        Ok(())
    }

    async fn storage_detach_local(&self, path: PathBuf) -> ApiResult<()> {
        self.0.local.detach_path(&path).await.map_err(refusal)
    }

    async fn storage_redeclare_local(&self, path: Option<StorageId>, missing: Missing) -> ApiResult<()> {
        let drop_missing = match missing {
            Missing::Keep => false,
            Missing::Drop => true,
        };
        self.0.local.redeclare(path.as_ref(), drop_missing).await.map(drop).map_err(refusal)
    }

    async fn worker_stats(&self) -> ApiResult<BTreeMap<WorkerId, WorkerStats>> {
        self.view(Driver::worker_stats).await
    }

    async fn worker_jobs(&self) -> ApiResult<BTreeMap<WorkerId, Vec<WorkerJob>>> {
        self.view(Driver::worker_jobs).await
    }

    /// `force` pokes Lotus's scheduler; ours never has anything left to do.
    async fn sched_diag(&self, _force: bool) -> ApiResult<serde_json::Value> {
        self.view(Driver::sched_diag).await
    }

    async fn sealing_abort(&self, call: CallId) -> ApiResult<()> {
        self.ask(|reply| Input::AbortCall { call, reply }).await
    }

    async fn abort_attempt(&self, attempt: AttemptId) -> ApiResult<()> {
        self.ask(|reply| Input::AbortAttempt { attempt, reply }).await
    }

    async fn retry_sector(&self, sector: SectorName) -> ApiResult<()> {
        let sector = self.sector_id(sector).await?;
        self.ask(|reply| Input::RetrySector { sector, reply }).await
    }

    async fn why(&self, subject: Subject) -> ApiResult<Explanation> {
        explain::why(self, subject).await
    }

    async fn schedule(&self, limit: u32) -> ApiResult<Schedule> {
        self.view(move |driver| driver.schedule(limit)).await
    }

    async fn sealing_remove_request(&self, request: Uuid) -> ApiResult<()> {
        self.ask(|reply| Input::RemoveRequest { request, reply }).await
    }

    async fn pledge_sector(&self) -> ApiResult<SectorId> {
        self.pledge(PledgeOptions::default()).await
    }

    async fn miners(&self) -> ApiResult<Miners> {
        Ok(self.0.miners.clone())
    }

    async fn sectors(&self) -> ApiResult<Vec<SectorId>> {
        self.view(Driver::sector_ids).await
    }

    async fn sectors_list(&self) -> ApiResult<Vec<SectorNumber>> {
        self.view(Driver::sector_numbers).await
    }

    async fn sectors_summary(&self) -> ApiResult<BTreeMap<String, u64>> {
        self.view(Driver::sectors_by_state).await
    }

    async fn sectors_in_states(&self, states: Vec<String>) -> ApiResult<Vec<SectorNumber>> {
        self.view(move |driver| driver.sectors_in(&states)).await
    }

    async fn sector_detail(&self, sector: SectorName) -> ApiResult<SectorDetail> {
        answers::sector_detail(self, sector).await
    }

    async fn hello(&self, _hello: Hello) -> ApiResult<Option<Hello>> {
        Ok(Some(self.0.hello()))
    }

    async fn can_reach(&self, url: String) -> ApiResult<()> {
        reach(&url).await.map_err(refusal)
    }

    async fn worker_state(&self, state: WorkerState) -> ApiResult<()> {
        self.check_session(state.session).await?;
        let state = Box::new(state);
        self.ask(|reply| Input::WorkerState { state, reply: Some(reply) }).await
    }

    async fn attempt_open(&self, attempt: AttemptId) -> ApiResult<bool> {
        self.view(move |driver| driver.is_open(attempt)).await
    }

    async fn storage_deed(&self, attempt: AttemptId, deed: CopyDeed) -> ApiResult<()> {
        let asker = caller().and_then(|grant| grant.worker_token());
        self.ask(|reply| Input::Deed { attempt, asker, deed, reply }).await
    }

    async fn overview(&self) -> ApiResult<ManagerOverview> {
        answers::overview(self).await
    }

    async fn jobs(&self) -> ApiResult<Vec<JobView>> {
        answers::jobs(self).await
    }

    async fn pledge(&self, options: PledgeOptions) -> ApiResult<SectorId> {
        answers::check_pledge(&self.0, options)?;
        self.ask(|reply| Input::Pledge { options, reply }).await
    }
}
