//! What a worker and a manager can be asked, as traits over plain values.
//!
//! Each trait is fulfilled twice: by the thing itself (in its own process) and by a client that speaks to it over the
//! wire. So the manager treats its own worker and a remote one alike, and a worker treats the manager it lives in and
//! one on another machine alike. Wire shapes do not appear here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use async_trait::async_trait;
use sealtasks::{
    ActorId, AttemptId, CallError, CallId, FailureClass, FileTypes, FsStat, HealthReport, PathOrder,
    PathReport, PathType, ResourceTable, ScrubOrder, ScrubbedFile, SectorDecl, SectorId, SectorNumber,
    SectorRef, SectorSize, SectorStorageInfo, StorageId, StorageInfo, TaskInput, TaskOutput, TaskType,
    TransferChange, TransferReport, WorkerId,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::beat::{Beat, Beaten};
use crate::error::ApiError;
use crate::explain::{Explanation, Schedule};
use crate::extension::{
    ExecutorSetting, FetchTicket, FetchWish, GpuShare, Hello, JobView, ManagerOverview, SectorDetail,
    WorkerState,
};
use crate::reader::PieceData;
use crate::sector_name::{Miners, SectorName};
use crate::storage::CopyDeed;
use crate::subject::Subject;
use crate::token::{Grant, Permission};

/// The result of a call through either trait.
pub type ApiResult<T> = Result<T, ApiError>;

/// Asked of a worker by the manager and by operators. All of it needs permission `admin`.
#[async_trait]
pub trait WorkerApi: Send + Sync + 'static {
    /// Protocol version, `major << 16 | minor << 8 | patch`.
    async fn version(&self) -> ApiResult<u32>;
    /// The session; [`WorkerId::CLOSED`] when the worker is closing; an error when it is disabled.
    async fn session(&self) -> ApiResult<WorkerId>;
    /// The session, also while disabled.
    async fn process_session(&self) -> ApiResult<WorkerId>;
    /// Host name and resources.
    async fn info(&self) -> ApiResult<WorkerInfo>;
    /// The tasks it takes now.
    async fn task_types(&self) -> ApiResult<BTreeSet<TaskType>>;
    /// Its storage paths.
    async fn paths(&self) -> ApiResult<Vec<StoragePath>>;

    /// Accepts a task and returns at once; the result comes back through [`ManagerApi::return_result`].
    async fn start(&self, job: Job) -> ApiResult<CallId>;
    /// Stops a running call: its executor is killed and its call returns an error. Sealyard workers only.
    async fn abort(&self, call: CallId) -> ApiResult<()>;

    /// Offers a task again.
    async fn task_enable(&self, task: TaskType) -> ApiResult<()>;
    /// Offers a task no longer; running ones go on.
    async fn task_disable(&self, task: TaskType) -> ApiResult<()>;
    /// Removes sealed, cache and unsealed files of a sector from this worker's paths.
    async fn remove(&self, sector: SectorId) -> ApiResult<()>;
    /// Ids and local directories of its paths.
    async fn storage_local(&self) -> ApiResult<BTreeMap<StorageId, PathBuf>>;
    /// Opens the path and remembers it.
    async fn storage_add_local(&self, path: PathBuf) -> ApiResult<()>;
    /// Closes the path and forgets it; files stay.
    async fn storage_detach_local(&self, path: PathBuf) -> ApiResult<()>;
    /// Takes all its paths out of the index, before shutting down.
    async fn storage_detach_all(&self) -> ApiResult<()>;
    /// Scans one path, or all, and declares what is there.
    async fn storage_redeclare_local(&self, path: Option<StorageId>, missing: Missing) -> ApiResult<()>;
    /// Whether it takes tasks.
    async fn enabled(&self) -> ApiResult<bool>;
    /// Take tasks, or none.
    async fn set_enabled(&self, enabled: bool) -> ApiResult<()>;
    /// Returns when nothing runs.
    async fn wait_quiet(&self) -> ApiResult<()>;
    /// Closes the session, then ends the process.
    async fn shutdown(&self) -> ApiResult<()>;

    /// Introduces a Sealyard to a Sealyard; `None` from a peer that does not know the method, a Lotus worker.
    async fn hello(&self, hello: Hello) -> ApiResult<Option<Hello>>;
    /// What a Sealyard worker knows of itself in one answer. [`ApiError::is_method_not_found`] from a Lotus worker.
    async fn state(&self) -> ApiResult<WorkerState>;
    /// The manager's heartbeat, and the worker's answer. [`ApiError::is_method_not_found`] from a Lotus worker, and from one
    /// that is asked for its state alone.
    async fn beat(&self, _beat: Beat) -> ApiResult<Beaten> {
        Err(ApiError::unknown_method("Sealyard.Beat"))
    }
    /// The proofs libraries' settings that its executors get. [`ApiError::is_method_not_found`] from a Lotus worker. A
    /// worker whose executors take no settings has none.
    async fn settings(&self) -> ApiResult<Vec<ExecutorSetting>> {
        Ok(Vec::new())
    }
    /// Carries out an order about its own storage paths. [`ApiError::is_method_not_found`] from a Lotus worker.
    async fn path_order(&self, _order: PathOrder) -> ApiResult<PathReport> {
        Err(ApiError::refused("this worker takes no orders about its storage paths"))
    }
    /// Computes the commitments of a sector's files in one of its paths and compares them, at low priority, one sector
    /// after another; answers when that is done. [`ApiError::is_method_not_found`] from a Lotus worker.
    async fn scrub(&self, _order: ScrubOrder) -> ApiResult<Vec<ScrubbedFile>> {
        Err(ApiError::refused("this worker does not scrub"))
    }
    /// Changes what its downloads may use, running ones included, and tells them all. [`ApiError::is_method_not_found`]
    /// from a Lotus worker.
    async fn transfers(&self, _change: TransferChange) -> ApiResult<TransferReport> {
        Err(ApiError::refused("this worker does not tell its transfers"))
    }
}

/// Asked of a manager by workers, operators and Lotus's command line.
#[async_trait]
pub trait ManagerApi: Send + Sync + 'static {
    /// Version text and protocol version. Permission `read`.
    async fn version(&self) -> ApiResult<ManagerVersion>;
    /// What a token allows. Permission `read`.
    async fn auth_verify(&self, token: String) -> ApiResult<Vec<Permission>>;
    /// Everything that a token allows, its one purpose included; one whose time is over allows nothing. A Lotus knows
    /// permissions alone. Permission `read`.
    async fn verify_token(&self, token: String) -> ApiResult<Grant> {
        self.auth_verify(token).await.map(Grant::of)
    }
    /// Issues a token for fetching. [`ApiError::is_method_not_found`] from a Lotus, to whose peers the caller's own token
    /// is shown. Permission `admin`, or a worker's own token.
    async fn fetch_token(&self, wish: FetchWish) -> ApiResult<FetchTicket>;
    /// Mints a token with which one Sealyard worker joins. Permission `admin`.
    async fn auth_new_worker(&self) -> ApiResult<String>;
    /// Mints a token. Permission `admin`.
    async fn auth_new(&self, permissions: Vec<Permission>) -> ApiResult<String>;
    /// New at every start of the manager. Permission `read`.
    async fn session(&self) -> ApiResult<Uuid>;
    /// The miner actor. Permission `read`.
    async fn actor_address(&self) -> ApiResult<ActorId>;
    /// The miner's sector size. Permission `read`.
    async fn actor_sector_size(&self, actor: ActorId) -> ApiResult<SectorSize>;
    /// Stops the manager. Permission `admin`.
    async fn shutdown(&self) -> ApiResult<()>;

    /// Registers a worker: the manager dials `url` back before it answers. The error says when it could not.
    async fn worker_connect(&self, url: String) -> ApiResult<()>;
    /// A worker's result or failure. Idempotent; an unknown call is kept, not refused.
    async fn return_result(&self, call: CallId, returned: Returned) -> ApiResult<()>;

    /// Adds a path or merges its URLs.
    async fn storage_attach(&self, info: StorageInfo, stat: FsStat) -> ApiResult<()>;
    /// Takes one URL of a path away, and with the last one the path.
    async fn storage_detach(&self, id: StorageId, url: String) -> ApiResult<()>;
    /// One path.
    async fn storage_info(&self, id: StorageId) -> ApiResult<StorageInfo>;
    /// A path's heartbeat.
    async fn storage_report_health(&self, id: StorageId, report: HealthReport) -> ApiResult<()>;
    /// Files that lie in a path. `primary` can be raised, never lowered.
    async fn storage_declare(
        &self,
        id: StorageId,
        sector: SectorId,
        types: FileTypes,
        primary: bool,
    ) -> ApiResult<()>;
    /// The same for many files at once: one call for a whole path. Sealyard managers only.
    async fn storage_declare_batch(&self, id: StorageId, files: Vec<(SectorDecl, bool)>) -> ApiResult<()>;
    /// What an attempt at a task has done with files in a path. Refused when the attempt is over: then nothing is listed, and
    /// nothing is taken out. Sealyard managers only.
    async fn storage_deed(&self, _attempt: AttemptId, _deed: CopyDeed) -> ApiResult<()> {
        Err(ApiError::unknown_method("Sealyard.StorageDeed"))
    }
    /// All files of a path have been declared: what the manager only remembers of it from before is not there.
    async fn storage_declared_all(&self, id: StorageId) -> ApiResult<()>;
    /// What lies in one path, by sector. [`ApiError::is_method_not_found`] from a Lotus, and from the Sealyards that know
    /// only [`ManagerApi::storage_list`], which answers with every file of every path.
    async fn storage_files(&self, _id: StorageId) -> ApiResult<Vec<SectorDecl>> {
        Err(ApiError::unknown_method("Sealyard.StorageFiles"))
    }
    /// Files that no longer lie in a path.
    async fn storage_drop(&self, id: StorageId, sector: SectorId, types: FileTypes) -> ApiResult<()>;
    /// Where files are, and with `fetch` also where they could be fetched to (for a sector of that size).
    async fn storage_find(
        &self,
        sector: SectorId,
        types: FileTypes,
        fetch: Option<SectorSize>,
    ) -> ApiResult<Vec<SectorStorageInfo>>;
    /// Paths with room for new files, best first; an error when there is none.
    async fn storage_best_alloc(
        &self,
        types: FileTypes,
        size: SectorSize,
        path_type: PathType,
        miner: ActorId,
    ) -> ApiResult<Vec<StorageInfo>>;
    /// Every path and what lies in it.
    async fn storage_list(&self) -> ApiResult<BTreeMap<StorageId, Vec<SectorDecl>>>;
    /// Waits for locks on a sector's files; over the wire they last as long as the call.
    async fn storage_lock(&self, sector: SectorId, read: FileTypes, write: FileTypes) -> ApiResult<()>;
    /// The same without waiting.
    async fn storage_try_lock(&self, sector: SectorId, read: FileTypes, write: FileTypes) -> ApiResult<bool>;
    /// All held locks.
    async fn storage_get_locks(&self) -> ApiResult<Vec<SectorLock>>;

    /// The manager's own paths.
    async fn storage_local(&self) -> ApiResult<BTreeMap<StorageId, PathBuf>>;
    /// How full a path is.
    async fn storage_stat(&self, id: StorageId) -> ApiResult<FsStat>;
    /// Opens a path on the manager's host.
    async fn storage_add_local(&self, path: PathBuf) -> ApiResult<()>;
    /// Closes a path on the manager's host; files stay.
    async fn storage_detach_local(&self, path: PathBuf) -> ApiResult<()>;
    /// Scans one of the manager's paths, or all.
    async fn storage_redeclare_local(&self, path: Option<StorageId>, missing: Missing) -> ApiResult<()>;

    /// Every worker with its load.
    async fn worker_stats(&self) -> ApiResult<BTreeMap<WorkerId, WorkerStats>>;
    /// Every worker's jobs.
    async fn worker_jobs(&self) -> ApiResult<BTreeMap<WorkerId, Vec<WorkerJob>>>;
    /// The scheduler's state in Lotus's shape.
    async fn sched_diag(&self, force: bool) -> ApiResult<serde_json::Value>;
    /// Ends a call with "task aborted".
    async fn sealing_abort(&self, call: CallId) -> ApiResult<()>;
    /// Takes a queued request out by its SchedId.
    async fn sealing_remove_request(&self, request: Uuid) -> ApiResult<()>;

    /// Starts a committed-capacity sector.
    async fn pledge_sector(&self) -> ApiResult<SectorId>;
    /// The miners that the manager serves. Permission `read`.
    async fn miners(&self) -> ApiResult<Miners>;
    /// All sectors of all miners. Permission `read`.
    async fn sectors(&self) -> ApiResult<Vec<SectorId>>;
    /// Lotus's list, which has numbers alone: the sectors of the first miner.
    async fn sectors_list(&self) -> ApiResult<Vec<SectorNumber>>;
    /// How many sectors are in each state.
    async fn sectors_summary(&self) -> ApiResult<BTreeMap<String, u64>>;
    /// Lotus's list of the first miner's sectors in any of these states.
    async fn sectors_in_states(&self, states: Vec<String>) -> ApiResult<Vec<SectorNumber>>;
    /// One sector, with its tasks and its log.
    async fn sector_detail(&self, sector: SectorName) -> ApiResult<SectorDetail>;

    /// Introduces a Sealyard to a Sealyard.
    async fn hello(&self, hello: Hello) -> ApiResult<Option<Hello>>;
    /// Tries to open a connection to a worker's `url`, before that worker writes anything to its disk. The error says
    /// which port to open.
    async fn can_reach(&self, url: String) -> ApiResult<()>;
    /// A Sealyard worker's push of its state. Refused when the session is not registered: the worker connects again.
    async fn worker_state(&self, state: WorkerState) -> ApiResult<()>;
    /// Whether an attempt is awaited still. A Sealyard worker asks before it declares what the attempt made: one that was
    /// not heard of for long may have been given up, and its files must not be found beside those of the next attempt.
    async fn attempt_open(&self, attempt: AttemptId) -> ApiResult<bool>;
    /// Workers, paths and sectors in one answer, for the command line.
    async fn overview(&self) -> ApiResult<ManagerOverview>;
    /// Tasks that wait, run, or ended lately.
    async fn jobs(&self) -> ApiResult<Vec<JobView>>;
    /// Ends an attempt, whether a worker has accepted it or not, or takes the task that waits for it out. Permission
    /// `admin`. Its sector waits for [`ManagerApi::retry_sector`].
    async fn abort_attempt(&self, attempt: AttemptId) -> ApiResult<()>;
    /// Has a failed sector tried again now, with its budgets of retries anew, or one that has stopped where it was to go on to
    /// the end. Permission `admin`. The error says in which state it is when it is neither.
    async fn retry_sector(&self, sector: SectorName) -> ApiResult<()>;
    /// Why a sector or a piece of its work is where it is, and what would change it. Permission `read`. The error says
    /// that nothing is known of it.
    async fn why(&self, subject: Subject) -> ApiResult<Explanation>;
    /// What waits, runs and is held, with at most `limit` (and 1000) waiting tasks. Permission `read`.
    async fn schedule(&self, limit: u32) -> ApiResult<Schedule>;
    /// Pledges a sector that stops after Commit1 (`stop_after_c1`), or goes all the way.
    async fn pledge(&self, options: PledgeOptions) -> ApiResult<SectorId>;
}

/// One task handed to a worker.
pub struct Job {
    /// The sector; the zero sector for DataCid.
    pub sector: SectorRef,
    /// What to do.
    pub work: TaskInput,
    /// The attempt, towards a Sealyard worker: the same attempt twice is the same call.
    pub attempt: Option<AttemptId>,
    /// The bytes of AddPiece and DataCid when their source is a stream.
    pub data: Option<PieceData>,
    /// The GPUs it was given, towards a Sealyard worker; empty = it was given none, and the worker's environment holds.
    pub gpus: Vec<GpuShare>,
}

/// A call's end as the worker reports it. The method is kept beside the result because a failure names no output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Returned {
    /// Which `Return…` method carries it.
    pub method: ReturnMethod,
    /// The result.
    pub result: Result<TaskOutput, CallError>,
    /// The attempt it belongs to, from a Sealyard worker.
    pub attempt: Option<AttemptId>,
    /// What the attempt cost, from a Sealyard worker.
    pub account: Option<AttemptAccount>,
}

/// What an attempt cost, measured on the worker, and the class of its failure, which Lotus's codes cannot say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptAccount {
    /// When the inputs were there and the executor started, in Unix milliseconds.
    pub started_ms: u64,
    /// When it ended, in Unix milliseconds.
    pub ended_ms: u64,
    /// Bytes received from other machines' sockets for this attempt.
    pub bytes_fetched: u64,
    /// The most memory that its executor had at a time, mapped files included (bytes); 0 = not measured.
    #[serde(default)]
    pub peak_bytes: u64,
    /// Its executor's processor time (milliseconds); 0 = not measured.
    #[serde(default)]
    pub cpu_ms: u64,
    /// Of what class its failure was; `None` = it did not fail, or its worker's version does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<FailureClass>,
}

/// The eighteen `Return…` methods of Lotus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[allow(missing_docs, reason = "each is named after its method")]
pub enum ReturnMethod {
    DataCid,
    AddPiece,
    SealPreCommit1,
    SealPreCommit2,
    SealCommit1,
    SealCommit2,
    FinalizeSector,
    ReplicaUpdate,
    ProveReplicaUpdate1,
    ProveReplicaUpdate2,
    GenerateSectorKeyFromData,
    FinalizeReplicaUpdate,
    ReleaseUnsealed,
    MoveStorage,
    UnsealPiece,
    ReadPiece,
    DownloadSector,
    Fetch,
}

/// Whether a scan also drops index entries whose file is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// Entries without a file stay.
    Keep,
    /// Entries without a file go.
    Drop,
}

/// A storage path as a worker reports it to the manager.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoragePath {
    /// Its id.
    pub id: StorageId,
    /// Its weight.
    pub weight: u64,
    /// Where it is mounted on the worker.
    pub local_path: String,
    /// Sealing may use it.
    pub can_seal: bool,
    /// Finished sectors may live here.
    pub can_store: bool,
}

/// A worker's host and resources.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkerInfo {
    /// The worker's name, by default the host's.
    pub hostname: String,
    /// The scheduler takes no account of this worker's resources.
    pub ignore_resources: bool,
    /// What it has.
    pub resources: WorkerResources,
}

/// A worker's resources, memory in bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkerResources {
    /// RAM, within the control group's limit.
    pub mem_physical: u64,
    /// RAM in use by others.
    pub mem_used: u64,
    /// Swap.
    pub mem_swap: u64,
    /// Swap in use.
    pub mem_swap_used: u64,
    /// Logical CPUs.
    pub cpus: u64,
    /// Names of the GPUs.
    pub gpus: Vec<String>,
    /// Its resource table; `None` = the scheduler's built-in one.
    pub table: Option<ResourceTable>,
}

/// A worker and its load as `WorkerStats` reports it.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkerStats {
    /// Host and resources.
    pub info: WorkerInfo,
    /// The tasks it takes.
    pub tasks: BTreeSet<TaskType>,
    /// Whether it is scheduled at all.
    pub enabled: bool,
    /// Memory charged that must be RAM, in bytes.
    pub mem_used_min: u64,
    /// Memory charged at the peak, in bytes.
    pub mem_used_max: u64,
    /// GPUs charged.
    pub gpu_used: f64,
    /// CPU threads charged.
    pub cpu_use: u64,
    /// Running and staged tasks by `<proof>:<task type>`.
    pub task_counts: BTreeMap<String, i64>,
}

/// A job as `WorkerJobs` reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerJob {
    /// The call; a nil uuid while queued.
    pub id: CallId,
    /// The sector.
    pub sector: SectorId,
    /// The task.
    pub task: TaskType,
    /// 0 running, 1 prepared, 2 and up assigned, -1 ret-wait, -2 returned, -3 ret-done.
    pub run_wait: i64,
    /// When it started, Unix milliseconds; 0 = not yet.
    pub start_ms: u64,
    /// The worker's name.
    pub hostname: String,
}

/// The locks held on one sector, counted per file type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SectorLock {
    /// The sector.
    pub sector: SectorId,
    /// Writers per file type bit: 0 or 1.
    pub write: [u64; 6],
    /// Readers per file type bit.
    pub read: [u64; 6],
}

/// What `Version` of a manager says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManagerVersion {
    /// For people, for example `sealyard 0.1.0`.
    pub version: String,
    /// Protocol version; a Lotus worker accepts exactly 66816.
    pub api_version: u32,
    /// Seconds between blocks.
    pub block_delay: u64,
}

/// How to pledge a sector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PledgeOptions {
    /// Rest after Commit1; nothing is proven and the sector stays in `Committing`.
    pub stop_after_c1: bool,
    /// Whose sector it is; `None`: the first miner's.
    pub miner: Option<ActorId>,
    /// This size instead of the miner's; test sizes without a chain only.
    pub sector_size: Option<SectorSize>,
}
