//! Our own methods, all named `Sealyard.*`: what one Sealyard tells another and what our command line asks. Their shapes are
//! ours, so serde forms stand here directly; unknown keys are ignored and missing ones are defaults: versions may differ by one.

use std::collections::{BTreeMap, BTreeSet};

use sealtasks::{
    AttemptId, FetchVerb, FileTypes, Reign, SealingPlan, SectorId, SectorSize, StorageId, TaskCaps, TaskType,
    WorkerId,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use fleet::{DurationView, ThreadView, WorkerView};

use crate::storage::OlderCopy;

mod fleet;

/// The first call between Sealyards. A peer that answers "method not found" is a Lotus.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hello {
    /// For people, for example `sealyard 0.1.0`.
    pub software: String,
    /// Versions of the extension spoken; the highest common one is used. Now `[1]`.
    pub versions: Vec<u32>,
    /// Named abilities, for example `start-attempt`, `push-state`, `declare-batch`, `abort`.
    pub features: BTreeSet<String>,
    /// Which manager it is, or serves. `None`: a worker that serves none yet, or a version that does not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reign: Option<Reign>,
}

/// What a worker asks a fetch token for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchWish {
    /// The worker's session.
    pub session: WorkerId,
    /// The storage path whose holder it will be shown to.
    pub path: StorageId,
    /// The sector that one of its tasks is about.
    pub sector: SectorId,
    /// Which files.
    pub types: FileTypes,
    /// What it will do with them.
    pub verbs: Vec<FetchVerb>,
}

/// A fetch token, and what a Lotus that holds the files needs instead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchTicket {
    /// The token.
    pub token: String,
    /// The last moment at which it is good, in Unix milliseconds of the manager's clock.
    pub until_ms: u64,
    /// `host:port` of Lotus workers that hold such files in this path now. They know no fetch tokens.
    #[serde(default)]
    pub lotus: Vec<String>,
    /// The token for those, which they take for one with all permissions; `None` when there are none.
    #[serde(default)]
    pub lotus_token: Option<String>,
}

/// A worker's state as it pushes it whenever something changes, and every heartbeat.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerState {
    /// Its session.
    pub session: WorkerId,
    /// Its name.
    pub name: String,
    /// Whether it takes tasks.
    pub enabled: bool,
    /// The tasks it takes now.
    pub tasks: BTreeSet<TaskType>,
    /// Tasks it was asked to offer but cannot yet, with the reason for people (C2: "fetching parameters, 34 %").
    #[serde(default)]
    pub pending: BTreeMap<TaskType, String>,
    /// Memory in use by others than its tasks, in bytes.
    pub mem_used: u64,
    /// Swap in use, in bytes.
    pub mem_swap_used: u64,
    /// Memory that it has set aside for what it does beside tasks, for scrubbing, in bytes. It is theirs to the last byte
    /// whether it is in use or not.
    #[serde(default)]
    pub mem_beside: u64,
    /// Its paths.
    pub paths: Vec<StorageId>,
    /// Calls it holds: running, or done and not yet acknowledged.
    #[serde(default)]
    pub calls: Vec<HeldCall>,
    /// Limits that it was started with.
    #[serde(default)]
    pub caps: TaskCaps,
    /// The machine it runs on; `None` = it does not say.
    #[serde(default)]
    pub machine: Option<MachineIdentity>,
    /// Which sectors it takes where no thread says otherwise.
    #[serde(default)]
    pub plan: SealingPlan,
    /// Its storage paths for sealing, and which sectors may begin there.
    #[serde(default)]
    pub threads: Vec<ThreadState>,
    /// Its repo's own id: the same after every restart and at every address; `None` = it does not say.
    #[serde(default)]
    pub repo: Option<Uuid>,
}

/// A sealing thread: a storage path of a worker, and which sectors may begin there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadState {
    /// The path's directory.
    pub location: String,
    /// The path; `None` = none is open there.
    pub path: Option<StorageId>,
    /// Which sectors may begin there from now on.
    pub plan: SealingPlan,
    /// What is wrong with it, for people; empty: nothing.
    #[serde(default)]
    pub error: String,
}

/// The machine that a worker runs on. Workers with the same id share its memory, CPU threads and GPUs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MachineIdentity {
    /// Equal on one running kernel, or in one limited control group of it, and nowhere else: a digest; or what the
    /// operator said.
    pub id: String,
    /// For people, and for limits per machine: the host's name, or what the operator said.
    pub name: String,
}

/// A share of one GPU that a task was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuShare {
    /// The device's position in the worker's list of GPUs.
    pub device: usize,
    /// Thousandths of it.
    pub thousandths: u64,
}

/// One setting of the proofs libraries as a worker's executors get it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecutorSetting {
    /// The task whose executors it is for; `None` = all of them.
    pub task: Option<TaskType>,
    /// The environment variable, for example `FIL_PROOFS_USE_MULTICORE_SDR`.
    pub name: String,
    /// Its value.
    pub value: String,
    /// Where the value comes from, for people: `environment`, `default`, a file, a flag.
    #[serde(default)]
    pub origin: String,
}

/// A call that a worker holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldCall {
    /// The call's text form.
    pub call: String,
    /// The attempt, when the manager named one.
    pub attempt: Option<AttemptId>,
    /// Where it stands.
    pub phase: CallPhase,
    /// Its executor was killed and does not end: it hangs in the kernel. Nothing ends the call before that does.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lingering: bool,
}

/// Where a held call stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallPhase {
    /// Files are being brought.
    Acquiring,
    /// The executor runs.
    Running,
    /// The result waits to be taken.
    Returning,
}

/// Everything `workers list` and `storage list` show, in one answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ManagerOverview {
    /// The miner, as `f01000`.
    pub miner: String,
    /// The sector size.
    pub sector_size: Option<SectorSize>,
    /// Where tickets and seeds come from: `offline`.
    pub chain: String,
    /// The API's multiaddr as other machines reach it, where the manager was told (`--advertise`) or listens there.
    pub advertised: Option<String>,
    /// All workers.
    pub workers: Vec<WorkerView>,
    /// All storage paths.
    pub paths: Vec<PathView>,
    /// What is wrong and does not mend itself.
    pub alerts: Vec<AlertView>,
    /// How often that was looked for to the end since the manager started: what is found twice is an alert.
    pub audits: u64,
}

/// Something that an operator must look at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertView {
    /// What it is about: `sectors`, `workers`, `messages`, `manager`, `chain-not-held` or `chain-not-live`.
    pub system: String,
    /// Which of them: a sector's number, a worker's name, a miner's address, `overtaken`.
    pub subject: String,
    /// What is wrong.
    pub text: String,
    /// Since when, in Unix milliseconds.
    pub since_ms: u64,
}

/// One storage path for people.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PathView {
    /// Its id.
    pub id: StorageId,
    /// Names of the workers that serve it; `manager` for the manager itself.
    pub workers: Vec<String>,
    /// Its URLs.
    pub urls: Vec<String>,
    /// The directory, when it is on the manager's host.
    pub local: Option<String>,
    /// Weight.
    pub weight: u64,
    /// Sealing may use it.
    pub can_seal: bool,
    /// Finished sectors may live here.
    pub can_store: bool,
    /// Bytes: capacity, available, reserved.
    pub capacity: i64,
    /// Bytes free.
    pub available: i64,
    /// Bytes promised.
    pub reserved: i64,
    /// Its limit in bytes; 0 = none.
    pub max_storage: u64,
    /// Milliseconds since its last report.
    pub heartbeat_age_ms: u64,
    /// What is wrong with it.
    pub error: Option<String>,
    /// Files in it.
    pub files: Vec<FileView>,
}

/// One sector's files in one path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileView {
    /// The sector.
    pub sector: SectorId,
    /// Which files.
    pub types: FileTypes,
    /// Which of them are primary.
    pub primary: FileTypes,
}

/// One task for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobView {
    /// The attempt.
    pub attempt: AttemptId,
    /// The call, once a worker accepted it.
    pub call: Option<String>,
    /// The sector.
    pub sector: SectorId,
    /// The task; MoveStorage shows as `GET`.
    pub task: TaskType,
    /// `queued`, `dispatching`, `acquiring`, `running`, `done`, `failed`; `detached` = given up, but its worker may
    /// still have it.
    pub state: String,
    /// Why it waits or failed.
    #[serde(default)]
    pub reason: String,
    /// The worker's name, once bound.
    pub worker: Option<String>,
    /// Its session then: another worker may have the same name.
    #[serde(default)]
    pub session: Option<WorkerId>,
    /// Unix milliseconds.
    pub queued_ms: u64,
    /// Unix milliseconds; 0 = not yet.
    pub started_ms: u64,
    /// Unix milliseconds; 0 = not yet.
    pub ended_ms: u64,
    /// Bytes received over the network for it.
    pub bytes_fetched: u64,
    /// Larger goes first.
    #[serde(default)]
    pub priority: i64,
    /// Its sector is a rehearsal's: the task is only played.
    #[serde(default)]
    pub rehearsal: bool,
    /// What its worker is downloading for its sector now; `None` = nothing, or nobody tells.
    #[serde(default)]
    pub fetch: Option<FetchView>,
}

/// How far the downloads for a task are, all of its files together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FetchView {
    /// Files that come or wait.
    pub files: u64,
    /// Bytes that are here, those of earlier attempts included.
    pub bytes_done: u64,
    /// Bytes of all; 0 while that of one is not known.
    pub bytes_total: u64,
    /// Bytes per second over the last seconds.
    pub rate: u64,
    /// Seconds until all are here at that rate; `None` when that cannot be told.
    pub eta_s: Option<u64>,
}

/// One sector with everything known of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SectorDetail {
    /// The sector.
    pub sector: SectorId,
    /// Registered seal proof number.
    pub proof_type: i64,
    /// State name as Lotus's.
    pub state: String,
    /// Where ticket and seed came from: `offline`.
    pub chain: String,
    /// Hexadecimal.
    pub ticket: Option<String>,
    /// Epoch of the ticket.
    pub ticket_epoch: i64,
    /// Hexadecimal.
    pub seed: Option<String>,
    /// Epoch of the seed.
    pub seed_epoch: i64,
    /// CommD as a CID.
    pub comm_d: Option<String>,
    /// CommR as a CID.
    pub comm_r: Option<String>,
    /// SHA-256 of C1's output, hexadecimal.
    pub c1_sha256: Option<String>,
    /// The SNARK, hexadecimal.
    pub proof: Option<String>,
    /// Whether the SNARK was verified by a process that did not make it.
    pub verified: Option<bool>,
    /// It is a rehearsal's: nothing of it is real, and no chain will ever know it.
    #[serde(default)]
    pub rehearsal: bool,
    /// It is sealed again since its files were lost, or was.
    #[serde(default)]
    pub rebuilt: bool,
    /// It rests after PreCommit2 or Commit1, as it was pledged to, until `retry_sector` releases it.
    #[serde(default)]
    pub stopped: bool,
    /// Pieces: padded size and CommP.
    pub pieces: Vec<(u64, String)>,
    /// Data that was given for it, in the order it was given; the other pieces are zeros.
    #[serde(default)]
    pub data: Vec<DataView>,
    /// Every task so far, oldest first.
    pub tasks: Vec<JobView>,
    /// What happened: Unix milliseconds, kind, text.
    pub log: Vec<(u64, String, String)>,
    /// The CID of the message that pre-commits it, once it was sent.
    #[serde(default)]
    pub pre_commit_message: Option<String>,
    /// The CID of the message with its proof, once it was sent.
    #[serde(default)]
    pub commit_message: Option<String>,
    /// Proofs found invalid since the replica was last made or an operator's last retry; Lotus's `Retries`.
    #[serde(default)]
    pub invalid_proofs: u32,
    /// The last error.
    #[serde(default)]
    pub last_error: String,
    /// Copies of its files that are older than others and listed in no place, by path.
    #[serde(default)]
    pub older: Vec<OlderCopy>,
}

/// Data in a sector.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DataView {
    /// CommP as a CID.
    pub cid: String,
    /// Raw bytes that were given.
    pub bytes: u64,
    /// The piece's padded size.
    pub padded_size: u64,
    /// Its first raw byte in the sector: `sectors read-piece --offset`. `None`: it waits to be written.
    pub offset: Option<u64>,
}
