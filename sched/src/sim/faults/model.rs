//! What an outsider knows of a scheduler who sees its events and actions and nothing else: which tasks are there, who
//! holds what, what each path promised. Slow and simple; every sum is its own, so that a mistake in the scheduler's
//! books shows as a difference.

use std::collections::BTreeMap;

use sealtasks::{
    AttemptId, FileType, ResourceTable, Resources, SealTaskType, SealingPlan, SectorId, StorageId, TaskId,
    TaskType,
};

use crate::sim::usage::resources;
use crate::{GpuShare, GroupCap, Locks, Millis, PathFacts, Request, WorkerKey, WorkerMode, WorkerProfile};

/// One whole GPU.
pub(super) const GPU_WHOLE: u64 = 1000;

/// All of it.
#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) now: Millis,
    pub(super) tasks: BTreeMap<TaskId, Task>,
    pub(super) sectors: BTreeMap<SectorId, Sector>,
    pub(super) workers: BTreeMap<WorkerKey, Worker>,
    pub(super) paths: BTreeMap<StorageId, Path>,
    pub(super) machine_caps: BTreeMap<String, Vec<GroupCap>>,
    /// When a task of a type last started on a machine, by whichever worker, also one that has gone since.
    pub(super) machine_started: BTreeMap<(String, TaskType), Millis>,
    /// The highest attempt of every task that was ever here, in all lives of the driver.
    pub(super) highest: BTreeMap<TaskId, u32>,
}

#[derive(Debug)]
pub(super) struct Task {
    pub(super) request: Request,
    pub(super) due_at: Millis,
    pub(super) place: Held,
    /// It was taken back from staging: a worker may be kept for it though it is not due.
    pub(super) was_unstaged: bool,
}

/// Where a task is, as far as an outsider can tell.
#[derive(Debug)]
pub(super) enum Held {
    Waiting { not_before: Millis },
    Bound(Box<Bound>),
}

#[derive(Debug)]
pub(super) struct Bound {
    pub(super) attempt: AttemptId,
    pub(super) worker: WorkerKey,
    pub(super) stage: crate::Stage,
    pub(super) accepted: bool,
    pub(super) is_cancelled: bool,
    /// With a slot only.
    pub(super) charge: Option<Charge>,
    /// Promised, with whether a report covers it.
    pub(super) space: Vec<(StorageId, u64, bool)>,
}

/// What an attempt with a slot holds.
#[derive(Clone, Debug, Default)]
pub(super) struct Charge {
    pub(super) min: u64,
    pub(super) max: u64,
    pub(super) threads: u64,
    pub(super) gpus: Vec<GpuShare>,
}

#[derive(Debug, Default)]
pub(super) struct Sector {
    pub(super) tasks: Vec<TaskId>,
    pub(super) files: BTreeMap<FileType, Vec<StorageId>>,
}

#[derive(Debug)]
pub(super) struct Worker {
    pub(super) profile: WorkerProfile,
    pub(super) enabled: bool,
    pub(super) mode: WorkerMode,
    pub(super) suspect: bool,
    pub(super) lost: bool,
    pub(super) load: Load,
    /// When it last started a task of a type.
    pub(super) started: BTreeMap<TaskType, Millis>,
}

/// What runs on a worker.
#[derive(Clone, Debug, Default)]
pub(super) struct Load {
    pub(super) min: u128,
    pub(super) max: u128,
    pub(super) base: u128,
    pub(super) threads: u128,
    pub(super) gpus: Vec<u64>,
    /// How many of each kind, and the base memory that the first of them brought.
    pub(super) kinds: BTreeMap<SealTaskType, (u64, u64)>,
    pub(super) staged: u64,
    pub(super) bound: u64,
}

#[derive(Debug, Default)]
pub(super) struct Path {
    pub(super) facts: Option<PathFacts>,
    pub(super) promised: u128,
    /// Kept for tasks that hold a reservation, as the scheduler said last.
    pub(super) kept: u128,
}

impl Path {
    /// What is neither promised nor kept.
    pub(super) fn open(&self) -> u128 {
        self.free().saturating_sub(self.kept)
    }

    pub(super) fn free(&self) -> u128 {
        let available = self.facts.as_ref().map_or(0, |facts| u128::try_from(facts.available).unwrap_or(0));
        available.saturating_sub(self.promised)
    }
}

impl Worker {
    pub(super) fn is_usable(&self) -> bool {
        self.enabled && !self.lost && !self.suspect && self.mode != WorkerMode::Disabled
    }

    /// Whether one of its plans takes the task's sector.
    pub(super) fn plans_take(&self, task: &Task) -> bool {
        let Some(purpose) = task.request.purpose else { return true };
        let mut plans = self.profile.path_plans.values();
        match self.profile.path_plans.is_empty() {
            true => self.profile.plan.takes(purpose),
            false => plans.any(|plan| plan.takes(purpose)),
        }
    }

    /// Whether nothing depends on what a sector is sealed for.
    pub(super) fn has_no_plans(&self) -> bool {
        self.profile.plan == SealingPlan::Any && self.profile.path_plans.is_empty()
    }

    pub(super) fn offers(&self, task: TaskType) -> bool {
        self.profile.tasks.contains(&task) && !self.profile.pending.contains_key(&task)
    }

    pub(super) fn gpus(&self) -> usize {
        self.profile.gpus.len().min(WorkerProfile::GPUS_MAX)
    }

    pub(super) fn row(&self, table: &ResourceTable, kind: SealTaskType) -> Resources {
        resources(&self.profile, table, kind)
    }

    /// The most memory, in RAM and in RAM and swap, that a task of this proof takes which needs neither threads nor
    /// devices; nothing beside one that needs neither itself.
    pub(super) fn largest_small(&self, table: &ResourceTable, kind: SealTaskType) -> (u64, u64) {
        let is_small = |row: &Resources| self.threads(row) == 0 && gpu_of(row) == 0;
        if is_small(&self.row(table, kind)) {
            return (0, 0);
        }
        let offered =
            self.profile.tasks.iter().map(|task| self.row(table, SealTaskType { task: *task, ..kind }));
        offered.filter(is_small).fold((0, 0), |(min, max), row| {
            let base = row.base_min_memory;
            (min.max(row.min_memory.saturating_add(base)), max.max(row.max_memory.saturating_add(base)))
        })
    }

    pub(super) fn threads(&self, row: &Resources) -> u64 {
        row.threads(self.profile.cpus.min(WorkerProfile::CPUS_MAX), self.gpus())
    }
}

/// Thousandths of a GPU that a row asks for.
pub(super) fn gpu_of(row: &Resources) -> u64 {
    if row.gpu_utilization > 0.0 { (row.gpu_utilization * GPU_WHOLE as f64).round() as u64 } else { 0 }
}

impl Load {
    pub(super) fn charge(&mut self, kind: SealTaskType, base: u64, charge: &Charge) {
        self.min += u128::from(charge.min);
        self.max += u128::from(charge.max);
        self.threads += u128::from(charge.threads);
        for share in &charge.gpus {
            if self.gpus.len() <= share.device {
                self.gpus.resize(share.device + 1, 0);
            }
            self.gpus[share.device] += share.thousandths;
        }
        let of_kind = self.kinds.entry(kind).or_insert((0, base));
        if of_kind.0 == 0 {
            of_kind.1 = base;
            self.base += u128::from(base);
        }
        of_kind.0 += 1;
    }

    pub(super) fn release(&mut self, kind: SealTaskType, charge: &Charge) {
        self.min -= u128::from(charge.min);
        self.max -= u128::from(charge.max);
        self.threads -= u128::from(charge.threads);
        for share in &charge.gpus {
            self.gpus[share.device] -= share.thousandths;
        }
        if let Some((count, base)) = self.kinds.get_mut(&kind) {
            *count -= 1;
            if *count == 0 {
                self.base -= u128::from(*base);
                self.kinds.remove(&kind);
            }
        }
    }

    pub(super) fn running(&self) -> u64 {
        self.kinds.values().map(|(count, _)| count).sum()
    }

    pub(super) fn of_type(&self, task: TaskType) -> u64 {
        self.kinds.iter().filter(|(kind, _)| kind.task == task).map(|(_, (count, _))| count).sum()
    }
}

impl Task {
    pub(super) fn kind(&self) -> SealTaskType {
        SealTaskType { proof: self.request.sector.proof, task: self.request.task }
    }

    pub(super) fn bound(&self) -> Option<&Bound> {
        match &self.place {
            Held::Bound(bound) => Some(bound),
            Held::Waiting { .. } => None,
        }
    }

    pub(super) fn bound_mut(&mut self) -> Option<&mut Bound> {
        match &mut self.place {
            Held::Bound(bound) => Some(bound),
            Held::Waiting { .. } => None,
        }
    }
}

impl Model {
    /// A task of this type got its slot there now.
    pub(super) fn note_start(&mut self, worker: WorkerKey, task: TaskType) {
        let now = self.now;
        let Some(worker) = self.workers.get_mut(&worker) else { return };
        worker.started.insert(task, now);
        if let Some(machine) = &worker.profile.machine {
            self.machine_started.insert((machine.clone(), task), now);
        }
    }

    /// The attempt's binding, if it is the one that is bound.
    pub(super) fn bound(&self, attempt: AttemptId) -> Option<&Bound> {
        self.tasks.get(&attempt.task)?.bound().filter(|bound| bound.attempt == attempt)
    }

    /// Another bound task of the sector whose locks exclude these.
    pub(super) fn lock_holder(&self, id: TaskId, sector: SectorId, locks: Locks) -> Option<TaskId> {
        let others = self.sectors.get(&sector)?.tasks.iter().filter(|other| **other != id);
        let mut bound =
            others.filter(|other| self.tasks.get(other).is_some_and(|task| task.bound().is_some()));
        bound.find(|other| excludes(self.tasks[other].request.locks, locks)).copied()
    }

    /// Where the sector's file is known to lie.
    pub(super) fn places(&self, sector: SectorId, kind: FileType) -> &[StorageId] {
        let files = self.sectors.get(&sector).and_then(|sector| sector.files.get(&kind));
        files.map_or(&[], Vec::as_slice)
    }

    /// A path's facts, if it is there and somebody who is not lost reaches it.
    pub(super) fn is_served(&self, path: &StorageId) -> bool {
        self.paths.get(path).is_some_and(|path| path.facts.is_some())
            && self.workers.values().any(|worker| !worker.lost && worker.profile.paths.contains(path))
    }

    pub(super) fn path_mut(&mut self, path: &StorageId) -> &mut Path {
        if !self.paths.contains_key(path) {
            self.paths.insert(path.clone(), Path::default());
        }
        self.paths.get_mut(path).expect("just put there")
    }
}

fn excludes(held: Locks, wanted: Locks) -> bool {
    let meets = |a: sealtasks::FileTypes, b| !a.intersection(b).is_empty();
    meets(held.write, wanted.read.union(wanted.write)) || meets(held.read, wanted.write)
}
