//! The whole state at one instant, for diagnostics and for tests that recount it.

use sealtasks::{AttemptId, FileTypes, SealTaskType, SectorRef, StorageId, TaskId, TaskType};

use crate::machine::Machine;
use crate::task::{Phase, State};
use crate::{GpuShare, GroupCap, Millis, PathBytes, Sched, WorkerKey, WorkerMode};

/// Everything that waits, runs and is held. Values, detached from the scheduler.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// The scheduler's time.
    pub now: Millis,
    /// Tasks ready for a worker, in queue order.
    pub queue: Vec<QueuedTask>,
    /// Tasks that wait for something else: locks, a time, the worker kept for them. In the order of their ids.
    pub waiting: Vec<QueuedTask>,
    /// Bound tasks, in the order of their ids.
    pub bound: Vec<BoundTask>,
    /// Workers, in the order of their keys.
    pub workers: Vec<WorkerUse>,
    /// Machines that workers name or that have limits, in the order of their names.
    pub machines: Vec<MachineUse>,
    /// Storage paths that are known.
    pub paths: Vec<PathUse>,
    /// Who holds which worker, in the order of the tasks' ids.
    pub reservations: Vec<ReservationUse>,
}

/// One task without a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueuedTask {
    /// The task.
    pub task: TaskId,
    /// Its sector.
    pub sector: SectorRef,
    /// Its type.
    pub kind: TaskType,
    /// Its priority.
    pub priority: i64,
    /// Since when it has been wanted.
    pub since: Millis,
    /// Whether it has waited past its limit.
    pub is_due: bool,
    /// The worker kept for it.
    pub reserved: Option<WorkerKey>,
}

/// One task on a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundTask {
    /// The attempt.
    pub attempt: AttemptId,
    /// Where.
    pub worker: WorkerKey,
    /// Its sector.
    pub sector: SectorRef,
    /// Its type.
    pub kind: TaskType,
    /// How far it is.
    pub stage: Stage,
    /// Whether the worker has said that it has it.
    pub accepted: bool,
    /// The shares of GPUs that it holds; while staged, of the room kept for staging.
    pub gpus: Vec<GpuShare>,
    /// The files that it locks for reading.
    pub locks_read: FileTypes,
    /// The files that it locks for writing.
    pub locks_write: FileTypes,
    /// Room that is promised to it and not yet in a path's own report.
    pub space: Vec<PathBytes>,
}

/// How far a bound task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Its inputs are being fetched; no slot.
    Fetching,
    /// Its inputs are there; no slot.
    Fetched,
    /// Its staging was called off; no slot.
    Unstaging,
    /// It has a slot.
    Running,
}

/// What is charged to one worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerUse {
    /// The worker.
    pub worker: WorkerKey,
    /// Its host.
    pub host: String,
    /// Whether it says itself that it takes tasks.
    pub enabled: bool,
    /// What an operator allows it.
    pub mode: WorkerMode,
    /// Whether it was not heard of for a while.
    pub suspect: bool,
    /// Whether it is gone and waits for its attempts to end.
    pub lost: bool,
    /// RAM charged, in bytes.
    pub mem_used_min: u128,
    /// RAM and swap charged, in bytes.
    pub mem_used_max: u128,
    /// CPU threads charged.
    pub cpu_use: u128,
    /// Thousandths charged of each GPU.
    pub gpu_used: Vec<u64>,
    /// Tasks with a slot.
    pub task_counts: Vec<(SealTaskType, u64)>,
    /// Tasks staged.
    pub staged_counts: Vec<(SealTaskType, u64)>,
    /// Lotus's utilization in millionths.
    pub utilization: u64,
    /// The task that it is kept for.
    pub reserved_for: Option<TaskId>,
    /// The machine that it says it runs on.
    pub machine: Option<String>,
    /// Its own limits on groups of types, and how far they are used.
    pub caps: Vec<CapUse>,
}

/// What is charged to all workers of one machine together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineUse {
    /// The machine.
    pub machine: String,
    /// Its workers in the order of their keys, lost ones with attempts included.
    pub workers: Vec<WorkerKey>,
    /// RAM charged, in bytes.
    pub mem_used_min: u128,
    /// RAM and swap charged, in bytes.
    pub mem_used_max: u128,
    /// CPU threads charged.
    pub cpu_use: u128,
    /// Thousandths charged of each device.
    pub gpu_used: Vec<u64>,
    /// Its limits and how far they are used.
    pub caps: Vec<CapUse>,
}

/// A limit on a group of types, and how many of them run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CapUse {
    /// The limit's name.
    pub name: String,
    /// How many run.
    pub running: u64,
    /// How many may. Fewer than run when it was lowered meanwhile.
    pub most: u64,
}

/// A worker that is kept for a task which is due.
///
/// The task starts no later than `start_by` or, where something of `waits_for` runs longer than estimated, when the last
/// of it has ended: what is then left on the worker always fits beside it. While the task, worker and `made_at` are the
/// same, `start_by` stays the same too; and after `start_by` nothing joins `waits_for` but tasks that hold neither threads
/// nor devices, and those only while something that does is still in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReservationUse {
    /// The task.
    pub task: TaskId,
    /// The worker that is kept for it.
    pub worker: WorkerKey,
    /// When the reservation was made, or made anew because facts turned against it.
    pub made_at: Millis,
    /// When the task is expected to start at the latest.
    pub start_by: Millis,
    /// What has to end before: what ran there, and what has passed it since. Its own attempt, while its files are being
    /// fetched or its staging is being given up.
    pub waits_for: Vec<AttemptId>,
    /// Room that is kept for its files.
    pub space: Vec<PathBytes>,
}

/// How much of a path is promised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathUse {
    /// The path.
    pub path: StorageId,
    /// Bytes free as its owner last reported, less what ended attempts may have written since.
    pub available: i64,
    /// Bytes promised to attempts and not yet in its report.
    pub promised: u128,
    /// Bytes kept for tasks that hold a reservation.
    pub kept: u128,
}

impl Sched {
    /// The state as it is now. Costs a pass over everything and a sort of the queue.
    pub fn snapshot(&self) -> Snapshot {
        let tasks = self.tasks.sorted();
        Snapshot {
            now: self.now,
            queue: self.queue.ready().into_iter().map(|key| self.queued(&self.tasks[&key.task])).collect(),
            waiting: tasks
                .iter()
                .filter(|task| match task.state {
                    State::Idle | State::Locked | State::Delayed(_) | State::Reserved(_) => true,
                    State::Ready | State::Bound(_) => false,
                })
                .map(|task| self.queued(task))
                .collect(),
            bound: tasks.iter().filter_map(|task| self.bound_task(task)).collect(),
            workers: self.worker_uses(),
            machines: self.machines.iter().map(|machine| self.machine_use(machine)).collect(),
            paths: self.paths.iter().filter_map(path_use).collect(),
            reservations: self
                .reservations
                .iter()
                .filter_map(|(id, slot)| self.reservation_use(*id, self.workers.get(*slot)))
                .collect(),
        }
    }

    /// What runs on every worker, in the order of their keys. Costs a pass over the workers, whatever waits.
    pub fn worker_uses(&self) -> Vec<WorkerUse> {
        self.workers.iter().map(|(slot, worker)| self.worker_use(slot, worker)).collect()
    }

    fn queued(&self, task: &crate::task::Task) -> QueuedTask {
        QueuedTask {
            task: task.id,
            sector: task.sector,
            kind: task.kind,
            priority: task.priority,
            since: task.since,
            is_due: task.is_due,
            reserved: self.reservations.get(&task.id).map(|slot| self.workers.get(*slot).key),
        }
    }

    fn reservation_use(&self, task: TaskId, worker: &crate::worker::Worker) -> Option<ReservationUse> {
        let kept = worker.reservation.as_ref()?;
        let named =
            |(path, bytes): &(_, u64)| PathBytes { path: self.paths.get(*path).id().clone(), bytes: *bytes };
        Some(ReservationUse {
            task,
            worker: worker.key,
            made_at: kept.made_at,
            start_by: kept.start_by,
            waits_for: kept.waits_for.iter().copied().collect(),
            space: kept.room.iter().map(named).collect(),
        })
    }

    fn bound_task(&self, task: &crate::task::Task) -> Option<BoundTask> {
        let binding = task.binding()?;
        let locks = binding.locks.locks();
        let space = binding.space.parts();
        Some(BoundTask {
            attempt: binding.attempt,
            worker: self.workers.get(binding.worker).key,
            sector: task.sector,
            kind: task.kind,
            stage: match binding.phase {
                Phase::Fetching => Stage::Fetching,
                Phase::Fetched => Stage::Fetched,
                Phase::Unstaging => Stage::Unstaging,
                Phase::Running => Stage::Running,
            },
            accepted: binding.accepted,
            gpus: binding.charge.gpus().to_vec(),
            locks_read: locks.read,
            locks_write: locks.write,
            space: space
                .map(|(path, bytes)| PathBytes { path: self.paths.get(path).id().clone(), bytes })
                .collect(),
        })
    }

    fn worker_use(&self, slot: usize, worker: &crate::worker::Worker) -> WorkerUse {
        WorkerUse {
            worker: worker.key,
            host: worker.profile.host.clone(),
            enabled: worker.enabled,
            mode: worker.mode,
            suspect: worker.suspect,
            lost: worker.lost,
            mem_used_min: worker.running.memory_min(),
            mem_used_max: worker.running.memory_max(),
            cpu_use: worker.running.threads(),
            gpu_used: (0..worker.capacity.gpus)
                .map(|device| worker.running.gpus().get(device).copied().unwrap_or(0))
                .collect(),
            task_counts: worker.running.counts().collect(),
            staged_counts: worker.staged.counts().collect(),
            utilization: worker.running.utilization(&worker.capacity),
            reserved_for: worker.reservation.as_ref().map(|reservation| reservation.task),
            machine: worker.profile.machine.clone(),
            caps: worker.profile.group_caps.iter().map(|cap| self.cap_use(&[slot], cap)).collect(),
        }
    }

    fn machine_use(&self, machine: &Machine) -> MachineUse {
        let load = machine.load();
        let members: Vec<usize> = machine.members.iter().copied().collect();
        let mut workers: Vec<_> = members.iter().map(|slot| self.workers.get(*slot).key).collect();
        workers.sort_unstable();
        MachineUse {
            machine: machine.name.clone(),
            workers,
            mem_used_min: load.memory_min,
            mem_used_max: load.memory_max,
            cpu_use: load.threads,
            gpu_used: load.gpus.clone(),
            caps: machine.caps.iter().map(|cap| self.cap_use(&members, cap)).collect(),
        }
    }

    fn cap_use(&self, slots: &[usize], cap: &GroupCap) -> CapUse {
        let counts =
            slots.iter().map(|slot| self.workers.get(*slot).running.count(|task| cap.tasks.contains(&task)));
        CapUse { name: cap.name.clone(), running: counts.sum(), most: cap.most.into() }
    }
}

fn path_use(path: &crate::space::Path) -> Option<PathUse> {
    let facts = path.facts()?;
    Some(PathUse {
        path: path.id().clone(),
        available: facts.available,
        promised: path.promised(),
        kept: path.kept(),
    })
}
