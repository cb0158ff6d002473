//! What happened: the events that are the durable truth. Never: how they look in rows (see `projection`).

use rpc::operator::WorkerMode;
use sealtasks::{
    ActorId, AttemptId, CallId, FileType, FileTypes, RegisteredSealProof, Reign, ScrubVerdict, SectorId,
    SectorRef, StorageId, TaskId, TaskType, UnsealedRange, WorkerId,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::control::{CapChanges, WorkerIdentity};

/// One thing that happened. Its serde form is the body of a row of table `event`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum StateEvent {
    /// A manager began its epoch.
    ManagerStarted {
        /// For people, for example `sealyard 0.1.0`.
        software: String,
    },
    /// A worker told of a manager that has taken over: this one decides nothing any more.
    Overtaken {
        /// Which.
        by: Reign,
    },
    /// A sector was pledged; its number is never given out again.
    SectorPledged {
        /// Which.
        sector: SectorRef,
        /// Its first state's name.
        state: String,
        /// The pipeline's record, as JSON.
        record: serde_json::Value,
    },
    /// The pipeline applied an event to a sector.
    SectorStepped {
        /// Which.
        sector: SectorId,
        /// The state it is in now.
        state: String,
        /// For people: what happened.
        text: String,
        /// The pipeline's event, as JSON.
        event: serde_json::Value,
        /// The record after it, as JSON. It follows from the events, so it stands in the sector's row alone.
        #[serde(skip)]
        record: serde_json::Value,
    },
    /// A task was given to the scheduler.
    TaskSubmitted {
        /// Its id, never used before.
        task: TaskId,
        /// The sector it is for.
        sector: SectorRef,
        /// As what it is scheduled.
        task_type: TaskType,
        /// The input's short code, for example `PC1`, `MOVE`.
        step: String,
    },
    /// A task came to its end; there are no more attempts.
    TaskEnded {
        /// Which.
        task: TaskId,
        /// How.
        outcome: TaskOutcome,
        /// Why, for people; empty when done.
        reason: String,
    },
    /// The scheduler bound an attempt to a worker; the worker has not been called yet.
    AttemptBound {
        /// Which.
        attempt: AttemptId,
        /// The worker's session.
        worker: WorkerId,
        /// The worker's name.
        name: String,
        /// Where it is called; empty for the manager's own.
        url: String,
        /// `sealyard`, `lotus` or `local`.
        peer: String,
        /// Space promised with the binding.
        reservations: Vec<ReservedSpace>,
    },
    /// After a restart an attempt was found with a worker, perhaps under a new session.
    AttemptAdopted {
        /// Which.
        attempt: AttemptId,
        /// The worker's session now.
        worker: WorkerId,
        /// The worker's name.
        name: String,
        /// Where it is called now.
        url: String,
    },
    /// A worker accepted a call for an attempt.
    CallAccepted {
        /// The attempt.
        attempt: AttemptId,
        /// The worker's id for the call.
        call: CallId,
        /// Which of the attempt's calls.
        stage: CallStage,
    },
    /// A call's result arrived and was taken.
    CallReturned {
        /// The attempt.
        attempt: AttemptId,
        /// The call.
        call: CallId,
        /// Which of the attempt's calls.
        stage: CallStage,
        /// The worker's error; `None` = it worked. The output stands in the sector's next step.
        error: Option<String>,
        /// How long the work took on the worker, in milliseconds; 0 = not told.
        work_ms: u64,
        /// Bytes received from other machines for this call.
        bytes_fetched: u64,
    },
    /// A result arrived for a call that nobody asked for as far as we know. It is kept, not refused.
    CallOrphaned {
        /// The call.
        call: CallId,
        /// The `Return…` method.
        method: String,
        /// Method and result, as JSON: `{"method": …, "result": {"Ok": …}}`.
        result: serde_json::Value,
    },
    /// An attempt ended; what it held is free.
    AttemptEnded {
        /// Which.
        attempt: AttemptId,
        /// How.
        outcome: AttemptOutcome,
        /// Why, for people; empty when done.
        reason: String,
    },
    /// An operator moves a sector: nothing else is begun with it.
    SectorHeld {
        /// Which.
        sector: SectorId,
        /// The files; none = all.
        types: FileTypes,
        /// The path that they go to.
        to: StorageId,
    },
    /// It goes on.
    SectorLetGo {
        /// Which.
        sector: SectorId,
        /// Why the files were not moved; empty when they were.
        reason: String,
    },
    /// The pipeline permits that the last copy of a file is deleted.
    DeletePermitted {
        /// Of which sector.
        sector: SectorId,
        /// Which file.
        file: FileType,
        /// On which path.
        path: StorageId,
        /// Why it is no longer needed.
        reason: String,
    },
    /// A copy of a file is older than what lies elsewhere: it is listed no more beside that.
    CopySuperseded {
        /// Of which sector.
        sector: SectorId,
        /// Which file.
        file: FileType,
        /// On which path.
        path: StorageId,
    },
    /// What lies there is no older copy any more: it was brought or made anew, or is gone.
    CopyCounts {
        /// Of which sector.
        sector: SectorId,
        /// Which file.
        file: FileType,
        /// On which path.
        path: StorageId,
    },
    /// An operator wants the space of unsealed data back, but for these ranges; the task is the one submitted for it.
    ReleaseAsked {
        /// The task.
        task: TaskId,
        /// What stays.
        keep: Vec<UnsealedRange>,
    },
    /// An operator removed a sector: its record stays, and nothing is done with it any more.
    SectorRemoved {
        /// Which.
        sector: SectorId,
        /// Who said so.
        by: String,
    },
    /// A stored file's commitment was computed again.
    FileScrubbed {
        /// Of which sector.
        sector: SectorId,
        /// Which file.
        file: FileType,
        /// On which path.
        path: StorageId,
        /// Who looked at it: a worker's name.
        host: String,
        /// What is to be thought of it.
        verdict: ScrubVerdict,
        /// What was found.
        detail: String,
    },
    /// A task worked, and took this long on its worker.
    DurationMeasured {
        /// The worker's name.
        worker: String,
        /// As what it was scheduled.
        task_type: TaskType,
        /// The proof, hence the size.
        proof: RegisteredSealProof,
        /// From the start of the work, its inputs being there, to the end; in milliseconds.
        millis: u64,
        /// The most memory that it had at a time, in bytes; 0 = not measured.
        #[serde(default)]
        peak_bytes: u64,
        /// Its processor time, in milliseconds; 0 = not measured.
        #[serde(default)]
        cpu_ms: u64,
    },
    /// A worker fetched files over the network.
    ThroughputMeasured {
        /// The worker's name.
        worker: String,
        /// Bytes received.
        bytes: u64,
        /// How long it took, in milliseconds.
        millis: u64,
    },
    /// An operator said what a worker may do.
    WorkerModeSet {
        /// Which worker.
        worker: WorkerIdentity,
        /// What it may do from now on.
        mode: WorkerMode,
        /// Who said so.
        by: String,
    },
    /// A worker has settings and an id of its own, by which it is known from now on at another address as well.
    WorkerRecognised {
        /// Its name, and where it is.
        worker: WorkerIdentity,
        /// Its repo's id.
        repo: Uuid,
        /// The name and address under which its settings were kept, if others.
        before: Option<WorkerIdentity>,
    },
    /// An operator set a worker's limits.
    WorkerCapsSet {
        /// Which worker.
        worker: WorkerIdentity,
        /// All that are set for it now.
        caps: CapChanges,
        /// Who said so.
        by: String,
    },
    /// An operator set the limits of all workers of a machine.
    MachineCapsSet {
        /// The machine's name.
        machine: String,
        /// All that are set for it now.
        caps: CapChanges,
        /// Who said so.
        by: String,
    },
    /// An operator set the priority of a sector's tasks.
    SectorPrioritySet {
        /// Which sector.
        sector: SectorId,
        /// Larger goes first.
        priority: i64,
        /// Who said so.
        by: String,
    },
    /// An operator set the priority of one task.
    TaskPrioritySet {
        /// Which task.
        task: TaskId,
        /// Larger goes first.
        priority: i64,
        /// Who said so.
        by: String,
    },
    /// A miner is served from now on, beside the first one.
    MinerAdded {
        /// Which.
        miner: ActorId,
        /// Who said so.
        by: String,
    },
    /// A miner of which there is nothing is served no longer.
    MinerRemoved {
        /// Which.
        miner: ActorId,
        /// Who said so.
        by: String,
    },
    /// An operator wants sectors pledged by the manager itself no longer, or again.
    PledgingPaused {
        /// No longer.
        paused: bool,
        /// Who said so.
        by: String,
    },
    /// An operator wants an attempt to end.
    AbortAsked {
        /// Which.
        attempt: AttemptId,
        /// Who said so.
        by: String,
    },
    /// An attempt was given up, but its Lotus worker cannot be told: it stays open until the worker is quiet. Its task ends
    /// by an event of its own.
    AttemptDetached {
        /// Which.
        attempt: AttemptId,
        /// For people: what is waited for.
        reason: String,
    },
}

/// How a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskOutcome {
    /// Its result was taken.
    Done,
    /// It failed; the pipeline decides what is next.
    Failed,
    /// Taken out by an operator.
    Cancelled,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptOutcome {
    /// Its result was taken.
    Done,
    /// Its worker reported a failure.
    Failed,
    /// The worker did not take it.
    StartFailed,
    /// The worker was lost, or somebody stopped it; the task goes on as a new attempt.
    Requeued,
    /// The worker ended while it had it, for all that is known because of it; the task goes on as a new attempt, but not
    /// for ever.
    Disowned,
    /// An operator stopped it.
    Aborted,
}

/// Which of an attempt's calls: bringing the inputs, or the task itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallStage {
    /// The `Fetch` before the task.
    Prepare,
    /// The task's own call.
    Work,
}

/// Bytes promised to an attempt on a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReservedSpace {
    /// The path.
    pub path: StorageId,
    /// For which files.
    pub types: FileTypes,
    /// How many bytes.
    pub bytes: u64,
}

macro_rules! words {
    ($type:ty { $($variant:ident = $word:literal,)* }) => {
        impl $type {
            /// The word in the rows.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }

            /// The value with this word.
            pub fn from_word(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

words! { TaskOutcome { Done = "done", Failed = "failed", Cancelled = "cancelled", } }
words! { CallStage { Prepare = "prepare", Work = "work", } }
words! {
    AttemptOutcome {
        Done = "done", Failed = "failed", StartFailed = "start_failed", Requeued = "requeued", Disowned = "disowned",
        Aborted = "aborted",
    }
}

/// What an event is about, for its row's columns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Subject {
    pub(super) sector: Option<SectorId>,
    pub(super) task: Option<TaskId>,
    pub(super) attempt: Option<u32>,
}

impl StateEvent {
    /// The word in column `kind`.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::ManagerStarted { .. } => "manager_started",
            Self::Overtaken { .. } => "overtaken",
            Self::SectorPledged { .. } => "sector_pledged",
            Self::SectorStepped { .. } => "sector_stepped",
            Self::TaskSubmitted { .. } => "task_submitted",
            Self::TaskEnded { .. } => "task_ended",
            Self::AttemptBound { .. } => "attempt_bound",
            Self::AttemptAdopted { .. } => "attempt_adopted",
            Self::CallAccepted { .. } => "call_accepted",
            Self::CallReturned { .. } => "call_returned",
            Self::CallOrphaned { .. } => "call_orphaned",
            Self::AttemptEnded { .. } => "attempt_ended",
            Self::SectorHeld { .. } => "sector_held",
            Self::SectorLetGo { .. } => "sector_let_go",
            Self::DeletePermitted { .. } => "delete_permitted",
            Self::CopySuperseded { .. } => "copy_superseded",
            Self::CopyCounts { .. } => "copy_counts",
            Self::ReleaseAsked { .. } => "release_asked",
            Self::SectorRemoved { .. } => "sector_removed",
            Self::FileScrubbed { .. } => "file_scrubbed",
            Self::DurationMeasured { .. } => "duration_measured",
            Self::ThroughputMeasured { .. } => "throughput_measured",
            Self::WorkerModeSet { .. } => "worker_mode_set",
            Self::WorkerRecognised { .. } => "worker_recognised",
            Self::WorkerCapsSet { .. } => "worker_caps_set",
            Self::MachineCapsSet { .. } => "machine_caps_set",
            Self::SectorPrioritySet { .. } => "sector_priority_set",
            Self::TaskPrioritySet { .. } => "task_priority_set",
            Self::MinerAdded { .. } => "miner_added",
            Self::MinerRemoved { .. } => "miner_removed",
            Self::PledgingPaused { .. } => "pledging_paused",
            Self::AbortAsked { .. } => "abort_asked",
            Self::AttemptDetached { .. } => "attempt_detached",
        }
    }

    pub(super) const fn subject(&self) -> Subject {
        let (sector, task, attempt) = match self {
            Self::ManagerStarted { .. }
            | Self::Overtaken { .. }
            | Self::DurationMeasured { .. }
            | Self::ThroughputMeasured { .. }
            | Self::WorkerModeSet { .. }
            | Self::WorkerRecognised { .. }
            | Self::WorkerCapsSet { .. }
            | Self::MachineCapsSet { .. }
            | Self::MinerAdded { .. }
            | Self::MinerRemoved { .. }
            | Self::PledgingPaused { .. } => (None, None, None),
            Self::SectorPledged { sector, .. } => (Some(sector.id), None, None),
            Self::SectorStepped { sector, .. }
            | Self::DeletePermitted { sector, .. }
            | Self::CopySuperseded { sector, .. }
            | Self::CopyCounts { sector, .. }
            | Self::SectorHeld { sector, .. }
            | Self::SectorLetGo { sector, .. }
            | Self::SectorRemoved { sector, .. }
            | Self::FileScrubbed { sector, .. }
            | Self::SectorPrioritySet { sector, .. } => (Some(*sector), None, None),
            Self::TaskSubmitted { task, sector, .. } => (Some(sector.id), Some(*task), None),
            Self::TaskEnded { task, .. }
            | Self::ReleaseAsked { task, .. }
            | Self::TaskPrioritySet { task, .. } => (None, Some(*task), None),
            Self::CallOrphaned { call, .. } => (Some(call.sector), None, None),
            Self::AttemptBound { attempt, .. }
            | Self::AttemptAdopted { attempt, .. }
            | Self::CallAccepted { attempt, .. }
            | Self::CallReturned { attempt, .. }
            | Self::AbortAsked { attempt, .. }
            | Self::AttemptDetached { attempt, .. }
            | Self::AttemptEnded { attempt, .. } => (None, Some(attempt.task), Some(attempt.attempt)),
        };
        Subject { sector, task, attempt }
    }
}
