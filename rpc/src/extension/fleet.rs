//! Workers for people, with their sealing threads and how long tasks took there.

use std::collections::{BTreeMap, BTreeSet};

use sealtasks::{SealingPlan, SectorId, SectorSize, StorageId, TaskType, WorkerId};
use serde::{Deserialize, Serialize};

use crate::operator::{CapView, WorkerMode};

/// One worker for people.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerView {
    /// Session.
    pub session: WorkerId,
    /// Name.
    pub name: String,
    /// Where the manager reaches it; empty for its own.
    pub url: String,
    /// `sealyard`, `lotus` or `local`.
    pub kind: String,
    /// Whether it takes tasks.
    pub enabled: bool,
    /// `live`, `suspect`, `lost` or `forgotten`.
    pub state: String,
    /// For how long nothing was heard of it, in milliseconds; 0 = it answers.
    #[serde(default)]
    pub silent_ms: u64,
    /// What it becomes if that goes on, and in how many milliseconds.
    #[serde(default)]
    pub next_state: Option<(String, u64)>,
    /// Tasks it takes.
    pub tasks: BTreeSet<TaskType>,
    /// Tasks it will take later, and why not yet.
    pub pending: BTreeMap<TaskType, String>,
    /// Running and staged tasks by short code.
    pub running: BTreeMap<String, u64>,
    /// The most at once by short code, where limited.
    pub limits: BTreeMap<String, u64>,
    /// CPU threads charged and there.
    pub cpu: (u64, u64),
    /// RAM in bytes: charged, used by others, there.
    pub ram: (u64, u64, u64),
    /// RAM and swap in bytes: charged, used by others, there.
    pub vmem: (u64, u64, u64),
    /// GPUs charged.
    pub gpu_used: f64,
    /// Names of its GPUs.
    pub gpus: Vec<String>,
    /// What an operator allows it.
    #[serde(default)]
    pub mode: WorkerMode,
    /// Who set that, and when in Unix milliseconds; `None` = nobody did.
    #[serde(default)]
    pub mode_set: Option<(String, u64)>,
    /// Its limits.
    #[serde(default)]
    pub caps: Vec<CapView>,
    /// The machine whose resources it shares; `None` = it is alone, or does not say.
    #[serde(default)]
    pub machine: Option<String>,
    /// The limits of all workers of that machine together.
    #[serde(default)]
    pub machine_caps: Vec<CapView>,
    /// How long tasks took on workers of this name.
    #[serde(default)]
    pub durations: Vec<DurationView>,
    /// The rate at which one fetch of such a worker got its files; 0 = not measured.
    #[serde(default)]
    pub fetches_bytes_per_second: u64,
    /// Which sectors it takes where no thread says otherwise.
    #[serde(default)]
    pub plan: SealingPlan,
    /// Its sealing threads.
    #[serde(default)]
    pub threads: Vec<ThreadView>,
    /// The storage paths that it serves.
    #[serde(default)]
    pub paths: Vec<StorageId>,
}

/// One sealing thread for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadView {
    /// Counted from 1 among the threads of its worker.
    pub index: usize,
    /// The path's directory.
    pub location: String,
    /// The path; `None` = none is open there.
    pub path: Option<StorageId>,
    /// The plan under which the sectors that are there began.
    pub plan: SealingPlan,
    /// The plan for the next sector, where it is another one.
    pub pending: Option<SealingPlan>,
    /// The sectors that are being sealed there.
    pub sectors: Vec<SectorId>,
    /// Nothing new begins there.
    pub paused: bool,
    /// `idle`, `sealing`, `paused`, or `closed`: no path is open there.
    pub state: String,
    /// What is wrong with it; empty: nothing.
    pub last_error: String,
}

/// How long tasks of one type and size took on workers of one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DurationView {
    /// The type.
    pub task: TaskType,
    /// The sectors' size.
    pub size: SectorSize,
    /// How many were measured.
    pub count: u64,
    /// Moving mean over the last few, in milliseconds.
    pub mean_ms: u64,
    /// The latest, in milliseconds.
    pub last_ms: u64,
    /// The most memory that any of them had at a time, mapped files included (bytes); 0 = not measured.
    #[serde(default)]
    pub peak_bytes: u64,
    /// Processor time of the latest (milliseconds); 0 = not measured.
    #[serde(default)]
    pub cpu_ms: u64,
}
