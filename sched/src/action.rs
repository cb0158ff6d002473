//! What the scheduler wants done. The driver commits and carries out each action in the order it comes.

use sealtasks::{AcquireMode, AttemptId, FileType, SectorRef, StorageId, TaskId, TaskType};
use serde::Serialize;

use crate::{Millis, WorkerKey};

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum Action {
    /// Run this attempt there; its slot is charged from now on. What `plan.fetch` names is fetched first.
    Start(Assignment),
    /// Fetch this attempt's inputs there while the slot is still busy. Answer with `StageDone`; `Run` comes later.
    Stage(Assignment),
    /// A staged attempt's slot is free: run it. Its files are where its `Stage` plan put them.
    Run {
        /// The attempt.
        attempt: AttemptId,
        /// Where it was staged.
        worker: WorkerKey,
        /// The share of each GPU that is now its own.
        gpus: Vec<GpuShare>,
        /// CPU threads that are now its own.
        threads: u64,
    },
    /// Give up this staging: another worker could start the task now. Answer with `Ended { outcome: Unstaged }`.
    Unstage {
        /// The attempt.
        attempt: AttemptId,
        /// Where it was staged.
        worker: WorkerKey,
    },
    /// The task was cancelled: stop this attempt. Answer with `Ended`.
    Abort {
        /// The attempt.
        attempt: AttemptId,
        /// Where it is bound.
        worker: WorkerKey,
    },
    /// The task is no longer here.
    Left {
        /// The task.
        task: TaskId,
        /// How it left.
        end: End,
    },
    /// An event made no sense and changed nothing. Worth a line in the log.
    Refused {
        /// Why.
        refusal: Refusal,
    },
    /// Send `Tick` at this instant, unless another event comes then anyway. The latest one holds.
    WakeAt {
        /// When.
        at: Millis,
    },
}

/// Where one attempt goes and with what.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Assignment {
    /// The attempt.
    pub attempt: AttemptId,
    /// Where.
    pub worker: WorkerKey,
    /// What.
    pub task: TaskType,
    /// The sector.
    pub sector: SectorRef,
    /// Its files, room and devices.
    pub plan: Plan,
}

/// Which files come from where, which paths were promised, and which devices.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// Inputs that the worker does not reach yet.
    pub fetch: Vec<FetchStep>,
    /// Room for new files.
    pub allocate: Vec<AllocateStep>,
    /// The share of each GPU; empty while staging and where the CPU does the work.
    pub gpus: Vec<GpuShare>,
    /// CPU threads; 0 while staging.
    pub threads: u64,
}

impl Plan {
    /// Bytes that must be moved before the task can run.
    pub fn fetch_bytes(&self) -> u64 {
        self.fetch.iter().fold(0, |sum, step| step.bytes.saturating_add(sum))
    }
}

/// One input to fetch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FetchStep {
    /// Which file.
    pub kind: FileType,
    /// The paths that hold it.
    pub from: Vec<StorageId>,
    /// The path whose room is promised for it.
    pub to: StorageId,
    /// How many bytes.
    pub bytes: u64,
    /// What becomes of the source.
    pub mode: AcquireMode,
}

/// Room for one new file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AllocateStep {
    /// Which file.
    pub kind: FileType,
    /// Where.
    pub path: StorageId,
    /// How many bytes.
    pub bytes: u64,
}

/// A share of one GPU. A task that asks for 1.5 GPUs gets a whole device and half of another one, never three parts; two
/// tasks that share a device ask for no more than all of it, whichever of its machine's workers they run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct GpuShare {
    /// The position of the device in the worker's own list, for example what `CUDA_VISIBLE_DEVICES` counts by.
    pub device: usize,
    /// Thousandths of it.
    pub thousandths: u64,
}

/// How a task left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// Its last attempt finished.
    Finished,
    /// Its last attempt failed for good.
    Failed,
    /// It was cancelled.
    Cancelled,
}

/// Why an event changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// Submitted twice.
    #[error("task {task} is already here; cancel it first or use another id")]
    TaskKnown {
        /// The task.
        task: TaskId,
    },
    /// The bound on waiting and running tasks.
    #[error(
        "task {task} is one too many: at most {most} tasks are kept; submit it again when some have left"
    )]
    TasksFull {
        /// The task.
        task: TaskId,
        /// The bound.
        most: usize,
    },
    /// Names a task that is not here.
    #[error("task {task} is not here")]
    TaskUnknown {
        /// The task.
        task: TaskId,
    },
    /// No more attempts can be numbered.
    #[error("task {task} has made {attempts} attempts and can make no more; submit it under a new id")]
    AttemptsSpent {
        /// The task.
        task: TaskId,
        /// How many.
        attempts: u32,
    },
    /// Names an attempt that is not bound: superseded, already over, or never made.
    #[error("attempt {attempt} is not bound; its {event} is dropped")]
    AttemptUnknown {
        /// The attempt.
        attempt: AttemptId,
        /// Which event.
        event: &'static str,
    },
    /// Adopts a task that has another live attempt.
    #[error("attempt {attempt} can't be adopted: attempt {bound} of the task is bound; end that one first")]
    AttemptBound {
        /// The attempt to adopt.
        attempt: AttemptId,
        /// The one that is bound.
        bound: AttemptId,
    },
    /// Registered twice.
    #[error("worker {worker} is already here; raise its generation or send a change")]
    WorkerKnown {
        /// The worker.
        worker: WorkerKey,
    },
    /// Names a worker that is not here.
    #[error("worker {worker} is not here; it has to register first")]
    WorkerUnknown {
        /// The worker.
        worker: WorkerKey,
    },
    /// A later life of the worker is here.
    #[error("worker {worker} was succeeded by {by}; raise its generation above that")]
    WorkerSuperseded {
        /// The worker.
        worker: WorkerKey,
        /// Its later life.
        by: WorkerKey,
    },
    /// The bound on group caps of one worker or machine.
    #[error("{owner} has {found} group caps; at most {most} are kept")]
    GroupCapsFull {
        /// The host or the machine.
        owner: String,
        /// How many.
        found: usize,
        /// The bound.
        most: usize,
    },
    /// The bound on machines with caps.
    #[error("machine {machine} is one too many: at most {most} are known; remove the caps of others first")]
    MachinesFull {
        /// The machine.
        machine: String,
        /// The bound.
        most: usize,
    },
    /// The bound on storage paths.
    #[error("storage path {path} is one too many: at most {most} are known")]
    PathsFull {
        /// The path.
        path: StorageId,
        /// The bound.
        most: usize,
    },
}
