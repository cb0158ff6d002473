//! What operators ask and order about storage: where files lie, what each path holds, who locks what, and the care of
//! the paths. Methods named `Sealyard.*`, all for permission `admin`; shapes are ours, missing keys are defaults.

use async_trait::async_trait;
use sealtasks::{
    FileType, FileTypes, PathOrder, PathReport, ScrubVerdict, SectorId, StorageId, TransferChange,
    TransferReport, WorkerId,
};
use serde::{Deserialize, Serialize};

use crate::api::ApiResult;
use crate::extension::JobView;
use crate::sector_name::SectorName;

/// Most sectors in one answer of [`StorageApi::stored_sectors`].
pub const STORED_PAGE_MAX: u32 = 10_000;

/// What an attempt has done with files of its sector in a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyDeed {
    /// The path.
    pub path: StorageId,
    /// The sector, which must be the attempt's.
    pub sector: SectorId,
    /// Which files.
    pub types: FileTypes,
    /// What they are from now on.
    pub state: CopyState,
}

/// What files of a path have become by the deed of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CopyState {
    /// The copy that counts.
    Primary,
    /// One that could be dropped.
    Secondary,
    /// Older than what lies elsewhere: not to be listed as long as another one is.
    Superseded,
}

/// Asked of a manager by its operators.
#[async_trait]
pub trait StorageApi: Send + Sync + 'static {
    /// Every storage path, without its files.
    async fn storage_paths(&self) -> ApiResult<Vec<StoragePathView>>;
    /// Where the files of one of the miner's sectors lie, and what is being done with them.
    async fn sector_places(&self, sector: SectorName) -> ApiResult<SectorPlaces>;
    /// What lies in a path, by sector, beginning behind `after`; `limit` sectors at most.
    async fn stored_sectors(
        &self,
        path: StorageId,
        after: Option<SectorId>,
        limit: u32,
    ) -> ApiResult<Vec<StoredSector>>;
    /// All locks, by sector.
    async fn lock_table(&self) -> ApiResult<Vec<LockedSector>>;
    /// Has a process carry out an order about its own paths.
    async fn path_order(&self, host: PathHost, order: PathOrder) -> ApiResult<PathReport>;
    /// Changes what downloads of one process may use, the manager's own with `manager`, or of all where none is named,
    /// and tells all that run there. What is set holds also after its restarts. A process that does not answer is listed
    /// with its error.
    async fn transfers(
        &self,
        worker: Option<String>,
        change: TransferChange,
    ) -> ApiResult<Vec<HostTransfers>>;
    /// Has a sector's unsealed and sealed files checked by the workers that hold them, at low priority; answers when that is
    /// done, and keeps what was found.
    async fn scrub_sector(&self, sector: SectorName) -> ApiResult<Vec<ScrubResult>>;
    /// What scrubbing last found of each file, of one sector or of all.
    async fn scrub_results(&self, sector: Option<SectorName>) -> ApiResult<Vec<ScrubResult>>;
    /// Moves files of a sector that nothing is being done with into a path; returns when they lie there.
    async fn move_sector(&self, sector: SectorName, types: FileTypes, to: StorageId) -> ApiResult<()>;
}

/// What scrubbing found of one file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubResult {
    /// The sector.
    pub sector: SectorId,
    /// Unsealed or sealed.
    pub file: FileType,
    /// The path that it lies in.
    pub path: StorageId,
    /// The worker that looked at it; empty = nobody did.
    pub host: String,
    /// When, in Unix milliseconds.
    pub at_ms: u64,
    /// What is to be thought of it.
    pub verdict: ScrubVerdict,
    /// What was found; for a bad file also what was expected, or why it could not be told.
    pub detail: String,
}

/// Which process is meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PathHost {
    /// The manager's own.
    Manager,
    /// The worker with this name, session or URL.
    Worker(String),
    /// Whichever has this path open: the manager before a worker.
    Owner(StorageId),
}

/// The downloads of one process: files are fetched by whoever gets them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostTransfers {
    /// The worker's name; `manager` for the manager's own.
    pub host: String,
    /// The worker's session; `None` for the manager's own.
    pub session: Option<WorkerId>,
    /// What it told.
    pub report: Option<TransferReport>,
    /// Why it told nothing.
    #[serde(default)]
    pub error: Option<String>,
}

/// One storage path for people, without its files.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StoragePathView {
    /// Its id.
    pub id: String,
    /// Names of the workers that serve it; `manager` for the manager itself.
    pub workers: Vec<String>,
    /// Its URLs.
    pub urls: Vec<String>,
    /// URLs of it that have failed for two hours and are named to nobody until they answer, each with its last failure.
    pub set_aside: Vec<(String, String)>,
    /// The directory, when it is open in the manager.
    pub local: Option<String>,
    /// Weight; 0 = read-only.
    pub weight: u64,
    /// Sealing may use it.
    pub can_seal: bool,
    /// Finished sectors may live here.
    pub can_store: bool,
    /// Groups it belongs to.
    pub groups: Vec<String>,
    /// Groups its files may be fetched into.
    pub allow_to: Vec<String>,
    /// Only these file types; empty = all.
    pub allow_types: Vec<String>,
    /// Never these file types.
    pub deny_types: Vec<String>,
    /// Bytes: the file system's size.
    pub capacity: i64,
    /// Bytes that new files may take.
    pub available: i64,
    /// Bytes free on the file system.
    pub fs_available: i64,
    /// Bytes promised and not yet on disk.
    pub reserved: i64,
    /// Bytes that the path may hold; 0 = no limit of its own.
    pub max_storage: i64,
    /// Bytes used of that limit.
    pub used: i64,
    /// Milliseconds since its last report.
    pub heartbeat_age_ms: u64,
    /// Whether new files are sent there as far as its health goes.
    pub healthy: bool,
    /// What is wrong with it.
    pub error: Option<String>,
    /// Files in it by type, in the order unsealed, sealed, cache, update, update-cache, piece.
    pub files: [u64; 6],
    /// Milliseconds that its owner took to answer; `None` = it is local, or did not answer.
    pub latency_ms: Option<f64>,
}

/// Where the files of a sector are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SectorPlaces {
    /// The sector.
    pub sector: SectorId,
    /// Its state; `None` = the manager has no record of it.
    pub state: Option<String>,
    /// It is a rehearsal's: its files are empty.
    #[serde(default)]
    pub rehearsal: bool,
    /// The paths that hold files of it, by id.
    pub places: Vec<Place>,
    /// File types of which more than one path claims the primary copy.
    pub conflicts: FileTypes,
    /// Its tasks that wait or run.
    pub under_way: Vec<JobView>,
    /// Who holds locks on it.
    pub locks: Vec<LockHolder>,
    /// Copies that are older than others and listed in no place, by path.
    #[serde(default)]
    pub older: Vec<OlderCopy>,
}

/// Copies of a sector's files in one path that are older than what lies, or lay, elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OlderCopy {
    /// The path's id.
    pub path: StorageId,
    /// Names of the workers that serve it; `manager` for the manager itself.
    pub workers: Vec<String>,
    /// Which files.
    pub types: FileTypes,
    /// The paths that have newer ones, or had them when the manager last ran; by id.
    pub newer: Vec<StorageId>,
    /// What is to be done about it.
    pub remedy: String,
}

/// One path that holds files of a sector.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The path's id.
    pub path: StorageId,
    /// Names of the workers that serve it; `manager` for the manager itself.
    pub workers: Vec<String>,
    /// Which files are there.
    pub types: FileTypes,
    /// Which of them are primary copies.
    pub primary: FileTypes,
    /// Which files were there when the manager last ran, and nobody has declared since.
    #[serde(default)]
    pub unconfirmed: FileTypes,
    /// Sealing may use the path.
    pub can_seal: bool,
    /// Finished sectors may live there.
    pub can_store: bool,
    /// The directory, when it is open in the manager.
    pub local: Option<String>,
    /// The path's base URLs.
    pub urls: Vec<String>,
    /// Whether the path reports and is well.
    pub healthy: bool,
}

/// What lies of one sector in one path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredSector {
    /// The sector.
    pub sector: SectorId,
    /// Its state; `None` = the manager has no record of it.
    pub state: Option<String>,
    /// Which files lie here.
    pub types: FileTypes,
    /// Which of them are primary copies.
    pub primary: FileTypes,
    /// Which of them lie here alone.
    pub alone: FileTypes,
}

/// The locks on one sector.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockedSector {
    /// The sector.
    pub sector: SectorId,
    /// Its state; `None` = the manager has no record of it.
    pub state: Option<String>,
    /// The holders, oldest first.
    pub holders: Vec<LockHolder>,
    /// How many callers wait.
    pub waiting: u64,
    /// They, in the order in which they are served.
    #[serde(default)]
    pub waiters: Vec<LockHolder>,
}

/// One holder of locks on a sector, or one who waits for them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockHolder {
    /// File types it reads.
    pub read: FileTypes,
    /// File types it writes.
    pub write: FileTypes,
    /// Who holds it, for example `attempt 7.1`.
    pub owner: String,
    /// What for, for example `PC2`.
    pub reason: String,
    /// Since when, in Unix milliseconds.
    pub since_ms: u64,
    /// It ends then, in Unix milliseconds, unless it is renewed, as a reader's is; `None` = when its work ends.
    #[serde(default)]
    pub until_ms: Option<u64>,
}
