//! Fakes behind real sockets: a manager and a worker that write down what they are asked and answer with samples.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use rpc::api::*;
use rpc::beat::{Beat, Beaten};
use rpc::explain::{Explanation, Schedule};
use rpc::extension::{ExecutorSetting, Hello, JobView, ManagerOverview, SectorDetail, WorkerState};
use rpc::storage::CopyDeed;
use rpc::subject::Subject;
use rpc::{ApiError, ApiResult, Miners, Permission, Secret, SectorName};
use sealtasks::*;
use tokio::sync::{Notify, Semaphore};
use uuid::Uuid;

use crate::calls::Calls;
use crate::sample::TellOnDrop;
pub use crate::serve;
use crate::{explained, sample};

/// Answers every question with a sample. Blocking calls wait for [`FakeWorker::quiet`] or [`FakeManager::gate`].
pub struct FakeManager {
    pub calls: Calls,
    pub secret: Secret,
    pub returned: Mutex<Vec<(CallId, Returned)>>,
    /// `worker_connect` and `storage_lock` say that they began, then wait for a permit.
    pub began: Notify,
    pub gate: Semaphore,
    pub done: Notify,
    /// Whether it answers Sealyard's own methods, or stands for a Lotus.
    pub knows_hello: bool,
}

impl FakeManager {
    pub fn new(secret: Secret) -> Self {
        Self {
            calls: Calls::default(),
            secret,
            returned: Mutex::default(),
            began: Notify::new(),
            gate: Semaphore::new(Semaphore::MAX_PERMITS),
            done: Notify::new(),
            knows_hello: true,
        }
    }
}

fn known(id: &StorageId) -> ApiResult<()> {
    if *id == sample::missing_id() { Err(ApiError::refused("sector store not found")) } else { Ok(()) }
}

#[async_trait]
impl ManagerApi for FakeManager {
    async fn version(&self) -> ApiResult<ManagerVersion> {
        self.calls.add("version", ());
        Ok(sample::manager_version())
    }
    async fn auth_verify(&self, token: String) -> ApiResult<Vec<Permission>> {
        self.secret.verify(&token).map_err(|error| ApiError::refused(rpc::error::chain(&error)))
    }
    async fn verify_token(&self, token: String) -> ApiResult<rpc::Grant> {
        self.secret.grant(&token).map_err(|error| ApiError::refused(rpc::error::chain(&error)))
    }
    async fn fetch_token(&self, wish: rpc::extension::FetchWish) -> ApiResult<rpc::extension::FetchTicket> {
        Ok(rpc::extension::FetchTicket {
            token: format!("for {} {} {} {}", wish.session, wish.path, wish.sector, wish.types),
            until_ms: 7,
            lotus: vec!["10.0.0.9:3456".to_owned()],
            lotus_token: Some("admin".to_owned()),
        })
    }
    async fn auth_new_worker(&self) -> ApiResult<String> {
        Ok("a worker's token".to_owned())
    }
    async fn auth_new(&self, permissions: Vec<Permission>) -> ApiResult<String> {
        self.secret.mint(&permissions).map_err(|error| ApiError::refused(error.to_string()))
    }
    async fn session(&self) -> ApiResult<Uuid> {
        Ok(sample::SESSION)
    }
    async fn actor_address(&self) -> ApiResult<ActorId> {
        Ok(ActorId::new(1000))
    }
    async fn actor_sector_size(&self, actor: ActorId) -> ApiResult<SectorSize> {
        self.calls.add("actor_sector_size", actor);
        Ok(SectorSize::GiB64)
    }
    async fn shutdown(&self) -> ApiResult<()> {
        self.calls.add("shutdown", ());
        Ok(())
    }
    async fn worker_connect(&self, url: String) -> ApiResult<()> {
        self.began.notify_one();
        self.gate.acquire().await.expect("the gate stays").forget();
        self.calls.add("worker_connect", url);
        self.done.notify_one();
        Ok(())
    }
    async fn return_result(&self, call: CallId, returned: Returned) -> ApiResult<()> {
        self.returned.lock().expect("no test panicked here").push((call, returned));
        Ok(())
    }
    async fn storage_attach(&self, info: StorageInfo, stat: FsStat) -> ApiResult<()> {
        self.calls.add("storage_attach", (info, stat));
        Ok(())
    }
    async fn storage_detach(&self, id: StorageId, url: String) -> ApiResult<()> {
        self.calls.add("storage_detach", (id, url));
        Ok(())
    }
    async fn storage_info(&self, id: StorageId) -> ApiResult<StorageInfo> {
        known(&id)?;
        Ok(sample::storage_info())
    }
    async fn storage_report_health(&self, id: StorageId, report: HealthReport) -> ApiResult<()> {
        self.calls.add("storage_report_health", (id, report));
        Ok(())
    }
    async fn storage_declare(
        &self,
        id: StorageId,
        sector: SectorId,
        types: FileTypes,
        primary: bool,
    ) -> ApiResult<()> {
        self.calls.add("storage_declare", (id, sector, types, primary));
        Ok(())
    }
    async fn storage_declare_batch(&self, id: StorageId, files: Vec<(SectorDecl, bool)>) -> ApiResult<()> {
        self.calls.add("storage_declare_batch", (id, files));
        Ok(())
    }
    async fn storage_declared_all(&self, id: StorageId) -> ApiResult<()> {
        self.calls.add("storage_declared_all", id);
        Ok(())
    }
    async fn storage_files(&self, id: StorageId) -> ApiResult<Vec<SectorDecl>> {
        Ok(if id == sample::storage_id() { vec![sample::decl()] } else { Vec::new() })
    }
    async fn storage_drop(&self, id: StorageId, sector: SectorId, types: FileTypes) -> ApiResult<()> {
        self.calls.add("storage_drop", (id, sector, types));
        Ok(())
    }
    async fn storage_find(
        &self,
        sector: SectorId,
        types: FileTypes,
        fetch: Option<SectorSize>,
    ) -> ApiResult<Vec<SectorStorageInfo>> {
        self.calls.add("storage_find", (sector, types, fetch));
        Ok(vec![sample::found()])
    }
    async fn storage_best_alloc(
        &self,
        types: FileTypes,
        size: SectorSize,
        path_type: PathType,
        miner: ActorId,
    ) -> ApiResult<Vec<StorageInfo>> {
        self.calls.add("storage_best_alloc", (types, size, path_type, miner));
        Ok(vec![sample::storage_info()])
    }
    async fn storage_list(&self) -> ApiResult<BTreeMap<StorageId, Vec<SectorDecl>>> {
        Ok(BTreeMap::from([(sample::storage_id(), vec![sample::decl()]), (sample::missing_id(), vec![])]))
    }
    async fn storage_lock(&self, sector: SectorId, read: FileTypes, write: FileTypes) -> ApiResult<()> {
        self.began.notify_one();
        // Dropped unfinished when the caller goes: then `done` is told by the guard.
        let _guard = TellOnDrop(&self.done);
        self.gate.acquire().await.expect("the gate stays").forget();
        self.calls.add("storage_lock", (sector, read, write));
        Ok(())
    }
    async fn storage_try_lock(&self, sector: SectorId, read: FileTypes, write: FileTypes) -> ApiResult<bool> {
        self.calls.add("storage_try_lock", (sector, read, write));
        Ok(true)
    }
    async fn storage_get_locks(&self) -> ApiResult<Vec<SectorLock>> {
        Ok(vec![sample::lock()])
    }
    async fn storage_local(&self) -> ApiResult<BTreeMap<StorageId, PathBuf>> {
        Ok(BTreeMap::from([(sample::storage_id(), "/store".into())]))
    }
    async fn storage_stat(&self, id: StorageId) -> ApiResult<FsStat> {
        known(&id)?;
        Ok(sample::fs_stat())
    }
    async fn storage_add_local(&self, path: PathBuf) -> ApiResult<()> {
        self.calls.add("storage_add_local", path);
        Ok(())
    }
    async fn storage_detach_local(&self, path: PathBuf) -> ApiResult<()> {
        self.calls.add("storage_detach_local", path);
        Ok(())
    }
    async fn storage_redeclare_local(&self, path: Option<StorageId>, missing: Missing) -> ApiResult<()> {
        self.calls.add("storage_redeclare_local", (path, missing));
        Ok(())
    }
    async fn worker_stats(&self) -> ApiResult<BTreeMap<WorkerId, WorkerStats>> {
        Ok(BTreeMap::from([(WorkerId(sample::SESSION), sample::worker_stats())]))
    }
    async fn worker_jobs(&self) -> ApiResult<BTreeMap<WorkerId, Vec<WorkerJob>>> {
        Ok(BTreeMap::from([(WorkerId::CLOSED, vec![sample::worker_job()])]))
    }
    async fn sched_diag(&self, force: bool) -> ApiResult<serde_json::Value> {
        Ok(serde_json::json!({ "forced": force }))
    }
    async fn sealing_abort(&self, call: CallId) -> ApiResult<()> {
        self.calls.add("sealing_abort", call);
        Ok(())
    }
    async fn sealing_remove_request(&self, request: Uuid) -> ApiResult<()> {
        self.calls.add("sealing_remove_request", request);
        Ok(())
    }
    async fn pledge_sector(&self) -> ApiResult<SectorId> {
        Ok(sample::SECTOR)
    }
    async fn miners(&self) -> ApiResult<Miners> {
        Ok(sample::miners())
    }
    async fn sectors(&self) -> ApiResult<Vec<SectorId>> {
        Ok(vec![sample::SECTOR, SectorId::new(2000, 42)])
    }
    async fn sectors_list(&self) -> ApiResult<Vec<SectorNumber>> {
        Ok(vec![SectorNumber::new(1), SectorNumber::new(u64::MAX)])
    }
    async fn sectors_summary(&self) -> ApiResult<BTreeMap<String, u64>> {
        Ok(BTreeMap::from([("Proving".into(), 2)]))
    }
    async fn sectors_in_states(&self, states: Vec<String>) -> ApiResult<Vec<SectorNumber>> {
        self.calls.add("sectors_in_states", states);
        Ok(vec![SectorNumber::new(1)])
    }
    async fn sector_detail(&self, sector: SectorName) -> ApiResult<SectorDetail> {
        self.calls.add("sector_detail", sector);
        Ok(sample::sector_detail())
    }
    async fn hello(&self, hello: Hello) -> ApiResult<Option<Hello>> {
        self.calls.add("hello", hello.software);
        Ok(self.knows_hello.then(sample::hello))
    }
    async fn can_reach(&self, url: String) -> ApiResult<()> {
        self.calls.add("can_reach", url);
        Ok(())
    }
    async fn worker_state(&self, state: WorkerState) -> ApiResult<()> {
        self.calls.add("worker_state", state);
        Ok(())
    }
    async fn attempt_open(&self, attempt: AttemptId) -> ApiResult<bool> {
        self.calls.add("attempt_open", attempt);
        Ok(attempt == sample::attempt())
    }
    async fn storage_deed(&self, attempt: AttemptId, deed: CopyDeed) -> ApiResult<()> {
        self.calls.add("storage_deed", (attempt, deed));
        Ok(())
    }
    async fn overview(&self) -> ApiResult<ManagerOverview> {
        Ok(sample::overview())
    }
    async fn jobs(&self) -> ApiResult<Vec<JobView>> {
        Ok(vec![sample::job_view()])
    }
    async fn abort_attempt(&self, attempt: AttemptId) -> ApiResult<()> {
        self.calls.add("abort_attempt", attempt);
        Ok(())
    }
    async fn why(&self, subject: Subject) -> ApiResult<Explanation> {
        self.calls.add("why", subject);
        Ok(explained::explanation())
    }
    async fn schedule(&self, limit: u32) -> ApiResult<Schedule> {
        self.calls.add("schedule", limit);
        Ok(explained::schedule())
    }
    async fn retry_sector(&self, sector: SectorName) -> ApiResult<()> {
        self.calls.add("retry_sector", sector);
        Ok(())
    }
    async fn pledge(&self, options: PledgeOptions) -> ApiResult<SectorId> {
        self.calls.add("pledge", options);
        Ok(sample::SECTOR)
    }
}

/// A job as the fake worker got it.
pub struct Started {
    pub sector: SectorRef,
    pub work: TaskInput,
    pub attempt: Option<AttemptId>,
    /// The bytes, read to their end; `None` without a stream.
    pub bytes: Option<Vec<u8>>,
    pub url: Option<String>,
    pub gpus: Vec<rpc::extension::GpuShare>,
}

#[derive(Default)]
pub struct FakeWorker {
    pub calls: Calls,
    pub started: Mutex<Vec<Started>>,
    /// Whether it answers Sealyard's own methods, or stands for a Lotus.
    pub knows_hello: bool,
    pub closes_streams: bool,
}

#[async_trait]
impl WorkerApi for FakeWorker {
    async fn version(&self) -> ApiResult<u32> {
        Ok(67328)
    }
    async fn session(&self) -> ApiResult<WorkerId> {
        Ok(WorkerId(sample::SESSION))
    }
    async fn process_session(&self) -> ApiResult<WorkerId> {
        Ok(WorkerId::CLOSED)
    }
    async fn info(&self) -> ApiResult<WorkerInfo> {
        Ok(sample::worker_info())
    }
    async fn task_types(&self) -> ApiResult<BTreeSet<TaskType>> {
        Ok(TaskType::ALL.iter().copied().collect())
    }
    async fn paths(&self) -> ApiResult<Vec<StoragePath>> {
        Ok(vec![sample::storage_path()])
    }
    async fn start(&self, job: Job) -> ApiResult<CallId> {
        use tokio::io::AsyncReadExt as _;
        let (mut bytes, mut url) = (None, None);
        match job.data {
            Some(rpc::PieceData::Stream(_)) if self.closes_streams => {}
            Some(rpc::PieceData::Stream(mut stream)) => {
                let mut read = Vec::new();
                stream.read_to_end(&mut read).await.map_err(|error| ApiError::refused(error.to_string()))?;
                bytes = Some(read);
            }
            Some(rpc::PieceData::Url(from)) => url = Some(from),
            Some(rpc::PieceData::Zeros) => return Err(ApiError::refused("zeros come without data")),
            None => {}
        }
        let started =
            Started { sector: job.sector, work: job.work, attempt: job.attempt, bytes, url, gpus: job.gpus };
        self.started.lock().expect("no test panicked here").push(started);
        Ok(sample::call())
    }
    async fn abort(&self, call: CallId) -> ApiResult<()> {
        self.calls.add("abort", call);
        Ok(())
    }
    async fn task_enable(&self, task: TaskType) -> ApiResult<()> {
        self.calls.add("task_enable", task);
        Ok(())
    }
    async fn task_disable(&self, task: TaskType) -> ApiResult<()> {
        self.calls.add("task_disable", task);
        Ok(())
    }
    async fn remove(&self, sector: SectorId) -> ApiResult<()> {
        self.calls.add("remove", sector);
        Ok(())
    }
    async fn storage_local(&self) -> ApiResult<BTreeMap<StorageId, PathBuf>> {
        Ok(BTreeMap::from([(sample::storage_id(), "/sealing".into())]))
    }
    async fn storage_add_local(&self, path: PathBuf) -> ApiResult<()> {
        self.calls.add("storage_add_local", path);
        Ok(())
    }
    async fn storage_detach_local(&self, path: PathBuf) -> ApiResult<()> {
        self.calls.add("storage_detach_local", path);
        Ok(())
    }
    async fn storage_detach_all(&self) -> ApiResult<()> {
        self.calls.add("storage_detach_all", ());
        Ok(())
    }
    async fn storage_redeclare_local(&self, path: Option<StorageId>, missing: Missing) -> ApiResult<()> {
        self.calls.add("storage_redeclare_local", (path, missing));
        Ok(())
    }
    async fn enabled(&self) -> ApiResult<bool> {
        Ok(true)
    }
    async fn set_enabled(&self, enabled: bool) -> ApiResult<()> {
        self.calls.add("set_enabled", enabled);
        Ok(())
    }
    async fn wait_quiet(&self) -> ApiResult<()> {
        self.calls.add("wait_quiet", ());
        Ok(())
    }
    async fn shutdown(&self) -> ApiResult<()> {
        self.calls.add("shutdown", ());
        Ok(())
    }
    async fn hello(&self, hello: Hello) -> ApiResult<Option<Hello>> {
        self.calls.add("hello", hello.software);
        Ok(self.knows_hello.then(sample::hello))
    }
    async fn state(&self) -> ApiResult<WorkerState> {
        Ok(sample::worker_state())
    }
    async fn beat(&self, beat: Beat) -> ApiResult<Beaten> {
        self.calls.add("beat", beat);
        Ok(sample::beaten())
    }
    async fn settings(&self) -> ApiResult<Vec<ExecutorSetting>> {
        Ok(vec![sample::executor_setting()])
    }
}

/// A manager behind a socket, and its secret.
pub struct ManagerHost {
    pub fake: Arc<FakeManager>,
    pub address: std::net::SocketAddr,
}

impl ManagerHost {
    pub async fn start() -> Self {
        Self::start_with(|_| ()).await
    }

    pub async fn start_with(change: impl FnOnce(&mut FakeManager)) -> Self {
        let mut fake = FakeManager::new(Secret::generate().expect("randomness"));
        change(&mut fake);
        let fake = Arc::new(fake);
        Self { address: serve(router_of(&fake)).await, fake }
    }

    /// What it serves.
    pub fn router(&self) -> axum::Router {
        router_of(&self.fake)
    }

    pub fn token(&self, permissions: &[Permission]) -> String {
        self.fake.secret.mint(permissions).expect("a token")
    }

    pub fn info(&self) -> rpc::ApiInfo {
        let token = self.token(&Permission::ALL);
        let address = rpc::api_info::ApiAddress::Multiaddr(rpc::multiaddr::Multiaddr::http(self.address));
        rpc::ApiInfo { token: Some(token), address }
    }

    pub fn client(&self, transport: rpc::Transport) -> rpc::ManagerClient {
        rpc::ManagerClient::new(&self.info(), transport).expect("a client")
    }
}

fn router_of(fake: &Arc<FakeManager>) -> axum::Router {
    let methods = rpc::manager_methods(fake.clone());
    rpc::rpc_router(methods, Arc::new(fake.secret.clone()), rpc::PushStreams::new())
}

/// A worker behind a socket that asks the manager about tokens.
pub struct WorkerHost {
    pub fake: Arc<FakeWorker>,
    pub manager: ManagerHost,
    pub address: std::net::SocketAddr,
    router: axum::Router,
}

impl WorkerHost {
    pub async fn start(fake: FakeWorker) -> Self {
        let manager = ManagerHost::start().await;
        let fake = Arc::new(fake);
        let streams = rpc::PushStreams::new();
        let methods = rpc::worker_methods(fake.clone(), streams.clone());
        let auth = rpc::server::AskManager(Arc::new(manager.client(rpc::Transport::Http)));
        let router = rpc::rpc_router(methods, Arc::new(auth), streams);
        Self { address: serve(router.clone()).await, fake, manager, router }
    }

    /// What it serves.
    pub fn router(&self) -> axum::Router {
        self.router.clone()
    }

    pub fn client(&self, transport: rpc::Transport) -> rpc::WorkerClient {
        let url = format!("http://{}/rpc/v0", self.address).parse().expect("a URL");
        let token = self.manager.token(&[Permission::Admin]);
        rpc::WorkerClient::new(&url, Some(token), transport).expect("a client")
    }

    pub fn take_started(&self) -> Vec<Started> {
        std::mem::take(&mut self.fake.started.lock().expect("no test panicked here"))
    }
}
