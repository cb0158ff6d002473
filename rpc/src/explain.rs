//! Why something does not go on, and what the scheduler holds: the answers of `Sealyard.Why` and `Sealyard.Schedule`.
//! Times are Unix milliseconds, 0 = none. Keys that the scheduler's own facts bring are named in its `Why` and
//! `Obstacle`; readers ignore those they do not know.

use std::collections::BTreeMap;

use sealtasks::{AttemptId, SectorId, TaskId, TaskType, WorkerId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::extension::JobView;

/// Why a sector, or a piece of its work, is where it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// What was asked about, as it was asked.
    pub asked: String,
    /// The sector that it comes down to.
    pub sector: SectorId,
    /// The sector's state, as Lotus names it.
    pub sector_state: String,
    /// The manager's time when it answered.
    pub now_ms: u64,
    /// What is waited for.
    pub waits_for: WaitsFor,
    /// The same in one sentence, with names and numbers.
    pub summary: String,
    /// Since when its task is wanted, when it is due, how long it takes, what goes before it and when it may start, in
    /// words; empty where it has no waiting task.
    #[serde(default)]
    pub prospects: String,
    /// What would change it, where somebody can; else empty.
    #[serde(default)]
    pub change: String,
    /// When it goes on by itself, where that is known.
    #[serde(default)]
    pub until_ms: u64,
    /// The last failure of the step that the sector is at; else empty.
    #[serde(default)]
    pub last_error: String,
    /// The attempt or task that was asked about, if it is over.
    #[serde(default)]
    pub ended: Option<JobView>,
    /// The sector's task, while it has one.
    #[serde(default)]
    pub task: Option<TaskFacts>,
    /// The message that waits for the operator's leave to be sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<Box<UnsentMessage>>,
}

/// A message as it would be sent, as far as it is known before a node signs it: `To`, `From`, `Value`, `Method` and `Params` of
/// Lotus's message, and `MethodName` and `MaxFee`. Nonce and gas are the node's to choose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct UnsentMessage {
    /// Whose actor is called.
    pub to: String,
    /// Who signs and pays: the address of a key.
    pub from: String,
    /// What is sent along, in attoFIL.
    pub value: String,
    /// What is called, by number.
    pub method: u64,
    /// The same by name.
    pub method_name: String,
    /// Its parameters, in base64.
    pub params: String,
    /// The most that its gas may cost, in attoFIL.
    pub max_fee: String,
}

/// What is waited for. The words never change their meaning; new ones may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WaitsFor {
    /// A worker for its task.
    Worker,
    /// Files of the sector that other tasks have locked.
    Lock,
    /// A time before which its task is not tried again.
    Delay,
    /// The worker that is kept for its task.
    Reserved,
    /// A slot on the worker that has, or fetches, its task's inputs.
    Slot,
    /// The end of its task, which runs.
    Running,
    /// A worker that has its task and is not heard of.
    SilentWorker,
    /// Ticket, seed, verification or the deletion of a file, asked for already.
    Answer,
    /// The end of a back-off after a failure.
    BackOff,
    /// The index to learn where a file is.
    File,
    /// An operator.
    Operator,
    /// Nothing: it was to stop here.
    Stopped,
    /// Nothing: it is done.
    Nothing,
}

/// A sector's task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskFacts {
    /// Its id; `task:<id>` asks about it.
    pub task: TaskId,
    /// As what it is scheduled.
    pub kind: TaskType,
    /// The input's short code: tells `MOVE` from `GET`.
    pub step: String,
    /// Its attempt, or the next one.
    pub attempt: AttemptId,
    /// The attempt's call, once a worker has accepted one.
    pub call: Option<String>,
    /// The worker that has it.
    pub worker: Option<String>,
    /// Larger goes first.
    pub priority: i64,
    /// Since when it has been wanted.
    pub queued_ms: u64,
    /// When the worker took the present call.
    pub started_ms: u64,
    /// When it must be done to be of use.
    pub deadline_ms: u64,
    /// The scheduler's facts: its `Why` without the workers.
    pub scheduler: Map<String, Value>,
    /// Every worker with what is in the way there; empty once it is bound.
    pub workers: Vec<WorkerObstacles>,
}

/// What is in the way of a task on one worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerObstacles {
    /// The worker's name.
    pub name: String,
    /// Where the manager reaches it; empty for its own.
    pub url: String,
    /// Its session.
    pub session: WorkerId,
    /// In the order of the checks; empty: it could start there but for what the task itself waits for.
    pub obstacles: Vec<ObstacleView>,
}

/// One thing in the way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ObstacleView {
    /// Which check failed, as `obstacle`, and its numbers.
    #[serde(flatten)]
    pub facts: Map<String, Value>,
    /// The same in words.
    pub text: String,
    /// What would change it.
    pub change: String,
}

/// What the scheduler holds, for people: `SealingSchedDiag` without its riddles.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// The manager's time when it answered.
    pub now_ms: u64,
    /// Tasks by where they are: `queued`, `locked`, `delayed`, `reserved`, `staged`, `running`.
    pub counts: BTreeMap<String, u64>,
    /// Tasks without a worker: those for which one is kept, then the queue in its order, then those that wait for a lock
    /// or a time.
    pub queue: Vec<QueuedView>,
    /// How many more there are.
    pub left_off: u64,
    /// Every worker with what it holds, by name.
    pub workers: Vec<WorkerHolds>,
    /// Places kept for tasks that have waited long.
    pub reservations: Vec<ReservationView>,
}

/// One task without a worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueuedView {
    /// Its place in the whole list, from 1.
    pub place: u64,
    /// The task.
    pub task: TaskId,
    /// As what it is scheduled.
    pub kind: TaskType,
    /// Its sector.
    pub sector: SectorId,
    /// Larger goes first.
    pub priority: i64,
    /// Since when it has been wanted.
    pub queued_ms: u64,
    /// When it must be done to be of use.
    pub deadline_ms: u64,
    /// Whether it goes before everything that is not.
    pub is_due: bool,
    /// The name of the worker that is kept for it.
    pub reserved: Option<String>,
    /// What it waits for, in a few words; empty where too many tasks were listed to ask for each.
    pub reason: String,
}

/// What one worker holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerHolds {
    /// Its name.
    pub name: String,
    /// Where the manager reaches it; empty for its own.
    pub url: String,
    /// Its session.
    pub session: WorkerId,
    /// Tasks with a slot.
    pub running: Vec<HeldView>,
    /// Tasks without one, whose inputs are there or on their way.
    pub staged: Vec<HeldView>,
}

/// One task on a worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeldView {
    /// The attempt.
    pub attempt: AttemptId,
    /// As what it is scheduled.
    pub kind: TaskType,
    /// Its sector.
    pub sector: SectorId,
    /// When it was bound.
    pub bound_ms: u64,
}

/// One place that is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReservationView {
    /// The task.
    pub task: TaskId,
    /// As what it is scheduled.
    pub kind: TaskType,
    /// Its sector.
    pub sector: SectorId,
    /// The name of the worker.
    pub worker: String,
    /// When it was made.
    pub made_ms: u64,
    /// When the task is expected to start there at the latest, unless something runs longer than estimated.
    pub start_by_ms: u64,
    /// What has to end before, by type and sector.
    pub waits_for: Vec<String>,
}
