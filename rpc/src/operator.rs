//! An operator's control over scheduling: which workers get work, how much of it at once, in what order, and what is to
//! stop. Methods named `Sealyard.*`, all for permission `admin`; shapes are ours, missing keys are defaults. Never: how
//! any of it is carried out.

use async_trait::async_trait;
use sealtasks::{AttemptId, CapSpec, TaskGroup, TaskId, TaskType, WorkerId};
use serde::{Deserialize, Serialize};

use crate::api::ApiResult;
use crate::sector_name::SectorName;
use crate::subject::Subject;

/// Longest text by which an operator names a worker, a machine or work, in bytes; beyond, it is refused.
pub const NAME_MAX: usize = 1024;

/// Most tasks named in [`WorkerRest::nowhere`]; there may be more.
pub const NOWHERE_MAX: usize = 100;

/// Asked of a manager by its operators. Workers are named as by [`is_meant`]. `by` says who asks, for the record.
#[async_trait]
pub trait OperatorApi: Send + Sync + 'static {
    /// What a worker may do from now on, also after restarts of either side. The answer says what is left on it. The
    /// error lists the known workers when none, or more than one, has that name.
    async fn set_worker_mode(&self, worker: String, mode: WorkerMode, by: String) -> ApiResult<WorkerRest>;
    /// What is left on a worker.
    async fn worker_rest(&self, worker: String) -> ApiResult<WorkerRest>;
    /// Changes limits of a worker or of a machine, now and durably; without changes only tells them.
    async fn change_caps(&self, target: CapsTarget, changes: Vec<CapSpec>, by: String)
    -> ApiResult<CapsView>;
    /// The priority of a sector's tasks, now and later, or of one task. Larger goes first.
    async fn set_priority(&self, what: Subject, priority: i64, by: String) -> ApiResult<PriorityView>;
    /// Takes a sector that nothing is being done with out of the pipeline, for good. Its record stays, and its files until
    /// they are cleaned up.
    async fn remove_sector(&self, sector: SectorName, removal: Removal, by: String) -> ApiResult<()>;
    /// Ends a task, an attempt or a call: its sector then waits for a retry. The answer says what becomes of what it
    /// holds.
    async fn abort(&self, what: Subject, by: String) -> ApiResult<AbortView>;
}

/// Which sectors may be removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Removal {
    /// One for which nothing is on chain, nor on its way there.
    #[default]
    UnlessOnChain,
    /// Any, and one that waits for its message or its seed: the operator takes the loss of its deposit, or its faults.
    AlthoughOnChain,
}

/// What an operator allows a worker. Whatever it is, the worker goes on to serve its files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkerMode {
    /// Everything.
    #[default]
    Open,
    /// No new sectors: only tasks of sectors that have a file there, or that need no file at all.
    Cordoned,
    /// Only what lives there alone is finished; files that others reach as well do not hold it.
    Draining,
    /// Nothing new.
    Disabled,
}

impl WorkerMode {
    /// The word in listings and in the durable state.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Cordoned => "cordoned",
            Self::Draining => "draining",
            Self::Disabled => "disabled",
        }
    }

    /// The mode with this word.
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Open, Self::Cordoned, Self::Draining, Self::Disabled]
            .into_iter()
            .find(|mode| mode.word() == word)
    }
}

/// What is left on a worker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WorkerRest {
    /// Its name.
    pub name: String,
    /// Where the manager reaches it; empty for its own.
    pub url: String,
    /// Its session; `None` = it is not connected, and what is set holds when it is back.
    pub session: Option<WorkerId>,
    /// What it may do.
    pub mode: WorkerMode,
    /// Tasks that it has, running first.
    pub tasks: Vec<RestTask>,
    /// Tasks that wait and that only it can do: their files are there.
    pub waiting: u64,
    /// Tasks that wait on files there, and that neither it nor any other worker can do as things are; `NOWHERE_MAX` at most.
    pub nowhere: Vec<TaskId>,
    /// Sectors with files there that go on by themselves, and whose next task is yet to come: they wait for a seed, for
    /// a retry.
    pub between_tasks: u64,
    /// When all that should be done, but for `between_tasks`, by estimates, in Unix milliseconds; `None` = nothing is
    /// left, or nobody can tell.
    pub expected_end_ms: Option<u64>,
}

impl WorkerRest {
    /// Whether nothing is left to be done there.
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty() && self.waiting == 0 && self.nowhere.is_empty() && self.between_tasks == 0
    }
}

/// Whether an operator who says this means this worker: by its name, its session, its URL, or its `host:port`. Who says nothing
/// means nobody, although a worker within the manager has no URL.
pub fn is_meant(said: &str, name: &str, url: &str, session: Option<WorkerId>) -> bool {
    let is_session = || session.is_some_and(|session| session.to_string() == said);
    !said.is_empty() && (name == said || url == said || host(url) == said || is_session())
}

/// `http://host:port/rpc/v0` without what is the same everywhere.
pub fn host(url: &str) -> &str {
    let url = url.split_once("://").map_or(url, |(_, rest)| rest);
    url.split('/').next().unwrap_or(url)
}

/// One task that a worker still has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestTask {
    /// The attempt.
    pub attempt: AttemptId,
    /// The sector.
    pub sector: SectorName,
    /// The task.
    pub task: TaskType,
    /// `running`, or `staged`: it is fetching its inputs, or waits for its slot.
    pub stage: String,
}

/// Whose limits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CapsTarget {
    /// A worker's; a machine's where no worker has this name.
    Worker(String),
    /// Those of all workers of a machine together.
    Machine(String),
}

/// Limits in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CapsView {
    /// The worker's or the machine's name.
    pub name: String,
    /// Whether it is a machine.
    pub machine: bool,
    /// The limits, by group.
    pub caps: Vec<CapView>,
}

/// One limit beside its use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapView {
    /// The tasks that count together.
    pub group: TaskGroup,
    /// How many run.
    pub running: u64,
    /// How many may; `None` = an operator lifted the limit.
    pub most: Option<u32>,
    /// Who set it: `operator`, `config.toml`, or `worker` (its own flags).
    pub origin: String,
    /// What was set for these tasks and has no effect, because the worker's own limit is lower.
    #[serde(default)]
    pub overruled: Option<Overruled>,
}

/// A limit that was set and that the worker's own overrules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overruled {
    /// How many tasks it would let run; `None` = it lifts the limit.
    pub most: Option<u32>,
    /// Who set it: `operator` or `config.toml`.
    pub origin: String,
}

/// A priority that was set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PriorityView {
    /// What it was set for, in words.
    pub subject: String,
    /// What it was.
    pub before: i64,
    /// What it is.
    pub priority: i64,
    /// Tasks that wait or run now and have it.
    pub tasks: u64,
}

/// What becomes of something that was aborted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AbortView {
    /// The attempt; of a task that waits, the one that would have been next.
    pub attempt: AttemptId,
    /// What it is, in words.
    pub subject: String,
    /// The worker's name, once bound.
    pub worker: Option<String>,
    /// What happens.
    pub outcome: AbortOutcome,
}

/// What an abort does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AbortOutcome {
    /// It waited and has left the queue.
    LeftQueue,
    /// It is being ended by its worker, which kills the executor; everything is freed when that has ended.
    Stopping,
    /// A Lotus worker cannot be told to stop: its result is no longer awaited, and what it holds stays charged until the
    /// worker returns it, or registers anew.
    Detached,
    /// Its worker does not answer: it has ended here and everything is free; the worker is told to stop when it is heard
    /// of again.
    Fenced,
}
