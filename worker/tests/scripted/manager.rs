//! The scripted manager itself.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use rpc::api::{ManagerVersion, Missing, PledgeOptions, Returned, SectorLock, WorkerJob, WorkerStats};
use rpc::extension::{Hello, JobView, ManagerOverview, SectorDetail, WorkerState};
use rpc::storage::{CopyDeed, CopyState};
use rpc::{ApiError, ApiResult, ManagerApi, Miners, Permission, SectorName};
use sealtasks::{
    ActorId, AttemptId, CallId, FileTypes, FsStat, HealthReport, PathType, SectorDecl, SectorId,
    SectorNumber, SectorSize, SectorStorageInfo, StorageId, StorageInfo, WorkerId,
};
use stores::{CopyKind, Index as _, MemIndex};
use tokio::sync::watch;
use uuid::Uuid;

/// A spoilt answer.
#[derive(Clone, Copy)]
pub enum Spoilt {
    Unreachable,
    Refused(&'static str),
}

/// Answers as a manager would, unless told otherwise, and keeps what it is told.
pub struct ScriptedManager {
    pub index: MemIndex,
    pub session: Mutex<Uuid>,
    pub api_version: u32,
    pub permissions: Vec<Permission>,
    /// A Lotus knows none of our methods.
    pub lotus: bool,
    /// Nobody answers.
    pub down: AtomicBool,
    /// Nobody answers after so many more answers.
    pub falls_after: Mutex<Option<u32>>,
    /// Answers to the next returns; then all is well.
    pub return_answers: Mutex<VecDeque<Spoilt>>,
    /// Nobody answers returns.
    pub returns_unreachable: AtomicBool,
    /// Every return is refused.
    pub refuses_returns: AtomicBool,
    /// It has given every attempt up.
    pub fences: AtomicBool,
    /// The next deed is the last that it is told: another one with an empty index takes its place, and takes no deed before
    /// this worker has joined it.
    pub ends_with_a_deed: AtomicBool,
    pub successor: AtomicBool,
    /// Attempts that were given up.
    pub over: Mutex<BTreeSet<AttemptId>>,
    /// The answer to `WorkerConnect`.
    pub connect_answer: Mutex<Option<&'static str>>,
    pub returns: watch::Sender<Vec<(CallId, Returned)>>,
    pub return_tries: watch::Sender<u32>,
    pub connects: watch::Sender<Vec<String>>,
    pub states: watch::Sender<Vec<WorkerState>>,
    pub attaches: watch::Sender<u32>,
    /// How often it was asked for its session, told a state, or told the health of a path.
    pub contacts: watch::Sender<u32>,
    pub batches: watch::Sender<u32>,
    /// Paths whose health was told, once for each report.
    pub healths: watch::Sender<Vec<StorageId>>,
    /// Paths of which all files were declared.
    pub declared: watch::Sender<Vec<StorageId>>,
    /// The answer to `StorageFindSector`.
    pub find_answer: Mutex<Option<String>>,
}

impl ScriptedManager {
    pub fn new() -> Self {
        Self {
            index: MemIndex::new(Arc::new(|| 1_000_000)),
            session: Mutex::new(Uuid::new_v4()),
            api_version: 66816,
            permissions: vec![Permission::Read, Permission::Write, Permission::Sign, Permission::Admin],
            lotus: false,
            down: AtomicBool::new(false),
            falls_after: Mutex::default(),
            return_answers: Mutex::default(),
            returns_unreachable: AtomicBool::new(false),
            refuses_returns: AtomicBool::new(false),
            fences: AtomicBool::new(false),
            ends_with_a_deed: AtomicBool::new(false),
            successor: AtomicBool::new(false),
            over: Mutex::default(),
            connect_answer: Mutex::default(),
            returns: watch::Sender::new(Vec::new()),
            return_tries: watch::Sender::new(0),
            connects: watch::Sender::new(Vec::new()),
            states: watch::Sender::new(Vec::new()),
            attaches: watch::Sender::new(0),
            contacts: watch::Sender::new(0),
            batches: watch::Sender::new(0),
            healths: watch::Sender::new(Vec::new()),
            declared: watch::Sender::new(Vec::new()),
            find_answer: Mutex::default(),
        }
    }

    /// As if another manager process had started.
    pub fn restart(&self) {
        *self.session.lock().unwrap() = Uuid::new_v4();
    }

    pub fn is_down(&self, down: bool) {
        self.down.store(down, Ordering::SeqCst);
    }

    fn contact(&self) {
        self.contacts.send_modify(|count| *count += 1);
    }

    fn up(&self) -> ApiResult<()> {
        if let Some(left) = &mut *self.falls_after.lock().unwrap() {
            match left.checked_sub(1) {
                Some(fewer) => *left = fewer,
                None => return spoil(Spoilt::Unreachable),
            }
        }
        if self.down.load(Ordering::SeqCst) { spoil(Spoilt::Unreachable) } else { Ok(()) }
    }

    fn sealyard(&self) -> ApiResult<()> {
        self.up()?;
        if !self.lotus {
            return Ok(());
        }
        Err(ApiError::Remote { code: -32601, message: "method not found".into() })
    }
}

fn spoil<T>(spoilt: Spoilt) -> ApiResult<T> {
    Err(match spoilt {
        Spoilt::Unreachable => {
            ApiError::Unreachable { url: "http://manager".into(), source: "connection refused".into() }
        }
        Spoilt::Refused(words) => ApiError::Remote { code: 1, message: words.into() },
    })
}

fn unscripted<T>() -> ApiResult<T> {
    Err(ApiError::refused("a worker never asks this"))
}

fn index<T>(answer: Result<T, stores::IndexError>) -> ApiResult<T> {
    answer.map_err(|error| ApiError::Remote { code: 1, message: error.to_string() })
}

#[async_trait]
impl ManagerApi for ScriptedManager {
    async fn version(&self) -> ApiResult<ManagerVersion> {
        self.up()?;
        Ok(ManagerVersion { version: "scripted".into(), api_version: self.api_version, block_delay: 30 })
    }
    async fn auth_verify(&self, token: String) -> ApiResult<Vec<Permission>> {
        self.up()?;
        if token == "token" {
            Ok(self.permissions.clone())
        } else {
            spoil(Spoilt::Refused("JWT Verification failed"))
        }
    }
    async fn fetch_token(&self, _: rpc::extension::FetchWish) -> ApiResult<rpc::extension::FetchTicket> {
        self.sealyard()?;
        Ok(rpc::extension::FetchTicket {
            token: "token".into(),
            until_ms: u64::MAX,
            lotus: vec![],
            lotus_token: None,
        })
    }
    async fn auth_new_worker(&self) -> ApiResult<String> {
        unscripted()
    }
    async fn auth_new(&self, _: Vec<Permission>) -> ApiResult<String> {
        unscripted()
    }
    async fn session(&self) -> ApiResult<Uuid> {
        self.up()?;
        self.contact();
        Ok(*self.session.lock().unwrap())
    }
    async fn actor_address(&self) -> ApiResult<ActorId> {
        self.up()?;
        Ok(ActorId::new(1000))
    }
    async fn actor_sector_size(&self, _: ActorId) -> ApiResult<SectorSize> {
        self.up()?;
        Ok(SectorSize::KiB2)
    }
    async fn shutdown(&self) -> ApiResult<()> {
        unscripted()
    }
    async fn worker_connect(&self, url: String) -> ApiResult<()> {
        self.up()?;
        if let Some(words) = *self.connect_answer.lock().unwrap() {
            return spoil(Spoilt::Refused(words));
        }
        self.connects.send_modify(|connects| connects.push(url));
        Ok(())
    }
    async fn return_result(&self, call: CallId, returned: Returned) -> ApiResult<()> {
        self.return_tries.send_modify(|tries| *tries += 1);
        self.up()?;
        if self.returns_unreachable.load(Ordering::SeqCst) {
            return spoil(Spoilt::Unreachable);
        }
        if self.refuses_returns.load(Ordering::SeqCst) {
            return spoil(Spoilt::Refused("no"));
        }
        let spoilt = self.return_answers.lock().unwrap().pop_front();
        if let Some(spoilt) = spoilt {
            return spoil(spoilt);
        }
        self.returns.send_modify(|returns| returns.push((call, returned)));
        Ok(())
    }

    async fn storage_attach(&self, info: StorageInfo, stat: FsStat) -> ApiResult<()> {
        self.up()?;
        self.attaches.send_modify(|attaches| *attaches += 1);
        index(self.index.attach(info, stat).await)
    }
    async fn storage_detach(&self, id: StorageId, url: String) -> ApiResult<()> {
        self.up()?;
        index(self.index.detach(&id, &url).await)
    }
    async fn storage_info(&self, id: StorageId) -> ApiResult<StorageInfo> {
        self.up()?;
        index(self.index.info(&id).await)
    }
    async fn storage_report_health(&self, id: StorageId, report: HealthReport) -> ApiResult<()> {
        self.up()?;
        self.contact();
        let answer = self.index.report_health(&id, report).await;
        self.healths.send_modify(|healths| healths.push(id));
        index(answer)
    }
    async fn storage_declare(
        &self,
        id: StorageId,
        sector: SectorId,
        types: FileTypes,
        primary: bool,
    ) -> ApiResult<()> {
        self.up()?;
        index(self.index.declare(&id, sector, types, CopyKind::from(primary)).await)
    }
    async fn storage_declare_batch(&self, id: StorageId, files: Vec<(SectorDecl, bool)>) -> ApiResult<()> {
        self.sealyard()?;
        self.batches.send_modify(|batches| *batches += 1);
        index(self.index.declare_batch(&id, &files).await)
    }
    async fn storage_declared_all(&self, id: StorageId) -> ApiResult<()> {
        self.up()?;
        let answer = self.index.declared_all(&id).await;
        self.declared.send_modify(|declared| declared.push(id));
        index(answer)
    }
    async fn storage_files(&self, id: StorageId) -> ApiResult<Vec<SectorDecl>> {
        self.sealyard()?;
        index(self.index.files(&id).await)
    }
    async fn storage_drop(&self, id: StorageId, sector: SectorId, types: FileTypes) -> ApiResult<()> {
        self.up()?;
        index(self.index.drop_files(&id, sector, types).await)
    }
    async fn storage_find(
        &self,
        sector: SectorId,
        types: FileTypes,
        fetch: Option<SectorSize>,
    ) -> ApiResult<Vec<SectorStorageInfo>> {
        self.up()?;
        if let Some(message) = self.find_answer.lock().unwrap().clone() {
            return Err(ApiError::Remote { code: 1, message });
        }
        index(self.index.find(sector, types, fetch).await)
    }
    async fn storage_best_alloc(
        &self,
        types: FileTypes,
        size: SectorSize,
        path_type: PathType,
        miner: ActorId,
    ) -> ApiResult<Vec<StorageInfo>> {
        self.up()?;
        index(self.index.best_alloc(types, size, path_type, miner).await)
    }
    async fn storage_list(&self) -> ApiResult<BTreeMap<StorageId, Vec<SectorDecl>>> {
        self.up()?;
        Ok(self.index.list())
    }
    async fn storage_lock(&self, _: SectorId, _: FileTypes, _: FileTypes) -> ApiResult<()> {
        unscripted()
    }
    async fn storage_try_lock(&self, _: SectorId, _: FileTypes, _: FileTypes) -> ApiResult<bool> {
        unscripted()
    }
    async fn storage_get_locks(&self) -> ApiResult<Vec<SectorLock>> {
        unscripted()
    }
    async fn storage_local(&self) -> ApiResult<BTreeMap<StorageId, PathBuf>> {
        unscripted()
    }
    async fn storage_stat(&self, _: StorageId) -> ApiResult<FsStat> {
        unscripted()
    }
    async fn storage_add_local(&self, _: PathBuf) -> ApiResult<()> {
        unscripted()
    }
    async fn storage_detach_local(&self, _: PathBuf) -> ApiResult<()> {
        unscripted()
    }
    async fn storage_redeclare_local(&self, _: Option<StorageId>, _: Missing) -> ApiResult<()> {
        unscripted()
    }
    async fn worker_stats(&self) -> ApiResult<BTreeMap<WorkerId, WorkerStats>> {
        unscripted()
    }
    async fn worker_jobs(&self) -> ApiResult<BTreeMap<WorkerId, Vec<WorkerJob>>> {
        unscripted()
    }
    async fn sched_diag(&self, _: bool) -> ApiResult<serde_json::Value> {
        unscripted()
    }
    async fn sealing_abort(&self, _: CallId) -> ApiResult<()> {
        unscripted()
    }
    async fn sealing_remove_request(&self, _: Uuid) -> ApiResult<()> {
        unscripted()
    }
    async fn pledge_sector(&self) -> ApiResult<SectorId> {
        unscripted()
    }
    async fn miners(&self) -> ApiResult<Miners> {
        unscripted()
    }
    async fn sectors(&self) -> ApiResult<Vec<SectorId>> {
        unscripted()
    }
    async fn sectors_list(&self) -> ApiResult<Vec<SectorNumber>> {
        unscripted()
    }
    async fn sectors_summary(&self) -> ApiResult<BTreeMap<String, u64>> {
        unscripted()
    }
    async fn sectors_in_states(&self, _: Vec<String>) -> ApiResult<Vec<SectorNumber>> {
        unscripted()
    }
    async fn sector_detail(&self, _: SectorName) -> ApiResult<SectorDetail> {
        unscripted()
    }
    async fn hello(&self, _: Hello) -> ApiResult<Option<Hello>> {
        self.sealyard()?;
        Ok(Some(Hello::of_this_build("scripted")))
    }
    async fn can_reach(&self, _: String) -> ApiResult<()> {
        unscripted()
    }
    async fn worker_state(&self, state: WorkerState) -> ApiResult<()> {
        self.sealyard()?;
        self.contact();
        self.states.send_modify(|states| states.push(state));
        Ok(())
    }
    async fn attempt_open(&self, attempt: AttemptId) -> ApiResult<bool> {
        self.sealyard()?;
        Ok(!self.fences.load(Ordering::SeqCst) && !self.over.lock().unwrap().contains(&attempt))
    }
    async fn storage_deed(&self, attempt: AttemptId, deed: CopyDeed) -> ApiResult<()> {
        if !self.attempt_open(attempt).await? {
            return spoil(Spoilt::Refused("MGR145: the attempt is over"));
        }
        let CopyDeed { path, sector, types, state } = deed;
        if self.ends_with_a_deed.swap(false, Ordering::SeqCst) {
            let url = self.index.info(&path).await.expect("it is attached").urls.remove(0);
            self.index.detach(&path, &url).await.expect("it was attached");
            self.successor.store(true, Ordering::SeqCst);
            self.restart();
            return Ok(());
        }
        if self.successor.load(Ordering::SeqCst) {
            super::until(&self.connects, |connects| (connects.len() == 2).then_some(())).await;
        }
        match state {
            CopyState::Superseded => index(self.index.supersede(&path, sector, types).await),
            CopyState::Primary => index(self.index.declare(&path, sector, types, CopyKind::Primary).await),
            CopyState::Secondary => {
                index(self.index.declare(&path, sector, types, CopyKind::Secondary).await)
            }
        }
    }
    async fn overview(&self) -> ApiResult<ManagerOverview> {
        unscripted()
    }
    async fn jobs(&self) -> ApiResult<Vec<JobView>> {
        unscripted()
    }
    async fn abort_attempt(&self, _: AttemptId) -> ApiResult<()> {
        unscripted()
    }
    async fn why(&self, _: rpc::subject::Subject) -> ApiResult<rpc::explain::Explanation> {
        unscripted()
    }
    async fn schedule(&self, _: u32) -> ApiResult<rpc::explain::Schedule> {
        unscripted()
    }
    async fn retry_sector(&self, _: SectorName) -> ApiResult<()> {
        unscripted()
    }
    async fn pledge(&self, _: PledgeOptions) -> ApiResult<SectorId> {
        unscripted()
    }
}
