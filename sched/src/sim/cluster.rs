//! What is simulated: machines with their disks and speeds, and the sectors that go through them. Plain values.

use std::collections::BTreeMap;

use sealtasks::{FileType, SealingPurpose, SectorRef, StorageId, TaskType, WorkerId};
use uuid::Uuid;

use super::shape::Shape;
use crate::{GroupCap, Millis, PathFacts, WorkerKey, WorkerProfile};

/// The machines.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cluster {
    /// The workers; everything else names one by its position here.
    pub workers: Vec<SimWorker>,
    /// The storage paths, each id once. Who reaches which stands in the workers' profiles.
    pub paths: Vec<SimPath>,
    /// Limits that all workers of one machine keep together, by the machine's name.
    pub machine_caps: BTreeMap<String, Vec<GroupCap>>,
}

/// One worker.
#[derive(Clone, Debug, PartialEq)]
pub struct SimWorker {
    /// What the scheduler is told of it.
    pub profile: WorkerProfile,
    /// Bytes per second at which it really fetches, one file after the other; 0: no time passes.
    pub bandwidth: u64,
    /// How fast it works.
    pub speed: Speed,
}

/// How fast a worker works, in thousandths of the speed that a stage's work is stated for: 2000 is twice as fast.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Speed {
    /// Of every task type that is not named below. 0 counts as 1.
    pub usual: u32,
    /// Of single task types.
    pub by_task: BTreeMap<TaskType, u32>,
}

impl Default for Speed {
    fn default() -> Self {
        Self { usual: Self::NOMINAL, by_task: BTreeMap::new() }
    }
}

impl Speed {
    /// The speed for which work is stated.
    pub const NOMINAL: u32 = 1000;

    /// How long this much work of a type takes, at least one millisecond.
    pub fn time(&self, task: TaskType, work: Millis) -> Millis {
        let speed = self.by_task.get(&task).copied().unwrap_or(self.usual).max(1);
        let millis = u128::from(work.get()) * u128::from(Self::NOMINAL) / u128::from(speed);
        Millis::new(u64::try_from(millis).unwrap_or(u64::MAX).max(1))
    }
}

/// One storage path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SimPath {
    /// What it is for. `available` and `covers` are computed from what lies there.
    pub facts: PathFacts,
    /// Bytes that it holds when it is empty.
    pub capacity: u64,
}

/// The sectors.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Workload {
    /// What is to be done, in the order in which it begins where `open_max` decides.
    pub jobs: Vec<Job>,
    /// At most so many jobs are under way at once; a job whose time has come waits for its turn.
    pub open_max: Option<usize>,
}

/// Stages that follow each other, of one sector. A job of one stage is a single task.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// The sector. Several jobs may work on one; their locks then exclude each other.
    pub sector: SectorRef,
    /// When its first stage may be submitted.
    pub release: Millis,
    /// For what it is sealed, where plans have a say.
    pub purpose: Option<SealingPurpose>,
    /// The priority of all its tasks.
    pub priority: i64,
    /// How long each task may wait before it is due; `None`: the scheduler's own limit.
    pub wait_limit: Option<Millis>,
    /// When all its tasks have to be done to be of use.
    pub deadline: Option<Millis>,
    /// Files of the sector that lie somewhere from the beginning.
    pub files: Vec<(FileType, StorageId)>,
    /// At least one.
    pub stages: Vec<JobStage>,
}

/// One stage of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobStage {
    /// What it asks for.
    pub shape: Shape,
    /// How long it takes at nominal speed, once its files are there.
    pub work: Millis,
    /// How long after the end of the stage before it can be submitted (WaitSeed: 150 epochs before Commit1).
    pub gap: Millis,
}

/// The key of a worker by its position in the cluster, in its first life.
pub const fn worker_key(worker: usize) -> WorkerKey {
    // 0 means a closed session on Lotus's wire.
    WorkerKey { session: WorkerId(Uuid::from_u128(worker as u128 + 1)), generation: 0 }
}
